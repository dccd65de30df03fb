//! The world in virtual time: a heap of what happens next, engines that step, replicas that route.
//!
//! Deterministic: the same workload, setup and seed give the same outcome to the last digit. What takes no time here
//! is said in the parent module.

mod clock;
mod fleet;

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use sluice_e2e::engine::{self, GenerateRequest, Profile};
use sluice_proxy::cache::event::KvEvent;
use sluice_proxy::endpoints::constants::Constants;
use sluice_proxy::endpoints::load::Load;

use super::cache::{self, IndexKind};
use super::prompt;
use super::replica::{Flight, Replica, Router, sum};
use super::workload::{Incident, Start, Workload};
use clock::Clock;
use fleet::{Fleet, Step};

/// How the workload is served.
#[derive(Debug, Clone, PartialEq)]
pub struct Setup {
    /// Gateway replicas; each request goes to one at random.
    pub replicas: usize,
    /// Decides chance.
    pub seed: u64,
    /// What every router knows of the caches, instead of what it is built for.
    pub index: Option<IndexKind>,
    /// How long KV events take to a replica.
    pub event_delay: Duration,
    /// Share of KV-event messages that a replica never sees.
    pub event_loss: f64,
    /// How often replicas tell each other their loads, if they do.
    pub exchange: Option<Duration>,
    /// The gateway believes engines' times per token (D, Kd) to be so many times what they are.
    pub constants_wrong_by: (f64, f64),
    /// It learns better ones from answers.
    pub learn: bool,
    /// It begins with what it takes any engine of vLLM for, whatever the profile is.
    pub cold: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            replicas: 1,
            seed: 1,
            index: None,
            event_delay: Duration::ZERO,
            event_loss: 0.0,
            exchange: None,
            constants_wrong_by: (1.0, 1.0),
            learn: false,
            cold: false,
        }
    }
}

/// The life of one request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Record {
    /// When it was sent.
    pub arrived: Duration,
    /// When its first token came.
    pub first_token: Option<Duration>,
    /// When its last token came; none when it never did.
    pub finished: Option<Duration>,
    /// Tokens of its prompt.
    pub prompt_tokens: u32,
    /// Of these, found cached by the engine.
    pub cached_tokens: u32,
    /// Tokens of its answer.
    pub output_tokens: u32,
    /// Which engine answered.
    pub engine: usize,
    /// How often it lost its engine.
    pub retries: u32,
}

/// What became of a workload.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// One per request, in the workload's order.
    pub records: Vec<Record>,
    /// How long each engine computed.
    pub busy: Vec<Duration>,
    /// Sequences that lost their blocks.
    pub preemptions: u64,
}

/// After so much virtual time a run ends, finished or not.
const END: Duration = Duration::from_secs(12 * 3600);

#[derive(Debug, Clone)]
enum Happening {
    Arrive(usize),
    StepEnds {
        engine: usize,
        life: u32,
    },
    Deliver {
        replica: usize,
        engine: usize,
        life: u32,
        events: Rc<[KvEvent]>,
    },
    Poll(usize),
    Exchange,
    Incident(Incident),
}

struct World<'a> {
    workload: &'a Workload,
    setup: &'a Setup,
    clock: Clock<Happening>,
    fleet: Fleet,
    replicas: Vec<Replica>,
    random: SmallRng,
    records: Vec<Record>,
    /// Replica and books of each request in flight.
    flights: Vec<Option<(usize, Flight)>>,
    /// The requests that follow each one's end.
    next: Vec<Option<usize>>,
    in_flight: usize,
    /// Due, but no caller is free.
    backlog: VecDeque<usize>,
    /// Sent, but no engine is up.
    stranded: Vec<usize>,
    unfinished: usize,
}

/// Runs a workload to its end with one router per replica.
pub(super) fn run(
    workload: &Workload,
    setup: &Setup,
    router: &dyn Fn() -> Box<dyn Router>,
) -> Outcome {
    let mut world = World::new(workload, setup, router);
    world.begin();
    while world.unfinished > 0 {
        let Some((now, happening)) = world.clock.next() else {
            break;
        };
        if now > END {
            break;
        }
        world.happens(happening);
    }
    Outcome {
        records: world.records,
        busy: world.fleet.busy(),
        preemptions: world.fleet.preemptions(),
    }
}

/// The constants that the gateway believes an engine of this profile to have.
fn constants(profile: &Profile, setup: &Setup) -> Constants {
    if setup.cold {
        return Constants {
            kv_tokens: profile.kv_tokens as f64,
            ..Constants::DEFAULT
        };
    }
    let wrong_by = setup.constants_wrong_by;
    Constants {
        step_ms: profile.weights_ms + profile.base_ms,
        token_ms: profile.token_us / 1e3 * wrong_by.0,
        context_ms: profile.decode_attention_us / 1e3 * wrong_by.1,
        attention_ms: profile.prefill_attention_us / 1e3,
        batch_tokens: profile.max_batched_tokens as f64,
        kv_tokens: profile.kv_tokens as f64,
    }
}

impl<'a> World<'a> {
    fn new(workload: &'a Workload, setup: &'a Setup, router: &dyn Fn() -> Box<dyn Router>) -> Self {
        let replicas = (0..setup.replicas.max(1)).map(|replica| {
            Replica::new(
                router(),
                setup.index,
                &workload.engines,
                |profile| constants(profile, setup),
                setup.learn,
                setup.seed.wrapping_mul(1_000_003) + replica as u64,
            )
        });
        let count = workload.requests.len();
        Self {
            workload,
            setup,
            clock: Clock::default(),
            fleet: Fleet::new(&workload.engines),
            replicas: replicas.collect(),
            random: SmallRng::seed_from_u64(setup.seed),
            records: vec![Record::default(); count],
            flights: (0..count).map(|_| None).collect(),
            next: vec![None; count],
            in_flight: 0,
            backlog: VecDeque::new(),
            stranded: Vec::new(),
            unfinished: count,
        }
    }

    fn begin(&mut self) {
        for (index, request) in self.workload.requests.iter().enumerate() {
            match request.start {
                Start::At(time) => self.clock.at(time, Happening::Arrive(index)),
                Start::After(before, _) => self.next[before] = Some(index),
            }
        }
        for &engine in &self.workload.absent {
            self.set_availability(engine, false);
        }
        for &(time, incident) in &self.workload.incidents {
            self.clock.at(time, Happening::Incident(incident));
        }
        for replica in 0..self.replicas.len() {
            if let Some(interval) = self.replicas[replica].poll_interval() {
                let phase = interval.mul_f64(self.random.random());
                self.clock.at(phase, Happening::Poll(replica));
            }
        }
        if let Some(interval) = self.setup.exchange {
            self.clock.at(interval, Happening::Exchange);
        }
    }

    fn happens(&mut self, happening: Happening) {
        match happening {
            Happening::Arrive(request) => self.arrive(request),
            Happening::StepEnds { engine, life } => {
                if let Some(step) = self.fleet.step_ended(engine, life) {
                    self.settle(engine, step);
                    self.start_step(engine);
                }
            }
            Happening::Deliver {
                replica,
                engine,
                life,
                events,
            } => {
                if self.fleet.lives(engine, life) {
                    self.replicas[replica].events(engine, &events);
                }
            }
            Happening::Poll(replica) => self.poll(replica),
            Happening::Exchange => self.exchange(),
            Happening::Incident(Incident::Kill(engine)) => self.kill(engine),
            Happening::Incident(Incident::Start(engine)) => self.start(engine),
        }
    }

    /// A request is due: it is sent, or waits for a free caller.
    fn arrive(&mut self, request: usize) {
        if self
            .workload
            .callers
            .is_some_and(|callers| self.in_flight >= callers)
        {
            self.backlog.push_back(request);
            return;
        }
        self.in_flight += 1;
        self.records[request].arrived = self.clock.now();
        self.send(request);
    }

    fn send(&mut self, index: usize) {
        let request = &self.workload.requests[index];
        let tokens = prompt::tokens(&request.prompt);
        let replica = self.random.random_range(0..self.replicas.len());
        let Some(flight) =
            self.replicas[replica].route(index, request.session, &tokens, self.clock.now())
        else {
            self.stranded.push(index);
            return;
        };
        let engine = flight.engine;
        self.records[index].prompt_tokens = tokens.len() as u32;
        let generate = GenerateRequest {
            prompt: tokens,
            salt: 0,
            max_tokens: request.output_tokens,
            output_seed: request.output_seed,
        };
        if !self.fleet.submit(engine, index, generate, self.clock.now()) {
            // Longer than the engine's memory: no router can help, and it stays unfinished in the report.
            self.replicas[replica].failed(flight);
            self.gone(index);
            return;
        }
        self.flights[index] = Some((replica, flight));
        self.start_step(engine);
    }

    fn start_step(&mut self, engine: usize) {
        if let Some((duration, life)) = self.fleet.start_step(engine, self.clock.now()) {
            self.clock
                .after(duration, Happening::StepEnds { engine, life });
        }
    }

    /// A step's tokens and events reach those whom they concern.
    fn settle(&mut self, engine: usize, step: Step) {
        self.publish(engine, step.events);
        for (index, token) in step.tokens {
            let Some((replica, flight)) = &mut self.flights[index] else {
                continue;
            };
            let replica = &mut self.replicas[*replica];
            let record = &mut self.records[index];
            if token.index == 0 {
                replica.first_token(flight, self.clock.now());
                record.first_token = Some(self.clock.now());
                record.cached_tokens = token.cached_tokens as u32;
            }
            replica.token(flight);
            if token.last {
                record.finished = Some(self.clock.now());
                record.output_tokens = token.index + 1;
                record.engine = engine;
                self.finish(index);
            }
        }
    }

    fn finish(&mut self, index: usize) {
        if let Some((replica, flight)) = self.flights[index].take() {
            let output_tokens = self.records[index].output_tokens;
            self.replicas[replica].finished(index, flight, output_tokens, self.clock.now());
        }
        self.gone(index);
    }

    /// A request has left: its caller is free, and what follows it is due after its wait.
    fn gone(&mut self, index: usize) {
        self.unfinished -= 1;
        self.in_flight -= 1;
        if let Some(next) = self.next[index]
            && let Start::After(_, wait) = self.workload.requests[next].start
        {
            self.clock.after(wait, Happening::Arrive(next));
        }
        if let Some(waiting) = self.backlog.pop_front() {
            self.arrive(waiting);
        }
    }

    fn publish(&mut self, engine: usize, events: Vec<engine::KvEvent>) {
        if events.is_empty() {
            return;
        }
        let block = self.workload.engines[engine].block_tokens;
        let events: Rc<[KvEvent]> = cache::batch(events, block).into();
        let life = self.fleet.life(engine);
        for replica in 0..self.replicas.len() {
            if self.setup.event_loss > 0.0 && self.random.random_bool(self.setup.event_loss) {
                continue;
            }
            if self.setup.event_delay.is_zero() {
                self.replicas[replica].events(engine, &events);
                continue;
            }
            self.clock.after(
                self.setup.event_delay,
                Happening::Deliver {
                    replica,
                    engine,
                    life,
                    events: Rc::clone(&events),
                },
            );
        }
    }

    fn poll(&mut self, replica: usize) {
        for engine in 0..self.workload.engines.len() {
            if let Some(reported) = self.fleet.reported(engine) {
                self.replicas[replica].polled(engine, reported);
            }
        }
        if let Some(interval) = self.replicas[replica].poll_interval() {
            self.clock.after(interval, Happening::Poll(replica));
        }
    }

    fn exchange(&mut self) {
        for engine in 0..self.workload.engines.len() {
            let loads: Vec<Load> = self
                .replicas
                .iter()
                .map(|replica| replica.load(engine))
                .collect();
            for (own, replica) in self.replicas.iter_mut().enumerate() {
                let others = loads.iter().enumerate().filter(|(other, _)| *other != own);
                let others = others.fold(Load::default(), |total, (_, load)| sum(total, *load));
                replica.told_of_others(engine, others);
            }
        }
        if let Some(interval) = self.setup.exchange {
            self.clock.after(interval, Happening::Exchange);
        }
    }

    fn set_availability(&mut self, engine: usize, up: bool) {
        self.fleet.restart(engine, up);
        for replica in &mut self.replicas {
            replica.availability(engine, up);
        }
    }

    fn kill(&mut self, engine: usize) {
        self.set_availability(engine, false);
        for index in 0..self.flights.len() {
            let lost = self.flights[index].take_if(|(_, flight)| flight.engine == engine);
            if let Some((replica, flight)) = lost {
                self.replicas[replica].failed(flight);
                self.records[index].retries += 1;
                self.records[index].first_token = None;
                self.send(index);
            }
        }
    }

    fn start(&mut self, engine: usize) {
        self.set_availability(engine, true);
        for index in std::mem::take(&mut self.stranded) {
            self.send(index);
        }
    }
}
