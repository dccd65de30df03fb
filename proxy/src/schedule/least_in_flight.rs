//! Least in flight, ties at random: counts are the gateway's own, so they are never stale.

use rand::seq::SliceRandom;
use rand::{Rng, RngCore};

use super::{CandidateView, Policy, Ranked, RequestView};

/// Fewest requests in flight wins; among equals, chance.
#[derive(Debug, Default, Clone, Copy)]
pub struct LeastInFlight;

/// What one request in flight weighs against a filter's penalty, in milliseconds.
const REQUEST_MS: f64 = 100.0;

impl Policy for LeastInFlight {
    fn name(&self) -> &'static str {
        "least-request"
    }

    fn rank(
        &self,
        _request: &RequestView<'_>,
        candidates: &[CandidateView<'_>],
        random: &mut dyn RngCore,
    ) -> Vec<Ranked> {
        let mut ranking: Vec<Ranked> = candidates
            .iter()
            .enumerate()
            .filter(|(_, candidate)| candidate.excluded.is_none())
            .map(|(index, candidate)| Ranked {
                index,
                cost: f64::from(candidate.load.in_flight) * REQUEST_MS + candidate.penalty_ms,
                reason: "requests in flight",
            })
            .collect();
        let mut random = random;
        if ranking.len() == 2 {
            if random.random() {
                ranking.swap(0, 1);
            }
        } else {
            ranking.shuffle(&mut random);
        }
        // Stable, so equals stay in their shuffled order.
        ranking.sort_by(|a, b| a.cost.total_cmp(&b.cost));
        ranking
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;
    use crate::endpoints::load::Load;

    fn candidates(in_flight: &[u32]) -> Vec<CandidateView<'static>> {
        in_flight
            .iter()
            .map(|&in_flight| CandidateView {
                address: "a:1",
                load: Load {
                    in_flight,
                    ..Load::default()
                },
                ..CandidateView::default()
            })
            .collect()
    }

    fn order(candidates: &[CandidateView<'_>], seed: u64) -> Vec<usize> {
        let mut random = SmallRng::seed_from_u64(seed);
        let ranking = LeastInFlight.rank(&RequestView::default(), candidates, &mut random);
        ranking.iter().map(|ranked| ranked.index).collect()
    }

    #[test]
    fn the_least_loaded_comes_first_and_all_are_ranked() {
        assert_eq!(order(&candidates(&[3, 0, 2]), 1), [1, 2, 0]);
    }

    #[test]
    fn equals_are_chosen_evenly() {
        let equal = candidates(&[0, 0, 0]);
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
        let mut some = candidates(&[0, 5]);
        some[0].excluded = Some("ejected");
        assert_eq!(order(&some, 1), [1]);
    }

    #[test]
    fn a_filters_penalty_outweighs_load() {
        let mut some = candidates(&[0, 1]);
        some[0].penalty_ms = 150.0;
        assert_eq!(order(&some, 1), [1, 0]);
    }
}
