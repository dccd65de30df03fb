//! Least latency, as measured here and times what is in flight, so that a good figure does not draw everybody
//! before it can change (after linkerd's peak EWMA).

use rand::RngCore;
use sluice_config::scheduling::LeastLatencyParams;

use super::rank::{self, Band, mean_of_known};
use super::{CandidateView, Policy, Ranked, RequestView};

/// Latency to reckon with where nothing was measured anywhere, in milliseconds: load alone then decides.
const UNKNOWN_MS: f64 = 100.0;

/// Near-equal latencies are noise.
const BAND: Band = Band {
    relative: 0.05,
    absolute_ms: 0.5,
};

/// Least time to first token and between tokens, weighted, times requests there.
#[derive(Debug, Default, Clone, Copy)]
pub struct LeastLatency {
    /// How the two latencies are weighed.
    pub params: LeastLatencyParams,
}

impl Policy for LeastLatency {
    fn name(&self) -> &'static str {
        "least-latency"
    }

    fn rank(
        &self,
        request: &RequestView<'_>,
        candidates: &[CandidateView<'_>],
        random: &mut dyn RngCore,
    ) -> Vec<Ranked> {
        let known = |value: Option<f64>| value.filter(|ms| ms.is_finite() && *ms >= 0.0);
        let mean_ttft = mean_of_known(candidates, |c| known(c.ttft_ms)).unwrap_or(UNKNOWN_MS);
        let mean_gap = mean_of_known(candidates, |c| known(c.token_gap_ms)).unwrap_or(0.0);
        let first = self.params.first_token_weight;
        rank::rank(candidates, BAND, random, |_, candidate| {
            let ttft = known(candidate.ttft_ms).unwrap_or(mean_ttft);
            let decode = known(candidate.token_gap_ms).unwrap_or(mean_gap) * request.output();
            let latency = first * ttft + (1.0 - first) * decode;
            let batch = f64::from(candidate.load.in_flight) + 1.0;
            (
                latency.max(f64::MIN_POSITIVE) * batch,
                "latency measured times requests there",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;
    use crate::schedule::testing::with_in_flight;

    fn best(candidates: &[CandidateView<'_>]) -> usize {
        let request = RequestView {
            output_tokens: 100.0,
            ..RequestView::default()
        };
        let mut random = SmallRng::seed_from_u64(1);
        LeastLatency::default().rank(&request, candidates, &mut random)[0].index
    }

    fn measured(latencies: &[(Option<f64>, Option<f64>)]) -> Vec<CandidateView<'static>> {
        let mut candidates = with_in_flight(&vec![0; latencies.len()]);
        for (candidate, &(ttft_ms, token_gap_ms)) in candidates.iter_mut().zip(latencies) {
            (candidate.ttft_ms, candidate.token_gap_ms) = (ttft_ms, token_gap_ms);
        }
        candidates
    }

    #[test]
    fn both_latencies_count_over_the_whole_answer() {
        // 200 + 100 x 10 against 800 + 100 x 5.
        let candidates = measured(&[(Some(200.0), Some(10.0)), (Some(800.0), Some(5.0))]);
        assert_eq!(best(&candidates), 0);
        let candidates = measured(&[(Some(200.0), Some(10.0)), (Some(200.0), Some(5.0))]);
        assert_eq!(best(&candidates), 1);
    }

    #[test]
    fn an_endpoint_never_measured_is_taken_for_average() {
        let candidates = measured(&[
            (Some(100.0), Some(10.0)),
            (None, None),
            (Some(400.0), Some(40.0)),
        ]);
        let mut random = SmallRng::seed_from_u64(1);
        let policy = LeastLatency::default();
        let ranking = policy.rank(&RequestView::default(), &candidates, &mut random);
        let order: Vec<usize> = ranking.iter().map(|ranked| ranked.index).collect();
        assert_eq!(order, [0, 1, 2]);
    }

    #[test]
    fn load_holds_the_herd_back() {
        let mut candidates = measured(&[(Some(100.0), Some(10.0)), (Some(200.0), Some(20.0))]);
        candidates[0].load.in_flight = 2;
        assert_eq!(best(&candidates), 1);
        let mut candidates = measured(&[(None, None), (None, None)]);
        candidates[1].load.in_flight = 1;
        assert_eq!(best(&candidates), 0);
    }
}
