//! What outlives a configuration change: endpoints, routes' counters, policies with a turn of their own, and what is
//! known of caches. All is held weakly, so that it ends with the last generation or request that knows it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Weak};

use sluice_config::scheduling::SchedulingParams;
use sluice_config::snapshot::ModelServer;

use crate::cache::budget::IndexBudget;
use crate::cache::members::{MemberCache, PoolCache};
use crate::endpoints::{Member, Registry};
use crate::schedule::{self, Policy};

use super::tokenizers::{Loading, Tokenizers};
use super::warm::Warm;

/// See the module.
#[derive(Default)]
pub(super) struct Carried {
    pub(super) warm: Warm,
    endpoints: Registry,
    tokenizers: Tokenizers,
    routes: HashMap<String, Weak<AtomicU32>>,
    /// By a pool's name.
    cache: HashMap<Arc<str>, Weak<PoolCache>>,
    /// By a pool's name and an endpoint's address.
    members: HashMap<(Arc<str>, Arc<str>), Weak<MemberCache>>,
    /// By a pool's name; the parameters tell whether it is still the one.
    policies: HashMap<Arc<str>, (SchedulingParams, Weak<dyn Policy>)>,
}

impl Carried {
    /// The counter of a route.
    pub(super) fn route(&mut self, name: &str) -> Arc<AtomicU32> {
        let counter = self.routes.get(name).and_then(Weak::upgrade);
        let counter = counter.unwrap_or_default();
        self.routes
            .insert(name.to_owned(), Arc::downgrade(&counter));
        counter
    }

    /// What a pool knows of its members' caches.
    pub(super) fn cache(&mut self, pool: &Arc<str>, budget: &Arc<IndexBudget>) -> Arc<PoolCache> {
        if let Some(known) = self.cache.get(pool).and_then(Weak::upgrade) {
            return known;
        }
        let cache = PoolCache::new(budget);
        self.cache.insert(Arc::clone(pool), Arc::downgrade(&cache));
        cache
    }

    /// The tokenizer at a path.
    pub(super) fn tokenizer(&mut self, path: &Path) -> Arc<Loading> {
        self.tokenizers.at(path)
    }

    /// The policy of a pool: the one it has, unless it is configured anew.
    pub(super) fn policy(&mut self, pool: &Arc<str>, params: &SchedulingParams) -> Arc<dyn Policy> {
        if let Some((known, policy)) = self.policies.get(pool)
            && known.policy == params.policy
            && let Some(policy) = policy.upgrade()
        {
            return policy;
        }
        let policy: Arc<dyn Policy> = schedule::build(params).into();
        let entry = (params.clone(), Arc::downgrade(&policy));
        self.policies.insert(Arc::clone(pool), entry);
        policy
    }

    /// The members of a pool: known ones keep their state, new ones start fresh.
    pub(super) fn members(
        &mut self,
        pool: &Arc<str>,
        cache: &Arc<PoolCache>,
        server: &ModelServer,
    ) -> Vec<Member> {
        let endpoints = self.endpoints.endpoints(server);
        let members = endpoints.into_iter().zip(&server.endpoints);
        members
            .map(|(endpoint, configured)| {
                let key = (Arc::clone(pool), Arc::clone(&endpoint.address));
                let known = self.members.get(&key).and_then(Weak::upgrade);
                let cache = known.unwrap_or_else(|| {
                    let fresh = MemberCache::new(cache);
                    self.warm.give(pool, &endpoint.address, &fresh);
                    fresh
                });
                self.members.insert(key, Arc::downgrade(&cache));
                Member {
                    endpoint,
                    cache,
                    labels: Arc::new(configured.labels.clone()),
                }
            })
            .collect()
    }

    /// Forgets what nobody holds.
    pub(super) fn sweep(&mut self) {
        self.endpoints.sweep();
        self.tokenizers.sweep();
        self.routes.retain(|_, route| route.strong_count() > 0);
        self.cache.retain(|_, known| known.strong_count() > 0);
        self.members.retain(|_, known| known.strong_count() > 0);
        self.policies
            .retain(|_, (_, known)| known.strong_count() > 0);
    }
}
