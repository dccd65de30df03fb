//! What came out: as JSON, as a table, and held against what it must be.

use std::fmt::Write;

use serde::Serialize;

use super::cluster::Scale;

/// Slowest change, of 99 in 100, until all gateways have it.
const MAX_CHANGE_MS: f64 = 200.0;
/// Longest first push to one gateway.
const MAX_FIRST_PUSH_S: f64 = 3.0;
/// Longest storm.
const MAX_STORM_S: f64 = 10.0;
/// Most memory, whatever gateways do.
const MAX_MEMORY_MIB: f64 = 300.0;
/// Most that one change is to one gateway: some hundred bytes of it, and the frame around them.
const MAX_CHANGE_BYTES: f64 = 2048.0;
/// Most CPU when nothing changes.
const MAX_IDLE_CORES: f64 = 0.02;

/// The whole state to gateways that have nothing.
#[derive(Debug, Clone, Serialize)]
pub struct FirstPush {
    /// How many, all at once.
    pub gateways: usize,
    /// From the first connect to the last whole batch.
    pub seconds: f64,
    /// Size of all responses to one of them.
    pub bytes_each: usize,
    /// CPU of the server.
    pub cpu_s: f64,
    /// Memory of the server afterwards.
    pub memory_mib: f64,
    /// And the most so far.
    pub peak_mib: f64,
}

/// One change at a time to gateways that follow.
#[derive(Debug, Clone, Serialize)]
pub struct Changes {
    /// How many follow.
    pub gateways: usize,
    /// How many changes.
    pub changes: usize,
    /// From a change until the last gateway has it whole; half of the changes are faster.
    pub all_p50_ms: f64,
    /// 99 in 100 are faster.
    pub all_p99_ms: f64,
    /// The slowest.
    pub all_max_ms: f64,
    /// From a change until a gateway has it, over all gateways and changes.
    pub each_p50_ms: f64,
    /// 99 in 100 are faster.
    pub each_p99_ms: f64,
    /// Size of the responses that bring one change to one gateway.
    pub bytes_per_gateway: f64,
    /// CPU of the server for one change to all.
    pub cpu_ms_per_change: f64,
    /// CPU of the server when nothing changes.
    pub idle_cores: f64,
    /// Memory of the server afterwards.
    pub memory_mib: f64,
    /// And the most so far.
    pub peak_mib: f64,
}

/// Many gateways at once.
#[derive(Debug, Clone, Serialize)]
pub struct Storm {
    /// How many.
    pub gateways: usize,
    /// Do they name what they have?
    pub with_versions: bool,
    /// From the first connect to the last whole batch.
    pub seconds: f64,
    /// Size of all responses to one of them.
    pub bytes_each: usize,
    /// CPU of the server.
    pub cpu_s: f64,
    /// Memory of the server afterwards.
    pub memory_mib: f64,
    /// And the most so far.
    pub peak_mib: f64,
}

/// Everything.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Seconds of Unix time.
    pub time: u64,
    /// ModelRoutes.
    pub routes: usize,
    /// ModelServers.
    pub servers: usize,
    /// Endpoints.
    pub endpoints: usize,
    /// From all lists of the API server to all resources, in seconds.
    pub index_s: f64,
    /// First pushes.
    pub first_push: Vec<FirstPush>,
    /// Changes.
    pub changes: Changes,
    /// Storms.
    pub storms: Vec<Storm>,
}

impl Report {
    /// A report of now.
    pub fn new(
        time: u64,
        scale: Scale,
        index_s: f64,
        first_push: Vec<FirstPush>,
        changes: Changes,
        storms: Vec<Storm>,
    ) -> Self {
        Self {
            time,
            routes: scale.routes,
            servers: scale.servers,
            endpoints: scale.endpoints,
            index_s,
            first_push,
            changes,
            storms,
        }
    }

    /// As people read it.
    pub fn table(&self) -> String {
        let mut table = format!(
            "{} ModelRoutes, {} ModelServers, {} pods; from lists to resources {:.3} s\n\n",
            self.routes, self.servers, self.endpoints, self.index_s
        );
        let mut rows = vec![
            [
                "", "gateways", "seconds", "KiB each", "CPU s", "RSS MiB", "peak MiB",
            ]
            .map(str::to_owned),
        ];
        for first in &self.first_push {
            rows.push(row(
                "first push",
                first.gateways,
                first.seconds,
                first.bytes_each,
                [first.cpu_s, first.memory_mib, first.peak_mib],
            ));
        }
        for storm in &self.storms {
            let name = if storm.with_versions {
                "reconnect storm"
            } else {
                "storm, knowing nothing"
            };
            rows.push(row(
                name,
                storm.gateways,
                storm.seconds,
                storm.bytes_each,
                [storm.cpu_s, storm.memory_mib, storm.peak_mib],
            ));
        }
        for row in rows {
            let [name, rest @ ..] = row;
            let rest: String = rest.iter().map(|cell| format!("{cell:>10}")).collect();
            let _ = writeln!(table, "{name:<24}{rest}");
        }
        let Changes {
            gateways, changes, ..
        } = self.changes;
        let figures = &self.changes;
        let _ = write!(
            table,
            "\n{changes} changes of one pod's readiness, {gateways} gateways:\n  \
             until all have it  p50 {:.1} ms, p99 {:.1} ms, at most {:.1} ms\n  \
             until one has it   p50 {:.1} ms, p99 {:.1} ms\n  \
             {:.0} bytes a gateway, {:.2} ms CPU a change, {:.3} cores idle, RSS {:.0} MiB (peak {:.0})\n",
            figures.all_p50_ms,
            figures.all_p99_ms,
            figures.all_max_ms,
            figures.each_p50_ms,
            figures.each_p99_ms,
            figures.bytes_per_gateway,
            figures.cpu_ms_per_change,
            figures.idle_cores,
            figures.memory_mib,
            figures.peak_mib,
        );
        table
    }

    /// What is not as good as it must be.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        let mut hold = |what: &str, value: f64, limit: f64, unit: &str| {
            if value > limit {
                failures.push(format!(
                    "{what}: {value:.1} {unit}, more than {limit} {unit}"
                ));
            }
        };
        let Changes {
            all_p99_ms,
            peak_mib,
            bytes_per_gateway,
            idle_cores,
            ..
        } = self.changes;
        hold(
            "p99 of a change until all have it",
            all_p99_ms,
            MAX_CHANGE_MS,
            "ms",
        );
        hold(
            "peak memory with gateways that follow",
            peak_mib,
            MAX_MEMORY_MIB,
            "MiB",
        );
        hold(
            "a change to one gateway",
            bytes_per_gateway,
            MAX_CHANGE_BYTES,
            "bytes",
        );
        hold(
            "CPU when nothing changes",
            idle_cores,
            MAX_IDLE_CORES,
            "cores",
        );
        for first in self.first_push.iter().filter(|first| first.gateways == 1) {
            let seconds = self.index_s + first.seconds;
            hold("first push", seconds, MAX_FIRST_PUSH_S, "s");
        }
        for storm in &self.storms {
            hold("storm", storm.seconds, MAX_STORM_S, "s");
            hold(
                "peak memory in a storm",
                storm.peak_mib,
                MAX_MEMORY_MIB,
                "MiB",
            );
        }
        failures
    }
}

fn row(
    name: &str,
    gateways: usize,
    seconds: f64,
    bytes_each: usize,
    [cpu, memory, peak]: [f64; 3],
) -> [String; 7] {
    [
        name.to_owned(),
        gateways.to_string(),
        format!("{seconds:.3}"),
        (bytes_each / 1024).to_string(),
        format!("{cpu:.2}"),
        format!("{memory:.0}"),
        format!("{peak:.0}"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(all_p99_ms: f64, storm_s: f64) -> Report {
        let changes = Changes {
            gateways: 100,
            changes: 300,
            all_p50_ms: 1.0,
            all_p99_ms,
            all_max_ms: 9.0,
            each_p50_ms: 1.0,
            each_p99_ms: 2.0,
            bytes_per_gateway: 600.0,
            cpu_ms_per_change: 1.0,
            idle_cores: 0.0,
            memory_mib: 40.0,
            peak_mib: 50.0,
        };
        let storm = Storm {
            gateways: 500,
            with_versions: true,
            seconds: storm_s,
            bytes_each: 2048,
            cpu_s: 1.0,
            memory_mib: 40.0,
            peak_mib: 50.0,
        };
        let scale = Scale {
            routes: 1,
            servers: 2,
            endpoints: 3,
        };
        Report::new(0, scale, 0.1, vec![], changes, vec![storm])
    }

    #[test]
    fn what_is_too_slow_is_said_with_its_limit() {
        assert!(report(199.0, 9.0).failures().is_empty());
        let failures = report(201.0, 11.0).failures();
        assert_eq!(failures.len(), 2);
        assert!(
            failures[1].contains("storm: 11.0 s, more than 10 s"),
            "{failures:?}"
        );
    }

    #[test]
    fn the_table_has_a_row_for_each_measurement() {
        let table = report(3.0, 1.5).table();
        let row = table
            .lines()
            .find(|line| line.starts_with("reconnect storm"));
        let cells: Vec<_> = row.unwrap().split_whitespace().collect();
        assert_eq!(
            cells,
            [
                "reconnect",
                "storm",
                "500",
                "1.500",
                "2",
                "1.00",
                "40",
                "50"
            ]
        );
    }
}
