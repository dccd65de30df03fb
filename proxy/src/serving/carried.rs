//! What outlives a configuration change: endpoints, routes' counters, policies with a turn of their own, and what is
//! known of caches. All is held weakly, so that it ends with the last generation or request that knows it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Weak};

use sluice_config::scheduling::SchedulingParams;
use sluice_config::snapshot::{self, ModelServer};

use crate::cache::budget::IndexBudget;
use crate::cache::members::{MemberCache, PoolCache};
use crate::endpoints::{Member, Registry};
use crate::schedule::{self, Policy};

use super::Pool;
use super::tokenizers::{Loading, Tokenizers};
use super::warm::Warm;

/// Members that may have left a pool between two that stayed, for the rest to be found without a search.
const LOOK_AHEAD: usize = 8;

/// See the module.
#[derive(Default)]
pub(super) struct Carried {
    pub(super) warm: Warm,
    endpoints: Registry,
    tokenizers: Tokenizers,
    routes: HashMap<String, Weak<AtomicU32>>,
    /// By a pool's name.
    cache: HashMap<Arc<str>, Weak<PoolCache>>,
    /// By a pool's name and an endpoint's instance.
    members: HashMap<(Arc<str>, String), Weak<MemberCache>>,
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

    /// The members of a pool: known ones keep their state, new ones start fresh. `before` is the pool as it was.
    pub(super) fn members(
        &mut self,
        pool: &Arc<str>,
        cache: &Arc<PoolCache>,
        server: &ModelServer,
        before: Option<&Pool>,
    ) -> Vec<Member> {
        let spoken_to = |server: &ModelServer| (server.tls, server.http2, server.engine);
        let before = before.filter(|pool| spoken_to(&pool.server) == spoken_to(server));
        let mut left: &[Member] = before.map_or(&[], |pool| &pool.members);
        let member = |configured: &Arc<snapshot::Endpoint>| {
            let same = |member: &Member| Arc::ptr_eq(&member.configured, configured);
            let near = &left[..left.len().min(LOOK_AHEAD)];
            match near.iter().position(same) {
                Some(place) => {
                    let known = left[place].clone();
                    left = &left[place + 1..];
                    known
                }
                None => self.member(pool, cache, server, configured),
            }
        };
        server.endpoints.iter().map(member).collect()
    }

    fn member(
        &mut self,
        pool: &Arc<str>,
        cache: &Arc<PoolCache>,
        server: &ModelServer,
        configured: &Arc<snapshot::Endpoint>,
    ) -> Member {
        let key = (Arc::clone(pool), configured.instance());
        let known = self.members.get(&key).and_then(Weak::upgrade);
        let cache = known.unwrap_or_else(|| {
            let fresh = MemberCache::new(cache);
            self.warm.give(pool, &key.1, &fresh);
            self.members.insert(key, Arc::downgrade(&fresh));
            fresh
        });
        Member {
            endpoint: self.endpoints.endpoint(server, configured),
            cache,
            configured: Arc::clone(configured),
        }
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
