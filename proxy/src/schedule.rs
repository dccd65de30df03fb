//! Scheduling: which endpoint of a pool takes a request. Pure: a policy sees a view of the candidates and a
//! random source, and ranks.
//!
//! Not for health, draining or what a filter removed: such endpoints are marked before a policy looks.

mod least_in_flight;

use rand::RngCore;

pub use least_in_flight::LeastInFlight;

/// What a policy may know of the request.
#[derive(Debug, Clone, Copy)]
pub struct RequestView<'a> {
    /// Model as the client named it.
    pub model: &'a str,
    /// Bytes of prompt text.
    pub prompt_bytes: usize,
    /// Session hint.
    pub session: Option<&'a str>,
}

/// One endpoint as a policy sees it.
#[derive(Debug, Clone)]
pub struct CandidateView<'a> {
    /// `host:port`.
    pub address: &'a str,
    /// Requests this gateway has in flight there.
    pub in_flight: u32,
    /// Cost added by filters, in milliseconds.
    pub penalty_ms: f64,
    /// Why it must not be chosen, if so.
    pub excluded: Option<&'static str>,
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
}
