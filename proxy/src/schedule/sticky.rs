//! Sticky until saturated, after llm-d: whoever holds most of the prompt keeps it until its queue is longer than
//! the shortest by a bound; then whoever is done with it first.

use rand::RngCore;

use super::rank::{self, Band, eligible};
use super::{CandidateView, Policy, Ranked, RequestView};

/// Share of the prompt that makes an endpoint warm.
const WARM_SHARE: f64 = 0.8;
/// An endpoint whose cache would be fuller than this has no room.
const FULL_SHARE: f64 = 0.95;
/// To be away from the cache weighs more than any queue, in milliseconds.
const AWAY_MS: f64 = 1e6;

const BAND: Band = Band {
    relative: 0.0,
    ..Band::TIME
};

/// Warm endpoints that are not saturated first; among them, and among the others, the least work to prefill.
#[derive(Debug, Clone, Copy)]
pub struct Sticky {
    /// A warm endpoint is left when its queue is longer than the shortest by this, in milliseconds. llm-d waits for
    /// 14 s of work, which is too late for any target on the first token.
    pub saturation_ms: f64,
}

impl Default for Sticky {
    fn default() -> Self {
        Self {
            saturation_ms: 2000.0,
        }
    }
}

impl Policy for Sticky {
    fn name(&self) -> &'static str {
        "sticky"
    }

    fn rank(
        &self,
        request: &RequestView<'_>,
        candidates: &[CandidateView<'_>],
        random: &mut dyn RngCore,
    ) -> Vec<Ranked> {
        let queue_ms = |candidate: &CandidateView<'_>| candidate.wait_ms() + candidate.penalty_ms;
        let shortest = eligible(candidates)
            .map(|(_, candidate)| queue_ms(candidate))
            .fold(f64::INFINITY, f64::min);
        rank::rank(candidates, BAND, random, |_, candidate| {
            let tokens = candidate.load.pending_tokens as f64 + candidate.uncached(request);
            let work = tokens * candidate.constants.token_ms;
            if is_full(request, candidate) {
                (2.0 * AWAY_MS + work, "its cache has no room")
            } else if candidate.cached_share(request) < WARM_SHARE {
                (AWAY_MS + work, "not warm: least to prefill")
            } else if queue_ms(candidate) > shortest + self.saturation_ms {
                (AWAY_MS + work, "warm, but saturated")
            } else {
                (work, "warm and not saturated")
            }
        })
    }
}

fn is_full(request: &RequestView<'_>, candidate: &CandidateView<'_>) -> bool {
    let context = candidate.load.context_tokens as f64;
    let more = candidate.uncached(request) + request.output();
    context + more > FULL_SHARE * candidate.constants.kv_tokens
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;
    use crate::schedule::testing::with_in_flight;

    fn best(cached: &[u32], pending: &[u64], context: &[u64]) -> usize {
        let mut candidates = with_in_flight(&vec![0; cached.len()]);
        for (index, candidate) in candidates.iter_mut().enumerate() {
            candidate.cached_tokens = cached[index];
            candidate.load.pending_tokens = pending[index];
            candidate.load.context_tokens = context[index];
        }
        let request = RequestView {
            prompt_tokens: 1000,
            ..RequestView::default()
        };
        let mut random = SmallRng::seed_from_u64(1);
        Sticky::default().rank(&request, &candidates, &mut random)[0].index
    }

    #[test]
    fn a_warm_endpoint_keeps_its_prompts_until_its_queue_is_too_long() {
        // About 31 tokens are prefilled in a millisecond.
        assert_eq!(best(&[800, 0], &[60_000, 0], &[0, 0]), 0);
        assert_eq!(best(&[800, 0], &[70_000, 0], &[0, 0]), 1);
        assert_eq!(best(&[800, 0], &[100_000, 60_000], &[0, 0]), 0);
    }

    #[test]
    fn without_a_warm_endpoint_the_least_to_prefill_wins() {
        assert_eq!(best(&[700, 0], &[200, 0], &[0, 0]), 0);
        assert_eq!(best(&[700, 0], &[900, 0], &[0, 0]), 1);
    }

    #[test]
    fn an_endpoint_without_room_comes_last() {
        assert_eq!(best(&[1000, 0], &[0, 0], &[370_000, 0]), 1);
    }
}
