//! Scheduling: which endpoint of a pool takes a request. Pure: a policy sees a view of the candidates and a
//! random source, and ranks.
//!
//! Not for health, draining or what a filter removed: such endpoints are marked before a policy looks. Not for
//! where the numbers come from: the gateway and the simulator fill in the same view.

mod least_in_flight;

use rand::RngCore;

use crate::endpoints::constants::Constants;
use crate::endpoints::load::Load;

pub use least_in_flight::LeastInFlight;

/// What a policy may know of the request.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestView<'a> {
    /// Model as the client named it.
    pub model: &'a str,
    /// Prompt tokens (P), counted or estimated.
    pub prompt_tokens: u32,
    /// Output tokens to expect (o): what the model's answers take on average, at most the request's own limit.
    pub output_tokens: f64,
    /// Hash of its session's name, from a header, a cookie, the body's hints or its user.
    pub session: Option<u64>,
    /// Hash of the prompt's beginning.
    pub prefix: Option<u64>,
    /// It asks for a LoRA adapter.
    pub lora: bool,
}

/// What an engine said of itself. A value that is missing or too old is `None`: neutral, not zero.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Reported {
    /// Requests running.
    pub running: Option<f64>,
    /// Requests waiting.
    pub waiting: Option<f64>,
    /// Share of its KV cache in use, 0 to 1.
    pub kv_usage: Option<f64>,
}

/// Whether an endpoint can serve the adapter that a request asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Adapter {
    /// Nothing is known of its adapters, or none is asked for.
    #[default]
    Unknown,
    /// It lists the adapter.
    Loaded,
    /// It does not list the adapter and has room for one more.
    Loadable,
    /// It does not list the adapter and has no room.
    Full,
}

/// One endpoint as a policy sees it.
#[derive(Debug, Clone, Default)]
pub struct CandidateView<'a> {
    /// `host:port`.
    pub address: &'a str,
    /// Why it must not be chosen, if so.
    pub excluded: Option<&'static str>,
    /// Cost added by filters, in milliseconds.
    pub penalty_ms: f64,
    /// Prompt tokens of this request that its cache holds (h).
    pub cached_tokens: u32,
    /// What this gateway has given it to do (n, q, x).
    pub load: Load,
    /// Its speed (W, D, Kd and so on).
    pub constants: Constants,
    /// Its own words.
    pub reported: Reported,
    /// Time to first token as measured here, moving average.
    pub ttft_ms: Option<f64>,
    /// Time between tokens as measured here, moving average.
    pub token_gap_ms: Option<f64>,
    /// Its state towards the request's adapter.
    pub adapter: Adapter,
}

/// One place in a ranking.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranked {
    /// Index into the candidates.
    pub index: usize,
    /// Lower is better; the unit is the policy's.
    pub cost: f64,
    /// Why it stands where it stands.
    pub reason: &'static str,
}

/// One part of a candidate's cost, for `/debug/explain`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Term {
    /// What is charged.
    pub name: &'static str,
    /// In the policy's unit: milliseconds for costs in time.
    pub value: f64,
}

/// A scheduling policy.
pub trait Policy: Send + Sync {
    /// Name in configuration, metrics and `/debug/explain`.
    fn name(&self) -> &'static str;

    /// The candidates that may be chosen, best first. Excluded ones do not appear.
    fn rank(
        &self,
        request: &RequestView<'_>,
        candidates: &[CandidateView<'_>],
        random: &mut dyn RngCore,
    ) -> Vec<Ranked>;

    /// What the candidate's cost is made of; nothing for a policy whose cost is one number.
    fn terms(&self, _request: &RequestView<'_>, _candidate: &CandidateView<'_>) -> Vec<Term> {
        Vec::new()
    }
}
