//! Outcomes to figures, in seconds of the engines' clock, under the names that the simulator uses.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use sluice_e2e::engine::tokens;

use super::engines::{Counts, imbalance};
use super::ideal::IdealCache;
use super::replay::Outcome;
use super::workload::{Chats, Session};

/// What one run showed. Seconds and rates are of the engines' clock, whatever its speed.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Requests that were sent.
    pub requests: usize,
    /// Of them, without a whole answer.
    pub failed: usize,
    /// Requests of conversations that an earlier failure ended: never sent.
    pub skipped: usize,
    /// Failures by kind.
    pub failures: BTreeMap<String, usize>,
    /// From the first request to the last answer.
    pub duration_s: f64,
    /// Whole answers a second.
    pub req_per_s: f64,
    /// Output tokens a second.
    pub tokens_per_s: f64,
    /// From sending to the end: mean, and so on.
    pub e2e_mean_s: f64,
    /// Median.
    pub e2e_p50_s: f64,
    /// 90th percentile.
    pub e2e_p90_s: f64,
    /// 99th percentile.
    pub e2e_p99_s: f64,
    /// From sending to the first text: mean, and so on.
    pub ttft_mean_s: f64,
    /// Median.
    pub ttft_p50_s: f64,
    /// 90th percentile.
    pub ttft_p90_s: f64,
    /// 99th percentile.
    pub ttft_p99_s: f64,
    /// Prompt tokens that the engines found in their caches, over all.
    pub hit_rate: f64,
    /// What one cache without limit would have found.
    pub ideal_hit_rate: f64,
    /// Longest time of an engine in steps, over the mean.
    pub imbalance: f64,
    /// The same of prompt tokens computed.
    pub prefill_imbalance: f64,
    /// Sequences thrown out for want of memory.
    pub preemptions: f64,
}

impl Summary {
    /// Figures of outcomes in the order of sending, with what each engine counted meanwhile.
    pub fn new(
        chats: &Chats,
        outcomes: &[Outcome],
        engines: &[Counts],
        speed: f64,
        block_tokens: usize,
    ) -> Self {
        let whole = || outcomes.iter().filter(|outcome| outcome.answer.is_ok());
        let engine = |wall: Duration| wall.as_secs_f64() * speed;
        let e2e = Times::new(whole().map(|outcome| engine(outcome.total)).collect());
        let ttft = Times::new(
            whole()
                .filter_map(|outcome| outcome.first.map(engine))
                .collect(),
        );
        let duration_s = engine(duration(outcomes));
        let sum = |field: fn(&Counts) -> f64| engines.iter().map(field).sum::<f64>();
        let mut failures = BTreeMap::new();
        for failure in outcomes
            .iter()
            .filter_map(|outcome| outcome.answer.as_ref().err())
        {
            *failures.entry(failure.to_string()).or_default() += 1;
        }
        Self {
            requests: outcomes.len(),
            failed: outcomes.len() - whole().count(),
            skipped: chats.requests().saturating_sub(outcomes.len()),
            failures,
            duration_s,
            req_per_s: whole().count() as f64 / duration_s,
            tokens_per_s: sum(|engine| engine.generated) / duration_s,
            e2e_mean_s: e2e.mean,
            e2e_p50_s: e2e.quantile(0.5),
            e2e_p90_s: e2e.quantile(0.9),
            e2e_p99_s: e2e.quantile(0.99),
            ttft_mean_s: ttft.mean,
            ttft_p50_s: ttft.quantile(0.5),
            ttft_p90_s: ttft.quantile(0.9),
            ttft_p99_s: ttft.quantile(0.99),
            hit_rate: sum(|engine| engine.hits) / sum(|engine| engine.queries).max(1.0),
            ideal_hit_rate: ideal_hit_rate(chats, outcomes, block_tokens),
            imbalance: imbalance(engines.iter().map(|engine| engine.busy)),
            prefill_imbalance: imbalance(engines.iter().map(|engine| engine.queries - engine.hits)),
            preemptions: sum(|engine| engine.preemptions),
        }
    }
}

/// Wall time from the first request to the last end; never zero, as rates are divided by it.
fn duration(outcomes: &[Outcome]) -> Duration {
    let start = outcomes.iter().map(|outcome| outcome.sent).min();
    let end = outcomes
        .iter()
        .map(|outcome| outcome.sent + outcome.total)
        .max();
    let duration = start.zip(end).map(|(start, end)| end - start);
    duration.unwrap_or_default().max(Duration::from_nanos(1))
}

/// The hit rate of one cache without limit that sees the requests in the order in which they were sent.
pub fn ideal_hit_rate(chats: &Chats, outcomes: &[Outcome], block_tokens: usize) -> f64 {
    let mut cache = IdealCache::new(block_tokens);
    // Tokens of each conversation so far; a conversation's outcomes come in the order of its turns.
    let mut histories: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
    for outcome in outcomes {
        let session = &chats.sessions[outcome.session];
        let history = histories
            .entry(outcome.session)
            .or_insert_with(|| opening(session));
        say("user", session.turns[outcome.turn].user.write(), history);
        let mut prompt = history.clone();
        tokens::encode_answer_header(&mut prompt);
        let mut output = Vec::new();
        if let Ok(text) = &outcome.answer {
            tokens::encode(text, &mut output);
            say("assistant", text.clone(), history);
        }
        cache.take(&prompt, &output);
        if outcome.turn + 1 == session.turns.len() {
            histories.remove(&outcome.session);
        }
    }
    cache.rate()
}

fn opening(session: &Session) -> Vec<u32> {
    let mut history = Vec::new();
    for message in session.opening() {
        say(message.role, message.content, &mut history);
    }
    history
}

fn say(role: &str, text: String, history: &mut Vec<u32>) {
    tokens::encode_message(role, &text.into(), history);
}

/// Sorted times.
struct Times {
    sorted: Vec<f64>,
    mean: f64,
}

impl Times {
    fn new(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        let mean = times.iter().sum::<f64>() / times.len().max(1) as f64;
        Self {
            sorted: times,
            mean,
        }
    }

    fn quantile(&self, part: f64) -> f64 {
        quantile(&self.sorted, part)
    }
}

/// The nearest rank of sorted values; zero of nothing.
pub fn quantile(sorted: &[f64], part: f64) -> f64 {
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}
