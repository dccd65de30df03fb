//! The retry budget: retries may be a part of the recent requests, plus a floor, so that a failing engine does
//! not multiply the load on the others.
//!
//! A sliding window of ten slots; time comes in as an argument.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const SLOTS: u64 = 10;

/// Counts requests and retries of the last window.
#[derive(Debug)]
pub struct RetryBudget {
    percent: u64,
    floor: u64,
    slot: Duration,
    /// Short, await-free sections: two additions.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Number of the newest slot since the start of time.
    newest: u64,
    slots: [Slot; SLOTS as usize],
}

#[derive(Debug, Default, Clone, Copy)]
struct Slot {
    requests: u64,
    retries: u64,
}

impl RetryBudget {
    /// Retries may be `percent` of the requests in `window`, plus `floor`.
    pub fn new(percent: u32, floor: u32, window: Duration) -> Self {
        let slot = (window / SLOTS as u32).max(Duration::from_millis(1));
        Self {
            percent: percent.into(),
            floor: floor.into(),
            slot,
            state: Mutex::default(),
        }
    }

    /// A request arrived; `now` is the time since any fixed point.
    pub fn request(&self, now: Duration) {
        self.at(now).slot().requests += 1;
    }

    /// Asks for one retry, and takes it when there is room.
    pub fn try_retry(&self, now: Duration) -> bool {
        let mut state = self.at(now);
        let requests: u64 = state.state.slots.iter().map(|slot| slot.requests).sum();
        let retries: u64 = state.state.slots.iter().map(|slot| slot.retries).sum();
        let allowed = requests * self.percent / 100 + self.floor;
        if retries >= allowed {
            return false;
        }
        state.slot().retries += 1;
        true
    }

    fn at(&self, now: Duration) -> Current<'_> {
        let number = u64::try_from(now.as_nanos() / self.slot.as_nanos()).unwrap_or(u64::MAX);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if number > state.newest {
            let passed = (number - state.newest).min(SLOTS);
            for back in 0..passed {
                state.slots[((number - back) % SLOTS) as usize] = Slot::default();
            }
            state.newest = number;
        }
        Current { state }
    }
}

struct Current<'a> {
    state: std::sync::MutexGuard<'a, State>,
}

impl Current<'_> {
    fn slot(&mut self) -> &mut Slot {
        let index = (self.state.newest % SLOTS) as usize;
        &mut self.state.slots[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);

    fn taken(budget: &RetryBudget, now: Duration) -> usize {
        (0..1000).take_while(|_| budget.try_retry(now)).count()
    }

    #[test]
    fn without_requests_only_the_floor_is_there() {
        assert_eq!(taken(&RetryBudget::new(20, 3, WINDOW), Duration::ZERO), 3);
    }

    #[test]
    fn a_fifth_of_the_requests_may_be_retried() {
        let budget = RetryBudget::new(20, 0, WINDOW);
        for _ in 0..100 {
            budget.request(Duration::from_secs(1));
        }
        assert_eq!(taken(&budget, Duration::from_secs(5)), 20);
    }

    #[test]
    fn requests_and_retries_leave_with_the_window() {
        let budget = RetryBudget::new(100, 1, WINDOW);
        for _ in 0..10 {
            budget.request(Duration::from_secs(1));
        }
        assert_eq!(taken(&budget, Duration::from_secs(1)), 11);
        assert_eq!(taken(&budget, Duration::from_secs(10)), 0);
        assert_eq!(
            taken(&budget, Duration::from_secs(12)),
            1,
            "the window has passed"
        );
    }
}
