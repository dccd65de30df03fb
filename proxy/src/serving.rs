//! What requests are served from: the compiled snapshot joined with live endpoint state and filter chains.
//!
//! A request loads one `Arc<Serving>` once. [`ServingStore::install`] swaps in the next one; endpoints, counters
//! and what is known of caches carry over.

mod carried;
mod tokenizers;
mod warm;

use std::collections::{HashMap, HashSet};
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
use crate::endpoints::{Endpoint, InFlightGuard, Member};
use crate::filters::Chain;
use crate::schedule::Policy;
use crate::telemetry::metrics::{Metrics, NameKind, ServerMetrics, ShownPool};

/// One generation of everything that requests read.
#[derive(Debug)]
pub struct Serving {
    /// The configuration.
    pub snapshot: Arc<Snapshot>,
    /// Parallel to `snapshot.servers`.
    pub pools: Vec<Arc<Pool>>,
    /// Parallel to `snapshot.routes`.
    pub routes: Arc<Vec<Arc<RouteState>>>,
    /// The gateway-wide filters, for what happens before a route is known.
    pub chain: Arc<Chain>,
}

/// A ModelServer's endpoints, and how one of them is chosen.
pub struct Pool {
    /// `namespace/name`.
    pub name: Arc<str>,
    /// What it was made from.
    pub server: Arc<ModelServer>,
    /// How one of them is chosen.
    pub policy: Arc<dyn Policy>,
    /// What makes a session.
    pub session: SessionParams,
    /// What is known of their caches.
    pub cache: Arc<PoolCache>,
    /// How its prompts become tokens, if it is configured.
    pub tokenizer: Option<Arc<Loading>>,
    /// Endpoints in configured order.
    pub members: Arc<[Member]>,
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
    route: Arc<Route>,
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
            routes: Arc::default(),
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

    /// Makes `snapshot` the one that new requests see; running ones keep theirs. Pools and routes that it shares with the
    /// one before are left as they are.
    pub fn install(&self, snapshot: Arc<Snapshot>) {
        let mut carried = self.carried.lock().unwrap_or_else(PoisonError::into_inner);
        self.put(&mut carried, snapshot, false);
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
        self.put(&mut carried, snapshot, true);
    }

    /// How endpoints are chosen where a ModelServer does not say.
    pub fn scheduling(&self) -> Arc<SchedulingParams> {
        self.scheduling.load_full()
    }

    /// `rescheduled`: the default of scheduling is another.
    fn put(&self, carried: &mut Carried, snapshot: Arc<Snapshot>, rescheduled: bool) {
        let stale = |server: &ModelServer| rescheduled && server.scheduling.is_none();
        let before = self.load();
        let known: HashMap<&str, &Arc<Pool>> = before
            .pools
            .iter()
            .map(|pool| (&*pool.name, pool))
            .collect();
        let pools: Vec<Arc<Pool>> = snapshot
            .servers
            .iter()
            .map(|server| {
                let name = format!("{}/{}", server.namespace, server.name);
                match known.get(name.as_str()) {
                    Some(pool) if Arc::ptr_eq(&pool.server, server) && !stale(server) => {
                        Arc::clone(pool)
                    }
                    known => Arc::new(self.pool(carried, name.into(), server, known.copied())),
                }
            })
            .collect();
        let routes = match Arc::ptr_eq(&before.snapshot.routes, &snapshot.routes) {
            true => Arc::clone(&before.routes),
            false => Arc::new(self.routes(carried, &snapshot, &before)),
        };
        let next = Arc::new(Serving {
            snapshot,
            pools,
            routes,
            chain: Arc::clone(&self.chain),
        });
        self.tell_metrics(&before, &next);
        joined(&before, &next).for_each(|endpoint| endpoint.join());
        drop(self.current.swap(Arc::clone(&next)));
        joined(&next, &before).for_each(|endpoint| endpoint.leave());
        drop(before);
        carried.sweep();
    }

    /// Memory of everything that is known of caches.
    pub fn index_budget(&self) -> &IndexBudget {
        &self.budget
    }

    /// Metrics speak only of names that are configured.
    fn tell_metrics(&self, before: &Serving, next: &Serving) {
        let shown = next.pools.iter().map(|pool| ShownPool {
            server: Arc::clone(&pool.name),
            members: Arc::clone(&pool.members),
            cache: Arc::clone(&pool.cache),
        });
        self.metrics.set_pools(shown.collect());
        let mut names = before.pools.iter().zip(&next.pools);
        let same_names = before.pools.len() == next.pools.len()
            && names.all(|(before, next)| {
                before.name == next.name && before.server.model == next.server.model
            });
        if !same_names || !Arc::ptr_eq(&before.routes, &next.routes) {
            self.forget_old_series(next);
            if let Some(kthena) = self.metrics.kthena() {
                let models = next.snapshot.models_of_servers();
                let models = next.pools.iter().zip(models);
                let models = models.filter_map(|(pool, model)| Some((&pool.name, model?)));
                kthena.set_pool_models(models);
            }
        }
    }

    fn forget_old_series(&self, serving: &Serving) {
        let snapshot = &serving.snapshot;
        let routes: HashSet<&str> = serving.routes.iter().map(|route| &*route.name).collect();
        let servers: HashSet<&str> = serving.pools.iter().map(|pool| &*pool.name).collect();
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

    fn pool(
        &self,
        carried: &mut Carried,
        name: Arc<str>,
        server: &Arc<ModelServer>,
        before: Option<&Arc<Pool>>,
    ) -> Pool {
        let default = self.scheduling.load();
        let params = server.scheduling.as_ref().unwrap_or(&default);
        let cache = carried.cache(&name, &self.budget);
        let before = before.map(|pool| &**pool);
        Pool {
            members: carried.members(&name, &cache, server, before).into(),
            server: Arc::clone(server),
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

    fn routes(
        &self,
        carried: &mut Carried,
        snapshot: &Snapshot,
        before: &Serving,
    ) -> Vec<Arc<RouteState>> {
        let known = before.routes.iter();
        let known: HashMap<_, _> = known.map(|one| (Arc::as_ptr(&one.route), one)).collect();
        let state = |route: &Arc<Route>| match known.get(&Arc::as_ptr(route)) {
            Some(known) => Arc::clone(known),
            None => Arc::new(self.route_state(carried, route)),
        };
        snapshot.routes.iter().map(state).collect()
    }

    fn route_state(&self, carried: &mut Carried, route: &Arc<Route>) -> RouteState {
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
            route: Arc::clone(route),
        }
    }
}

/// Endpoints of the pools that `after` does not share with `before`, once for each pool.
fn joined<'a>(before: &Serving, after: &'a Serving) -> impl Iterator<Item = &'a Endpoint> {
    let shared: HashSet<_> = before.pools.iter().map(Arc::as_ptr).collect();
    let new = after.pools.iter();
    let new = new.filter(move |pool| !shared.contains(&Arc::as_ptr(pool)));
    new.flat_map(|pool| pool.members.iter().map(|member| &*member.endpoint))
}

#[cfg(test)]
mod tests;
