//! Marginal total latency: what one more request costs, in milliseconds, to itself and to all others.
//!
//! With u tokens to prefill of P, q pending, x tokens of context, n requests in flight and o tokens to come:
//!
//! ```text
//! prefill = u * (D + Kp*(P - u/2))                      this request's prefill
//! wait    = q * (sqrt(W^2 + (D*Bt)^2) + Kd*x) / Bt      everything pending, in full steps
//! cost    = wait + prefill + Kd*x                       its own first token
//!         + a * n * prefill                             delay inflicted on requests there
//!         + m * prefill * (1 + a*n)                     price of the engine's time, for later arrivals
//!         + b * (o*(Kd*x + R*n) + n*(Kd*P + R)*o / 2)   slower decoding: its own, that of others
//!         + excess / x * o * (W + Kd*x)                 preemption, if x + P + o exceeds 95 % of the KV cache
//!         + unfair wait                                 in overload, wait above 1.25 times the mean
//! ```
//!
//! Times and not scores, so that a request is not taken for a token; prices, so that a warm engine is kept without
//! a threshold and left smoothly. With u near 0 everywhere q, x and n decide: R, what one more sequence adds to a step,
//! spreads prompts of a few tokens, which hold no context either. A wrong o scales the decode terms and nothing else.

use rand::RngCore;
use sluice_config::scheduling::MtlParams;

use super::rank::{self, Band, eligible, mean_of_known};
use super::{CandidateView, Policy, Ranked, RequestView, Term};

/// Share of the KV cache above which preemption is reckoned with.
const FULL_SHARE: f64 = 0.95;

/// R as a share of W: launch, scheduling and sampling of one sequence. Between 1/1840 and 1/730 on the engines
/// measured, too little to be learned beside W, and slower where W is.
const SEQUENCE_SHARE: f64 = 1e-3;

/// The default policy.
#[derive(Debug, Clone, Copy)]
pub struct Mtl {
    /// Weights a, b and m.
    pub weights: MtlParams,
    /// What counts as equal.
    pub band: Band,
    /// Where every cache is used between these shares, the decode terms fade out: nowhere is decoding cheaper
    /// then, and spreading costs hits.
    pub fade: (f64, f64),
    /// Where the mean wait is between these times, in milliseconds, the bound on unfair waits fades in.
    pub overload_ms: (f64, f64),
    /// Wait above this many times the mean is unfair; infinite: any is fair.
    pub fair_ratio: f64,
}

impl Default for Mtl {
    fn default() -> Self {
        Self::new(MtlParams::default())
    }
}

/// What holds for all candidates of one ranking.
struct Pool {
    /// b, faded.
    decode: f64,
    /// Mean wait in milliseconds.
    mean_wait: f64,
    /// 0 in calm, 1 in overload.
    overload: f64,
}

impl Mtl {
    /// With these weights and everything else by default.
    pub fn new(weights: MtlParams) -> Self {
        Self {
            weights,
            band: Band::TIME,
            fade: (0.80, 0.95),
            overload_ms: (250.0, 1000.0),
            fair_ratio: 1.25,
        }
    }

    fn pool(&self, candidates: &[CandidateView<'_>]) -> Pool {
        let least_used = eligible(candidates)
            .map(|(_, candidate)| kv_share(candidate))
            .fold(f64::INFINITY, f64::min);
        let mean_wait = mean_of_known(candidates, |c| Some(c.wait_ms())).unwrap_or(0.0);
        Pool {
            decode: self.weights.decode * (1.0 - ramp(least_used, self.fade)),
            mean_wait,
            overload: ramp(mean_wait, self.overload_ms),
        }
    }

    fn parts(
        &self,
        pool: &Pool,
        request: &RequestView<'_>,
        candidate: &CandidateView<'_>,
    ) -> [Term; 9] {
        let MtlParams {
            inflicted, price, ..
        } = self.weights;
        let (speed, load) = (candidate.constants, candidate.load);
        let (requests, context) = (f64::from(load.in_flight), load.context_tokens as f64);
        let (prompt, output) = (f64::from(request.prompt_tokens), request.output());
        let prefill = speed.prefill_ms(candidate.work(request));
        let wait = candidate.wait_ms();
        // Decode attention of one step over what is held there.
        let read = speed.context_ms * context;
        let sequence = SEQUENCE_SHARE * speed.step_ms;
        let crowd = inflicted * requests;
        let unfair = (wait - self.fair_ratio * pool.mean_wait).max(0.0);
        let own = output * (read + sequence * requests);
        let others = requests * (speed.context_ms * prompt + sequence) * output / 2.0;
        [
            ("own wait", wait),
            ("own prefill", prefill),
            ("own first step", read),
            ("delay inflicted on others", crowd * prefill),
            (
                "price of the engine's time",
                price * prefill * (1.0 + crowd),
            ),
            ("own decoding", pool.decode * own),
            ("slower decoding of others", pool.decode * others),
            ("preemption", preemption(request, candidate)),
            ("unfair wait", pool.overload * unfair * (1.0 + crowd)),
        ]
        .map(|(name, value)| Term { name, value })
    }
}

/// What is lost to preemption if the KV cache cannot hold the request beside what it holds.
fn preemption(request: &RequestView<'_>, candidate: &CandidateView<'_>) -> f64 {
    let speed = candidate.constants;
    let (prompt, output) = (f64::from(request.prompt_tokens), request.output());
    let context = candidate.load.context_tokens as f64;
    let excess = context + prompt + output - FULL_SHARE * speed.kv_tokens;
    if excess <= 0.0 {
        return 0.0;
    }
    // Of an engine that holds less than the prompt, the prompt itself is what is preempted.
    let held = context.max(prompt).max(1.0);
    excess / held * output * (speed.step_ms + speed.context_ms * context)
}

/// Share of the KV cache in use: as reported, else the context of our own requests.
fn kv_share(candidate: &CandidateView<'_>) -> f64 {
    let own = || candidate.load.context_tokens as f64 / candidate.constants.kv_tokens;
    super::gpu_usage::reported(candidate).unwrap_or_else(own)
}

/// 0 below `from`, 1 above `to`, straight between.
fn ramp(value: f64, (from, to): (f64, f64)) -> f64 {
    ((value - from) / (to - from)).clamp(0.0, 1.0)
}

impl Policy for Mtl {
    fn name(&self) -> &'static str {
        "mtl"
    }

    fn rank(
        &self,
        request: &RequestView<'_>,
        candidates: &[CandidateView<'_>],
        random: &mut dyn RngCore,
    ) -> Vec<Ranked> {
        let pool = self.pool(candidates);
        rank::rank(candidates, self.band, random, |_, candidate| {
            let parts = self.parts(&pool, request, candidate);
            (rank::sum(&parts), "time it costs, itself and others")
        })
    }

    fn terms(
        &self,
        request: &RequestView<'_>,
        candidates: &[CandidateView<'_>],
        index: usize,
    ) -> Vec<Term> {
        let candidate = &candidates[index];
        let mut terms = self
            .parts(&self.pool(candidates), request, candidate)
            .to_vec();
        terms.push(rank::penalty(candidate));
        terms
    }
}

#[cfg(test)]
mod tests;
