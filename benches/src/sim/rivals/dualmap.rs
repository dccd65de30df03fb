//! DualMap: two hashes of the prompt's beginning name two engines; the one with the prompt in its cache takes it
//! while it promises to answer in time, else the faster of the two.

use rand::rngs::SmallRng;
use sluice_e2e::engine::hash;
use sluice_proxy::schedule::CandidateView;

use super::uncached;
use crate::sim::replica::{Arrival, Router};

/// Tokens that the hashes cover.
const PREFIX_TOKENS: usize = 1024;
/// Time to first token that is good enough.
const TARGET_MS: f64 = 500.0;

pub(super) struct DualMap;

impl Router for DualMap {
    fn choose(
        &mut self,
        arrival: &Arrival<'_>,
        candidates: &[CandidateView<'_>],
        _: &mut SmallRng,
    ) -> Option<usize> {
        let prefix = &arrival.tokens[..arrival.tokens.len().min(PREFIX_TOKENS)];
        let key = hash::chain(11, prefix.iter().copied());
        let able: Vec<usize> = (0..candidates.len())
            .filter(|&engine| candidates[engine].excluded.is_none())
            .collect();
        let first = *able.get((hash::mix(key, 1) % able.len().max(1) as u64) as usize)?;
        let mut second = able[(hash::mix(key, 2) % able.len() as u64) as usize];
        if second == first {
            let place = able.iter().position(|&engine| engine == first)?;
            second = able[(place + 1) % able.len()];
        }
        let wait_ms = |engine: usize| {
            let candidate = &candidates[engine];
            let tokens = candidate.load.pending_tokens as f64
                + uncached(arrival.view.prompt_tokens, candidate);
            tokens * candidate.constants.token_ms
        };
        let (warm, other) = match candidates[second].cached_tokens > candidates[first].cached_tokens
        {
            true => (second, first),
            false => (first, second),
        };
        let in_time = candidates[warm].cached_tokens > 0 && wait_ms(warm) <= TARGET_MS;
        match in_time || wait_ms(warm) <= wait_ms(other) {
            true => Some(warm),
            false => Some(other),
        }
    }
}
