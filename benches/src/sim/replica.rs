//! One gateway replica: its load counters, its view of the caches, its policy.
//!
//! It knows what it dispatched, what engines tell it, and what other replicas tell it, each as late as the world
//! delivers it. It never looks into an engine.

use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use sluice_e2e::engine::{Profile, hash};
use sluice_proxy::cache::chain::Chain;
use sluice_proxy::cache::event::KvEvent;
use sluice_proxy::endpoints::constants::Constants;
use sluice_proxy::endpoints::load::{Load, LoadCounter, Reservation, Work};
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
    constants: Constants,
    reported: Reported,
    /// What other replicas said they have given it.
    others: Load,
    up: bool,
}

/// A request on its way, as its replica keeps the books.
pub(crate) struct Flight {
    pub(crate) engine: usize,
    reservation: Reservation,
    chain: Chain,
    confirmed: bool,
}

pub(crate) struct Replica {
    router: Box<dyn Router>,
    endpoints: Vec<Endpoint>,
    cache: Cache,
    /// Moving average of output tokens.
    output_tokens: f64,
    random: SmallRng,
}

/// Weight of one answer in the average of output lengths.
const OUTPUT_WEIGHT: f64 = 0.02;
/// Tokens that name a prompt's beginning.
const PREFIX_TOKENS: usize = 256;
/// Output length to expect before anything is known.
const OUTPUT_START: f64 = 256.0;

impl Replica {
    pub(crate) fn new(
        router: Box<dyn Router>,
        index: Option<IndexKind>,
        engines: &[Profile],
        constants: impl Fn(&Profile) -> Constants,
        seed: u64,
    ) -> Self {
        let kind = index.unwrap_or(router.knowledge().index);
        let endpoints = engines.iter().enumerate().map(|(index, profile)| Endpoint {
            address: format!("engine-{index}:8000"),
            counter: Arc::default(),
            constants: constants(profile),
            reported: Reported::default(),
            others: Load::default(),
            up: true,
        });
        Self {
            endpoints: endpoints.collect(),
            cache: Cache::new(kind, engines),
            router,
            output_tokens: OUTPUT_START,
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
                model: "model",
                prompt_tokens: tokens.len() as u32,
                output_tokens: self.output_tokens,
                session: Some(session),
                prefix: Some(beginning(tokens)),
                ..RequestView::default()
            },
        };
        let candidates: Vec<CandidateView<'_>> = self
            .endpoints
            .iter()
            .zip(&cached)
            .map(|(endpoint, &cached)| endpoint.view(cached))
            .collect();
        let engine = self
            .router
            .choose(&arrival, &candidates, &mut self.random)?;
        self.router.dispatched(&arrival, engine);
        self.cache.dispatched(engine, &chain);
        Some(Flight {
            engine,
            reservation: self.endpoints[engine].counter.reserve(Work {
                prompt_tokens: tokens.len() as u32,
                cached_tokens: cached[engine],
            }),
            chain,
            confirmed: false,
        })
    }

    pub(crate) fn first_token(&mut self, flight: &mut Flight) {
        flight.reservation.first_token();
        self.cache.confirmed(flight.engine, &flight.chain);
        flight.confirmed = true;
    }

    pub(crate) fn token(&mut self, flight: &mut Flight) {
        flight.reservation.generated(1);
    }

    pub(crate) fn finished(&mut self, id: usize, flight: Flight, output_tokens: u32) {
        self.output_tokens += OUTPUT_WEIGHT * (f64::from(output_tokens) - self.output_tokens);
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
    fn view(&self, cached_tokens: u32) -> CandidateView<'_> {
        CandidateView {
            address: &self.address,
            excluded: (!self.up).then_some("down"),
            cached_tokens,
            load: sum(self.counter.load(), self.others),
            constants: self.constants,
            reported: self.reported,
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
