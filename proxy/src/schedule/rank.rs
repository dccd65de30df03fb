//! What policies share: costs to a ranking, chance among near-equals, and means over what is known.
//!
//! Every cost is in milliseconds. A policy that counts something else says what its unit is worth, so that the
//! penalties filters add weigh in everywhere.

use rand::RngCore;
use rand::seq::SliceRandom;

use super::{CandidateView, Ranked, Term};

/// Costs this close to the best are equals, and chance decides: what is seen is a little old and a little wrong,
/// and all who see the same would otherwise go to the same endpoint.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Band {
    /// As a part of the best cost.
    pub relative: f64,
    /// In milliseconds.
    pub absolute_ms: f64,
}

impl Band {
    /// Only equals are equal.
    pub const EXACT: Self = Self {
        relative: 0.0,
        absolute_ms: 0.0,
    };

    /// For costs that are times: 1 % or half a millisecond, whichever is more.
    pub const TIME: Self = Self {
        relative: 0.01,
        absolute_ms: 0.5,
    };

    fn limit(self, best: f64) -> f64 {
        best + (best.abs() * self.relative).max(self.absolute_ms)
    }
}

/// The candidates that may be chosen, with their indexes.
pub(super) fn eligible<'a, 'b>(
    candidates: &'a [CandidateView<'b>],
) -> impl Iterator<Item = (usize, &'a CandidateView<'b>)> {
    candidates
        .iter()
        .enumerate()
        .filter(|(_, candidate)| candidate.excluded.is_none())
}

/// Ranks by what `charge` says a candidate costs and why, penalties added. The best and its near-equals come
/// first in random order, the others by cost, equals among them at random.
pub(super) fn rank(
    candidates: &[CandidateView<'_>],
    band: Band,
    mut random: &mut dyn RngCore,
    mut charge: impl FnMut(usize, &CandidateView<'_>) -> (f64, &'static str),
) -> Vec<Ranked> {
    let mut ranking = Vec::with_capacity(candidates.len());
    for (index, candidate) in eligible(candidates) {
        let (cost, reason) = charge(index, candidate);
        let cost = finite(cost + candidate.penalty_ms);
        ranking.push(Ranked {
            index,
            cost,
            reason,
        });
    }
    ranking.shuffle(&mut random);
    // Stable, so equals stay in their shuffled order.
    ranking.sort_by(|a, b| a.cost.total_cmp(&b.cost));
    if let Some(best) = ranking.first() {
        let limit = band.limit(best.cost);
        let near = ranking.partition_point(|ranked| ranked.cost <= limit);
        ranking[..near].shuffle(&mut random);
    }
    ranking
}

/// A cost that cannot be told is the worst there is.
fn finite(cost: f64) -> f64 {
    if cost.is_finite() { cost } else { f64::MAX }
}

/// A cost from its parts.
pub(super) fn sum(parts: &[Term]) -> f64 {
    parts.iter().map(|part| part.value).sum()
}

/// The part that [`rank`] adds.
pub(super) fn penalty(candidate: &CandidateView<'_>) -> Term {
    Term {
        name: "penalty of filters and failures",
        value: candidate.penalty_ms,
    }
}

/// What one place in an order weighs against a penalty, in milliseconds.
pub(super) const PLACE_MS: f64 = 100.0;

/// Ranks in the given order, which penalties may change.
pub(super) fn in_order(
    candidates: &[CandidateView<'_>],
    order: impl IntoIterator<Item = usize>,
    reason: &'static str,
) -> Vec<Ranked> {
    let mut ranking: Vec<Ranked> = (order.into_iter().enumerate())
        .map(|(place, index)| Ranked {
            index,
            cost: finite(place as f64 * PLACE_MS + candidates[index].penalty_ms),
            reason,
        })
        .collect();
    ranking.sort_by(|a, b| a.cost.total_cmp(&b.cost));
    ranking
}

/// Mean of what is known, over the candidates that may be chosen: what an unknown value is taken to be.
pub(super) fn mean_of_known(
    candidates: &[CandidateView<'_>],
    value: impl Fn(&CandidateView<'_>) -> Option<f64>,
) -> Option<f64> {
    let (sum, count) = eligible(candidates)
        .filter_map(|(_, candidate)| value(candidate).filter(|value| value.is_finite()))
        .fold((0.0, 0u32), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    fn ranked(costs: &[f64], band: Band, seed: u64) -> Vec<Ranked> {
        let candidates = vec![CandidateView::default(); costs.len()];
        let mut random = SmallRng::seed_from_u64(seed);
        rank(&candidates, band, &mut random, |index, _| {
            (costs[index], "cost")
        })
    }

    #[test]
    fn near_equals_share_the_first_place_and_others_never_get_it() {
        let mut first = [0u32; 4];
        for seed in 0..3000 {
            let ranking = ranked(&[100.0, 100.9, 101.1, 1e6], Band::TIME, seed);
            first[ranking[0].index] += 1;
            assert_eq!(ranking[3].index, 3);
        }
        assert!(first[0] > 1350 && first[1] > 1350, "{first:?}");
        assert_eq!(first[2..], [0, 0]);
    }

    #[test]
    fn costs_that_are_no_numbers_come_last_and_stay_finite() {
        for seed in 0..50 {
            let ranking = ranked(
                &[f64::NAN, 5.0, f64::INFINITY, f64::NEG_INFINITY, 1.0],
                Band::TIME,
                seed,
            );
            let order: Vec<usize> = ranking.iter().map(|ranked| ranked.index).collect();
            assert_eq!(order[..2], [4, 1]);
            assert!(ranking.iter().all(|ranked| ranked.cost.is_finite()));
        }
    }

    #[test]
    fn a_penalty_moves_a_candidate_back_in_an_order() {
        let mut candidates = vec![CandidateView::default(); 3];
        candidates[2].penalty_ms = 150.0;
        let ranking = in_order(&candidates, [2, 0, 1], "in turn");
        let order: Vec<usize> = ranking.iter().map(|ranked| ranked.index).collect();
        assert_eq!(order, [0, 2, 1]);
    }

    #[test]
    fn the_mean_is_over_what_is_known_of_those_that_may_be_chosen() {
        let mut candidates = vec![CandidateView::default(); 4];
        for (candidate, ttft_ms) in
            candidates
                .iter_mut()
                .zip([Some(1.0), None, Some(3.0), Some(100.0)])
        {
            candidate.ttft_ms = ttft_ms;
        }
        candidates[3].excluded = Some("ejected");
        assert_eq!(mean_of_known(&candidates, |c| c.ttft_ms), Some(2.0));
        assert_eq!(mean_of_known(&candidates, |c| c.token_gap_ms), None);
    }
}
