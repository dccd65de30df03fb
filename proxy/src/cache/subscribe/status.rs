//! How a subscription stands, for metrics and for the log: one line per change of state, none per batch.

use std::ops::Add;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use tracing::{info, warn};

use crate::cache::sources::EventSource;

/// How far what a publisher says can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscriptionState {
    /// No connection yet, or none for a moment.
    Connecting,
    /// Connected, and all of the engine's cache is known.
    Live,
    /// Connected, but a part of the history is missing: what is known is true, and less than the engine holds.
    Cold,
    /// No connection for long: what was known has aged.
    Lost,
}

impl SubscriptionState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Connecting, Self::Live, Self::Cold, Self::Lost];

    /// As a label of metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Live => "live",
            Self::Cold => "cold",
            Self::Lost => "lost",
        }
    }
}

/// Totals of one subscription.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SubscriptionCounts {
    /// Batches applied.
    pub batches: u64,
    /// Events applied.
    pub events: u64,
    /// Events passed over: unknown types, or contradictions.
    pub ignored: u64,
    /// Holes in the numbers of batches.
    pub gaps: u64,
    /// Replays asked for.
    pub replays: u64,
    /// Of these, not answered to the end.
    pub failed_replays: u64,
    /// Times that all was forgotten: restarts, and holes that stayed.
    pub clears: u64,
    /// Batches that could not be read.
    pub decode_errors: u64,
    /// Messages thrown away unread: too long, or not three frames.
    pub dropped: u64,
    /// Connections made.
    pub connections: u64,
}

impl Add for SubscriptionCounts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            batches: self.batches + other.batches,
            events: self.events + other.events,
            ignored: self.ignored + other.ignored,
            gaps: self.gaps + other.gaps,
            replays: self.replays + other.replays,
            failed_replays: self.failed_replays + other.failed_replays,
            clears: self.clears + other.clears,
            decode_errors: self.decode_errors + other.decode_errors,
            dropped: self.dropped + other.dropped,
            connections: self.connections + other.connections,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) batches: AtomicU64,
    pub(super) events: AtomicU64,
    pub(super) ignored: AtomicU64,
    pub(super) gaps: AtomicU64,
    pub(super) replays: AtomicU64,
    pub(super) failed_replays: AtomicU64,
    pub(super) clears: AtomicU64,
    pub(super) decode_errors: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) connections: AtomicU64,
}

/// Shared by a follower, which writes, and those who ask.
#[derive(Debug)]
pub(super) struct Status {
    endpoint: String,
    state: AtomicU8,
    pub(super) counters: Counters,
}

/// A look at a subscription. Clones see the same one.
#[derive(Debug, Clone)]
pub struct SubscriptionView(Arc<Status>);

impl SubscriptionView {
    pub(super) fn new(status: &Arc<Status>) -> Self {
        Self(Arc::clone(status))
    }

    /// How it stands.
    pub fn state(&self) -> SubscriptionState {
        self.0.state()
    }

    /// What has happened so far.
    pub fn counts(&self) -> SubscriptionCounts {
        self.0.counts()
    }

    #[cfg(test)]
    pub(crate) fn for_tests(batches: u64, gaps: u64) -> Self {
        let status = Status {
            endpoint: String::new(),
            state: AtomicU8::new(SubscriptionState::Connecting as u8),
            counters: Counters::default(),
        };
        count(&status.counters.batches, batches);
        count(&status.counters.gaps, gaps);
        Self(Arc::new(status))
    }
}

/// Adds one, or as many as said.
pub(super) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Relaxed);
}

impl Status {
    pub(super) fn new(source: &EventSource) -> Self {
        Self {
            endpoint: source.endpoint.clone(),
            state: AtomicU8::new(SubscriptionState::Connecting as u8),
            counters: Counters::default(),
        }
    }

    pub(super) fn state(&self) -> SubscriptionState {
        SubscriptionState::ALL[usize::from(self.state.load(Relaxed))]
    }

    /// Notes a state, and logs it when it is another one; true then.
    pub(super) fn enter(&self, state: SubscriptionState, reason: &str) -> bool {
        let before = self.state.swap(state as u8, Relaxed);
        if before == state as u8 {
            return false;
        }
        let (endpoint, state_name) = (self.endpoint.as_str(), state.as_str());
        match state {
            SubscriptionState::Lost => {
                warn!(endpoint, state = state_name, reason, "KV events are lost");
            }
            _ => info!(endpoint, state = state_name, reason, "KV events"),
        }
        true
    }

    pub(super) fn counts(&self) -> SubscriptionCounts {
        let counters = &self.counters;
        SubscriptionCounts {
            batches: counters.batches.load(Relaxed),
            events: counters.events.load(Relaxed),
            ignored: counters.ignored.load(Relaxed),
            gaps: counters.gaps.load(Relaxed),
            replays: counters.replays.load(Relaxed),
            failed_replays: counters.failed_replays.load(Relaxed),
            clears: counters.clears.load(Relaxed),
            decode_errors: counters.decode_errors.load(Relaxed),
            dropped: counters.dropped.load(Relaxed),
            connections: counters.connections.load(Relaxed),
        }
    }
}
