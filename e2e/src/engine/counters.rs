//! What a test asks about the requests an engine saw. Books are kept by guards: whatever ends a request, it is counted.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use super::reply::Incoming;

/// Totals over the POST requests received; administrative ones (`/sim/...`) are not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RequestCounts {
    /// Heads read.
    pub received: u64,
    /// Answered to the last byte.
    pub completed: u64,
    /// Ended because the client went away.
    pub cancelled: u64,
    /// Ended by a fault.
    pub faulted: u64,
    /// Not ended yet.
    pub in_flight: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    received: AtomicU64,
    completed: AtomicU64,
    cancelled: AtomicU64,
    faulted: AtomicU64,
    /// Held for one assignment or one clone.
    last: Mutex<Arc<Incoming>>,
}

impl Counters {
    pub(crate) fn counts(&self) -> RequestCounts {
        let (completed, cancelled, faulted) = (
            self.completed.load(Relaxed),
            self.cancelled.load(Relaxed),
            self.faulted.load(Relaxed),
        );
        // Read last, so that what ended meanwhile cannot make the difference negative.
        let received = self.received.load(Relaxed);
        let in_flight = received.saturating_sub(completed + cancelled + faulted);
        RequestCounts {
            received,
            completed,
            cancelled,
            faulted,
            in_flight,
        }
    }

    pub(crate) fn remember(&self, request: Arc<Incoming>) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = request;
    }

    pub(crate) fn last(&self) -> Arc<Incoming> {
        self.last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Counts one request while it lives; unless told otherwise, its end is the client's doing.
#[derive(Debug)]
pub(crate) struct RequestGuard {
    counters: Arc<Counters>,
    outcome: Outcome,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome {
    Cancelled,
    Completed,
    Faulted,
}

impl RequestGuard {
    pub(crate) fn new(counters: Arc<Counters>) -> Self {
        counters.received.fetch_add(1, Relaxed);
        Self {
            counters,
            outcome: Outcome::Cancelled,
        }
    }

    pub(crate) fn settle(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let counter = match self.outcome {
            Outcome::Cancelled => &self.counters.cancelled,
            Outcome::Completed => &self.counters.completed,
            Outcome::Faulted => &self.counters.faulted,
        };
        counter.fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_request_counts_as_cancelled_and_a_settled_one_as_told() {
        let counters = Arc::new(Counters::default());
        let lost = RequestGuard::new(counters.clone());
        let mut done = RequestGuard::new(counters.clone());
        assert_eq!(counters.counts().in_flight, 2);
        done.settle(Outcome::Completed);
        drop(done);
        drop(lost);
        let counts = counters.counts();
        assert_eq!(
            (counts.completed, counts.cancelled, counts.in_flight),
            (1, 1, 0)
        );
    }
}
