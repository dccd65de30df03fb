//! Every policy by its name: the gateway's own, and rivals.

use rand::rngs::SmallRng;
use sluice_proxy::schedule::{CandidateView, LeastInFlight, Policy};

use super::replica::{Arrival, Router};
use super::rivals;

/// A policy of the gateway, as it is.
struct Product(Box<dyn Policy>);

impl Router for Product {
    fn choose(
        &mut self,
        arrival: &Arrival<'_>,
        candidates: &[CandidateView<'_>],
        random: &mut SmallRng,
    ) -> Option<usize> {
        let ranking = self.0.rank(&arrival.view, candidates, random);
        ranking.first().map(|ranked| ranked.index)
    }
}

/// The policies that `all` stands for, worst first.
pub const DEFAULT_POLICIES: [&str; 13] = [
    "random",
    "least-in-flight",
    "least-request-1s",
    "kthena-prefix",
    "kthena-kvcache",
    "sglang",
    "llmd-322",
    "llmd-111-approx",
    "llmd-sticky",
    "kubeai-hash",
    "dualmap",
    "dynamo",
    "lpwl",
];

/// There is no such policy.
#[derive(Debug, thiserror::Error)]
#[error("no policy is called {0:?}, choose among {names}", names = names().join(", "))]
pub struct UnknownPolicy(String);

/// All names.
pub fn names() -> Vec<&'static str> {
    ["least-request"].into_iter().chain(rivals::NAMES).collect()
}

/// What makes routers of that name, one per replica.
///
/// # Errors
/// When there is none of that name.
pub fn named(name: &str) -> Result<Box<dyn Router>, UnknownPolicy> {
    let product: Box<dyn Policy> = match name {
        "least-request" => Box::new(LeastInFlight),
        _ => return rivals::named(name).ok_or_else(|| UnknownPolicy(name.to_owned())),
    };
    Ok(Box::new(Product(product)))
}
