//! Session affinity: a session's requests go where its earlier turns went, while that endpoint is not overloaded.

use rand::RngCore;

use super::{CandidateView, Policy, Ranked, RequestView, rendezvous};

/// Rendezvous hashing of the session, no endpoint above 1.25 times the mean; a request without a session goes to
/// the least loaded.
#[derive(Debug, Default, Clone, Copy)]
pub struct Session;

impl Policy for Session {
    fn name(&self) -> &'static str {
        "session"
    }

    fn rank(
        &self,
        request: &RequestView<'_>,
        candidates: &[CandidateView<'_>],
        random: &mut dyn RngCore,
    ) -> Vec<Ranked> {
        let reason = "order of its session's hash";
        rendezvous::rank(request.session, request, candidates, random, reason)
    }
}
