//! Virtual time: what happens next, in order of time, and of booking where times are equal.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::Duration;

pub(super) struct Clock<T> {
    now: Duration,
    booked: u64,
    heap: BinaryHeap<Reverse<Entry<T>>>,
}

struct Entry<T> {
    time: Duration,
    number: u64,
    what: T,
}

impl<T> Default for Clock<T> {
    fn default() -> Self {
        Self {
            now: Duration::ZERO,
            booked: 0,
            heap: BinaryHeap::new(),
        }
    }
}

impl<T> Clock<T> {
    pub(super) fn now(&self) -> Duration {
        self.now
    }

    /// Books what happens at `time`, which is not past.
    pub(super) fn at(&mut self, time: Duration, what: T) {
        self.booked += 1;
        self.heap.push(Reverse(Entry {
            time,
            number: self.booked,
            what,
        }));
    }

    pub(super) fn after(&mut self, wait: Duration, what: T) {
        self.at(self.now + wait, what);
    }

    /// Moves on to what happens next.
    pub(super) fn next(&mut self) -> Option<(Duration, T)> {
        let Reverse(entry) = self.heap.pop()?;
        self.now = entry.time;
        Some((entry.time, entry.what))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.time, self.number).cmp(&(other.time, other.number))
    }
}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Entry<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_times_keep_the_order_of_booking() {
        let mut clock = Clock::default();
        let second = Duration::from_secs(1);
        clock.at(2 * second, 'c');
        clock.at(second, 'a');
        clock.at(second, 'b');
        assert_eq!(clock.next(), Some((second, 'a')));
        clock.after(Duration::ZERO, 'd');
        let rest: String = std::iter::from_fn(|| clock.next())
            .map(|(_, what)| what)
            .collect();
        assert_eq!(rest, "bdc");
    }
}
