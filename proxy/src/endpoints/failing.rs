//! Whether an endpoint's answers fail lately, and what that is worth to whoever chooses.
//!
//! An engine that answers every request with an error at once has nothing in flight and nothing pending: by load alone it
//! is the best there is. So failures have a price in milliseconds, which every policy adds to its cost. Not for
//! connections that fail and engines that say they cannot serve (502, 503, 504): those are `health`'s. Not for a client's
//! mistakes (4xx), which say nothing of the endpoint.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What one answer weighs among the last ones.
const GAIN: f32 = 0.1;
/// Failures are half forgotten in this time, so that an endpoint without requests gets another chance.
const HALF_LIFE: Duration = Duration::from_secs(10);
/// The price where every answer fails: more than waiting for another endpoint costs, unless all are overloaded.
const PRICE_MS: f64 = 10_000.0;

/// Share of failed answers, moving.
#[derive(Debug, Default)]
pub struct Failing {
    /// The share's bits, and the milliseconds when it was true, in one word, so that neither is read without the other.
    word: AtomicU64,
}

impl Failing {
    /// An answer ended at `now`, measured from any fixed point, well or not.
    pub fn answered(&self, failed: bool, now: Duration) {
        let update = |word| {
            let share = share(word, now);
            // The way of nearly all answers: nothing to write.
            if !failed && share == 0.0 {
                return None;
            }
            let target = if failed { 1.0 } else { 0.0 };
            Some(pack(share + GAIN * (target - share), now))
        };
        // An error says that nothing was to be changed.
        self.word
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, update)
            .ok();
    }

    /// What going there costs for its failures, in milliseconds. One failure among many is next to nothing: it may be
    /// the request's own.
    pub fn price_ms(&self, now: Duration) -> f64 {
        let share = f64::from(share(self.word.load(Ordering::Relaxed), now));
        PRICE_MS * share * share
    }
}

/// Below this nothing is left to tell.
const NOTHING: f32 = 1e-3;

fn pack(share: f32, now: Duration) -> u64 {
    u64::from(millis(now)) << 32 | u64::from(share.to_bits())
}

fn share(word: u64, now: Duration) -> f32 {
    let (at, share) = ((word >> 32) as u32, f32::from_bits(word as u32));
    let age = Duration::from_millis(u64::from(millis(now).saturating_sub(at)));
    let left = share * (-age.as_secs_f32() / HALF_LIFE.as_secs_f32()).exp2();
    if left < NOTHING { 0.0 } else { left }
}

/// After 49 days it stands still, and failures are no longer forgotten by time alone.
fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    #[test]
    fn one_failure_is_cheap_and_many_are_dear() {
        let failing = Failing::default();
        failing.answered(false, NOW);
        assert_eq!(failing.price_ms(NOW), 0.0);
        failing.answered(true, NOW);
        assert!((50.0..150.0).contains(&failing.price_ms(NOW)));
        for _ in 0..30 {
            failing.answered(true, NOW);
        }
        assert!(failing.price_ms(NOW) > 9000.0);
    }

    #[test]
    fn failures_are_forgotten_by_good_answers_and_by_time() {
        let failing = Failing::default();
        for _ in 0..30 {
            failing.answered(true, NOW);
        }
        assert!(failing.price_ms(NOW + Duration::from_secs(40)) < 100.0);
        assert_eq!(failing.price_ms(NOW + Duration::from_secs(120)), 0.0);
        for _ in 0..70 {
            failing.answered(false, NOW);
        }
        assert_eq!(failing.price_ms(NOW), 0.0);
    }
}
