//! When to ask an endpoint again: often while it works, rarely while it idles, ever more rarely while it fails.
//!
//! Pure. The jitter keeps many endpoints, and many gateways, from asking at the same moment.

use std::time::Duration;

use rand::Rng;

/// Between two questions to an endpoint with requests of this gateway.
pub const BUSY: Duration = Duration::from_secs(1);
/// Between two questions to an endpoint without.
pub const IDLE: Duration = Duration::from_secs(10);
/// Longest pause after failures.
pub const LONGEST: Duration = Duration::from_secs(30);
/// Between two questions for the list of models.
pub const MODELS: Duration = Duration::from_secs(30);

/// Pause after a question. `failures`: in a row, 0 after an answer.
pub fn pause(in_flight: u32, failures: u32, random: &mut impl Rng) -> Duration {
    let pause = match (failures, in_flight) {
        (0, 0) => IDLE,
        (0, _) => BUSY,
        (failures, _) => BUSY.saturating_mul(1 << failures.min(10)).min(LONGEST),
    };
    pause.mul_f64(random.random_range(0.85..1.15))
}

/// How old a value may be that was asked for with `pause` until the next.
pub fn oldest(pause: Duration) -> Duration {
    pause * 3 + Duration::from_secs(1)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    #[test]
    fn failures_lengthen_the_pause_to_a_bound() {
        let mut random = SmallRng::seed_from_u64(1);
        for (failures, seconds) in [(1, 2.0), (2, 4.0), (4, 16.0), (5, 30.0), (99, 30.0)] {
            let pause = pause(3, failures, &mut random).as_secs_f64();
            assert!((0.84 * seconds..1.16 * seconds).contains(&pause), "{pause}");
        }
    }

    #[test]
    fn pauses_differ_and_follow_the_load() {
        let mut random = SmallRng::seed_from_u64(1);
        let busy = pause(1, 0, &mut random);
        assert_ne!(busy, pause(1, 0, &mut random));
        assert!(pause(0, 0, &mut random) > 5 * busy);
    }
}
