//! KV cache use as engines report it. Reports are a little old, so requests in flight, which are not, count a
//! little too: else everybody would go to the same endpoint until the next report.

use rand::RngCore;

use super::rank::{self, Band, mean_of_known};
use super::{CandidateView, Policy, Ranked, RequestView};

/// What a full cache weighs against a filter's penalty, in milliseconds.
const FULL_MS: f64 = 1000.0;
/// One request in flight weighs as much as one per cent of the cache.
const REQUEST_MS: f64 = 10.0;
/// Use to reckon with where nobody reports any: all the same.
const UNKNOWN_USE: f64 = 0.5;

/// Two per cent of the cache are no difference.
const BAND: Band = Band {
    relative: 0.0,
    absolute_ms: 20.0,
};

/// Least share of the KV cache in use.
#[derive(Debug, Default, Clone, Copy)]
pub struct GpuUsage;

impl Policy for GpuUsage {
    fn name(&self) -> &'static str {
        "gpu-usage"
    }

    fn rank(
        &self,
        _request: &RequestView<'_>,
        candidates: &[CandidateView<'_>],
        random: &mut dyn RngCore,
    ) -> Vec<Ranked> {
        let neutral = mean_of_known(candidates, reported).unwrap_or(UNKNOWN_USE);
        rank::rank(candidates, BAND, random, |_, candidate| {
            let used = reported(candidate).unwrap_or(neutral);
            let requests = f64::from(candidate.load.in_flight);
            let reason = "share of the KV cache in use";
            (used * FULL_MS + requests * REQUEST_MS, reason)
        })
    }
}

/// Share in use, 0 to 1, if known.
pub(super) fn reported(candidate: &CandidateView<'_>) -> Option<f64> {
    let usage = candidate.reported.kv_usage?;
    usage.is_finite().then(|| usage.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;
    use crate::schedule::testing::with_in_flight;

    fn order(usages: &[Option<f64>], in_flight: &[u32]) -> Vec<usize> {
        let mut candidates = with_in_flight(in_flight);
        for (candidate, &usage) in candidates.iter_mut().zip(usages) {
            candidate.reported.kv_usage = usage;
        }
        let mut random = SmallRng::seed_from_u64(1);
        let ranking = GpuUsage.rank(&RequestView::default(), &candidates, &mut random);
        ranking.iter().map(|ranked| ranked.index).collect()
    }

    #[test]
    fn the_emptiest_cache_wins_and_a_silent_engine_counts_as_average() {
        assert_eq!(order(&[Some(0.9), None, Some(0.1)], &[0; 3]), [2, 1, 0]);
        assert_eq!(
            order(&[Some(0.9), Some(f64::NAN), Some(0.1)], &[0; 3]),
            [2, 1, 0]
        );
    }

    #[test]
    fn what_was_sent_since_the_report_counts() {
        assert_eq!(order(&[Some(0.3), Some(0.4)], &[15, 0]), [1, 0]);
    }
}
