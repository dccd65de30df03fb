//! What requests teach about the endpoint they went to: constants of its speed, times to first token and between tokens.
//!
//! A request's guard makes three calls: [`EndpointStats::dispatched`], [`EndpointStats::first_token`],
//! [`EndpointStats::finished`]. The last two take one short lock each; readers take none. Not for load: that is
//! counted in [`super::load`], and comes in as an argument.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::constants::Constants;
use super::learn::{Decoding, Factors, Learner};
use super::level::Level;
use super::load::{Load, Work};
use super::sketch::{DecayingMean, QuantileSketch};

/// Moving means follow about this long.
const MEMORY: Duration = Duration::from_secs(10);
/// Quantiles forget by half in this time.
const HALF_LIFE: Duration = Duration::from_secs(30);
/// A moving mean older than this is not told any more: an endpoint that was slow gets another chance.
const OLDEST: Duration = Duration::from_secs(60);

/// Measurements of one endpoint.
#[derive(Debug)]
pub struct EndpointStats {
    /// What times are counted from.
    origin: Instant,
    /// What its pool's endpoints are together.
    level: Arc<Level>,
    /// Prompt tokens prefilled, ever, as seen by first tokens.
    prefilled_tokens: AtomicU64,
    /// First tokens, ever.
    prefills: AtomicU64,
    /// Held for some hundred arithmetic operations, twice per request, never over an await.
    inner: Mutex<Inner>,
    published: Published,
}

#[derive(Debug)]
struct Inner {
    learner: Learner,
    ttft: Tracked,
    token_gap: Tracked,
}

#[derive(Debug)]
struct Tracked {
    mean: DecayingMean,
    sketch: QuantileSketch,
}

/// What readers read. Each number is whole; two of them may be of different moments.
#[derive(Debug)]
struct Published {
    /// By how much it differs from its pool.
    step: Float,
    token: Float,
    context: Float,
    attention: Float,
    ttft: PublishedMean,
    token_gap: PublishedMean,
}

#[derive(Debug, Default)]
struct PublishedMean {
    value: Float,
    /// Milliseconds since the origin, plus one; 0 before the first value.
    at: AtomicU64,
}

/// An `f64` that is read and written as a whole.
#[derive(Debug, Default)]
pub(super) struct Float(AtomicU64);

/// One request at the endpoint, from its dispatch on.
#[derive(Debug, Clone, Copy)]
pub struct Observation {
    load: Load,
    work: Work,
    at: Instant,
    seen: Prefilled,
    first: Option<FirstToken>,
}

#[derive(Debug, Clone, Copy)]
struct FirstToken {
    load: Load,
    at: Instant,
    seen: Prefilled,
}

#[derive(Debug, Clone, Copy)]
struct Prefilled {
    tokens: u64,
    prefills: u64,
}

/// Quantiles of lately measured times, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Quantiles {
    /// Half of the values are below.
    pub p50: Option<f64>,
    /// Nine in ten are.
    pub p90: Option<f64>,
    /// 99 in 100 are.
    pub p99: Option<f64>,
}

/// Everything at once, for people and dashboards.
#[derive(Debug, Clone, Copy)]
pub struct StatsView {
    /// As [`EndpointStats::constants`].
    pub constants: Constants,
    /// What a request costs once besides its steps, in milliseconds.
    pub request_ms: f64,
    /// Delays that the constants were learned from.
    pub observations: u64,
    /// How well they are known, 0 to 1.
    pub confidence: f64,
    /// Time to first token.
    pub ttft: Quantiles,
    /// Time between tokens.
    pub token_gap: Quantiles,
}

impl Observation {
    /// How long its first token should take an endpoint with these constants, in milliseconds: what it found pending,
    /// its own prefill, and the step that is running.
    pub fn expected_ms(&self, constants: &Constants) -> f64 {
        constants.wait_ms(self.load) + constants.prefill_ms(self.work) + constants.step_ms
    }
}

impl EndpointStats {
    /// Nothing measured yet; `level` is what its pool's endpoints are together.
    pub fn new(level: Arc<Level>) -> Self {
        Self::starting_at(level, Instant::now())
    }

    /// As [`Self::new`], with times counted from `origin`: no call may name an earlier one. For virtual time.
    pub fn starting_at(level: Arc<Level>, origin: Instant) -> Self {
        Self {
            origin,
            prefilled_tokens: AtomicU64::new(0),
            prefills: AtomicU64::new(0),
            inner: Mutex::new(Inner {
                learner: Learner::new(level.constants()),
                ttft: Tracked::new(),
                token_gap: Tracked::new(),
            }),
            published: Published::new(),
            level,
        }
    }

    /// The endpoint's constants as known now.
    pub fn constants(&self) -> Constants {
        self.level.constants_times(&self.published.factors())
    }

    /// Moving mean of the time to first token, in milliseconds; `None` when nothing was measured lately.
    pub fn ttft_ms(&self, now: Instant) -> Option<f64> {
        self.published.ttft.get(self.since(now))
    }

    /// Moving mean of the time between tokens, in milliseconds; `None` when nothing was measured lately.
    pub fn token_gap_ms(&self, now: Instant) -> Option<f64> {
        self.published.token_gap.get(self.since(now))
    }

    /// A request leaves for the endpoint at `now`. `load` is what the endpoint has to do besides: read it before
    /// reserving. Takes no lock.
    pub fn dispatched(&self, load: Load, work: Work, now: Instant) -> Observation {
        Observation {
            load,
            work,
            at: now,
            seen: self.prefilled(),
            first: None,
        }
    }

    /// The first token came at `now`; `load` is the endpoint's at this moment. To be called for event streams only:
    /// the first byte of an answer that comes whole is its last token's. A second call does nothing.
    pub fn first_token(&self, observation: &mut Observation, load: Load, now: Instant) {
        if observation.first.is_some() {
            return;
        }
        let seen = self.count_prefill(observation.work);
        observation.first = Some(FirstToken {
            load,
            at: now,
            seen,
        });
        let delay_ms = millis(now.saturating_duration_since(observation.at));
        let at = self.since(now);
        let Observation { load, work, .. } = *observation;
        let mut inner = self.learned(|learner| learner.first_token(load, work, delay_ms));
        inner.ttft.add(delay_ms, at);
        self.published.ttft.set(inner.ttft.mean.mean(), at);
    }

    /// The answer's last byte came at `now`, after `tokens` output tokens in all; `load` is the endpoint's at this
    /// moment, the request still counted. Also for an answer that was cut off, with the tokens that came.
    pub fn finished(&self, observation: Observation, tokens: u32, load: Load, now: Instant) {
        let Some(first) = observation.first else {
            return self.finished_whole(&observation, tokens, load, now);
        };
        let decoding = self.decoding(first.seen, tokens, [first.load, load], 0);
        if decoding.tokens < 1.0 {
            return;
        }
        let time_ms = millis(now.saturating_duration_since(first.at));
        let at = self.since(now);
        let mut inner = self.learned(|learner| learner.decoding(&decoding, time_ms));
        inner.token_gap.add(time_ms / decoding.tokens, at);
        self.published
            .token_gap
            .set(inner.token_gap.mean.mean(), at);
    }

    fn finished_whole(&self, observation: &Observation, tokens: u32, load: Load, now: Instant) {
        let ahead = observation.load.pending_tokens;
        let loads = [observation.load, load];
        let decoding = self.decoding(observation.seen, tokens, loads, ahead);
        self.count_prefill(observation.work);
        if tokens == 0 {
            return;
        }
        let time_ms = millis(now.saturating_duration_since(observation.at));
        let Observation { load, work, .. } = *observation;
        drop(self.learned(|learner| learner.whole(load, work, &decoding, time_ms)));
    }

    /// A delay teaches the pool's level and the endpoint's own constants, one after the other.
    fn learned(&self, teach: impl Fn(&mut Learner)) -> MutexGuard<'_, Inner> {
        let level = self.level.taught(&teach);
        let mut inner = self.lock();
        teach(&mut inner.learner);
        self.published.set_factors(&inner.learner.apart(level));
        inner
    }

    /// Everything at once. Takes the lock: not for the way of a request.
    pub fn view(&self) -> StatsView {
        let inner = self.lock();
        StatsView {
            constants: self.constants(),
            request_ms: inner.learner.request_ms(),
            observations: inner.learner.observations(),
            confidence: inner.learner.confidence(),
            ttft: inner.ttft.quantiles(),
            token_gap: inner.token_gap.quantiles(),
        }
    }

    /// What went on between two moments. `ahead`: prefilled tokens since `from` that are accounted for otherwise.
    fn decoding(&self, from: Prefilled, tokens: u32, loads: [Load; 2], ahead: u64) -> Decoding {
        let now = self.prefilled();
        let [before, after] = loads;
        Decoding {
            tokens: f64::from(tokens.saturating_sub(1)),
            requests: f64::from(before.in_flight).midpoint(f64::from(after.in_flight)),
            context: (before.context_tokens as f64).midpoint(after.context_tokens as f64),
            prefilled_tokens: now.tokens.saturating_sub(from.tokens).saturating_sub(ahead) as f64,
            prefills: now.prefills.saturating_sub(from.prefills) as f64,
        }
    }

    /// Counts a prefill that has ended, and tells the totals with it.
    fn count_prefill(&self, work: Work) -> Prefilled {
        let own = u64::from(work.uncached());
        Prefilled {
            tokens: self.prefilled_tokens.fetch_add(own, Ordering::Relaxed) + own,
            prefills: self.prefills.fetch_add(1, Ordering::Relaxed) + 1,
        }
    }

    fn prefilled(&self) -> Prefilled {
        Prefilled {
            tokens: self.prefilled_tokens.load(Ordering::Relaxed),
            prefills: self.prefills.load(Ordering::Relaxed),
        }
    }

    fn since(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.origin)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Arithmetic cannot leave it half-changed in a way that matters: poison carries no news.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tracked {
    fn new() -> Self {
        Self {
            mean: DecayingMean::new(MEMORY),
            sketch: QuantileSketch::new(HALF_LIFE),
        }
    }

    fn add(&mut self, value: f64, at: Duration) {
        self.mean.add(value, at);
        self.sketch.add(value, at);
    }

    fn quantiles(&self) -> Quantiles {
        Quantiles {
            p50: self.sketch.quantile(0.5),
            p90: self.sketch.quantile(0.9),
            p99: self.sketch.quantile(0.99),
        }
    }
}

impl Published {
    fn new() -> Self {
        let published = Self {
            step: Float::default(),
            token: Float::default(),
            context: Float::default(),
            attention: Float::default(),
            ttft: PublishedMean::default(),
            token_gap: PublishedMean::default(),
        };
        published.set_factors(&Factors::ONE);
        published
    }

    fn factors(&self) -> Factors {
        Factors {
            step: self.step.get(),
            token: self.token.get(),
            context: self.context.get(),
            attention: self.attention.get(),
        }
    }

    fn set_factors(&self, factors: &Factors) {
        self.step.set(factors.step);
        self.token.set(factors.token);
        self.context.set(factors.context);
        self.attention.set(factors.attention);
    }
}

impl PublishedMean {
    fn get(&self, now: Duration) -> Option<f64> {
        let at = Duration::from_millis(self.at.load(Ordering::Relaxed).checked_sub(1)?);
        (now.saturating_sub(at) <= OLDEST).then(|| self.value.get())
    }

    fn set(&self, value: Option<f64>, at: Duration) {
        if let Some(value) = value {
            self.value.set(value);
            let at = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
            self.at.store(at.saturating_add(1), Ordering::Relaxed);
        }
    }
}

impl Float {
    pub(super) fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    pub(super) fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests;
