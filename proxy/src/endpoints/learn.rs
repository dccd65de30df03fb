//! Learning an endpoint's constants from what the gateway measures itself.
//!
//! Each measured delay is compared with what [`model`] says, on the logarithmic scale: errors are factors, constants
//! stay positive, and a doubling weighs as much as a halving. The estimate moves as in an extended Kalman
//! filter (recursive least squares with a prior): each constant by as much as it is responsible for the delay
//! and still uncertain.
//!
//! What makes it identifiable:
//! - W and Kd show in the time between tokens, at few and at many tokens of context; D in the delay of first tokens,
//!   which grows with what is pending and with the request's own tokens, and in decodes that others' prefills stall.
//! - What a request costs once (network, tokenising) would else be taken for W: it has a constant of its own, which
//!   is learned but not a step's business.
//! - The prior holds all constants to be wrong by one common factor first (slower hardware), then each on its own. So
//!   traffic that shows only some of them moves the others along: Kp, which only long prompts show, above all.
//!
//! What makes it robust: an error of more than [`HUBER`] standard deviations pulls no harder than one of that size,
//! and no constant leaves [`BOUND`] times its start either way. What makes it follow changes: knowledge fades slowly
//! towards the prior, and fast while errors keep the same sign.
//!
//! Endpoints of one pool are mostly alike, so what all of them show together is known long before what each shows:
//! [`Learner::apart`] says by how much an endpoint differs from its pool's [`super::level`].
//!
//! Pure, of constant memory, some hundred arithmetic operations per observation. Not for choosing: a policy does that.

mod model;

pub use model::Decoding;
use model::{ATTENTION, CONTEXT, COUNT, Model, REQUEST, STEP, TOKEN, Vector};

use super::constants::Constants;
use super::load::{Load, Work};

/// Largest factor between a constant and its start.
const BOUND: f64 = 20.0;
/// Errors count fully up to so many standard deviations.
const HUBER: f64 = 1.345;
/// What a request costs once, at the start.
const START_REQUEST_MS: f64 = 2.0;

/// Prior standard deviations, of logarithms: of the factor common to all constants...
const COMMON: f64 = 1.0;
/// ...and of each one's own, in the order of [`Vector`].
const OWN: Vector = [0.5, 0.5, 0.7, 0.4, 1.0];

/// Standard deviation of the logarithms of one pool's endpoints: half or twice as fast is two of them away.
const APART: f64 = 0.35;

/// Standard deviation of a first token's delay from the model's. Steps that others share make most of it.
const FIRST_TOKEN_NOISE: f64 = 0.3;
/// Of a mean time between tokens.
const DECODING_NOISE: f64 = 0.15;
/// Of the time of an answer that came whole.
const WHOLE_NOISE: f64 = 0.25;

/// How much of what is known fades with every observation.
const FADING: f64 = 1e-4;
/// The same while errors keep their sign.
const FADING_IN_DRIFT: f64 = 0.02;
/// Mean error, in standard deviations over about ten observations, that counts as drift.
const DRIFT: f64 = 1.2;

/// The constants of one endpoint and how well they are known.
#[derive(Debug, Clone)]
pub struct Learner {
    /// What is not learned: batch and cache size.
    fixed: Constants,
    /// Logarithms of the constants: at the start, and now.
    start: Vector,
    mean: Vector,
    /// The constants now.
    values: Vector,
    covariance: Matrix,
    prior: Matrix,
    /// Moving mean of errors in standard deviations.
    drift: f64,
    observations: u64,
}

type Matrix = [[f64; COUNT]; COUNT];

/// Logarithms of an endpoint's or a pool's constants.
#[derive(Debug, Clone, Copy)]
pub struct Logarithms(Vector);

/// By how much an endpoint's constants differ from its pool's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Factors {
    /// Of W.
    pub step: f64,
    /// Of D.
    pub token: f64,
    /// Of Kd.
    pub context: f64,
    /// Of Kp.
    pub attention: f64,
}

impl Factors {
    /// Does not differ.
    pub const ONE: Self = Self {
        step: 1.0,
        token: 1.0,
        context: 1.0,
        attention: 1.0,
    };
}

impl Learner {
    /// Begins with constants guessed for the engine.
    pub fn new(start: Constants) -> Self {
        let start_values = [
            start.step_ms,
            start.token_ms,
            start.context_ms,
            start.attention_ms,
            START_REQUEST_MS,
        ]
        // A start of zero could never move.
        .map(|value| {
            if value.is_finite() {
                value.max(1e-12)
            } else {
                1e-12
            }
        });
        let prior = prior();
        Self {
            fixed: start,
            start: start_values.map(f64::ln),
            mean: start_values.map(f64::ln),
            values: start_values,
            covariance: prior,
            prior,
            drift: 0.0,
            observations: 0,
        }
    }

    /// The constants as known now.
    pub fn constants(&self) -> Constants {
        Constants {
            step_ms: self.values[STEP],
            token_ms: self.values[TOKEN],
            context_ms: self.values[CONTEXT],
            attention_ms: self.values[ATTENTION],
            ..self.fixed
        }
    }

    /// The same as logarithms, for [`Self::apart`].
    pub fn logarithms(&self) -> Logarithms {
        Logarithms(self.mean)
    }

    /// By how much the endpoint differs from what its pool's endpoints are together: by nothing while it has shown
    /// nothing, by what it has shown itself once that outweighs how alike they usually are ([`APART`]). Each constant
    /// for itself.
    pub fn apart(&self, pool: Logarithms) -> Factors {
        let factor = |index: usize| {
            let (start, variance) = (self.start[index], self.covariance[index][index]);
            let prior = 1.0 / self.prior[index][index];
            // What delays have told, without the prior that they were weighed against.
            let told = (1.0 / variance - prior).max(0.0);
            let towards_own = (self.mean[index] - start) / variance;
            let from_pool = (start - pool.0[index]) * told;
            ((from_pool + towards_own) / (told + 1.0 / (APART * APART))).exp()
        };
        Factors {
            step: factor(STEP),
            token: factor(TOKEN),
            context: factor(CONTEXT),
            attention: factor(ATTENTION),
        }
    }

    /// What a request costs once besides its steps, in milliseconds.
    pub fn request_ms(&self) -> f64 {
        self.values[REQUEST]
    }

    /// Delays learned from.
    pub fn observations(&self) -> u64 {
        self.observations
    }

    /// How much of the start's uncertainty about W and D is gone: 0 (nothing known) to 1.
    pub fn confidence(&self) -> f64 {
        let left = [STEP, TOKEN]
            .map(|index| (self.covariance[index][index] / self.prior[index][index]).sqrt());
        (1.0 - left.into_iter().fold(0.0, f64::max)).clamp(0.0, 1.0)
    }

    /// A first token came after `delay_ms`; `load` is what the endpoint had to do besides when the request left.
    pub fn first_token(&mut self, load: Load, work: Work, delay_ms: f64) {
        let shares = self.model().first_token(load, work);
        self.observe(shares, delay_ms, FIRST_TOKEN_NOISE);
    }

    /// The tokens after the first took `time_ms`.
    pub fn decoding(&mut self, decoding: &Decoding, time_ms: f64) {
        if decoding.tokens < 1.0 {
            return;
        }
        let shares = self.model().decoding(decoding);
        // A few steps may just have met a long one.
        let noise = DECODING_NOISE * (1.0 + 8.0 / decoding.tokens).sqrt();
        self.observe(shares, time_ms, noise);
    }

    /// An answer that came whole took `time_ms`: its first token cannot be told from its last.
    pub fn whole(&mut self, load: Load, work: Work, decoding: &Decoding, time_ms: f64) {
        let model = self.model();
        let mut shares = model.first_token(load, work);
        if decoding.tokens >= 1.0 {
            let later = model.decoding(decoding);
            for (share, later) in shares.iter_mut().zip(later) {
                *share += later;
            }
        }
        self.observe(shares, time_ms, WHOLE_NOISE);
    }

    fn model(&self) -> Model {
        Model {
            constants: self.values,
            batch_tokens: self.fixed.batch_tokens,
        }
    }

    /// One step of the filter.
    fn observe(&mut self, shares: Vector, measured_ms: f64, noise: f64) {
        let expected: f64 = shares.iter().sum();
        let usable = |value: f64| value.is_finite() && value > 0.0;
        if !usable(measured_ms) || !usable(expected) {
            return;
        }
        self.fade();
        let by = shares.map(|share| share / expected);
        // Differences of logarithms: a quotient could be zero or infinite.
        let error = measured_ms.ln() - expected.ln();
        let spread = self.covariance.map(|row| dot(&row, &by));
        let uncertainty = dot(&spread, &by).max(0.0);
        let mut variance = noise * noise;
        let deviations = error / (uncertainty + variance).sqrt();
        if deviations.abs() > HUBER {
            variance *= deviations.abs() / HUBER;
        }
        let gain = spread.map(|value| value / (uncertainty + variance));
        let limit = BOUND.ln();
        for ((mean, start), gain) in self.mean.iter_mut().zip(self.start).zip(gain) {
            *mean = (*mean + gain * error).clamp(start - limit, start + limit);
        }
        for (index, (row, gain)) in self.covariance.iter_mut().zip(gain).enumerate() {
            for (value, spread) in row.iter_mut().zip(spread) {
                *value -= gain * spread;
            }
            // Rounding must not make a variance negative.
            row[index] = row[index].max(1e-9);
        }
        self.values = self.mean.map(f64::exp);
        self.drift = 0.9 * self.drift + 0.1 * deviations.clamp(-2.0 * HUBER, 2.0 * HUBER);
        self.observations += 1;
    }

    fn fade(&mut self) {
        let share = if self.drift.abs() > DRIFT {
            FADING_IN_DRIFT
        } else {
            FADING
        };
        for (row, prior) in self.covariance.iter_mut().zip(&self.prior) {
            for (value, prior) in row.iter_mut().zip(prior) {
                *value += share * (prior - *value);
            }
        }
    }
}

/// One factor common to all constants of the engine, and one of each on its own. The cost of a request is not the
/// engine's speed alone: it has only its own.
fn prior() -> Matrix {
    let entry = |row: usize, column: usize| {
        let apart = row == REQUEST || column == REQUEST;
        let common = if apart { 0.0 } else { COMMON * COMMON };
        let own = if row == column {
            OWN[row] * OWN[row]
        } else {
            0.0
        };
        common + own
    };
    std::array::from_fn(|row| std::array::from_fn(|column| entry(row, column)))
}

fn dot(one: &Vector, other: &Vector) -> f64 {
    one.iter().zip(other).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn learner() -> Learner {
        Learner::new(Constants::DEFAULT)
    }

    #[test]
    fn an_engine_as_guessed_teaches_nothing_new() {
        let mut learner = learner();
        for index in 0..200_u32 {
            let work = Work {
                prompt_tokens: 100 + 37 * index,
                cached_tokens: 0,
            };
            let delay: f64 = learner
                .model()
                .first_token(Load::default(), work)
                .iter()
                .sum();
            learner.first_token(Load::default(), work, delay);
        }
        let learned = learner.constants();
        assert!((learned.token_ms / Constants::DEFAULT.token_ms - 1.0).abs() < 1e-6);
        assert!(learner.confidence() > 0.5);
    }

    #[test]
    fn an_endpoint_is_its_pools_until_it_has_shown_otherwise() {
        let alone = Decoding {
            tokens: 100.0,
            requests: 1.0,
            ..Decoding::default()
        };
        let slowed = |learner: &mut Learner, factor: f64| {
            learner.decoding(&alone, 100.0 * factor * Constants::DEFAULT.step_ms);
        };
        let (mut pool, mut own) = (learner(), learner());
        for _ in 0..100 {
            slowed(&mut pool, 8.0);
        }
        let unseen = own.apart(pool.logarithms());
        assert!((unseen.step - 1.0).abs() < 1e-9, "{unseen:?}");
        assert!((unseen.attention - 1.0).abs() < 1e-9, "{unseen:?}");
        for _ in 0..100 {
            slowed(&mut own, 16.0);
        }
        let seen = own.apart(pool.logarithms());
        assert!((1.9..2.1).contains(&seen.step), "{seen:?}");
    }

    #[test]
    fn a_slower_engine_is_slower_in_what_was_not_seen_too() {
        let mut learner = learner();
        let decoding = Decoding {
            tokens: 100.0,
            requests: 4.0,
            ..Decoding::default()
        };
        for _ in 0..50 {
            learner.decoding(&decoding, 100.0 * 4.0 * Constants::DEFAULT.step_ms);
        }
        let (learned, start) = (learner.constants(), Constants::DEFAULT);
        assert!((3.5..4.5).contains(&(learned.step_ms / start.step_ms)));
        assert!(learned.token_ms / start.token_ms > 2.0);
        assert!(learned.attention_ms / start.attention_ms > 2.0);
    }

    #[test]
    fn an_engine_that_slows_down_is_noticed() {
        let mut learner = learner();
        let decoding = Decoding {
            tokens: 100.0,
            requests: 4.0,
            ..Decoding::default()
        };
        for _ in 0..2000 {
            learner.decoding(&decoding, 100.0 * 9.2);
        }
        for _ in 0..60 {
            learner.decoding(&decoding, 100.0 * 27.6);
        }
        let step = learner.constants().step_ms;
        assert!((24.0..31.0).contains(&step), "{step}");
    }

    fn any_work() -> impl Strategy<Value = (Load, Work)> {
        (
            any::<u32>(),
            any::<u64>(),
            any::<u64>(),
            any::<u32>(),
            any::<u32>(),
        )
            .prop_map(
                |(in_flight, pending_tokens, context_tokens, prompt_tokens, cached_tokens)| {
                    let load = Load {
                        in_flight,
                        pending_tokens,
                        context_tokens,
                    };
                    let work = Work {
                        prompt_tokens,
                        cached_tokens,
                    };
                    (load, work)
                },
            )
    }

    proptest! {
        #[test]
        fn constants_stay_positive_and_bounded_whatever_is_measured(
            observed in proptest::collection::vec((any_work(), any::<f64>()), 0..200),
        ) {
            let mut learner = learner();
            for ((load, work), delay) in observed {
                learner.first_token(load, work, delay);
                let decoding = Decoding {
                    tokens: f64::from(work.prompt_tokens),
                    requests: f64::from(load.in_flight),
                    context: load.context_tokens as f64,
                    prefilled_tokens: load.pending_tokens as f64,
                    prefills: 3.0,
                };
                learner.decoding(&decoding, delay);
                learner.whole(load, work, &decoding, delay.abs());
            }
            let (learned, start) = (learner.constants(), Constants::DEFAULT);
            for (learned, start) in [
                (learned.step_ms, start.step_ms),
                (learned.token_ms, start.token_ms),
                (learned.context_ms, start.context_ms),
                (learned.attention_ms, start.attention_ms),
            ] {
                prop_assert!((0.0499..20.01).contains(&(learned / start)), "{learned} from {start}");
            }
        }
    }
}
