//! Other routers' policies, written from their papers and documentation, to compare with.
//!
//! Each is given an ideal world: no delay of its own, the engines' true cache contents where it is built to have
//! them, and its own staleness only where that is part of its design. The gateway's own policies are not here.

mod dualmap;
mod hashing;
mod kthena;
mod llmd;
mod simple;

use rand::Rng;
use rand::rngs::SmallRng;
use sluice_proxy::schedule::CandidateView;

use super::replica::Router;

/// Names of all rivals.
pub(super) const NAMES: [&str; 12] = [
    "stale-least-request",
    "kthena-prefix",
    "kthena-kvcache",
    "sglang",
    "llmd-322",
    "llmd-322-approx",
    "llmd-111-approx",
    "llmd-sticky",
    "kubeai-hash",
    "dualmap",
    "dynamo",
    "lpwl",
];

/// The rival of that name.
pub(super) fn named(name: &str) -> Option<Box<dyn Router>> {
    Some(match name {
        "stale-least-request" => Box::new(simple::StaleLeastRequest),
        "lpwl" => Box::new(simple::LeastPending),
        "dynamo" => Box::new(simple::Dynamo),
        "sglang" => Box::new(simple::CacheAware),
        "kthena-prefix" => Box::new(kthena::Kthena::prefix()),
        "kthena-kvcache" => Box::new(kthena::Kthena::kvcache()),
        "llmd-322" => Box::new(llmd::Blend::PRECISE),
        "llmd-322-approx" => Box::new(llmd::Blend::APPROXIMATE),
        "llmd-111-approx" => Box::new(llmd::Blend::EVEN),
        "llmd-sticky" => Box::new(llmd::Sticky),
        "kubeai-hash" => Box::new(hashing::BoundedLoad::default()),
        "dualmap" => Box::new(dualmap::DualMap),
        _ => return None,
    })
}

/// The candidate of least cost, chance among equals.
fn least(
    candidates: &[CandidateView<'_>],
    random: &mut SmallRng,
    cost: impl Fn(usize, &CandidateView<'_>) -> f64,
) -> Option<usize> {
    let mut best = None;
    let (mut least, mut equals) = (f64::INFINITY, 0);
    for (index, candidate) in candidates.iter().enumerate() {
        if candidate.excluded.is_some() {
            continue;
        }
        let cost = cost(index, candidate);
        if best.is_none() || cost < least {
            (best, least, equals) = (Some(index), cost, 1);
        } else if cost == least {
            equals += 1;
            if random.random_range(0..equals) == 0 {
                best = Some(index);
            }
        }
    }
    best
}

/// The share of the prompt that the candidate holds.
fn matched(prompt_tokens: u32, candidate: &CandidateView<'_>) -> f64 {
    f64::from(candidate.cached_tokens) / f64::from(prompt_tokens.max(1))
}

/// Prompt tokens that the candidate would have to compute.
fn uncached(prompt_tokens: u32, candidate: &CandidateView<'_>) -> f64 {
    f64::from(prompt_tokens.saturating_sub(candidate.cached_tokens))
}
