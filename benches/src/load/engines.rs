//! What the engines counted: prefix hits and work, from their metrics pages.

use std::net::SocketAddr;
use std::time::Duration;

use super::client::{Client, Failure};

/// Counters of one engine since its start; the difference of two is what happened between them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    /// Prompt tokens looked up in the prefix cache.
    pub queries: f64,
    /// Of them, found.
    pub hits: f64,
    /// Tokens generated.
    pub generated: f64,
    /// Sequences thrown out for want of memory.
    pub preemptions: f64,
    /// Seconds spent in steps, on the engine's clock.
    pub busy: f64,
}

impl Counts {
    /// The counters on a metrics page; what is not there is zero.
    pub fn parse(page: &str) -> Self {
        let sum = |name: &str| -> f64 {
            let lines = page.lines().filter_map(|line| line.strip_prefix(name));
            let samples = lines.filter(|rest| rest.starts_with(['{', ' ']));
            let values = samples.filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok());
            values.sum()
        };
        Self {
            queries: sum("vllm:prefix_cache_queries_total"),
            hits: sum("vllm:prefix_cache_hits_total"),
            generated: sum("vllm:generation_tokens_total"),
            preemptions: sum("vllm:num_preemptions_total"),
            busy: sum("sluice_engine_busy_seconds_total"),
        }
    }

    /// What was added since `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            queries: self.queries - before.queries,
            hits: self.hits - before.hits,
            generated: self.generated - before.generated,
            preemptions: self.preemptions - before.preemptions,
            busy: self.busy - before.busy,
        }
    }
}

/// Reads the counters of all engines, in their order.
///
/// # Errors
/// When an engine does not answer within some seconds.
pub async fn counts(engines: &[SocketAddr]) -> Result<Vec<Counts>, Failure> {
    let mut all = Vec::with_capacity(engines.len());
    for &engine in engines {
        let page = Client::new(engine, Duration::from_secs(5))
            .page("/metrics")
            .await?;
        all.push(Counts::parse(&page));
    }
    Ok(all)
}

/// The largest value over the mean; 1 where all are equal or nothing happened.
pub fn imbalance(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let (count, sum) = values
        .clone()
        .fold((0.0, 0.0), |(count, sum), value| (count + 1.0, sum + value));
    let largest = values.fold(0.0, f64::max);
    if sum > 0.0 {
        largest * count / sum
    } else {
        1.0
    }
}
