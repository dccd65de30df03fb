//! Waits between attempts: doubling, with chance in them, so that many watches that fail together do not come back
//! together.
//!
//! kube-rs resets its own at each attempt to list, and so never waits longer than the first time.

use std::time::Duration;

use rand::Rng;

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(10);

/// One watch's waits.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// The next wait: half of its full length at least.
    pub(super) fn next(&mut self) -> Duration {
        let full = FIRST
            .saturating_mul(1 << self.attempts.min(16))
            .min(LONGEST);
        self.attempts = self.attempts.saturating_add(1);
        full.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// Something came: all is well again.
    pub(super) fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_start_anew() {
        let mut backoff = Backoff::default();
        for full in [FIRST, 2 * FIRST, 4 * FIRST] {
            let wait = backoff.next();
            assert!(full / 2 <= wait && wait <= full, "{wait:?} of {full:?}");
        }
        for _ in 0..40 {
            backoff.next();
        }
        assert!(backoff.next() >= LONGEST / 2 && backoff.next() <= LONGEST);
        backoff.reset();
        assert!(backoff.next() <= FIRST);
    }
}
