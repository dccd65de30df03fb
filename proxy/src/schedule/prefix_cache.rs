//! Longest cached prefix, however much work waits there, up to a bound on load: a prefix that everybody sends fills
//! its endpoint to that bound, spills to the least loaded, and is then cached there too.

use rand::RngCore;

use super::bounded::Bound;
use super::rank::{self, Band};
use super::{CandidateView, Policy, Ranked, RequestView};

/// Tokens are compared in blocks, as engines cache them.
const BLOCK_TOKENS: f64 = 16.0;
/// What a block to prefill weighs against a filter's penalty, in milliseconds.
const BLOCK_MS: f64 = 0.5;
/// A request in flight weighs less than any block.
const REQUEST_MS: f64 = 0.001;
/// An endpoint above the bound weighs more than any prompt.
const SPILL_MS: f64 = 1e6;
/// This many requests never make an endpoint spill.
const FLOOR: f64 = 8.0;

/// Longest match wins, then the least loaded; none above 1.25 times the mean load.
#[derive(Debug, Default, Clone, Copy)]
pub struct PrefixCache;

impl Policy for PrefixCache {
    fn name(&self) -> &'static str {
        "prefix-cache"
    }

    fn rank(
        &self,
        request: &RequestView<'_>,
        candidates: &[CandidateView<'_>],
        random: &mut dyn RngCore,
    ) -> Vec<Ranked> {
        let bound = Bound::over(candidates, FLOOR);
        rank::rank(candidates, Band::EXACT, random, |_, candidate| {
            let blocks = (candidate.uncached(request) / BLOCK_TOKENS).ceil();
            let requests = f64::from(candidate.load.in_flight);
            if bound.admits(candidate) {
                let cost = blocks * BLOCK_MS + requests * REQUEST_MS;
                (cost, "longest cached prefix, then load")
            } else {
                (SPILL_MS + requests, "too loaded for its cache to count")
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::testing;

    fn best(cached: &[u32], in_flight: &[u32]) -> usize {
        testing::best(&PrefixCache, cached, in_flight)
    }

    #[test]
    fn the_longest_match_wins_over_load_and_load_among_equals() {
        assert_eq!(best(&[320, 640, 0], &[0, 5, 0]), 1);
        assert_eq!(best(&[640, 640, 0], &[5, 4, 0]), 1);
        assert_eq!(
            best(&[640, 645, 0], &[4, 5, 0]),
            0,
            "less than a block is no match"
        );
    }

    #[test]
    fn above_the_bound_the_cache_does_not_count() {
        assert_eq!(best(&[1000, 0, 0], &[20, 9, 8]), 2);
        assert_eq!(
            best(&[1000, 0, 0], &[7, 0, 0]),
            0,
            "few requests never spill"
        );
    }
}
