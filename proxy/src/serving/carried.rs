//! What outlives a configuration change: endpoints, routes' counters, policies with a turn of their own, and what is
//! known of caches. All is held weakly, so that it ends with the last generation or request that knows it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Weak};

use sluice_config::scheduling::SchedulingParams;
use sluice_config::snapshot::ModelServer;

use crate::cache::budget::IndexBudget;
use crate::cache::holdings::{Holder, Holdings};
use crate::endpoints::{Member, Registry};
use crate::schedule::{self, Policy};

use super::tokenizers::{Loading, Tokenizers};

/// See the module.
#[derive(Default)]
pub(super) struct Carried {
    endpoints: Registry,
    tokenizers: Tokenizers,
    routes: HashMap<String, Weak<AtomicU32>>,
    /// By a pool's name.
    holdings: HashMap<Arc<str>, Weak<Holdings>>,
    /// By a pool's name and an endpoint's address.
    holders: HashMap<(Arc<str>, Arc<str>), Weak<Holder>>,
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
    pub(super) fn holdings(&mut self, pool: &Arc<str>, budget: &Arc<IndexBudget>) -> Arc<Holdings> {
        if let Some(known) = self.holdings.get(pool).and_then(Weak::upgrade) {
            return known;
        }
        let holdings = Holdings::new(budget);
        self.holdings
            .insert(Arc::clone(pool), Arc::downgrade(&holdings));
        holdings
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
        holdings: &Arc<Holdings>,
        server: &ModelServer,
    ) -> Vec<Member> {
        let endpoints = self.endpoints.endpoints(server);
        let members = endpoints.into_iter().zip(&server.endpoints);
        members
            .map(|(endpoint, configured)| {
                let key = (Arc::clone(pool), Arc::clone(&endpoint.address));
                let holder = self.holders.get(&key).and_then(Weak::upgrade);
                let holder = holder.unwrap_or_else(|| Holder::new(holdings));
                self.holders.insert(key, Arc::downgrade(&holder));
                Member {
                    endpoint,
                    holder,
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
        self.holdings.retain(|_, known| known.strong_count() > 0);
        self.holders.retain(|_, known| known.strong_count() > 0);
        self.policies
            .retain(|_, (_, known)| known.strong_count() > 0);
    }
}
