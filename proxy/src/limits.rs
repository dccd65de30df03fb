//! What the gateway may hold at one time: the byte budget of request bodies.
//!
//! Token budgets and fairness are not here.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A process-wide budget of bytes.
#[derive(Debug)]
pub struct ByteBudget {
    total: usize,
    used: AtomicUsize,
}

/// Bytes taken from a [`ByteBudget`]; dropping it gives them back.
#[derive(Debug)]
pub struct ByteGuard {
    budget: Arc<ByteBudget>,
    bytes: usize,
}

impl ByteBudget {
    /// A budget of `total` bytes.
    pub fn new(total: usize) -> Arc<Self> {
        Arc::new(Self {
            total,
            used: AtomicUsize::new(0),
        })
    }

    /// Bytes taken now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// An empty guard that can grow.
    pub fn guard(self: &Arc<Self>) -> ByteGuard {
        ByteGuard {
            budget: Arc::clone(self),
            bytes: 0,
        }
    }
}

impl ByteGuard {
    /// Makes the guard hold at least `bytes`; false (and nothing taken) when the budget has no room.
    #[must_use]
    pub fn grow_to(&mut self, bytes: usize) -> bool {
        let Some(more) = bytes.checked_sub(self.bytes).filter(|more| *more > 0) else {
            return true;
        };
        let taken = self
            .budget
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(more)
                    .filter(|sum| *sum <= self.budget.total)
            });
        if taken.is_ok() {
            self.bytes = bytes;
        }
        taken.is_ok()
    }
}

impl Drop for ByteGuard {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_never_exceeded_and_always_given_back() {
        let budget = ByteBudget::new(100);
        let mut first = budget.guard();
        assert!(first.grow_to(60));
        let mut second = budget.guard();
        assert!(!second.grow_to(41));
        assert!(second.grow_to(40));
        assert!(first.grow_to(10), "shrinking is not needed and always fine");
        assert_eq!(budget.used(), 100);
        drop(first);
        drop(second);
        assert_eq!(budget.used(), 0);
    }
}
