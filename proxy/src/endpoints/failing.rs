//! Whether an endpoint's answers fail lately, and what that is worth to whoever chooses.
//!
//! An engine that answers every request with an error at once has nothing in flight and nothing pending: by load alone it
//! is the best there is. So failures have a price in milliseconds, which every policy adds to its cost. Not for
//! connections that fail and engines that say they cannot serve (502, 503, 504): those are `health`'s. Not for a client's
//! mistakes (4xx, and 501), which say nothing of the endpoint.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::health::moment;

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
    /// When a failure was last noted, in milliseconds; 0 before the first.
    noted: AtomicU64,
}

impl Failing {
    /// An answer ended at `now`, measured from any fixed point, well or not.
    pub fn answered(&self, failed: bool, now: Duration) {
        if failed {
            self.noted.fetch_max(moment(now), Ordering::Relaxed);
        }
        self.count(failed, now);
    }

    /// The answer to a request that left at `since` broke off at `now`. A crash breaks all answers of an endpoint and is
    /// one failure, so that it is back in use soon after it has restarted: this one counts unless one was noted since.
    pub fn broke(&self, since: Duration, now: Duration) {
        let first = |noted: u64| (noted < moment(since)).then(|| moment(now));
        let noting = self
            .noted
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, first);
        if noting.is_ok() {
            self.count(true, now);
        }
    }

    fn count(&self, failed: bool, now: Duration) {
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

    #[test]
    fn answers_that_one_crash_breaks_are_one_failure_and_those_of_the_next_another() {
        let failing = Failing::default();
        let second = Duration::from_secs(1);
        for request in 0..100 {
            failing.broke(Duration::from_millis(request), second);
        }
        let one = Failing::default();
        one.answered(true, second);
        assert_eq!(failing.price_ms(second), one.price_ms(second));
        failing.broke(2 * second, 3 * second);
        one.answered(true, 3 * second);
        assert_eq!(failing.price_ms(3 * second), one.price_ms(3 * second));
        failing.answered(true, 4 * second);
        one.answered(true, 4 * second);
        failing.broke(3 * second, 5 * second);
        assert_eq!(failing.price_ms(5 * second), one.price_ms(5 * second));
    }

    #[test]
    fn good_answers_in_between_do_not_hide_that_another_broke() {
        let failing = Failing::default();
        failing.answered(false, NOW);
        failing.broke(Duration::ZERO, NOW);
        assert!(failing.price_ms(NOW) > 0.0);
    }
}
