//! One after another. One policy serves one pool: two pools that shared the turn would each skip endpoints.

use std::sync::atomic::{AtomicUsize, Ordering};

use rand::RngCore;

use super::rank::{eligible, in_order};
use super::{CandidateView, Policy, Ranked, RequestView};

/// Candidates in turn. Every ranking takes a turn, an explained one too.
#[derive(Debug, Default)]
pub struct RoundRobin {
    turn: AtomicUsize,
}

impl Policy for RoundRobin {
    fn name(&self) -> &'static str {
        "round-robin"
    }

    fn rank(
        &self,
        _request: &RequestView<'_>,
        candidates: &[CandidateView<'_>],
        _random: &mut dyn RngCore,
    ) -> Vec<Ranked> {
        let mut order: Vec<usize> = eligible(candidates).map(|(index, _)| index).collect();
        if !order.is_empty() {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % order.len();
            order.rotate_left(turn);
        }
        in_order(candidates, order, "in turn")
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;
    use crate::schedule::testing::with_in_flight;

    #[test]
    fn takes_turns_among_those_that_may_be_chosen() {
        let policy = RoundRobin::default();
        let mut candidates = with_in_flight(&[0; 4]);
        candidates[1].excluded = Some("ejected");
        let mut random = SmallRng::seed_from_u64(1);
        let chosen: Vec<usize> = (0..6)
            .map(|_| policy.rank(&RequestView::default(), &candidates, &mut random)[0].index)
            .collect();
        assert_eq!(chosen, [0, 2, 3, 0, 2, 3]);
    }
}
