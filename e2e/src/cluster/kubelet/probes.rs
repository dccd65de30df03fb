//! When probes run and what their outcomes mean for a container that runs.

use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;

use super::action::Target;
use super::board::{Board, ProbeKind};

/// Probes one run of a container.
pub(super) struct Probes<'a> {
    pub(super) board: &'a Board,
    pub(super) target: Target<'a>,
}

impl Probes<'_> {
    /// Probes until the container is to be restarted, and says why. Never ends otherwise.
    pub(super) async fn watch(&self) -> String {
        let name = &self.target.container.name;
        if let Some(probe) = &self.target.container.startup_probe {
            let mut course = Course::new(probe, false);
            while !course.holds {
                if let Some(why) = self.step(probe, ProbeKind::Startup, &mut course).await
                    && course.failed_for_good
                {
                    return format!("startup probe: {why}");
                }
            }
        }
        self.board.update(name, |view| view.started = true);
        tokio::select! {
            why = self.liveness() => why,
            () = self.readiness() => unreachable!("it never ends"),
        }
    }

    async fn liveness(&self) -> String {
        let Some(probe) = &self.target.container.liveness_probe else {
            return std::future::pending().await;
        };
        let mut course = Course::new(probe, true);
        loop {
            if let Some(why) = self.step(probe, ProbeKind::Liveness, &mut course).await
                && course.failed_for_good
            {
                return format!("liveness probe: {why}");
            }
        }
    }

    /// Keeps the readiness of the container up to date, also while it is being stopped. Never ends.
    pub(super) async fn readiness(&self) {
        let name = &self.target.container.name;
        let Some(probe) = &self.target.container.readiness_probe else {
            if self.board.view(name).started {
                self.board.update(name, |view| view.ready = true);
            }
            return std::future::pending().await;
        };
        let mut course = Course::new(probe, self.board.view(name).ready);
        loop {
            self.step(probe, ProbeKind::Readiness, &mut course).await;
            if self.board.view(name).ready != course.holds {
                self.board.update(name, |view| view.ready = course.holds);
            }
        }
    }

    /// Waits for the next turn and probes once; why it failed.
    async fn step(&self, probe: &Probe, kind: ProbeKind, course: &mut Course) -> Option<String> {
        tokio::time::sleep(std::mem::replace(&mut course.wait, course.period)).await;
        let name = &self.target.container.name;
        let outcome = if self.board.probe_fails(name, kind) {
            Err(anyhow::anyhow!("made to fail"))
        } else {
            self.target.probe(probe).await
        };
        course.count(outcome.is_ok());
        let why = format!("{:#}", outcome.err()?);
        tracing::debug!(container = %name, ?kind, %why, "probe failed");
        Some(why)
    }
}

/// Successes and failures in a row, against their thresholds.
struct Course {
    wait: Duration,
    period: Duration,
    successes_needed: i32,
    failures_allowed: i32,
    row: i32,
    holds: bool,
    failed_for_good: bool,
}

impl Course {
    fn new(probe: &Probe, holds: bool) -> Self {
        let seconds = |value: Option<i32>, default: i32| {
            let value = value.filter(|value| *value > 0).unwrap_or(default);
            Duration::from_secs(value.unsigned_abs().into())
        };
        Self {
            wait: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10),
            successes_needed: probe.success_threshold.unwrap_or(1).max(1),
            failures_allowed: probe.failure_threshold.unwrap_or(3).max(1),
            row: 0,
            holds,
            failed_for_good: false,
        }
    }

    fn count(&mut self, success: bool) {
        // Positive: successes in a row; negative: failures.
        self.row = match (success, self.row) {
            (true, row) => row.max(0) + 1,
            (false, row) => row.min(0) - 1,
        };
        if self.row >= self.successes_needed {
            self.holds = true;
            self.failed_for_good = false;
        } else if -self.row >= self.failures_allowed {
            self.holds = false;
            self.failed_for_good = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_count_outcomes_in_a_row() {
        let probe = Probe {
            success_threshold: Some(2),
            failure_threshold: Some(2),
            ..Probe::default()
        };
        let mut course = Course::new(&probe, false);
        let outcomes = [true, false, true, true, false, true, false, false];
        let holds = outcomes.map(|outcome| {
            course.count(outcome);
            course.holds
        });
        assert_eq!(holds, [false, false, false, true, true, true, true, false]);
        assert!(course.failed_for_good);
    }
}
