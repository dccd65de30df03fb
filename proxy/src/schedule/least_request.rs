//! Fewest requests in flight: counts are the gateway's own, so they are never stale.

use rand::RngCore;

use super::rank::{self, Band};
use super::{CandidateView, Policy, Ranked, RequestView};

/// Fewest requests in flight wins; among equals, chance.
#[derive(Debug, Default, Clone, Copy)]
pub struct LeastRequest;

/// What one request in flight weighs against a filter's penalty, in milliseconds.
pub(super) const REQUEST_MS: f64 = 100.0;

impl Policy for LeastRequest {
    fn name(&self) -> &'static str {
        "least-request"
    }

    fn rank(
        &self,
        _request: &RequestView<'_>,
        candidates: &[CandidateView<'_>],
        random: &mut dyn RngCore,
    ) -> Vec<Ranked> {
        rank::rank(candidates, Band::EXACT, random, |_, candidate| {
            let cost = f64::from(candidate.load.in_flight) * REQUEST_MS;
            (cost, "requests in flight")
        })
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;
    use crate::schedule::testing::with_in_flight;

    fn order(candidates: &[CandidateView<'_>], seed: u64) -> Vec<usize> {
        let mut random = SmallRng::seed_from_u64(seed);
        let ranking = LeastRequest.rank(&RequestView::default(), candidates, &mut random);
        ranking.iter().map(|ranked| ranked.index).collect()
    }

    #[test]
    fn the_least_loaded_comes_first_and_all_are_ranked() {
        assert_eq!(order(&with_in_flight(&[3, 0, 2]), 1), [1, 2, 0]);
    }

    #[test]
    fn equals_are_chosen_evenly() {
        let equal = with_in_flight(&[0, 0, 0]);
        let mut first = [0u32; 3];
        for seed in 0..3000 {
            first[order(&equal, seed)[0]] += 1;
        }
        assert!(
            first.iter().all(|&count| (850..1150).contains(&count)),
            "{first:?}"
        );
    }

    #[test]
    fn excluded_candidates_do_not_appear() {
        let mut some = with_in_flight(&[0, 5]);
        some[0].excluded = Some("ejected");
        assert_eq!(order(&some, 1), [1]);
    }

    #[test]
    fn a_filters_penalty_outweighs_load() {
        let mut some = with_in_flight(&[0, 1]);
        some[0].penalty_ms = 150.0;
        assert_eq!(order(&some, 1), [1, 0]);
    }
}
