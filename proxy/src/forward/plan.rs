//! Which endpoint the next attempt goes to. Pure: state of the endpoints, time and chance come in as arguments.
//!
//! Targets of a rule are drawn by weight among those that have a usable endpoint; within a target the scheduling
//! policy ranks. Usable means: untried and healthy; if no target has such an endpoint, untried; if there is none
//! left at all, any that filters have not removed.

use std::time::Duration;

use rand::RngCore;
use rand::rngs::SmallRng;

use crate::endpoints::Admission;
use crate::filters::Candidates;
use crate::route;
use crate::schedule::{CandidateView, Policy, Ranked, RequestView};
use crate::serving::Serving;

/// Targets and endpoints of one request, and what was tried.
pub struct Plan<'a> {
    serving: &'a Serving,
    targets: Vec<Target>,
    /// What filters said; parallel to targets and their members, in order.
    filtered: Option<Candidates>,
    /// The target attempts stay with while it has endpoints.
    current: Option<usize>,
}

struct Target {
    server: usize,
    weight: u32,
    /// Parallel to the pool's members.
    tried: Vec<bool>,
    /// Where this target's members begin in the filters' list of endpoints.
    offset: usize,
}

/// Where an attempt goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// Index into the serving's pools.
    pub server: usize,
    /// Index into the pool's members.
    pub member: usize,
    /// The endpoint is healthy, so going there costs others nothing.
    pub healthy: bool,
}

/// How much is asked of an endpoint, strictest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Demand {
    UntriedAndHealthy,
    Untried,
    Any,
}

/// What `/debug/explain` tells of one endpoint.
#[derive(Debug, Clone, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explained {
    /// `namespace/name` of the target's ModelServer.
    pub server: String,
    /// Weight of the target.
    pub weight: u32,
    /// `host:port`.
    pub address: String,
    /// Requests in flight there.
    pub in_flight: u32,
    /// Cost added by filters, in milliseconds.
    pub penalty_ms: f64,
    /// The policy's cost; absent when excluded.
    pub cost: Option<f64>,
    /// Place in its target's ranking, from 1; absent when excluded.
    pub rank: Option<usize>,
    /// Why it stands there, or why it is excluded.
    pub reason: &'static str,
}

impl<'a> Plan<'a> {
    /// A plan over a rule's targets: pairs of server index and weight; those without weight take no part
    /// unless a filter pins them.
    pub fn new(serving: &'a Serving, servers: impl Iterator<Item = (usize, u32)>) -> Self {
        let mut offset = 0;
        let targets = servers
            .map(|(server, weight)| {
                let members = serving.pools[server].members.len();
                let target = Target {
                    server,
                    weight,
                    tried: vec![false; members],
                    offset,
                };
                offset += members;
                target
            })
            .collect();
        Self {
            serving,
            targets,
            filtered: None,
            current: None,
        }
    }

    /// There is no target at all.
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    /// The endpoints as filters see them.
    pub fn candidates(&self) -> Candidates {
        use crate::filters::{Candidate, TargetView};
        let pools = || {
            self.targets
                .iter()
                .map(|target| &self.serving.pools[target.server])
        };
        let targets = self
            .targets
            .iter()
            .zip(pools())
            .map(|(target, pool)| TargetView {
                server: pool.name.clone(),
                weight: target.weight,
            })
            .collect();
        let endpoints = pools()
            .enumerate()
            .flat_map(|(index, pool)| pool.members.iter().map(move |member| (index, member)))
            .map(|(index, member)| {
                Candidate::new(
                    index,
                    member.endpoint.address.clone(),
                    member.labels.clone(),
                )
            })
            .collect();
        Candidates::new(targets, endpoints)
    }

    /// Takes over what filters did to [`Self::candidates`].
    pub fn apply(&mut self, candidates: Candidates) {
        self.current = candidates.chosen().map(|(target, _)| target);
        self.filtered = Some(candidates);
    }

    /// Targets that have no usable endpoint now, as server indexes.
    pub fn skipped(&self, now: Duration) -> impl Iterator<Item = usize> + '_ {
        self.targets
            .iter()
            .filter(move |target| {
                target.weight > 0 && !self.has(target, Demand::UntriedAndHealthy, now)
            })
            .map(|target| target.server)
    }

    /// Marks what [`Self::peek`] has chosen as tried, and takes the probe of an endpoint that was ejected.
    pub fn take(&mut self, choice: Choice, now: Duration) {
        if let Some(target) = self.current {
            self.targets[target].tried[choice.member] = true;
        }
        if !choice.healthy {
            let pool = &self.serving.pools[choice.server];
            pool.members[choice.member].endpoint.health.begin_probe(now);
        }
    }

    /// The next endpoint to try, `None` when there is none at all. Draws the target; [`Self::take`] marks it.
    pub fn peek(
        &mut self,
        policy: &dyn Policy,
        request: &RequestView<'_>,
        now: Duration,
        random: &mut SmallRng,
    ) -> Option<Choice> {
        let demands = [Demand::UntriedAndHealthy, Demand::Untried, Demand::Any];
        let (demand, target) = demands
            .into_iter()
            .find_map(|demand| Some((demand, self.draw_target(demand, now, random)?)))?;
        self.current = Some(target);
        let best = *self
            .rank(target, demand, policy, request, now, random)
            .first()?;
        let server = self.targets[target].server;
        let health = &self.serving.pools[server].members[best.index]
            .endpoint
            .health;
        let healthy = health.admission(now) == Admission::Healthy;
        Some(Choice {
            server,
            member: best.index,
            healthy,
        })
    }

    /// Every endpoint with its place and the reason for it; changes nothing.
    pub fn explain(
        &self,
        policy: &dyn Policy,
        request: &RequestView<'_>,
        now: Duration,
        random: &mut SmallRng,
    ) -> Vec<Explained> {
        let mut rows = Vec::new();
        for (index, target) in self.targets.iter().enumerate() {
            let pool = &self.serving.pools[target.server];
            let views = self.views(target, Demand::UntriedAndHealthy, now);
            let ranking = self.rank(
                index,
                Demand::UntriedAndHealthy,
                policy,
                request,
                now,
                random,
            );
            for (member, view) in views.iter().enumerate() {
                let place = ranking.iter().position(|ranked| ranked.index == member);
                rows.push(Explained {
                    server: pool.name.to_string(),
                    weight: target.weight,
                    address: view.address.to_owned(),
                    in_flight: view.load.in_flight,
                    penalty_ms: view.penalty_ms,
                    cost: place.map(|place| ranking[place].cost),
                    rank: place.map(|place| place + 1),
                    reason: view
                        .excluded
                        .or(place.map(|place| ranking[place].reason))
                        .unwrap_or("not ranked"),
                });
            }
        }
        rows
    }

    fn draw_target(&self, demand: Demand, now: Duration, random: &mut SmallRng) -> Option<usize> {
        let usable = |target: &Target| self.has(target, demand, now);
        if let Some(current) = self.current
            && usable(&self.targets[current])
        {
            return Some(current);
        }
        let weights: Vec<u32> = self
            .targets
            .iter()
            .map(|target| if usable(target) { target.weight } else { 0 })
            .collect();
        route::draw(weights.iter().copied(), random)
    }

    fn has(&self, target: &Target, demand: Demand, now: Duration) -> bool {
        (0..target.tried.len()).any(|member| self.exclusion(target, member, demand, now).is_none())
    }

    fn exclusion(
        &self,
        target: &Target,
        member: usize,
        demand: Demand,
        now: Duration,
    ) -> Option<&'static str> {
        let filtered = self
            .filtered
            .as_ref()
            .map(|all| &all.endpoints[target.offset + member]);
        if let Some(candidate) = filtered.filter(|candidate| candidate.removed) {
            return Some(candidate.reason.unwrap_or("removed by a filter"));
        }
        if demand == Demand::Any {
            return None;
        }
        if target.tried[member] {
            return Some("tried already");
        }
        let health = &self.serving.pools[target.server].members[member]
            .endpoint
            .health;
        let ejected =
            demand == Demand::UntriedAndHealthy && health.admission(now) == Admission::Ejected;
        ejected.then_some("ejected: connections to it failed")
    }

    fn views(&self, target: &Target, demand: Demand, now: Duration) -> Vec<CandidateView<'_>> {
        let members = &self.serving.pools[target.server].members;
        members
            .iter()
            .enumerate()
            .map(|(member, state)| CandidateView {
                address: &state.endpoint.address,
                load: state.endpoint.load.load(),
                penalty_ms: self
                    .filtered
                    .as_ref()
                    .map_or(0.0, |all| all.endpoints[target.offset + member].score),
                excluded: self.exclusion(target, member, demand, now),
                ..CandidateView::default()
            })
            .collect()
    }

    fn rank(
        &self,
        target: usize,
        demand: Demand,
        policy: &dyn Policy,
        request: &RequestView<'_>,
        now: Duration,
        random: &mut dyn RngCore,
    ) -> Vec<Ranked> {
        policy.rank(
            request,
            &self.views(&self.targets[target], demand, now),
            random,
        )
    }
}

#[cfg(test)]
mod tests;
