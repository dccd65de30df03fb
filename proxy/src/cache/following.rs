//! How the following of one member's KV events stands: for metrics and `/debug/endpoints`.
//!
//! Follows nothing itself: whoever does (`endpoints::publishers`) says here what it follows, and why not.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::subscribe::{SubscriptionCounts, SubscriptionState, SubscriptionView};

/// See the module. Looked at when someone asks, never on a request's way.
#[derive(Debug, Default)]
pub struct Following(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    now: Vec<SubscriptionView>,
    /// Sums of the subscriptions that ended.
    before: SubscriptionCounts,
    trouble: Option<String>,
}

impl Following {
    /// These are followed from now on.
    pub fn begin(&self, subscriptions: Vec<SubscriptionView>) {
        let mut state = self.lock();
        state.retire();
        state.now = subscriptions;
        state.trouble = None;
    }

    /// None is followed any more; `trouble` says why, where it is one.
    pub fn end(&self, trouble: Option<String>) {
        let mut state = self.lock();
        state.retire();
        state.trouble = trouble;
    }

    /// Why its events are not followed, where they should be.
    pub fn trouble(&self) -> Option<String> {
        self.lock().trouble.clone()
    }

    /// State of each subscription: one for each data-parallel rank.
    pub fn states(&self) -> Vec<SubscriptionState> {
        self.lock()
            .now
            .iter()
            .map(SubscriptionView::state)
            .collect()
    }

    /// What has happened since the member appeared, over all its subscriptions.
    pub fn counts(&self) -> SubscriptionCounts {
        let state = self.lock();
        let now = state.now.iter().map(SubscriptionView::counts);
        now.fold(state.before, |sum, counts| sum + counts)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn retire(&mut self) {
        for ended in self.now.drain(..) {
            self.before = self.before + ended.counts();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_outlive_subscriptions_and_trouble_ends_with_the_next() {
        let following = Following::default();
        let view = SubscriptionView::for_tests(3, 1);
        following.begin(vec![view.clone()]);
        assert_eq!(following.states(), [SubscriptionState::Connecting]);
        following.end(Some("gone".into()));
        assert_eq!(following.trouble().as_deref(), Some("gone"));
        assert!(following.states().is_empty());
        following.begin(vec![view]);
        assert_eq!(following.trouble(), None);
        let counts = following.counts();
        assert_eq!((counts.batches, counts.gaps, counts.clears), (6, 2, 0));
    }
}
