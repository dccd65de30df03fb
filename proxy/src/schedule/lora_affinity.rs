//! Endpoints that hold the request's adapter first, up to a bound on load; then those that can load it.

use rand::RngCore;

use super::bounded::Bound;
use super::least_request::REQUEST_MS;
use super::rank::{self, Band};
use super::{Adapter, CandidateView, Policy, Ranked, RequestView};

/// One step away from the adapter weighs more than any load.
const STEP_MS: f64 = 1e8;
/// This many requests never make an endpoint spill: loading an adapter takes long.
const FLOOR: f64 = 8.0;

/// Adapter loaded, loadable or not known, no room; within each the least loaded. A request for no adapter goes to
/// the least loaded.
#[derive(Debug, Default, Clone, Copy)]
pub struct LoraAffinity;

impl Policy for LoraAffinity {
    fn name(&self) -> &'static str {
        "lora-affinity"
    }

    fn rank(
        &self,
        request: &RequestView<'_>,
        candidates: &[CandidateView<'_>],
        random: &mut dyn RngCore,
    ) -> Vec<Ranked> {
        let bound = Bound::over(candidates, FLOOR);
        rank::rank(candidates, Band::EXACT, random, |_, candidate| {
            let (step, reason) = match candidate.adapter {
                _ if !request.lora => (0.0, "requests in flight"),
                Adapter::Loaded if bound.admits(candidate) => (0.0, "holds the adapter"),
                Adapter::Loadable => (1.0, "can load the adapter"),
                Adapter::Unknown => (1.0, "its adapters are not known"),
                Adapter::Loaded => (2.0, "holds the adapter, but is loaded above the bound"),
                Adapter::Full => (3.0, "has no room for the adapter"),
            };
            let load = f64::from(candidate.load.in_flight) * REQUEST_MS;
            (step * STEP_MS + load, reason)
        })
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;
    use crate::schedule::testing::with_in_flight;

    const ADAPTERS: [Adapter; 4] = [
        Adapter::Full,
        Adapter::Loadable,
        Adapter::Loaded,
        Adapter::Unknown,
    ];

    fn order(in_flight: &[u32; 4], lora: bool) -> Vec<usize> {
        let mut candidates = with_in_flight(in_flight);
        for (candidate, adapter) in candidates.iter_mut().zip(ADAPTERS) {
            candidate.adapter = adapter;
        }
        let request = RequestView {
            lora,
            ..RequestView::default()
        };
        let mut random = SmallRng::seed_from_u64(1);
        let ranking = LoraAffinity.rank(&request, &candidates, &mut random);
        ranking.iter().map(|ranked| ranked.index).collect()
    }

    #[test]
    fn loaded_comes_before_loadable_and_full_comes_last() {
        assert_eq!(order(&[0, 2, 6, 1], true), [2, 3, 1, 0]);
        assert_eq!(order(&[0, 2, 6, 1], false), [0, 3, 1, 2]);
    }

    #[test]
    fn a_hot_adapter_spills_to_where_it_can_be_loaded() {
        assert_eq!(order(&[0, 2, 40, 3], true), [1, 3, 2, 0]);
    }
}
