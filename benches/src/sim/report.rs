//! What a run tells: one row of figures per policy, as JSON and as a table.

use std::time::Duration;

use serde::Serialize;

use super::world::{Outcome, Record};

/// One policy on one workload. Seconds, unless the name says otherwise.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Name of the policy.
    pub policy: String,
    /// Requests answered.
    pub finished: usize,
    /// Requests that never were.
    pub unfinished: usize,
    /// From sending to the last token.
    pub e2e_mean_s: f64,
    /// Half are faster.
    pub e2e_p50_s: f64,
    /// Nine in ten are faster.
    pub e2e_p90_s: f64,
    /// 99 in a hundred are faster.
    pub e2e_p99_s: f64,
    /// From sending to the first token.
    pub ttft_mean_s: f64,
    /// Half are faster.
    pub ttft_p50_s: f64,
    /// 99 in a hundred are faster.
    pub ttft_p99_s: f64,
    /// Between tokens, mean over requests of two tokens and more, in milliseconds.
    pub tpot_mean_ms: f64,
    /// From the first arrival to the last end.
    pub req_per_s: f64,
    /// The same in output tokens.
    pub output_tok_s: f64,
    /// Share of prompt tokens that engines found cached.
    pub hit_rate: f64,
    /// Share that one endless cache would hold.
    pub ideal_hit_rate: f64,
    /// Computing time of the busiest engine over the mean.
    pub imbalance: f64,
    /// Sequences that lost their blocks.
    pub preemptions: u64,
    /// Requests that lost their engine, counted each time.
    pub retries: u32,
    /// What the run took of this machine.
    pub wall_s: f64,
}

impl Row {
    /// The figures of one run.
    pub fn of(policy: &str, outcome: &Outcome, ideal_hit_rate: f64, wall: Duration) -> Self {
        let answered: Vec<&Record> = outcome
            .records
            .iter()
            .filter(|record| record.finished.is_some())
            .collect();
        let e2e = Times::of(&answered, |record| record.finished);
        let ttft = Times::of(&answered, |record| record.first_token);
        let first = answered.iter().map(|record| record.arrived).min();
        let last = answered.iter().filter_map(|record| record.finished).max();
        let span = last.unwrap_or_default() - first.unwrap_or_default();
        let sum = |tokens: fn(&Record) -> u32| {
            let tokens = answered.iter().map(|record| f64::from(tokens(record)));
            tokens.sum::<f64>()
        };
        let ratio = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        let busy: Vec<f64> = outcome.busy.iter().map(Duration::as_secs_f64).collect();
        let mean_busy = ratio(busy.iter().sum(), busy.len() as f64);
        Self {
            policy: policy.to_owned(),
            finished: answered.len(),
            unfinished: outcome.records.len() - answered.len(),
            e2e_mean_s: e2e.mean(),
            e2e_p50_s: e2e.quantile(0.5),
            e2e_p90_s: e2e.quantile(0.9),
            e2e_p99_s: e2e.quantile(0.99),
            ttft_mean_s: ttft.mean(),
            ttft_p50_s: ttft.quantile(0.5),
            ttft_p99_s: ttft.quantile(0.99),
            tpot_mean_ms: token_gap_ms(&answered),
            req_per_s: ratio(answered.len() as f64, span.as_secs_f64()),
            output_tok_s: ratio(sum(|record| record.output_tokens), span.as_secs_f64()),
            hit_rate: ratio(
                sum(|record| record.cached_tokens),
                sum(|record| record.prompt_tokens),
            ),
            ideal_hit_rate,
            imbalance: ratio(busy.iter().copied().fold(0.0, f64::max), mean_busy),
            preemptions: outcome.preemptions,
            retries: outcome.records.iter().map(|record| record.retries).sum(),
            wall_s: wall.as_secs_f64(),
        }
    }
}

fn token_gap_ms(answered: &[&Record]) -> f64 {
    let gaps: Vec<f64> = answered
        .iter()
        .filter(|record| record.output_tokens > 1)
        .filter_map(|record| {
            let time = record.finished? - record.first_token?;
            Some(time.as_secs_f64() * 1e3 / f64::from(record.output_tokens - 1))
        })
        .collect();
    gaps.iter().sum::<f64>() / gaps.len().max(1) as f64
}

/// Seconds since each request's arrival, sorted.
struct Times(Vec<f64>);

impl Times {
    fn of(answered: &[&Record], end: fn(&Record) -> Option<Duration>) -> Self {
        let times = answered
            .iter()
            .filter_map(|record| Some((end(record)? - record.arrived).as_secs_f64()));
        let mut times: Vec<f64> = times.collect();
        times.sort_by(f64::total_cmp);
        Self(times)
    }

    fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len().max(1) as f64
    }

    fn quantile(&self, share: f64) -> f64 {
        let index = (share * self.0.len() as f64) as usize;
        let last = self.0.len().saturating_sub(1);
        self.0.get(index.min(last)).copied().unwrap_or(0.0)
    }
}

/// The rows as a table for people.
pub fn table(rows: &[Row]) -> String {
    let mut table = format!(
        "{:<20} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>6} {:>6} {:>6} {:>6} {:>6}\n",
        "policy",
        "e2e s",
        "p99",
        "ttft s",
        "p50",
        "p99",
        "tpot ms",
        "req/s",
        "tok/s",
        "hit",
        "ideal",
        "imbal",
        "preem"
    );
    for row in rows {
        table += &format!(
            "{:<20} {:>8.2} {:>8.2} {:>8.3} {:>8.3} {:>8.2} {:>8.1} {:>8.2} {:>6.0} {:>6.3} {:>6.3} {:>6.2} {:>6}{}\n",
            row.policy,
            row.e2e_mean_s,
            row.e2e_p99_s,
            row.ttft_mean_s,
            row.ttft_p50_s,
            row.ttft_p99_s,
            row.tpot_mean_ms,
            row.req_per_s,
            row.output_tok_s,
            row.hit_rate,
            row.ideal_hit_rate,
            row.imbalance,
            row.preemptions,
            match row.unfinished {
                0 => String::new(),
                count => format!("  {count} unfinished"),
            }
        );
    }
    table
}
