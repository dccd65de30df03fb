//! Share of the prompt that an endpoint's cache holds, against its share of the load.

use rand::RngCore;

use super::rank::{self, Band, mean_of_known};
use super::{CandidateView, Policy, Ranked, RequestView, Term};

/// What a whole prompt to prefill weighs, and as much as the mean load, in milliseconds.
const WHOLE_MS: f64 = 1000.0;

/// A whole prompt cached is worth one mean load more.
#[derive(Debug, Default, Clone, Copy)]
pub struct KvcacheAware;

impl KvcacheAware {
    fn parts(
        request: &RequestView<'_>,
        mean_load: f64,
        candidate: &CandidateView<'_>,
    ) -> [Term; 2] {
        let load = f64::from(candidate.load.in_flight) / (mean_load + 1.0);
        [
            Term {
                name: "share of the prompt to prefill",
                value: (1.0 - candidate.cached_share(request)) * WHOLE_MS,
            },
            Term {
                name: "share of the load",
                value: load * WHOLE_MS,
            },
        ]
    }
}

fn mean_load(candidates: &[CandidateView<'_>]) -> f64 {
    mean_of_known(candidates, |c| Some(f64::from(c.load.in_flight))).unwrap_or(0.0)
}

impl Policy for KvcacheAware {
    fn name(&self) -> &'static str {
        "kvcache-aware"
    }

    fn rank(
        &self,
        request: &RequestView<'_>,
        candidates: &[CandidateView<'_>],
        random: &mut dyn RngCore,
    ) -> Vec<Ranked> {
        let mean_load = mean_load(candidates);
        rank::rank(candidates, Band::EXACT, random, |_, candidate| {
            let parts = Self::parts(request, mean_load, candidate);
            (rank::sum(&parts), "share of the prompt cached, and load")
        })
    }

    fn terms(
        &self,
        request: &RequestView<'_>,
        candidates: &[CandidateView<'_>],
        index: usize,
    ) -> Vec<Term> {
        let candidate = &candidates[index];
        let mut terms = Self::parts(request, mean_load(candidates), candidate).to_vec();
        terms.push(rank::penalty(candidate));
        terms
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::testing;

    fn best(cached: &[u32], in_flight: &[u32]) -> usize {
        testing::best(&KvcacheAware, cached, in_flight)
    }

    #[test]
    fn a_whole_prompt_cached_is_worth_one_mean_load() {
        assert_eq!(best(&[1000, 0, 0], &[4, 1, 1]), 0);
        assert_eq!(best(&[1000, 0, 0], &[12, 1, 2]), 1);
        assert_eq!(best(&[300, 0, 0], &[3, 2, 1]), 2);
    }
}
