//! Passive health: an endpoint that refuses or drops connections, or refuses to serve, gets no first tries for a while.
//!
//! Connection failures, and an engine's own word that it cannot serve (502, 503, 504). Any other answer, even a
//! 500, proves that it is there, and how well it serves is the scheduler's business. Time comes in as an
//! argument, measured from any fixed point.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Refused once is down; dropped connections and refused requests only count after this many in a row.
const LOST_IN_A_ROW: u32 = 3;
const FIRST_EJECTION: Duration = Duration::from_millis(500);
const LONGEST_EJECTION: Duration = Duration::from_secs(10);

/// Connection failures in a row, and until when the endpoint is left alone.
#[derive(Debug, Default)]
pub struct Health {
    failures: AtomicU32,
    /// Milliseconds; 0 means healthy.
    ejected_until: AtomicU64,
    /// Milliseconds; when the last failure ejected it.
    ejected_at: AtomicU64,
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
            until if moment(now) >= until => Admission::Probe,
            _ => Admission::Ejected,
        }
    }

    /// Takes the probe, so that only one request in a period finds out.
    pub fn begin_probe(&self, now: Duration) {
        let until = moment(now + self.ejection());
        self.ejected_until.store(until, Ordering::Relaxed);
    }

    /// The endpoint answered.
    pub fn answered(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
            self.ejected_until.store(0, Ordering::Relaxed);
            self.ejected_at.store(0, Ordering::Relaxed);
        }
    }

    /// No connection could be made, tried since `since`.
    pub fn unreachable(&self, since: Duration, now: Duration) {
        self.failed(LOST_IN_A_ROW, since, now);
    }

    /// A connection used since `since` broke before it gave an answer, or the answer was that there is none.
    pub fn lost(&self, since: Duration, now: Duration) {
        self.failed(1, since, now);
    }

    /// An attempt from before the ejection tells nothing new: one crash under a hundred requests is one failure.
    fn failed(&self, weight: u32, since: Duration, now: Duration) {
        if moment(since) <= self.ejected_at.load(Ordering::Relaxed) {
            return;
        }
        let failures = self.failures.fetch_add(weight, Ordering::Relaxed) + weight;
        if failures >= LOST_IN_A_ROW {
            self.ejected_at.store(moment(now), Ordering::Relaxed);
            self.ejected_until
                .store(moment(now + self.ejection()), Ordering::Relaxed);
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

/// Milliseconds, of which 0 means never.
pub(super) fn moment(time: Duration) -> u64 {
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
        health.unreachable(at(100), at(100));
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
    fn ejections_grow_with_every_failed_probe_to_a_bound() {
        let health = Health::default();
        let mut now = at(1);
        let mut lengths = Vec::new();
        for _ in 0..8 {
            health.unreachable(now, now);
            let began = now;
            while health.admission(now) == Admission::Ejected {
                now += at(1);
            }
            lengths.push((now - began).as_millis());
            health.begin_probe(now);
        }
        assert_eq!(
            lengths,
            [500, 1000, 2000, 4000, 8000, 10_000, 10_000, 10_000]
        );
    }

    #[test]
    fn many_requests_that_meet_one_crash_are_one_failure() {
        let health = Health::default();
        for request in 0..100 {
            health.lost(at(request), at(1000));
            health.unreachable(at(request), at(1001));
        }
        assert_eq!(health.admission(at(1501)), Admission::Probe);
    }

    #[test]
    fn a_lost_connection_ejects_only_in_a_row() {
        let health = Health::default();
        let lost = || health.lost(at(1), at(1));
        lost();
        lost();
        health.answered();
        lost();
        lost();
        assert_eq!(health.admission(at(1)), Admission::Healthy);
        lost();
        assert_eq!(health.admission(at(1)), Admission::Ejected);
    }
}
