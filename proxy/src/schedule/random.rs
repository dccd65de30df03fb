//! Chance alone.

use rand::{Rng, RngCore};

use super::rank::{self, Band};
use super::{CandidateView, Policy, Ranked, RequestView};

/// Costs are drawn below this, in milliseconds: a penalty as large keeps a candidate from the first place.
const WIDTH_MS: f64 = 100.0;

/// Any candidate, as likely as any other.
#[derive(Debug, Default, Clone, Copy)]
pub struct Random;

impl Policy for Random {
    fn name(&self) -> &'static str {
        "random"
    }

    fn rank(
        &self,
        _request: &RequestView<'_>,
        candidates: &[CandidateView<'_>],
        mut random: &mut dyn RngCore,
    ) -> Vec<Ranked> {
        let mut drawn = Vec::with_capacity(candidates.len());
        drawn.resize_with(candidates.len(), || random.random_range(0.0..WIDTH_MS));
        rank::rank(candidates, Band::EXACT, &mut random, |index, _| {
            (drawn[index], "chance")
        })
    }
}
