//! What requests are served from: the compiled snapshot joined with live endpoint state and filter chains.
//!
//! A request loads one `Arc<Serving>` once. [`ServingStore::install`] swaps in the next one; endpoints and
//! counters that both know carry over.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::ArcSwap;
use sluice_config::Snapshot;
use sluice_config::snapshot::{ModelServer, Route};

use crate::endpoints::{InFlightGuard, Member, Registry};
use crate::filters::Chain;
use crate::telemetry::metrics::{Metrics, NameKind, ServerMetrics};

/// One generation of everything that requests read.
#[derive(Debug)]
pub struct Serving {
    /// The configuration.
    pub snapshot: Arc<Snapshot>,
    /// Parallel to `snapshot.servers`.
    pub pools: Vec<Pool>,
    /// Parallel to `snapshot.routes`.
    pub routes: Vec<RouteState>,
    /// The gateway-wide filters, for what happens before a route is known.
    pub chain: Arc<Chain>,
}

/// A ModelServer's endpoints.
#[derive(Debug)]
pub struct Pool {
    /// `namespace/name`.
    pub name: Arc<str>,
    /// Endpoints in configured order.
    pub members: Vec<Member>,
    /// Its series.
    pub metrics: Arc<ServerMetrics>,
}

/// Live side of a ModelRoute.
#[derive(Debug)]
pub struct RouteState {
    /// `namespace/name`.
    pub name: Arc<str>,
    /// Filters with the route's overrides.
    pub chain: Arc<Chain>,
    in_flight: Arc<AtomicU32>,
}

impl RouteState {
    /// Requests of this route not yet settled.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts one request until the guard drops.
    pub fn reserve(&self) -> InFlightGuard {
        InFlightGuard::new(&self.in_flight)
    }
}

/// Holds the current [`Serving`] and makes the next.
pub struct ServingStore {
    current: ArcSwap<Serving>,
    chain: Arc<Chain>,
    metrics: Arc<Metrics>,
    /// Only the source's thread locks it, once per change.
    carried: Mutex<Carried>,
}

#[derive(Default)]
struct Carried {
    endpoints: Registry,
    routes: HashMap<String, Weak<AtomicU32>>,
}

impl ServingStore {
    /// Nothing is routed until the first [`Self::install`].
    pub fn new(chain: Arc<Chain>, metrics: Arc<Metrics>) -> Self {
        let empty = Serving {
            snapshot: Arc::default(),
            pools: Vec::new(),
            routes: Vec::new(),
            chain: Arc::clone(&chain),
        };
        Self {
            current: ArcSwap::from_pointee(empty),
            chain,
            metrics,
            carried: Mutex::default(),
        }
    }

    /// What a new request reads.
    pub fn load(&self) -> Arc<Serving> {
        self.current.load_full()
    }

    /// Makes `snapshot` the one that new requests see; running ones keep theirs.
    pub fn install(&self, snapshot: Arc<Snapshot>) {
        let mut carried = self.carried.lock().unwrap_or_else(PoisonError::into_inner);
        let pools = snapshot
            .servers
            .iter()
            .map(|server| self.pool(&mut carried, server))
            .collect();
        let routes = snapshot
            .routes
            .iter()
            .map(|route| self.route_state(&mut carried, route))
            .collect();
        let chain = Arc::clone(&self.chain);
        self.forget_old_series(&snapshot);
        drop(self.current.swap(Arc::new(Serving {
            snapshot,
            pools,
            routes,
            chain,
        })));
        carried.endpoints.sweep();
        carried
            .routes
            .retain(|_, counter| counter.strong_count() > 0);
    }

    /// Metrics speak only of names that are configured.
    fn forget_old_series(&self, snapshot: &Snapshot) {
        let routes: HashSet<String> = snapshot
            .routes
            .iter()
            .map(|route| format!("{}/{}", route.namespace, route.name))
            .collect();
        let servers: HashSet<String> = snapshot
            .servers
            .iter()
            .map(|server| format!("{}/{}", server.namespace, server.name))
            .collect();
        self.metrics.retain(|kind, name| match kind {
            NameKind::Model => {
                snapshot.by_model.contains_key(name) || snapshot.by_lora.contains_key(name)
            }
            NameKind::Route => routes.contains(name),
            NameKind::Server => servers.contains(name),
        });
    }

    fn pool(&self, carried: &mut Carried, server: &ModelServer) -> Pool {
        let name: Arc<str> = format!("{}/{}", server.namespace, server.name).into();
        let members = carried.endpoints.members(server);
        Pool {
            members,
            metrics: self.metrics.server(&name),
            name,
        }
    }

    fn route_state(&self, carried: &mut Carried, route: &Route) -> RouteState {
        let name = format!("{}/{}", route.namespace, route.name);
        let in_flight = carried
            .routes
            .get(&name)
            .and_then(Weak::upgrade)
            .unwrap_or_default();
        carried
            .routes
            .insert(name.clone(), Arc::downgrade(&in_flight));
        // The loader has checked the overrides against this very chain, so this is a fallback that says so.
        let chain = self
            .chain
            .with_overrides(&route.filters)
            .unwrap_or_else(|error| {
                tracing::error!(route = %name, %error, "filter overrides are not applied");
                Arc::clone(&self.chain)
            });
        RouteState {
            name: name.into(),
            chain,
            in_flight,
        }
    }
}
