//! Policies of one formula: least-request a second old, LPWL, Dynamo's linear cost and SGLang's cache-aware switch.

use std::time::Duration;

use rand::rngs::SmallRng;
use sluice_proxy::schedule::CandidateView;

use super::{least, matched, uncached};
use crate::sim::cache::IndexKind;
use crate::sim::replica::{Arrival, Knowledge, Router};

/// Kthena's least-request at the time of its benchmark: running + 100 x waiting, read once a second.
pub(super) struct StaleLeastRequest;

impl Router for StaleLeastRequest {
    fn choose(
        &mut self,
        _: &Arrival<'_>,
        candidates: &[CandidateView<'_>],
        random: &mut SmallRng,
    ) -> Option<usize> {
        least(candidates, random, |_, candidate| {
            let reported = candidate.reported;
            reported.running.unwrap_or(0.0) + 100.0 * reported.waiting.unwrap_or(0.0)
        })
    }

    fn knowledge(&self) -> Knowledge {
        Knowledge {
            index: IndexKind::Events,
            poll: Some(Duration::from_secs(1)),
        }
    }
}

/// Least pending work: min q + u.
pub(super) struct LeastPending;

impl Router for LeastPending {
    fn choose(
        &mut self,
        arrival: &Arrival<'_>,
        candidates: &[CandidateView<'_>],
        random: &mut SmallRng,
    ) -> Option<usize> {
        least(candidates, random, |_, candidate| {
            candidate.load.pending_tokens as f64 + uncached(arrival.view.prompt_tokens, candidate)
        })
    }
}

/// Dynamo: prefill blocks still to compute, overlap credited, plus blocks held after placing. Temperature zero.
pub(super) struct Dynamo;

const DYNAMO_BLOCK: f64 = 64.0;

impl Router for Dynamo {
    fn choose(
        &mut self,
        arrival: &Arrival<'_>,
        candidates: &[CandidateView<'_>],
        random: &mut SmallRng,
    ) -> Option<usize> {
        let prompt = arrival.view.prompt_tokens;
        least(candidates, random, |_, candidate| {
            let prefill = candidate.load.pending_tokens as f64 + uncached(prompt, candidate);
            let held = candidate.load.context_tokens as f64 + f64::from(prompt);
            (prefill / DYNAMO_BLOCK).ceil() + (held / DYNAMO_BLOCK).ceil()
        })
    }
}

/// SGLang's cache-aware policy: shortest queue while unbalanced, else the best match if it is good enough, else the
/// least loaded. Its tree of what was dispatched is not bounded by the engines' memory.
pub(super) struct CacheAware;

const BALANCE_ABSOLUTE: f64 = 32.0;
const BALANCE_RELATIVE: f64 = 1.1;
const MATCH: f64 = 0.5;

impl Router for CacheAware {
    fn choose(
        &mut self,
        arrival: &Arrival<'_>,
        candidates: &[CandidateView<'_>],
        random: &mut SmallRng,
    ) -> Option<usize> {
        let loads = || {
            let able = candidates.iter().filter(|one| one.excluded.is_none());
            able.map(|candidate| f64::from(candidate.load.in_flight))
        };
        let most = loads().fold(0.0, f64::max);
        let fewest = loads().fold(f64::INFINITY, f64::min);
        let unbalanced = most - fewest > BALANCE_ABSOLUTE && most > BALANCE_RELATIVE * fewest;
        let share = |candidate: &CandidateView<'_>| matched(arrival.view.prompt_tokens, candidate);
        let able = candidates.iter().filter(|one| one.excluded.is_none());
        let best = able.map(share).fold(0.0, f64::max);
        if unbalanced || best <= MATCH {
            return least(candidates, random, |_, one| f64::from(one.load.in_flight));
        }
        least(candidates, random, |_, candidate| -share(candidate))
    }

    fn knowledge(&self) -> Knowledge {
        Knowledge {
            index: IndexKind::Unbounded,
            poll: None,
        }
    }
}
