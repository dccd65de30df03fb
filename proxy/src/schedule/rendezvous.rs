//! Rendezvous hashing: every key has its own order of endpoints, the same at every gateway, and an endpoint that
//! comes or goes moves only the keys that are its own.

use rand::RngCore;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::bounded::Bound;
use super::rank::{eligible, in_order};
use super::{CandidateView, LeastRequest, Policy, Ranked, RequestView};

/// The key's order, endpoints above the bound on load last. Without a key, the least loaded.
pub(super) fn rank(
    key: Option<u64>,
    request: &RequestView<'_>,
    candidates: &[CandidateView<'_>],
    random: &mut dyn RngCore,
    reason: &'static str,
) -> Vec<Ranked> {
    let Some(key) = key else {
        return LeastRequest.rank(request, candidates, random);
    };
    let bound = Bound::over(candidates, 0.0);
    let mut order: Vec<(bool, u64, usize)> = eligible(candidates)
        .map(|(index, candidate)| {
            let hash = xxh3_64_with_seed(candidate.address.as_bytes(), key);
            (!bound.admits(candidate), hash, index)
        })
        .collect();
    order.sort_unstable();
    in_order(
        candidates,
        order.into_iter().map(|(_, _, index)| index),
        reason,
    )
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;
    use crate::schedule::testing::with_in_flight;

    fn first(key: u64, candidates: &[CandidateView<'_>]) -> usize {
        let mut random = SmallRng::seed_from_u64(1);
        let request = RequestView::default();
        rank(Some(key), &request, candidates, &mut random, "hash")[0].index
    }

    #[test]
    fn an_endpoint_that_leaves_moves_only_its_own_keys() {
        let mut candidates = with_in_flight(&[0; 8]);
        let before: Vec<usize> = (0..1000).map(|key| first(key, &candidates)).collect();
        candidates[3].excluded = Some("draining");
        let mut moved = 0;
        for (key, before) in (0..1000).zip(before) {
            let now = first(key, &candidates);
            assert!(now == before || before == 3, "{key}: {before} to {now}");
            moved += u32::from(now != before);
        }
        assert!((80..170).contains(&moved), "{moved}");
    }

    #[test]
    fn a_full_endpoint_is_left_for_the_next_of_the_keys_order() {
        let mut candidates = with_in_flight(&[2; 8]);
        let home = first(7, &candidates);
        candidates[home].load.in_flight = 40;
        let next = first(7, &candidates);
        assert_ne!(home, next);
        candidates[home].load.in_flight = 2;
        candidates[home].excluded = Some("ejected");
        assert_eq!(first(7, &candidates), next);
    }

    #[test]
    fn without_a_key_the_least_loaded_is_chosen() {
        let candidates = with_in_flight(&[2, 1, 3]);
        let mut random = SmallRng::seed_from_u64(1);
        let ranking = rank(None, &RequestView::default(), &candidates, &mut random, "");
        assert_eq!(ranking[0].index, 1);
    }
}
