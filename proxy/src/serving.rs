//! What requests are served from: the compiled snapshot joined with live endpoint state and filter chains.
//!
//! A request loads one `Arc<Serving>` once. [`ServingStore::install`] swaps in the next one; endpoints, counters
//! and what is known of caches carry over.

mod carried;
mod tokenizers;
mod warm;

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use sluice_config::Snapshot;
use sluice_config::scheduling::{SchedulingParams, SessionParams};
use sluice_config::snapshot::{ModelServer, Route};

use self::carried::Carried;
pub use self::tokenizers::Loading;
pub use self::warm::{Warm, save};
use crate::cache::budget::IndexBudget;
use crate::cache::members::PoolCache;
use crate::endpoints::{InFlightGuard, Member};
use crate::filters::Chain;
use crate::schedule::Policy;
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

/// A ModelServer's endpoints, and how one of them is chosen.
pub struct Pool {
    /// `namespace/name`.
    pub name: Arc<str>,
    /// How one of them is chosen.
    pub policy: Arc<dyn Policy>,
    /// What makes a session.
    pub session: SessionParams,
    /// What is known of their caches.
    pub cache: Arc<PoolCache>,
    /// How its prompts become tokens, if it is configured.
    pub tokenizer: Option<Arc<Loading>>,
    /// Endpoints in configured order.
    pub members: Vec<Member>,
    /// Its series.
    pub metrics: Arc<ServerMetrics>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Pool")
            .field("name", &self.name)
            .field("policy", &self.policy.name())
            .field("members", &self.members)
            .finish_non_exhaustive()
    }
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
    /// For ModelServers that do not say how endpoints are chosen. Changed under the lock of `carried` only.
    scheduling: ArcSwap<SchedulingParams>,
    budget: Arc<IndexBudget>,
    /// Only the sources' threads lock it, once per change.
    carried: Mutex<Carried>,
}

impl ServingStore {
    /// Nothing is routed until the first [`Self::install`].
    pub fn new(
        chain: Arc<Chain>,
        metrics: Arc<Metrics>,
        scheduling: SchedulingParams,
        budget: Arc<IndexBudget>,
    ) -> Self {
        metrics.set_index_budget(&budget);
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
            scheduling: ArcSwap::from_pointee(scheduling),
            budget,
            carried: Mutex::default(),
        }
    }

    /// Gives members that appear from now on what was known of them before a restart.
    pub fn warm(&self, warm: Warm) {
        let mut carried = self.carried.lock().unwrap_or_else(PoisonError::into_inner);
        carried.warm = warm;
    }

    /// What a new request reads.
    pub fn load(&self) -> Arc<Serving> {
        self.current.load_full()
    }

    /// Makes `snapshot` the one that new requests see; running ones keep theirs.
    pub fn install(&self, snapshot: Arc<Snapshot>) {
        let mut carried = self.carried.lock().unwrap_or_else(PoisonError::into_inner);
        self.put(&mut carried, snapshot);
    }

    /// Changes how endpoints are chosen where a ModelServer does not say, for new requests.
    pub fn set_scheduling(&self, scheduling: SchedulingParams) {
        let mut carried = self.carried.lock().unwrap_or_else(PoisonError::into_inner);
        if **self.scheduling.load() == scheduling {
            return;
        }
        self.scheduling.store(Arc::new(scheduling));
        // Under the lock, so that no older snapshot comes back in place of a newer one.
        let snapshot = Arc::clone(&self.load().snapshot);
        self.put(&mut carried, snapshot);
    }

    /// How endpoints are chosen where a ModelServer does not say.
    pub fn scheduling(&self) -> Arc<SchedulingParams> {
        self.scheduling.load_full()
    }

    fn put(&self, carried: &mut Carried, snapshot: Arc<Snapshot>) {
        let pools: Vec<Pool> = snapshot
            .servers
            .iter()
            .map(|server| self.pool(carried, server))
            .collect();
        let routes = snapshot
            .routes
            .iter()
            .map(|route| self.route_state(carried, route))
            .collect();
        let chain = Arc::clone(&self.chain);
        self.forget_old_series(&snapshot);
        self.metrics.set_endpoints(pools.iter().flat_map(|pool| {
            let members = pool.members.iter();
            members.map(|member| (&pool.name, &member.endpoint))
        }));
        self.metrics.set_caches(
            pools.iter().map(|pool| (&pool.name, &pool.cache)),
            pools.iter().flat_map(|pool| {
                let members = pool.members.iter();
                members.map(|member| (&pool.name, &member.endpoint.address, &member.cache))
            }),
        );
        if let Some(kthena) = self.metrics.kthena() {
            let models = pools.iter().zip(snapshot.models_of_servers());
            kthena.set_pool_models(models.filter_map(|(pool, model)| Some((&pool.name, model?))));
        }
        drop(self.current.swap(Arc::new(Serving {
            snapshot,
            pools,
            routes,
            chain,
        })));
        carried.sweep();
    }

    /// Memory of everything that is known of caches.
    pub fn index_budget(&self) -> &IndexBudget {
        &self.budget
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
            NameKind::Model => snapshot.knows(name),
            NameKind::Route => routes.contains(name),
            NameKind::Server => servers.contains(name),
            NameKind::UpstreamModel => {
                snapshot.knows(name)
                    || (snapshot.servers.iter()).any(|server| server.model.as_deref() == Some(name))
            }
        });
    }

    fn pool(&self, carried: &mut Carried, server: &ModelServer) -> Pool {
        let name: Arc<str> = format!("{}/{}", server.namespace, server.name).into();
        let default = self.scheduling.load();
        let params = server.scheduling.as_ref().unwrap_or(&default);
        let cache = carried.cache(&name, &self.budget);
        Pool {
            members: carried.members(&name, &cache, server),
            policy: carried.policy(&name, params),
            session: params.session.clone(),
            tokenizer: server
                .tokenizer
                .as_deref()
                .map(|path| carried.tokenizer(path)),
            cache,
            metrics: self.metrics.server(&name),
            name,
        }
    }

    fn route_state(&self, carried: &mut Carried, route: &Route) -> RouteState {
        let name = format!("{}/{}", route.namespace, route.name);
        let in_flight = carried.route(&name);
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
