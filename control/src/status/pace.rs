//! How fast writes may follow each other: so many at once, then one by one.

use std::time::Duration;

use tokio::time::Instant;

/// A bucket of writes that fills up with time.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Time between two writes in the long run.
    step: Duration,
    /// How far ahead of its time a write may be.
    burst: Duration,
    /// When the next write would be due, were none ahead of its time.
    next: Instant,
}

impl Pace {
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        let step = Duration::from_secs(1) / per_second;
        Self {
            step,
            burst: step * burst.saturating_sub(1),
            next: Instant::now(),
        }
    }

    /// When there is a write to take.
    pub(crate) fn ready(&self) -> Instant {
        self.next.checked_sub(self.burst).unwrap_or(self.next)
    }

    /// Takes a write out, if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        if self.ready() > now {
            return false;
        }
        self.next = self.next.max(now) + self.step;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_goes_at_once_and_the_rest_in_steps() {
        let mut pace = Pace::new(10, 3);
        let start = pace.next;
        for _ in 0..3 {
            assert!(pace.take(start));
        }
        let step = Duration::from_millis(100);
        assert!(!pace.take(start));
        assert_eq!(pace.ready(), start + step);
        assert!(pace.take(start + step));
        assert!(!pace.take(start + step));
        // Time without writes fills it again, and never further than that.
        let later = start + 100 * step;
        assert_eq!((0..5).filter(|_| pace.take(later)).count(), 3);
    }
}
