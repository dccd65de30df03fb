//! How a pool's endpoints are chosen, as meant: the policy with its numbers, checked and filled up.
//!
//! For: the bootstrap file's default and a ModelServer's `spec.scheduling`, by the same rules. Not for what the
//! policies do (the proxy's `schedule`), nor for the form as written, which the CRDs hold.

mod check;
mod kthena;

pub use sluice_crds::networking::{PolicyName, SchedulingConfig};

pub(crate) use self::check::check;
pub use self::kthena::{FilterPlugin, KthenaParams, ScorePlugin};
use crate::path::{FieldPath, Place};

/// A checked choice of policy.
#[derive(Debug, Clone, PartialEq)]
pub struct SchedulingParams {
    /// The policy with what it needs.
    pub policy: PolicyParams,
    /// What makes a session, for any policy that looks at sessions.
    pub session: SessionParams,
}

impl Default for SchedulingParams {
    fn default() -> Self {
        Self {
            policy: PolicyParams::Mtl(MtlParams::default()),
            session: SessionParams::default(),
        }
    }
}

impl SchedulingParams {
    /// The meaning of `config`. Where something is wrong the default stands in, so check first.
    pub fn of(config: &SchedulingConfig) -> Self {
        let top = FieldPath::default();
        check(config, Place::Path(&top)).0
    }
}

/// A policy with what it needs.
#[derive(Debug, Clone, PartialEq)]
pub enum PolicyParams {
    /// Marginal total latency: least time cost, to the request and to others.
    Mtl(MtlParams),
    /// Uncached tokens times requests in flight.
    Lmetric,
    /// Requests in flight.
    LeastRequest,
    /// Latency as measured here.
    LeastLatency(LeastLatencyParams),
    /// KV cache use as reported.
    GpuUsage,
    /// Longest cached prefix, with a bound on load.
    PrefixCache,
    /// Share of the prompt cached, and load.
    KvcacheAware,
    /// Adapter loaded, then load.
    LoraAffinity,
    /// Chance.
    Random,
    /// In turn.
    RoundRobin,
    /// By session, with a bound on load.
    Session,
    /// By the prompt's beginning, with a bound on load.
    BoundedHash,
    /// The warm engine until it is saturated.
    Sticky,
    /// Kthena's weighted plug-ins.
    Kthena(KthenaParams),
}

/// Weights of marginal total latency.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MtlParams {
    /// a: delay inflicted on requests there.
    pub inflicted: f64,
    /// b: slower decoding.
    pub decode: f64,
    /// m: price of the engine's time.
    pub price: f64,
}

impl Default for MtlParams {
    /// Found by simulation over all workloads of `make sim`: less of either loses to least uncached tokens times
    /// requests on sessions, more of either loses hits.
    fn default() -> Self {
        Self {
            inflicted: 0.4,
            decode: 0.3,
            price: 1.0,
        }
    }
}

/// Of least latency.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LeastLatencyParams {
    /// Share of the time to first token in the cost, 0 to 1.
    pub first_token_weight: f64,
}

impl Default for LeastLatencyParams {
    fn default() -> Self {
        Self {
            first_token_weight: 0.5,
        }
    }
}

/// Where a request's session is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionParams {
    /// Header field, in lower case.
    pub header: String,
    /// Cookie.
    pub cookie: Option<String>,
}

impl Default for SessionParams {
    fn default() -> Self {
        Self {
            header: "x-session-id".into(),
            cookie: None,
        }
    }
}

#[cfg(test)]
mod tests;
