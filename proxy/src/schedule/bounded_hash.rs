//! Bounded-load hashing of the prompt's beginning: prompts that begin alike meet in one endpoint's cache, and what
//! that endpoint cannot take goes to the next of the prefix's own order.

use rand::RngCore;

use super::{CandidateView, Policy, Ranked, RequestView, rendezvous};

/// Rendezvous hashing of the prefix, no endpoint above 1.25 times the mean; a request without one goes to the
/// least loaded.
#[derive(Debug, Default, Clone, Copy)]
pub struct BoundedHash;

impl Policy for BoundedHash {
    fn name(&self) -> &'static str {
        "bounded-hash"
    }

    fn rank(
        &self,
        request: &RequestView<'_>,
        candidates: &[CandidateView<'_>],
        random: &mut dyn RngCore,
    ) -> Vec<Ranked> {
        let reason = "order of its prefix's hash";
        rendezvous::rank(request.prefix, request, candidates, random, reason)
    }
}
