//! What a change must not make worse: MTL against the best policy, and its hit rate against the ideal.

use super::report::Row;

/// The workloads that are checked.
pub const CHECKED: [&str; 5] = ["A-long", "A-long-2k", "B", "C", "D"];
/// MTL and those that came closest to it or before it somewhere.
pub const CONTENDERS: [&str; 6] = [
    "kthena-kvcache",
    "llmd-322",
    "llmd-sticky",
    "lpwl",
    "lmetric",
    DEFAULT,
];
/// Requests of each workload in a check; the longest one is cut here.
pub const CHECKED_REQUESTS: usize = 8192;

/// The policy under test.
const DEFAULT: &str = "mtl";
/// Differences below this are ties.
const TIE: f64 = 0.02;
/// Least share of the ideal hit rate, where memory allows.
const HITS: f64 = 0.95;

/// What is wrong with the rows of one workload, in words; nothing if all is well.
pub fn failures(workload: &str, fits_memory: bool, rows: &[Row]) -> Vec<String> {
    let Some(own) = rows.iter().find(|row| row.policy == DEFAULT) else {
        return vec![format!("{workload}: {DEFAULT} was not run")];
    };
    let mut failures = Vec::new();
    for row in rows.iter().filter(|row| row.unfinished > 0) {
        let (policy, unfinished) = (&row.policy, row.unfinished);
        failures.push(format!(
            "{workload}: {policy} left {unfinished} requests unfinished"
        ));
    }
    // A closed loop is measured by its throughput, an open one by its latency.
    let (unit, cost): (&str, fn(&Row) -> f64) = match workload.starts_with('A') {
        true => ("s per request", |row| 1.0 / row.req_per_s),
        false => ("s mean latency", |row| row.e2e_mean_s),
    };
    if let Some(best) = rows.iter().min_by(|a, b| cost(a).total_cmp(&cost(b)))
        && cost(own) > cost(best) * (1.0 + TIE)
    {
        failures.push(format!(
            "{workload}: {DEFAULT} takes {:.3} {unit}, {} {:.3}",
            cost(own),
            best.policy,
            cost(best)
        ));
    }
    if fits_memory && own.hit_rate < HITS * own.ideal_hit_rate {
        failures.push(format!(
            "{workload}: {DEFAULT} hits {:.3} of prompt tokens, {:.3} would be ideal",
            own.hit_rate, own.ideal_hit_rate
        ));
    }
    failures
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sim::world::Outcome;

    fn row(policy: &str, e2e_mean_s: f64, hit_rate: f64) -> Row {
        let nothing = Outcome {
            records: Vec::new(),
            busy: Vec::new(),
            preemptions: 0,
        };
        Row {
            e2e_mean_s,
            hit_rate,
            req_per_s: 1.0 / e2e_mean_s,
            ..Row::of(policy, &nothing, 1.0, Duration::ZERO)
        }
    }

    #[test]
    fn a_tie_passes_and_a_loss_does_not() {
        for workload in ["A-long", "C"] {
            let tie = [row("lmetric", 1.0, 1.0), row("mtl", 1.019, 1.0)];
            assert_eq!(failures(workload, true, &tie), [""; 0]);
            let loss = [row("lmetric", 1.0, 1.0), row("mtl", 1.03, 1.0)];
            assert_eq!(failures(workload, true, &loss).len(), 1);
        }
    }

    #[test]
    fn hits_are_checked_where_memory_allows() {
        let poor = [row("mtl", 1.0, 0.9)];
        assert_eq!(failures("B", false, &poor), [""; 0]);
        assert_eq!(failures("C", true, &poor).len(), 1);
        assert_eq!(failures("C", true, &[]).len(), 1);
    }
}
