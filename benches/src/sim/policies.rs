//! Every policy by its name: the gateway's own as they are, and rivals.

use rand::rngs::SmallRng;
use sluice_config::scheduling::{MtlParams, PolicyName};
use sluice_proxy::schedule::{CandidateView, Mtl, Policy, build};

use super::cache::IndexKind;
use super::replica::{Arrival, Knowledge, Router};
use super::rivals;

/// A policy of the gateway.
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

    fn knowledge(&self) -> Knowledge {
        Knowledge {
            index: IndexKind::Hybrid,
            poll: Some(SCRAPE),
        }
    }
}

/// How often the gateway reads engines' metrics.
const SCRAPE: std::time::Duration = std::time::Duration::from_secs(1);

/// The policies that `all` stands for.
pub const DEFAULT_POLICIES: [&str; 15] = [
    "random",
    "least-request",
    "stale-least-request",
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
    "lmetric",
    "mtl",
];

/// There is no such policy.
#[derive(Debug, thiserror::Error)]
#[error("no policy is called {0:?}, choose among {names}, or write mtl:A/B/M", names = names().join(", "))]
pub struct UnknownPolicy(String);

/// All names.
fn names() -> Vec<&'static str> {
    let own = PolicyName::ALL.into_iter().map(PolicyName::as_str);
    own.chain(rivals::NAMES).collect()
}

/// A router of that name. `mtl:0.1/0.3/1` is MTL with these weights a, b and m.
///
/// # Errors
/// When there is none of that name.
pub(super) fn named(name: &str) -> Result<Box<dyn Router>, UnknownPolicy> {
    let unknown = || UnknownPolicy(name.to_owned());
    if let Some(weights) = name.strip_prefix("mtl:") {
        let weights = weighted(weights).ok_or_else(unknown)?;
        return Ok(Box::new(Product(Box::new(weights))));
    }
    let own = PolicyName::ALL.into_iter().find(|own| own.as_str() == name);
    match own {
        Some(own) => Ok(Box::new(Product(build::by_name(own)))),
        None => rivals::named(name).ok_or_else(unknown),
    }
}

fn weighted(text: &str) -> Option<Mtl> {
    let weights: Result<Vec<f64>, _> = text.split('/').map(str::parse).collect();
    let [inflicted, decode, price] = weights.ok()?[..] else {
        return None;
    };
    Some(Mtl::new(MtlParams {
        inflicted,
        decode,
        price,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_router() {
        for name in names().into_iter().chain(DEFAULT_POLICIES) {
            assert!(named(name).is_ok(), "{name}");
        }
        assert!(named("mtl:0.1/0.3/1").is_ok());
        for wrong in ["", "mtl:", "mtl:1/2", "nobody"] {
            assert!(named(wrong).is_err(), "{wrong}");
        }
    }
}
