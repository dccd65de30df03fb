//! Which endpoint the next attempt goes to. Pure: state of the endpoints, time and chance come in as arguments.
//!
//! Targets of a rule are drawn by weight among those that have a usable endpoint; within a target the scheduling
//! policy ranks. Usable means: untried, healthy and not draining; if no target has such an endpoint, draining ones are
//! better than none; then any that is untried; if there is none left at all, any that filters have not removed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngCore;
use rand::rngs::SmallRng;
use sluice_config::scheduling::SessionParams;

use crate::cache::members::{Found, block_sizes};
use crate::cache::prompt::Prompt;
use crate::endpoints::Admission;
use crate::endpoints::load::Work;
use crate::filters::Candidates;
use crate::route;
use crate::schedule::{Adapter, CandidateView, Plugin, Ranked, RequestView, filter};
use crate::serving::{Pool, Serving};

mod explain;

pub use explain::Explained;

/// What a request asks of an endpoint, whatever pool that is in.
#[derive(Debug, Clone, Default)]
pub struct Ask<'a> {
    /// Model as the client named it.
    pub model: &'a str,
    /// Its prompt, for what caches hold of it.
    pub prompt: Arc<Prompt>,
    /// Output tokens to expect.
    pub output_tokens: f64,
    /// The model is a LoRA adapter.
    pub lora: bool,
}

/// Targets and endpoints of one request, and what was tried.
pub struct Plan<'a> {
    serving: &'a Serving,
    ask: Ask<'a>,
    targets: Vec<Target>,
    /// What filters said; parallel to targets and their members, in order.
    filtered: Option<Candidates>,
    /// The target attempts stay with while it has endpoints.
    current: Option<usize>,
    /// How long each plug-in of the policies took, where someone wants to know.
    timings: Option<Vec<(Plugin, Duration)>>,
}

struct Target {
    server: usize,
    weight: u32,
    /// Parallel to the pool's members.
    tried: Vec<bool>,
    /// Where this target's members begin in the filters' list of endpoints.
    offset: usize,
    /// Hash of the request's session, by what makes one in this pool.
    session: Option<u64>,
    /// The prompt's tokens, by this pool's tokenizer, if they came in time.
    tokens: Option<Arc<[u32]>>,
    /// Who held how much when it was last looked at.
    found: Arc<Found>,
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
    /// Untried, healthy and not draining.
    Ready,
    /// Untried and healthy: it still serves, if only until its requests have ended.
    UntriedAndHealthy,
    Untried,
    Any,
}

/// Why a draining endpoint is passed over.
const DRAINING: &str = "draining";

impl<'a> Plan<'a> {
    /// A plan over a rule's targets: pairs of server index and weight; those without weight take no part
    /// unless a filter pins them.
    pub fn new(
        serving: &'a Serving,
        servers: impl Iterator<Item = (usize, u32)>,
        ask: Ask<'a>,
        session: impl Fn(&SessionParams) -> Option<u64>,
    ) -> Self {
        let mut offset = 0;
        let targets = servers
            .map(|(server, weight)| {
                let pool = &serving.pools[server];
                let members = pool.members.len();
                let target = Target {
                    server,
                    weight,
                    tried: vec![false; members],
                    offset,
                    session: session(&pool.session),
                    tokens: None,
                    found: Arc::default(),
                };
                offset += members;
                target
            })
            .collect();
        Self {
            serving,
            ask,
            targets,
            filtered: None,
            current: None,
            timings: None,
        }
    }

    /// Takes the times of the policies' plug-ins from now on.
    pub fn time_plugins(&mut self) {
        self.timings = Some(Vec::new());
    }

    /// The times taken.
    pub fn timings(&self) -> &[(Plugin, Duration)] {
        self.timings.as_deref().unwrap_or_default()
    }

    /// The largest share of the prompt that a member of the target in use was found to hold, and whether the prompt's
    /// tokens told. `None` without a target, or of an empty prompt.
    pub fn best_share(&self) -> Option<(bool, f64)> {
        let target = &self.targets[self.current?];
        let tokens = target.found.prompt_tokens;
        let held = self.pool(target).members.iter();
        let held = held
            .map(|member| member.cache.cached(&target.found))
            .max()?;
        let share = f64::from(held) / f64::from(tokens);
        (tokens > 0).then_some((target.tokens.is_some(), share))
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
                    member.configured.labels.clone(),
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
        let taking = || self.targets.iter().filter(|target| target.weight > 0);
        // Draining ones are usable where there is nothing else.
        let ready = taking().any(|target| self.has(target, Demand::Ready, now));
        let demand = match ready {
            true => Demand::Ready,
            false => Demand::UntriedAndHealthy,
        };
        taking()
            .filter(move |target| !self.has(target, demand, now))
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
    pub fn peek(&mut self, now: Duration, random: &mut SmallRng) -> Option<Choice> {
        let demands = [
            Demand::Ready,
            Demand::UntriedAndHealthy,
            Demand::Untried,
            Demand::Any,
        ];
        demands
            .into_iter()
            .find_map(|demand| self.choose(demand, now, random))
    }

    fn choose(&mut self, demand: Demand, now: Duration, random: &mut SmallRng) -> Option<Choice> {
        let target = self.draw_target(demand, now, random)?;
        self.targets[target].found = self.find(&self.targets[target]);
        let mut timings = self.timings.take();
        let views = self.views(&self.targets[target], demand, now);
        let ranking = self.rank(&self.targets[target], &views, random, timings.as_mut());
        let best = ranking.first().map(|ranked| ranked.index);
        drop(views);
        // Whoever asked for times keeps them, also where there was nobody to choose.
        self.timings = timings;
        let member = best?;
        self.current = Some(target);
        let server = self.targets[target].server;
        let health = &self.serving.pools[server].members[member].endpoint.health;
        Some(Choice {
            server,
            member,
            healthy: health.admission(now) == Admission::Healthy,
        })
    }

    /// Why there is no choice, where endpoints are there: the first one's reason.
    pub fn obstacle(&self, now: Duration) -> Option<&'static str> {
        let taking = self.targets.iter().filter(|target| target.weight > 0);
        taking
            .flat_map(|target| self.views(target, Demand::Any, now))
            .find_map(|view| view.excluded)
    }

    /// What the chosen endpoint was found to hold of the prompt, and so what is left for it to do.
    pub fn work(&self, choice: Choice) -> (Arc<Found>, Work) {
        let target = self.current.map(|current| &self.targets[current]);
        let found = target.map(|target| Arc::clone(&target.found));
        let found = found.unwrap_or_default();
        let member = &self.serving.pools[choice.server].members[choice.member];
        let work = Work {
            prompt_tokens: found.prompt_tokens,
            cached_tokens: member.cache.cached(&found),
        };
        (found, work)
    }

    /// Its targets that take traffic, as server indexes.
    pub fn servers(&self) -> impl Iterator<Item = usize> + '_ {
        let taking = self.targets.iter().filter(|target| target.weight > 0);
        taking.map(|target| target.server)
    }

    /// The prompt's tokens by the pool's tokenizer, come in time.
    pub fn set_tokens(&mut self, server: usize, tokens: &Arc<[u32]>) {
        for target in self.targets.iter_mut().filter(|t| t.server == server) {
            target.tokens = Some(Arc::clone(tokens));
        }
    }

    fn draw_target(&self, demand: Demand, now: Duration, random: &mut SmallRng) -> Option<usize> {
        let usable = |target: &Target| self.has(target, demand, now);
        if let Some(current) = self.current
            && usable(&self.targets[current])
        {
            return Some(current);
        }
        // Nothing to draw, and nearly all rules are so.
        if let [only] = &self.targets[..] {
            return (only.weight > 0 && usable(only)).then_some(0);
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
        if demand == Demand::Untried {
            return None;
        }
        let member = &self.serving.pools[target.server].members[member];
        if member.endpoint.health.admission(now) == Admission::Ejected {
            return Some("ejected: connections to it failed");
        }
        (demand == Demand::Ready && member.configured.draining).then_some(DRAINING)
    }

    fn pool(&self, target: &Target) -> &'a Pool {
        &self.serving.pools[target.server]
    }

    fn find(&self, target: &Target) -> Arc<Found> {
        let pool = self.pool(target);
        // Without tokens those of an earlier turn may be remembered.
        let sizes = match (&target.tokens, &pool.tokenizer) {
            (None, Some(_)) => Vec::new(),
            _ => block_sizes(pool.members.iter().map(|member| &member.cache)),
        };
        let tokens = target.tokens.as_deref();
        pool.cache.find(&self.ask.prompt, tokens, &sizes)
    }

    fn request(&self, target: &Target) -> RequestView<'_> {
        RequestView {
            model: self.ask.model,
            prompt_tokens: target.found.prompt_tokens,
            output_tokens: self.ask.output_tokens,
            session: target.session,
            prefix: self.ask.prompt.beginning(),
            lora: self.ask.lora,
        }
    }

    fn views(&self, target: &Target, demand: Demand, now: Duration) -> Vec<CandidateView<'_>> {
        let instant = Instant::now();
        let view = |(member, state): (usize, &'a crate::endpoints::Member)| {
            let endpoint = &state.endpoint;
            let filtered = self.filtered.as_ref();
            CandidateView {
                address: &endpoint.address,
                excluded: self.exclusion(target, member, demand, now),
                penalty_ms: endpoint.failing.price_ms(now)
                    + filtered.map_or(0.0, |all| all.endpoints[target.offset + member].score),
                cached_tokens: state.cache.cached(&target.found),
                load: endpoint.load.load(),
                constants: endpoint.constants(),
                reported: endpoint.reported.load(instant),
                ttft_ms: endpoint.stats.ttft_ms(instant),
                token_gap_ms: endpoint.stats.token_gap_ms(instant),
                adapter: match self.ask.lora {
                    true => endpoint.reported.adapter(self.ask.model, instant),
                    false => Adapter::Unknown,
                },
                max_model_len: endpoint.reported.max_model_len(instant),
            }
        };
        let members = self.pool(target).members.iter().enumerate();
        let mut views: Vec<_> = members.map(view).collect();
        filter::exclude(&self.request(target), &mut views);
        views
    }

    fn rank(
        &self,
        target: &Target,
        views: &[CandidateView<'_>],
        random: &mut dyn RngCore,
        timings: Option<&mut Vec<(Plugin, Duration)>>,
    ) -> Vec<Ranked> {
        let (policy, request) = (&self.pool(target).policy, self.request(target));
        let Some(timings) = timings else {
            return policy.rank(&request, views, random);
        };
        let mut since = Instant::now();
        let mut ran = |plugin| {
            let before = std::mem::replace(&mut since, Instant::now());
            timings.push((plugin, since.saturating_duration_since(before)));
        };
        policy.rank_told(&request, views, random, &mut ran)
    }
}

#[cfg(test)]
mod tests;
