//! A bound on load: affinity of any kind may fill an endpoint to a multiple of the mean, and no further.
//!
//! After consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam 2018).

use super::CandidateView;
use super::rank::eligible;

/// An endpoint may hold this many times the mean.
const FACTOR: f64 = 1.25;

/// Most requests that one endpoint may hold, for one more request among these candidates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bound {
    limit: f64,
}

impl Bound {
    /// 1.25 times the mean with the new request in it, and at least `floor`.
    pub(super) fn over(candidates: &[CandidateView<'_>], floor: f64) -> Self {
        let (count, total) = eligible(candidates).fold((0.0, 0.0), |(count, total), (_, c)| {
            (count + 1.0, total + f64::from(c.load.in_flight))
        });
        // Without candidates there is nothing to bound: the floor, not a number that is none.
        let mean = (total + 1.0) / f64::max(count, 1.0);
        Self {
            limit: (FACTOR * mean).ceil().max(floor),
        }
    }

    /// It may take one more.
    pub(super) fn admits(self, candidate: &CandidateView<'_>) -> bool {
        f64::from(candidate.load.in_flight) < self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::testing::with_in_flight;

    fn admitted(in_flight: &[u32], floor: f64) -> Vec<bool> {
        let candidates = with_in_flight(in_flight);
        let bound = Bound::over(&candidates, floor);
        candidates.iter().map(|c| bound.admits(c)).collect()
    }

    #[test]
    fn somebody_is_always_admitted() {
        assert_eq!(admitted(&[0, 0], 0.0), [true, true]);
        assert_eq!(admitted(&[7], 0.0), [true]);
        assert_eq!(admitted(&[5, 5, 5, 5], 0.0), [true; 4]);
    }

    #[test]
    fn an_endpoint_above_the_bound_is_not_admitted() {
        // Mean 5.25 with the new one, bound 7.
        assert_eq!(admitted(&[7, 6, 4, 3], 0.0), [false, true, true, true]);
        assert_eq!(admitted(&[7, 6, 4, 3], 8.0), [true; 4]);
    }
}
