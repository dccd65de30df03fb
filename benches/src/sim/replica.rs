//! One gateway replica: its load counters, its view of the caches, its policy.
//!
//! It knows what it dispatched, what engines tell it, and what other replicas tell it, each as late as the world
//! delivers it. It never looks into an engine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::SmallRng;
use sluice_e2e::engine::{Profile, hash};
use sluice_proxy::cache::chain::Chain;
use sluice_proxy::cache::event::KvEvent;
use sluice_proxy::endpoints::constants::Constants;
use sluice_proxy::endpoints::level::Level;
use sluice_proxy::endpoints::load::{Load, LoadCounter, Reservation, Work};
use sluice_proxy::endpoints::observe::{EndpointStats, Observation};
use sluice_proxy::endpoints::output::OutputLengths;
use sluice_proxy::schedule::{CandidateView, Reported, RequestView};

use super::cache::{Cache, IndexKind};

/// A request as a router sees it, besides what policies of the gateway see.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival<'a> {
    /// Its number.
    pub id: usize,
    /// Its prompt.
    pub tokens: &'a [u32],
    /// What the gateway's policies see.
    pub view: RequestView<'a>,
}

/// What a router is built to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Knowledge {
    /// Of the caches.
    pub index: IndexKind,
    /// How often it reads engines' metrics, if it does.
    pub poll: Option<Duration>,
}

/// A routing policy with its hooks. Policies of the gateway need only the first.
pub(super) trait Router {
    /// The engine to send the request to, among those not excluded; `None` when there is none.
    fn choose(
        &mut self,
        arrival: &Arrival<'_>,
        candidates: &[CandidateView<'_>],
        random: &mut SmallRng,
    ) -> Option<usize>;

    /// What it is built to know.
    fn knowledge(&self) -> Knowledge {
        Knowledge {
            index: IndexKind::Hybrid,
            poll: None,
        }
    }

    /// The request was sent to that engine.
    fn dispatched(&mut self, _arrival: &Arrival<'_>, _engine: usize) {}

    /// The request has been answered by that engine.
    fn finished(&mut self, _id: usize, _engine: usize) {}
}

/// One engine as this replica knows it.
struct Endpoint {
    address: String,
    counter: Arc<LoadCounter>,
    /// Believed at the start; what is learned lies in `stats`.
    constants: Constants,
    stats: EndpointStats,
    reported: Reported,
    /// What other replicas said they have given it.
    others: Load,
    up: bool,
}

/// A request on its way, as its replica keeps the books.
pub(crate) struct Flight {
    pub(crate) engine: usize,
    reservation: Reservation,
    observation: Observation,
    chain: Chain,
    confirmed: bool,
}

pub(crate) struct Replica {
    router: Box<dyn Router>,
    endpoints: Vec<Endpoint>,
    cache: Cache,
    outputs: OutputLengths,
    /// Whether constants are learned from answers.
    learn: bool,
    /// The instant that virtual time counts from.
    origin: Instant,
    random: SmallRng,
}

/// Every request asks for the same model.
const MODEL: &str = "model";
/// Tokens that name a prompt's beginning.
const PREFIX_TOKENS: usize = 256;

impl Replica {
    pub(crate) fn new(
        router: Box<dyn Router>,
        index: Option<IndexKind>,
        engines: &[Profile],
        constants: impl Fn(&Profile) -> Constants,
        learn: bool,
        seed: u64,
    ) -> Self {
        let origin = Instant::now();
        let kind = index.unwrap_or(router.knowledge().index);
        let start = engines.first().map(&constants).unwrap_or_default();
        let level = Arc::new(Level::new(start));
        let endpoints = engines.iter().enumerate().map(|(index, profile)| Endpoint {
            address: format!("engine-{index}:8000"),
            counter: Arc::default(),
            constants: constants(profile),
            stats: EndpointStats::starting_at(Arc::clone(&level), origin),
            reported: Reported::default(),
            others: Load::default(),
            up: true,
        });
        Self {
            endpoints: endpoints.collect(),
            cache: Cache::new(kind, engines),
            router,
            outputs: OutputLengths::default(),
            learn,
            origin,
            random: SmallRng::seed_from_u64(seed),
        }
    }

    /// Routes a request; `None` when no engine is up.
    pub(crate) fn route(
        &mut self,
        id: usize,
        session: u64,
        tokens: &[u32],
        now: Duration,
    ) -> Option<Flight> {
        self.cache.advance(now);
        let chain = self.cache.chain(tokens);
        let cached = self.cache.cached(&chain);
        let arrival = Arrival {
            id,
            tokens,
            view: RequestView {
                model: MODEL,
                prompt_tokens: tokens.len() as u32,
                output_tokens: self.outputs.expected(MODEL, None),
                session: Some(session),
                prefix: Some(beginning(tokens)),
                ..RequestView::default()
            },
        };
        let candidates: Vec<CandidateView<'_>> = self
            .endpoints
            .iter()
            .zip(&cached)
            .map(|(endpoint, &cached)| endpoint.view(cached, self.learn, self.origin + now))
            .collect();
        let engine = self
            .router
            .choose(&arrival, &candidates, &mut self.random)?;
        self.router.dispatched(&arrival, engine);
        self.cache.dispatched(engine, &chain);
        let work = Work {
            prompt_tokens: tokens.len() as u32,
            cached_tokens: cached[engine],
        };
        let endpoint = &self.endpoints[engine];
        let load = endpoint.load();
        Some(Flight {
            engine,
            observation: endpoint.stats.dispatched(load, work, self.origin + now),
            reservation: endpoint.counter.reserve(work),
            chain,
            confirmed: false,
        })
    }

    pub(crate) fn first_token(&mut self, flight: &mut Flight, now: Duration) {
        flight.reservation.first_token();
        let endpoint = &self.endpoints[flight.engine];
        let load = endpoint.load();
        endpoint
            .stats
            .first_token(&mut flight.observation, load, self.origin + now);
        self.cache.confirmed(flight.engine, &flight.chain);
        flight.confirmed = true;
    }

    pub(crate) fn token(&mut self, flight: &mut Flight) {
        flight.reservation.generated(1);
    }

    pub(crate) fn finished(&mut self, id: usize, flight: Flight, tokens: u32, now: Duration) {
        let endpoint = &self.endpoints[flight.engine];
        let load = endpoint.load();
        endpoint
            .stats
            .finished(flight.observation, tokens, load, self.origin + now);
        self.outputs.finished(MODEL, tokens);
        self.router.finished(id, flight.engine);
    }

    pub(crate) fn failed(&mut self, flight: Flight) {
        if !flight.confirmed {
            self.cache.withdrawn(flight.engine, &flight.chain);
        }
    }

    pub(crate) fn events(&mut self, engine: usize, events: &[KvEvent]) {
        self.cache.apply(engine, events);
    }

    pub(crate) fn polled(&mut self, engine: usize, reported: Reported) {
        self.endpoints[engine].reported = reported;
    }

    pub(crate) fn poll_interval(&self) -> Option<Duration> {
        self.router.knowledge().poll
    }

    pub(crate) fn load(&self, engine: usize) -> Load {
        self.endpoints[engine].counter.load()
    }

    pub(crate) fn told_of_others(&mut self, engine: usize, load: Load) {
        self.endpoints[engine].others = load;
    }

    /// The engine went away, or came (back) with an empty cache.
    pub(crate) fn availability(&mut self, engine: usize, up: bool) {
        self.endpoints[engine].up = up;
        self.endpoints[engine].reported = Reported::default();
        self.cache.restarted(engine);
    }
}

impl Endpoint {
    /// What all replicas together have given it, as far as is known here.
    fn load(&self) -> Load {
        sum(self.counter.load(), self.others)
    }

    /// What was learned, with sizes as the engine reports them.
    fn learned(&self) -> Constants {
        Constants {
            batch_tokens: self.constants.batch_tokens,
            kv_tokens: self.constants.kv_tokens,
            ..self.stats.constants()
        }
    }

    fn view(&self, cached_tokens: u32, learn: bool, now: Instant) -> CandidateView<'_> {
        CandidateView {
            address: &self.address,
            excluded: (!self.up).then_some("down"),
            cached_tokens,
            load: self.load(),
            constants: match learn {
                true => self.learned(),
                false => self.constants,
            },
            reported: self.reported,
            ttft_ms: self.stats.ttft_ms(now),
            token_gap_ms: self.stats.token_gap_ms(now),
            ..CandidateView::default()
        }
    }
}

/// Hash of the prompt's first kilobyte.
fn beginning(tokens: &[u32]) -> u64 {
    hash::chain(1, tokens.iter().take(PREFIX_TOKENS).copied())
}

/// Two replicas' loads together.
pub(crate) fn sum(left: Load, right: Load) -> Load {
    Load {
        in_flight: left.in_flight + right.in_flight,
        pending_tokens: left.pending_tokens + right.pending_tokens,
        context_tokens: left.context_tokens + right.context_tokens,
    }
}
