//! What `/debug/explain` tells of a plan: each endpoint with what its cost is made of. Changes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::SmallRng;
use serde::Serialize;

use super::{Demand, Plan};
use crate::endpoints::constants::Constants;
use crate::schedule::{CandidateView, Ranked, RequestView};

/// One endpoint.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explained {
    /// `namespace/name` of the target's ModelServer.
    pub server: String,
    /// Weight of the target.
    pub weight: u32,
    /// The pool's policy.
    pub policy: &'static str,
    /// `host:port`.
    pub address: String,
    /// `namespace/name` of its pod, if it is one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pod: String,
    /// Zone of its node.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub zone: String,
    /// It gets no new requests while another can take them.
    pub draining: bool,
    /// Prompt tokens, counted or estimated (P).
    pub prompt_tokens: u32,
    /// Of these, held by its cache (h).
    pub cached_tokens: u32,
    /// Left to prefill (u).
    pub uncached_tokens: u32,
    /// Prompt tokens pending there (q).
    pub pending_tokens: u64,
    /// Requests in flight there (n).
    pub in_flight: u32,
    /// Context tokens held there (x).
    pub context_tokens: u64,
    /// Its KV events are followed and come.
    pub kv_events: bool,
    /// Its speed, as far as it is known.
    pub constants: Constants,
    /// Cost added by filters and for answers that failed lately, in milliseconds.
    pub penalty_ms: f64,
    /// What the policy's cost is made of, in milliseconds.
    pub terms_ms: BTreeMap<&'static str, f64>,
    /// The policy's cost, in milliseconds; absent when excluded.
    pub cost_ms: Option<f64>,
    /// Place in its target's ranking, from 1; absent when excluded.
    pub rank: Option<usize>,
    /// Why it stands there, or why it is excluded.
    pub reason: &'static str,
}

impl Plan<'_> {
    /// Every endpoint with its place and the reason for it.
    pub fn explain(&mut self, now: Duration, random: &mut SmallRng) -> Vec<Explained> {
        let mut rows = Vec::new();
        for index in 0..self.targets.len() {
            self.targets[index].found = self.find(&self.targets[index]);
            let target = &self.targets[index];
            let views = self.views(target, Demand::Ready, now);
            let ranking = self.rank(target, &views, random, None);
            let request = self.request(target);
            for member in 0..views.len() {
                let place = ranking.iter().position(|ranked| ranked.index == member);
                let ranked = place.map(|place| (place + 1, ranking[place]));
                rows.push(self.row(index, member, &request, &views, ranked));
            }
        }
        rows
    }

    fn row(
        &self,
        target: usize,
        member: usize,
        request: &RequestView<'_>,
        views: &[CandidateView<'_>],
        ranked: Option<(usize, Ranked)>,
    ) -> Explained {
        let target = &self.targets[target];
        let pool = self.pool(target);
        let view = &views[member];
        let configured = &pool.members[member].configured;
        let terms = pool.policy.terms(request, views, member);
        Explained {
            server: pool.name.to_string(),
            weight: target.weight,
            policy: pool.policy.name(),
            address: view.address.to_owned(),
            pod: configured.pod.clone(),
            zone: configured.zone.clone(),
            draining: configured.draining,
            prompt_tokens: request.prompt_tokens,
            cached_tokens: view.cached_tokens,
            uncached_tokens: request.prompt_tokens.saturating_sub(view.cached_tokens),
            pending_tokens: view.load.pending_tokens,
            in_flight: view.load.in_flight,
            context_tokens: view.load.context_tokens,
            kv_events: pool.members[member].cache.is_live(),
            constants: view.constants,
            penalty_ms: view.penalty_ms,
            terms_ms: terms
                .into_iter()
                .map(|term| (term.name, term.value))
                .collect(),
            cost_ms: ranked.map(|(_, ranked)| ranked.cost),
            rank: ranked.map(|(place, _)| place),
            reason: view
                .excluded
                .or(ranked.map(|(_, ranked)| ranked.reason))
                .unwrap_or("not ranked"),
        }
    }
}
