//! Live state of inference endpoints: what this gateway has in flight at each, whether it answers, how fast it is, and
//! what it says of itself.
//!
//! An [`Endpoint`] outlives configuration changes: the [`Registry`] hands the same one to every snapshot that
//! names its address, and the pod there if it is one. All counting is by guards, so that every way out of a request settles it.

pub mod constants;
pub mod failing;
pub mod fetch;
mod health;
pub mod learn;
pub mod level;
pub mod load;
pub mod observe;
pub mod output;
pub mod publishers;
pub mod scrape;
pub mod sketch;
pub mod tokenize;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use sluice_config::snapshot;
use sluice_crds::networking::InferenceEngine;

pub use health::{Admission, Health};

use self::constants::Constants;
use self::failing::Failing;
use self::level::Level;
use self::load::LoadCounter;
use self::observe::EndpointStats;
use self::scrape::reported::ReportedState;
use self::tokenize::Asking;
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
    /// Whether its answers fail.
    pub failing: Failing,
    /// What this gateway has given it to do.
    pub load: Arc<LoadCounter>,
    /// Which engine it is.
    pub engine: InferenceEngine,
    /// What requests have taught about its speed.
    pub stats: EndpointStats,
    /// What it says of itself.
    pub reported: ReportedState,
    /// Whether it is being asked for a prompt's tokens.
    pub asking: Asking,
    /// Pools of the configuration in force that it is in.
    pools: AtomicU32,
}

impl Endpoint {
    /// One more pool has it.
    pub(crate) fn join(&self) {
        if self.pools.fetch_add(1, Ordering::Relaxed) == 0 {
            self.link.set_in_use(true);
        }
    }

    /// A pool that it had joined has it no more.
    pub(crate) fn leave(&self) {
        if self.pools.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.link.set_in_use(false);
        }
    }

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

/// What makes two configured endpoints the same one: its instance, and how it is spoken to.
type Key = (String, bool, bool, InferenceEngine);

/// All endpoints that a snapshot or a running request still holds.
#[derive(Debug, Default)]
pub struct Registry {
    endpoints: HashMap<Key, Weak<Endpoint>>,
    /// By a ModelServer's namespace, name and engine. An endpoint of several is of the first one's level.
    levels: HashMap<(String, String, InferenceEngine), Weak<Level>>,
}

/// An endpoint as a member of one pool, with what that pool says of it.
#[derive(Debug, Clone)]
pub struct Member {
    /// Shared state.
    pub endpoint: Arc<Endpoint>,
    /// Its place in what this pool knows of caches.
    pub cache: Arc<MemberCache>,
    /// Labels, role, place, and whether it is draining.
    pub configured: Arc<snapshot::Endpoint>,
}

impl Registry {
    /// The endpoint of a pool: a known one keeps its state, a new one starts fresh.
    pub fn endpoint(
        &mut self,
        server: &snapshot::ModelServer,
        configured: &snapshot::Endpoint,
    ) -> Arc<Endpoint> {
        let key = (
            configured.instance(),
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
            failing: Failing::default(),
            load: Arc::default(),
            engine: server.engine,
            stats: EndpointStats::new(self.level(server)),
            reported: ReportedState::default(),
            asking: Asking::default(),
            pools: AtomicU32::new(0),
        });
        self.endpoints.insert(key, Arc::downgrade(&endpoint));
        endpoint
    }

    /// What is known of a pool's endpoints together. Where another start was configured, endpoints that are there go on
    /// with what they have learned, and new ones begin anew.
    fn level(&mut self, server: &snapshot::ModelServer) -> Arc<Level> {
        let key = (server.namespace.clone(), server.name.clone(), server.engine);
        let start = start(server);
        let known = self.levels.get(&key).and_then(Weak::upgrade);
        if let Some(known) = known.filter(|level| *level.start() == start) {
            return known;
        }
        let level = Arc::new(Level::new(start));
        self.levels.insert(key, Arc::downgrade(&level));
        level
    }

    /// Forgets endpoints that nobody holds.
    pub fn sweep(&mut self) {
        self.endpoints
            .retain(|_, endpoint| endpoint.strong_count() > 0);
        self.levels.retain(|_, level| level.strong_count() > 0);
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

    fn endpoints(registry: &mut Registry, server: &snapshot::ModelServer) -> Vec<Arc<Endpoint>> {
        let configured = server.endpoints.iter();
        configured
            .map(|one| registry.endpoint(server, one))
            .collect()
    }

    #[test]
    fn an_endpoint_keeps_its_count_over_a_configuration_change() {
        let mut registry = Registry::default();
        let before = endpoints(
            &mut registry,
            &snapshot::ModelServer::of("s", &["a:1", "b:1"]),
        );
        let guard = before[0].load.reserve(load::Work::default());
        let after = endpoints(&mut registry, &snapshot::ModelServer::of("s", &["a:1"]));
        assert_eq!(after[0].load.load().in_flight, 1);
        drop(before);
        registry.sweep();
        assert_eq!(registry.endpoints.len(), 1);
        drop(guard);
        assert_eq!(after[0].load.load().in_flight, 0);
    }

    #[test]
    fn another_pod_at_the_same_address_is_another_endpoint() {
        let mut registry = Registry::default();
        let mut pod = |uid: &str| {
            let mut server = snapshot::ModelServer::of("s", &["a:1"]);
            Arc::make_mut(&mut server.endpoints[0]).uid = uid.to_owned();
            endpoints(&mut registry, &server).remove(0)
        };
        let (first, again, other) = (pod("1"), pod("1"), pod("2"));
        assert!(Arc::ptr_eq(&first, &again));
        assert!(!Arc::ptr_eq(&first, &other));
        assert_eq!(first.address, other.address);
    }

    #[test]
    fn another_configured_speed_is_where_new_endpoints_start_and_known_ones_go_on() {
        let mut registry = Registry::default();
        let before = snapshot::ModelServer::of("s", &["a:1"]);
        let known = endpoints(&mut registry, &before).remove(0);
        let mut server = snapshot::ModelServer::of("s", &["a:1", "b:1"]);
        server.engine_speed.step_ms = Some(100.0);
        let both = endpoints(&mut registry, &server);
        assert!(Arc::ptr_eq(&known, &both[0]));
        let steps = [&both[0], &both[1]].map(|endpoint| endpoint.constants().step_ms);
        assert_eq!(steps, [Constants::DEFAULT.step_ms, 100.0]);
        let level = registry.level(&server);
        assert!(Arc::ptr_eq(&level, &registry.level(&server)));
    }
}
