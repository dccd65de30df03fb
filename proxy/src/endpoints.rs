//! Live state of inference endpoints: what this gateway has in flight at each, whether it answers, how fast it is, and
//! what it says of itself.
//!
//! An [`Endpoint`] outlives configuration changes: the [`Registry`] hands the same one to every snapshot that
//! names its address. All counting is by guards, so that every way out of a request settles it.

pub mod constants;
pub mod fetch;
mod health;
pub mod learn;
pub mod load;
pub mod observe;
pub mod output;
pub mod publishers;
pub mod scrape;
pub mod sketch;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use sluice_config::snapshot;
use sluice_crds::networking::InferenceEngine;

pub use health::{Admission, Health};

use self::constants::Constants;
use self::load::LoadCounter;
use self::observe::EndpointStats;
use self::scrape::reported::ReportedState;
use crate::cache::members::MemberCache;
use crate::forward::link::Link;

/// One inference endpoint.
#[derive(Debug)]
pub struct Endpoint {
    /// `host:port` as configured: its name everywhere.
    pub address: Arc<str>,
    /// The wire to it.
    pub link: Link,
    /// Passive health.
    pub health: Health,
    /// What this gateway has given it to do.
    pub load: Arc<LoadCounter>,
    /// Which engine it is.
    pub engine: InferenceEngine,
    /// What requests have taught about its speed.
    pub stats: EndpointStats,
    /// What it says of itself.
    pub reported: ReportedState,
}

impl Endpoint {
    /// The constants for costs: learned from requests, sizes as the engine reported them.
    pub fn constants(&self) -> Constants {
        let learned = self.stats.constants();
        Constants {
            kv_tokens: self.reported.kv_tokens().unwrap_or(learned.kv_tokens),
            ..learned
        }
    }
}

/// Holds one request in a counter; dropping it settles the count.
#[derive(Debug)]
pub struct InFlightGuard(Arc<AtomicU32>);

impl InFlightGuard {
    /// Counts one in `counter`.
    pub fn new(counter: &Arc<AtomicU32>) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counter))
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What makes two configured endpoints the same one.
type Key = (String, bool, bool, InferenceEngine);

/// All endpoints that a snapshot or a running request still holds.
#[derive(Debug, Default)]
pub struct Registry {
    endpoints: HashMap<Key, Weak<Endpoint>>,
}

/// An endpoint as a member of one pool, with the labels that pool gives it.
#[derive(Debug, Clone)]
pub struct Member {
    /// Shared state.
    pub endpoint: Arc<Endpoint>,
    /// Its place in what this pool knows of caches.
    pub cache: Arc<MemberCache>,
    /// Labels from the pool's document.
    pub labels: Arc<BTreeMap<String, String>>,
}

impl Registry {
    /// The endpoints of a pool, in configured order: known ones keep their state, new ones start fresh.
    pub fn endpoints(&mut self, server: &snapshot::ModelServer) -> Vec<Arc<Endpoint>> {
        server
            .endpoints
            .iter()
            .map(|configured| self.endpoint(server, configured))
            .collect()
    }

    fn endpoint(
        &mut self,
        server: &snapshot::ModelServer,
        configured: &snapshot::Endpoint,
    ) -> Arc<Endpoint> {
        let key = (
            configured.address.clone(),
            server.tls,
            server.http2,
            server.engine,
        );
        if let Some(known) = self.endpoints.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        let endpoint = Arc::new(Endpoint {
            address: configured.address.as_str().into(),
            link: Link::new(
                &configured.host,
                configured.port,
                &configured.address,
                server.tls,
                server.http2,
            ),
            health: Health::default(),
            load: Arc::default(),
            engine: server.engine,
            stats: EndpointStats::new(start(server)),
            reported: ReportedState::default(),
        });
        self.endpoints.insert(key, Arc::downgrade(&endpoint));
        endpoint
    }

    /// Forgets endpoints that nobody holds.
    pub fn sweep(&mut self) {
        self.endpoints
            .retain(|_, endpoint| endpoint.strong_count() > 0);
    }
}

/// The constants that learning starts from.
fn start(server: &snapshot::ModelServer) -> Constants {
    let speed = &server.engine_speed;
    let default = Constants::for_engine(server.engine);
    Constants {
        step_ms: speed.step_ms.unwrap_or(default.step_ms),
        token_ms: speed.token_ms.unwrap_or(default.token_ms),
        context_ms: speed.context_ms.unwrap_or(default.context_ms),
        attention_ms: default.attention_ms,
        batch_tokens: speed.batch_tokens.map_or(default.batch_tokens, f64::from),
        kv_tokens: speed.kv_tokens.map_or(default.kv_tokens, |n| n as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_keeps_its_count_over_a_configuration_change() {
        let mut registry = Registry::default();
        let before = registry.endpoints(&snapshot::ModelServer::of("s", &["a:1", "b:1"]));
        let guard = before[0].load.reserve(load::Work::default());
        let after = registry.endpoints(&snapshot::ModelServer::of("s", &["a:1"]));
        assert_eq!(after[0].load.load().in_flight, 1);
        drop(before);
        registry.sweep();
        assert_eq!(registry.endpoints.len(), 1);
        drop(guard);
        assert_eq!(after[0].load.load().in_flight, 0);
    }
}
