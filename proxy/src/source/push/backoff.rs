//! How long to wait before the next attempt to connect: longer each time, with jitter, so that gateways that lost their
//! control loop together do not come back together.

use std::time::Duration;

use rand::Rng;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(15);

/// Attempts in a row that came to nothing.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The next pause: half of it fixed, half by chance.
    pub(super) fn next(&mut self, random: &mut impl Rng) -> Duration {
        let longest = FIRST
            .saturating_mul(1 << self.failures.min(10))
            .min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        longest.mul_f64(random.random_range(0.5..=1.0))
    }

    /// A stream has lasted: the next failure is the first again.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_with_jitter_and_start_over() {
        let mut random = SmallRng::seed_from_u64(3);
        let mut backoff = Backoff::default();
        for failure in 0..40_u32 {
            let longest = (100 << failure.min(10)).min(15_000);
            let pause = backoff.next(&mut random).as_millis();
            assert!(
                (longest / 2..=longest).contains(&pause),
                "{failure}: {pause}"
            );
        }
        backoff.reset();
        assert!(backoff.next(&mut random) <= FIRST);
        let different = |_| Backoff::default().next(&mut random);
        let pauses: std::collections::HashSet<_> = (0..20).map(different).collect();
        assert!(pauses.len() > 10);
    }
}
