//! What this gateway has given an endpoint to do: requests in flight, prompt tokens not yet prefilled, context held.
//!
//! Counted here at dispatch, at the first token and at the end, never polled, so it is never stale. One guard
//! moves all of it: dropping it settles whatever is still open. The simulator counts with the same code.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

/// Work of one endpoint at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Requests dispatched and not ended (n).
    pub in_flight: u32,
    /// Uncached prompt tokens dispatched whose first token has not come (q).
    pub pending_tokens: u64,
    /// Context tokens of the requests in flight (x).
    pub context_tokens: u64,
}

/// What one request is reckoned to cost the endpoint it goes to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Prompt tokens.
    pub prompt_tokens: u32,
    /// Of these, held by the endpoint's cache.
    pub cached_tokens: u32,
}

impl Work {
    /// Prompt tokens to prefill.
    pub fn uncached(self) -> u32 {
        self.prompt_tokens.saturating_sub(self.cached_tokens)
    }
}

/// The counters behind [`Load`].
#[derive(Debug, Default)]
pub struct LoadCounter {
    in_flight: AtomicU32,
    // Signed, so that a reader between two updates of different guards sees at worst a small negative number.
    pending_tokens: AtomicI64,
    context_tokens: AtomicI64,
}

impl LoadCounter {
    /// The load now. The three numbers are read one after another.
    pub fn load(&self) -> Load {
        let whole = |counter: &AtomicI64| counter.load(Ordering::Relaxed).max(0) as u64;
        Load {
            in_flight: self.in_flight.load(Ordering::Relaxed),
            pending_tokens: whole(&self.pending_tokens),
            context_tokens: whole(&self.context_tokens),
        }
    }

    /// Counts a request from its dispatch until the guard drops.
    pub fn reserve(self: &Arc<Self>, work: Work) -> Reservation {
        let (pending, context) = (i64::from(work.uncached()), i64::from(work.prompt_tokens));
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.pending_tokens.fetch_add(pending, Ordering::Relaxed);
        self.context_tokens.fetch_add(context, Ordering::Relaxed);
        Reservation {
            counter: Arc::clone(self),
            pending,
            context,
        }
    }
}

/// One request's share of an endpoint's load; dropping it settles everything.
#[derive(Debug)]
pub struct Reservation {
    counter: Arc<LoadCounter>,
    pending: i64,
    context: i64,
}

impl Reservation {
    /// The first token has come: nothing of its prompt is pending any more.
    pub fn first_token(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        self.counter
            .pending_tokens
            .fetch_sub(pending, Ordering::Relaxed);
    }

    /// `tokens` more have been generated and are held as context.
    pub fn generated(&mut self, tokens: u32) {
        let tokens = i64::from(tokens);
        self.context += tokens;
        self.counter
            .context_tokens
            .fetch_add(tokens, Ordering::Relaxed);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.first_token();
        self.counter
            .context_tokens
            .fetch_sub(self.context, Ordering::Relaxed);
        self.counter.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_counted_moved_and_settled() {
        let counter = Arc::new(LoadCounter::default());
        let mut reservation = counter.reserve(Work {
            prompt_tokens: 100,
            cached_tokens: 60,
        });
        let mut expected = Load {
            in_flight: 1,
            pending_tokens: 40,
            context_tokens: 100,
        };
        assert_eq!(counter.load(), expected);
        reservation.first_token();
        reservation.first_token();
        reservation.generated(5);
        expected.pending_tokens = 0;
        expected.context_tokens = 105;
        assert_eq!(counter.load(), expected);
        drop(reservation);
        assert_eq!(counter.load(), Load::default());
    }

    #[test]
    fn more_cached_than_prompted_is_nothing_to_prefill() {
        let work = Work {
            prompt_tokens: 10,
            cached_tokens: 16,
        };
        assert_eq!(work.uncached(), 0);
    }
}
