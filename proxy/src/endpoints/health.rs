//! Passive health: an endpoint that refuses or drops connections gets no first tries for a while.
//!
//! Connection failures only. What an engine answers (even a 500) proves that it is there, and how well it serves
//! is the scheduler's business. Time comes in as an argument, measured from any fixed point.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Refused once is down; dropped connections only count after this many in a row.
const LOST_IN_A_ROW: u32 = 3;
const FIRST_EJECTION: Duration = Duration::from_millis(500);
const LONGEST_EJECTION: Duration = Duration::from_secs(10);

/// Connection failures in a row, and until when the endpoint is left alone.
#[derive(Debug, Default)]
pub struct Health {
    failures: AtomicU32,
    /// Milliseconds; 0 means healthy.
    ejected_until: AtomicU64,
}

/// May a request go there?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Yes.
    Healthy,
    /// Its time is over: one request may find out.
    Probe,
    /// Only when nothing else is left.
    Ejected,
}

impl Health {
    /// The state at `now`, without taking the probe.
    pub fn admission(&self, now: Duration) -> Admission {
        match self.ejected_until.load(Ordering::Relaxed) {
            0 => Admission::Healthy,
            until if millis(now) >= until => Admission::Probe,
            _ => Admission::Ejected,
        }
    }

    /// Takes the probe, so that only one request in a period finds out.
    pub fn begin_probe(&self, now: Duration) {
        let until = millis(now + self.ejection());
        self.ejected_until.store(until, Ordering::Relaxed);
    }

    /// The endpoint answered.
    pub fn answered(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
            self.ejected_until.store(0, Ordering::Relaxed);
        }
    }

    /// No connection could be made.
    pub fn unreachable(&self, now: Duration) {
        self.failures.fetch_add(LOST_IN_A_ROW, Ordering::Relaxed);
        self.ejected_until
            .store(millis(now + self.ejection()), Ordering::Relaxed);
    }

    /// A connection broke before it gave an answer.
    pub fn lost(&self, now: Duration) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        if failures >= LOST_IN_A_ROW {
            self.ejected_until
                .store(millis(now + self.ejection()), Ordering::Relaxed);
        }
    }

    /// Doubles with every failure after the first.
    fn ejection(&self) -> Duration {
        let failures = self.failures.load(Ordering::Relaxed) / LOST_IN_A_ROW;
        FIRST_EJECTION
            .saturating_mul(1 << failures.saturating_sub(1).min(8))
            .min(LONGEST_EJECTION)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn one_refused_connection_ejects_and_time_brings_one_probe() {
        let health = Health::default();
        assert_eq!(health.admission(at(0)), Admission::Healthy);
        health.unreachable(at(100));
        assert_eq!(health.admission(at(200)), Admission::Ejected);
        assert_eq!(health.admission(at(600)), Admission::Probe);
        health.begin_probe(at(600));
        assert_eq!(
            health.admission(at(601)),
            Admission::Ejected,
            "the probe is taken"
        );
        health.answered();
        assert_eq!(health.admission(at(602)), Admission::Healthy);
    }

    #[test]
    fn ejections_grow_to_a_bound() {
        let health = Health::default();
        for _ in 0..100 {
            health.unreachable(at(0));
        }
        assert_eq!(health.admission(at(9_999)), Admission::Ejected);
        assert_eq!(health.admission(at(10_000)), Admission::Probe);
    }

    #[test]
    fn a_lost_connection_ejects_only_in_a_row() {
        let health = Health::default();
        health.lost(at(0));
        health.lost(at(0));
        health.answered();
        health.lost(at(0));
        health.lost(at(0));
        assert_eq!(health.admission(at(1)), Admission::Healthy);
        health.lost(at(0));
        assert_eq!(health.admission(at(1)), Admission::Ejected);
    }
}
