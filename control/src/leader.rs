//! Which of several replicas may write: leader election by a Lease of `coordination.k8s.io/v1`.
//!
//! Everyone may read and push; only the leader writes statuses, events, and webhook configurations. Leadership is given
//! up here, by the local clock, before another replica can take the lease: [`Leadership::is_leader`] is false from
//! [`Terms::renew_deadline`] after the last renewal was *sent*, even if nobody has run since. Losing it ends no process;
//! the replica goes on pushing and stands again.
//! Not for what the leader does, nor for fencing at the API server: a write that was under way may still land, which
//! level-triggered writers must be fine with anyway.

mod decision;
mod elector;
mod lease;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::watch;
use tokio::time::Instant;

pub use self::elector::Elector;

/// Times of the election; the defaults are those of Kubernetes' own components.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// How long others must leave the lease alone after they last saw it renewed. Whole seconds.
    pub lease_duration: Duration,
    /// How long the leader goes on without a renewal.
    pub renew_deadline: Duration,
    /// Time between two attempts.
    pub retry_period: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// Why terms would not keep two leaders apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TermsError {
    /// The API holds whole seconds.
    #[error("the lease duration must be a whole number of seconds, at least 1s")]
    LeaseDuration,
    /// The leader would give up after the lease may be taken.
    #[error("the renew deadline must be shorter than the lease duration")]
    RenewDeadline,
    /// One failed attempt would cost the leadership.
    #[error("the retry period must be more than 0 and at most half the renew deadline")]
    RetryPeriod,
}

impl Terms {
    /// Terms that keep two leaders apart.
    ///
    /// # Errors
    /// When they would not.
    pub fn checked(self) -> Result<Self, TermsError> {
        let whole = self.lease_duration.subsec_nanos() == 0
            && (1..=i32::MAX as u64).contains(&self.lease_duration.as_secs());
        if !whole {
            return Err(TermsError::LeaseDuration);
        }
        if self.renew_deadline >= self.lease_duration {
            return Err(TermsError::RenewDeadline);
        }
        if self.retry_period.is_zero() || self.retry_period * 2 > self.renew_deadline {
            return Err(TermsError::RetryPeriod);
        }
        Ok(self)
    }
}

/// Is this replica the leader? Clones are cheap and see the same state.
#[derive(Debug, Clone)]
pub struct Leadership {
    state: watch::Receiver<bool>,
    /// Until when, by the local clock; `None` where there is no election.
    until: Option<Arc<ArcSwapOption<Instant>>>,
}

impl Leadership {
    /// For a single replica without election: always the leader.
    pub fn always() -> Self {
        // A receiver outlives its sender, and then reads the last value for ever.
        Self {
            state: watch::channel(true).1,
            until: None,
        }
    }

    /// May this replica write, now? Ask right before each write.
    pub fn is_leader(&self) -> bool {
        let held = |until: &Arc<ArcSwapOption<Instant>>| {
            until
                .load()
                .as_deref()
                .is_some_and(|until| Instant::now() < *until)
        };
        *self.state.borrow() && self.until.as_ref().is_none_or(held)
    }

    /// Wakes when leadership is won or lost.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.state.clone()
    }

    /// Waits until leadership is won or lost; for ever where it cannot change any more.
    pub async fn changed(&mut self) {
        if self.state.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The elector's end of a [`Leadership`].
#[derive(Debug)]
struct Mandate {
    state: watch::Sender<bool>,
    until: Arc<ArcSwapOption<Instant>>,
}

impl Mandate {
    fn new() -> (Self, Leadership) {
        let (state, receiver) = watch::channel(false);
        let until = Arc::new(ArcSwapOption::empty());
        let leadership = Leadership {
            state: receiver,
            until: Some(until.clone()),
        };
        (Self { state, until }, leadership)
    }

    /// The leader until then, at least. Answers whether that is news: a renewal is none, and wakes nobody.
    fn grant(&self, until: Instant) -> bool {
        self.until.store(Some(Arc::new(until)));
        self.state
            .send_if_modified(|leads| !std::mem::replace(leads, true))
    }

    /// No longer the leader. Answers whether that is news.
    fn withdraw(&self) -> bool {
        self.until.store(None);
        self.state.send_if_modified(std::mem::take)
    }

    fn until(&self) -> Option<Instant> {
        self.until.load().as_deref().copied()
    }
}

impl Drop for Mandate {
    /// An election that ended, in whatever way, leaves no leader behind.
    fn drop(&mut self) {
        self.withdraw();
    }
}

#[cfg(test)]
mod tests;
