//! The synthetic engine in virtual time, watched as the gateway watches: loads, dispatches, first tokens, ends.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::super::{EndpointStats, Observation};
use crate::endpoints::constants::Constants;
use crate::endpoints::level::Level;
use crate::endpoints::load::{LoadCounter, Reservation, Work};

/// The truth about an engine; milliseconds and tokens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Profile {
    pub(super) step_ms: f64,
    pub(super) token_ms: f64,
    pub(super) attention_ms: f64,
    pub(super) context_ms: f64,
    pub(super) base_ms: f64,
    pub(super) sequence_ms: f64,
    pub(super) batch_tokens: u32,
}

pub(super) const H8B: Profile = Profile {
    step_ms: 8.0,
    token_ms: 0.030,
    attention_ms: 1.06e-6,
    context_ms: 7.62e-5,
    base_ms: 1.2,
    sequence_ms: 0.005,
    batch_tokens: 8192,
};

pub(super) const K7B: Profile = Profile {
    step_ms: 13.0,
    token_ms: 0.070,
    attention_ms: 0.6e-6,
    context_ms: 6.5e-5,
    base_ms: 8.0,
    sequence_ms: 0.020,
    batch_tokens: 65_536,
};

pub(super) const A100: Profile = Profile {
    step_ms: 10.0,
    token_ms: 0.067,
    attention_ms: 1.5e-6,
    context_ms: 6e-5,
    base_ms: 1.5,
    sequence_ms: 0.010,
    batch_tokens: 8192,
};

impl Profile {
    pub(super) fn slower(mut self, factor: f64) -> Self {
        self.step_ms *= factor;
        self.token_ms *= factor;
        self.attention_ms *= factor;
        self.context_ms *= factor;
        self.base_ms *= factor;
        self.sequence_ms *= factor;
        self
    }
}

/// What requests look like.
pub(super) struct Traffic {
    /// Share of the engine's prefill and decode time that is asked for.
    pub(super) load: f64,
    pub(super) requests: usize,
    pub(super) streamed: bool,
    /// Share of measured times that are ten times too long.
    pub(super) outliers: f64,
    /// Share of cached prompts that the engine has evicted, unknown to the gateway.
    pub(super) evicted: f64,
}

impl Traffic {
    /// 200 requests: prompts of 100 to 6400 tokens, half of them mostly cached, answers of 10 to 300.
    pub(super) fn mixed(load: f64) -> Self {
        Self {
            load,
            requests: 200,
            streamed: true,
            outliers: 0.05,
            evicted: 0.0,
        }
    }
}

struct Request {
    arrives_ms: f64,
    /// As the gateway reckons.
    work: Work,
    /// Prompt tokens that the engine holds.
    cached: u32,
    output: u32,
    prefilled: u32,
    generated: u32,
    /// Extra factor on its measured times, as a hiccup on its way would have it.
    hiccup: f64,
    watched: Option<(Reservation, Observation)>,
}

pub(super) struct Engine {
    pub(super) stats: EndpointStats,
    profile: Profile,
    counter: Arc<LoadCounter>,
    origin: Instant,
    now_ms: f64,
    random: StdRng,
    waiting: VecDeque<Request>,
    running: Vec<Request>,
    streamed: bool,
}

impl Engine {
    /// Runs all of the traffic through an engine of which nothing is known at first.
    pub(super) fn run(profile: Profile, traffic: &Traffic, seed: u64) -> Self {
        let origin = Instant::now();
        let start = Constants {
            batch_tokens: f64::from(profile.batch_tokens),
            ..Constants::DEFAULT
        };
        let mut engine = Self {
            stats: EndpointStats::starting_at(Arc::new(Level::new(start)), origin),
            profile,
            counter: Arc::default(),
            origin,
            now_ms: 0.0,
            random: StdRng::seed_from_u64(seed),
            waiting: VecDeque::new(),
            running: Vec::new(),
            streamed: traffic.streamed,
        };
        let mut arrivals = engine.arrivals(traffic);
        while !(arrivals.is_empty() && engine.waiting.is_empty() && engine.running.is_empty()) {
            engine.step(&mut arrivals);
        }
        engine
    }

    fn arrivals(&mut self, traffic: &Traffic) -> VecDeque<Request> {
        // Mean service: about 1000 uncached tokens of prefill and a tenth of 150 decode steps (batched).
        let profile = self.profile;
        let service = 1000.0 * profile.token_ms + 15.0 * (profile.step_ms + profile.base_ms);
        let mut at = 0.0;
        (0..traffic.requests)
            .map(|_| {
                let random = &mut self.random;
                at += -random.random_range(1e-9..1.0_f64).ln() * service / traffic.load;
                let prompt = (100.0 * 64.0_f64.powf(random.random())) as u32;
                let cached = if random.random_bool(0.5) {
                    (f64::from(prompt) * random.random_range(0.5..0.98)) as u32
                } else {
                    0
                };
                let evicted = random.random_bool(traffic.evicted);
                let hiccup = if random.random_bool(traffic.outliers) {
                    10.0
                } else {
                    random.random_range(0.9..1.1)
                };
                Request {
                    arrives_ms: at,
                    work: Work {
                        prompt_tokens: prompt,
                        cached_tokens: cached,
                    },
                    cached: if evicted { 0 } else { cached },
                    output: random.random_range(10..300),
                    prefilled: 0,
                    generated: 0,
                    hiccup,
                    watched: None,
                }
            })
            .collect()
    }

    fn instant(&self, ms: f64) -> Instant {
        self.origin + Duration::from_secs_f64(ms / 1e3)
    }

    /// Requests that arrive before `until` are dispatched at their time.
    fn admit(&mut self, arrivals: &mut VecDeque<Request>, until: f64) {
        while arrivals
            .front()
            .is_some_and(|next| next.arrives_ms <= until)
        {
            let Some(mut request) = arrivals.pop_front() else {
                return;
            };
            let at = self.instant(request.arrives_ms);
            let observation = self.stats.dispatched(self.counter.load(), request.work, at);
            request.watched = Some((self.counter.reserve(request.work), observation));
            self.waiting.push_back(request);
        }
    }

    fn step(&mut self, arrivals: &mut VecDeque<Request>) {
        if self.waiting.is_empty() && self.running.is_empty() {
            self.now_ms = self
                .now_ms
                .max(arrivals.front().map_or(0.0, |next| next.arrives_ms));
        }
        self.admit(arrivals, self.now_ms);
        let decoding = self.running.len();
        let context: f64 = self.running.iter().map(context).sum();
        let mut budget = self.profile.batch_tokens.saturating_sub(decoding as u32);
        let mut attended = 0.0;
        let mut tokens = decoding as f64;
        let mut ready = 0;
        for request in &mut self.waiting {
            let uncached = request.work.prompt_tokens - request.cached;
            let left = uncached.max(1) - request.prefilled;
            let chunk = left.min(budget);
            if chunk == 0 {
                break;
            }
            let before = request.cached + request.prefilled;
            attended += f64::from(chunk) * (f64::from(before) + f64::from(chunk) / 2.0);
            request.prefilled += chunk;
            tokens += f64::from(chunk);
            budget -= chunk;
            ready += usize::from(chunk == left);
        }
        let profile = &self.profile;
        let time = profile.step_ms.hypot(profile.token_ms * tokens)
            + profile.attention_ms * attended
            + profile.context_ms * context
            + profile.base_ms
            + profile.sequence_ms * (decoding + ready) as f64;
        let end = self.now_ms + time * self.random.random_range(0.95..1.05);
        self.admit(arrivals, end);
        self.now_ms = end;
        self.decode();
        for _ in 0..ready {
            self.first_token();
        }
    }

    fn decode(&mut self) {
        let running = std::mem::take(&mut self.running);
        for mut request in running {
            request.generated += 1;
            if let Some((reservation, _)) = &mut request.watched {
                reservation.generated(1);
            }
            if request.generated >= request.output {
                self.finish(request);
            } else {
                self.running.push(request);
            }
        }
    }

    fn first_token(&mut self) {
        let Some(mut request) = self.waiting.pop_front() else {
            return;
        };
        request.generated = 1;
        if let Some((reservation, observation)) = &mut request.watched {
            reservation.first_token();
            if self.streamed {
                let delay = (self.now_ms - request.arrives_ms) * request.hiccup + 3.0;
                let seen =
                    self.origin + Duration::from_secs_f64((request.arrives_ms + delay) / 1e3);
                self.stats
                    .first_token(observation, self.counter.load(), seen);
                // Later times count from the true moment: a hiccup is on one message, not on the engine.
                if let Some(first) = &mut observation.first {
                    first.at = self.origin + Duration::from_secs_f64(self.now_ms / 1e3);
                }
            }
        }
        self.running.push(request);
    }

    fn finish(&mut self, request: Request) {
        let Some((reservation, observation)) = request.watched else {
            return;
        };
        let since = observation.first.map_or(observation.at, |first| first.at);
        let hiccup = if self.random.random_bool(0.05) {
            10.0
        } else {
            1.0
        };
        let took = self.instant(self.now_ms) - since;
        let load = self.counter.load();
        self.stats.finished(
            observation,
            request.output,
            load,
            since + took.mul_f64(hiccup),
        );
        drop(reservation);
    }
}

fn context(request: &Request) -> f64 {
    f64::from(request.work.prompt_tokens + request.generated)
}
