//! LMetric: uncached prompt tokens times batch size. No constants, no weights; blind to how long the prompts are
//! that wait already.

use rand::RngCore;

use super::rank::{self, Band};
use super::{CandidateView, Policy, Ranked, RequestView};

/// What a token times a request weighs against a filter's penalty, in milliseconds: about what it delays by.
const TOKEN_REQUEST_MS: f64 = 0.03;

/// An engine reuses whole blocks and always computes the last token, even of a prompt it holds whole. Besides,
/// where every product would be nothing the batch must still decide.
const FLOOR_TOKENS: f64 = 16.0;

/// Least product of tokens to prefill and requests there, the new one among them.
#[derive(Debug, Default, Clone, Copy)]
pub struct Lmetric;

impl Policy for Lmetric {
    fn name(&self) -> &'static str {
        "lmetric"
    }

    fn rank(
        &self,
        request: &RequestView<'_>,
        candidates: &[CandidateView<'_>],
        random: &mut dyn RngCore,
    ) -> Vec<Ranked> {
        rank::rank(candidates, Band::EXACT, random, |_, candidate| {
            let tokens = candidate.uncached(request).max(FLOOR_TOKENS);
            let batch = f64::from(candidate.load.in_flight) + 1.0;
            let reason = "tokens to prefill times requests there";
            (tokens * batch * TOKEN_REQUEST_MS, reason)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::testing;

    fn best(cached: &[u32], in_flight: &[u32]) -> usize {
        testing::best(&Lmetric, cached, in_flight)
    }

    #[test]
    fn cache_and_batch_are_weighed_as_a_product() {
        // 500 x 3 against 1000 x 2, then against 1000 x 1.
        assert_eq!(best(&[500, 0], &[2, 1]), 0);
        assert_eq!(best(&[500, 0], &[2, 0]), 1);
    }

    #[test]
    fn where_all_hold_the_whole_prompt_the_smallest_batch_wins() {
        assert_eq!(best(&[1000, 1000, 1000], &[4, 2, 3]), 1);
        assert_eq!(best(&[2000, 1000, 1000], &[4, 3, 2]), 2);
    }
}
