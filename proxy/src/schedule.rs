//! Scheduling: which endpoint of a pool takes a request. Pure: a policy sees a view of the candidates and a
//! random source, and ranks.
//!
//! Not for health, draining or what a filter removed: such endpoints are marked before a policy looks. Not for
//! where the numbers come from: the gateway and the simulator fill in the same view.

mod bounded;
mod bounded_hash;
pub mod build;
pub mod filter;
mod gpu_usage;
mod kthena;
mod kvcache_aware;
mod least_latency;
mod least_request;
mod lmetric;
mod lora_affinity;
mod mtl;
mod prefix_cache;
mod random;
mod rank;
mod rendezvous;
mod round_robin;
mod session;
mod sticky;

use rand::RngCore;

use crate::endpoints::constants::Constants;
use crate::endpoints::load::{Load, Work};

pub use bounded_hash::BoundedHash;
pub use build::build;
pub use gpu_usage::GpuUsage;
pub use kthena::Kthena;
pub use kvcache_aware::KvcacheAware;
pub use least_latency::LeastLatency;
pub use least_request::LeastRequest;
pub use lmetric::Lmetric;
pub use lora_affinity::LoraAffinity;
pub use mtl::Mtl;
pub use prefix_cache::PrefixCache;
pub use random::Random;
pub use rank::Band;
pub use round_robin::RoundRobin;
pub use session::Session;
pub use sticky::Sticky;

/// Output tokens to expect where nothing is known.
const UNKNOWN_OUTPUT_TOKENS: f64 = 256.0;
/// No guess is taken to be longer.
const MAX_OUTPUT_TOKENS: f64 = 1e6;

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

impl RequestView<'_> {
    /// Output tokens to expect, whatever the guess is worth.
    pub(crate) fn output(&self) -> f64 {
        if self.output_tokens.is_finite() && self.output_tokens >= 1.0 {
            self.output_tokens.min(MAX_OUTPUT_TOKENS)
        } else {
            UNKNOWN_OUTPUT_TOKENS
        }
    }
}

impl CandidateView<'_> {
    /// What the request would give it to do.
    pub(crate) fn work(&self, request: &RequestView<'_>) -> Work {
        Work {
            prompt_tokens: request.prompt_tokens,
            cached_tokens: self.cached_tokens,
        }
    }

    /// Prompt tokens that it would have to prefill (u).
    pub(crate) fn uncached(&self, request: &RequestView<'_>) -> f64 {
        f64::from(self.work(request).uncached())
    }

    /// Share of the prompt that its cache holds (h / P); nothing of an empty prompt.
    pub(crate) fn cached_share(&self, request: &RequestView<'_>) -> f64 {
        if request.prompt_tokens == 0 {
            return 0.0;
        }
        (f64::from(self.cached_tokens) / f64::from(request.prompt_tokens)).min(1.0)
    }

    /// Time until it has prefilled what is pending there (q), in milliseconds.
    pub(crate) fn wait_ms(&self) -> f64 {
        self.constants.wait_ms(self.load)
    }
}

/// One endpoint as a policy sees it.
#[derive(Debug, Clone, Default)]
pub struct CandidateView<'a> {
    /// `host:port`.
    pub address: &'a str,
    /// Why it must not be chosen, if so.
    pub excluded: Option<&'static str>,
    /// Cost added by filters and for answers that failed lately, in milliseconds.
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
    /// Longest context it takes, in tokens.
    pub max_model_len: Option<u32>,
}

/// One place in a ranking.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranked {
    /// Index into the candidates.
    pub index: usize,
    /// Lower is better, never infinite. In milliseconds: real ones, or what the policy holds its unit to be worth,
    /// so that filters' penalties weigh in.
    pub cost: f64,
    /// Why it stands where it stands.
    pub reason: &'static str,
}

/// One part of a candidate's cost, for `/debug/explain`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Term {
    /// What is charged.
    pub name: &'static str,
    /// In milliseconds, as [`Ranked::cost`].
    pub value: f64,
}

/// What a plug-in of a policy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PluginKind {
    /// Removes candidates.
    Filter,
    /// Scores them.
    Score,
}

/// A part of a policy that runs by itself, such as one of Kthena's plug-ins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plugin {
    /// What it does.
    pub kind: PluginKind,
    /// Its name in configuration and metrics.
    pub name: &'static str,
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

    /// As [`Self::rank`], and tells of each plug-in that has run, in turn, so that whoever has a clock may time them. A
    /// policy without any is one itself.
    fn rank_told(
        &self,
        request: &RequestView<'_>,
        candidates: &[CandidateView<'_>],
        random: &mut dyn RngCore,
        ran: &mut dyn FnMut(Plugin),
    ) -> Vec<Ranked> {
        let ranking = self.rank(request, candidates, random);
        let (kind, name) = (PluginKind::Score, self.name());
        ran(Plugin { kind, name });
        ranking
    }

    /// What the cost of `candidates[index]` is made of: the sum is the cost. Nothing for a policy whose cost is
    /// one number. The others matter: costs may hang on means and extremes over all that may be chosen.
    fn terms(
        &self,
        _request: &RequestView<'_>,
        _candidates: &[CandidateView<'_>],
        _index: usize,
    ) -> Vec<Term> {
        Vec::new()
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
