//! What the endpoints of one pool have in common: constants learned from all of them together.
//!
//! An endpoint of which little is known is taken to be like its peers and not as its engine's profile has it, so that a
//! pool of unknown hardware is known after some dozen requests in all, and a new or idle endpoint at once. What each
//! has shown itself goes before it (`learn`).

use std::sync::{Mutex, PoisonError};

use super::constants::Constants;
use super::learn::{Factors, Learner, Logarithms};
use super::observe::Float;

/// One pool's level. Readers take no lock.
#[derive(Debug)]
pub struct Level {
    /// What learning began with. Batch and cache size are not learned.
    start: Constants,
    /// Held for some hundred arithmetic operations, twice per request, never over an await.
    learner: Mutex<Learner>,
    published: Published,
}

/// Each number is whole; two of them may be of different moments.
#[derive(Debug, Default)]
struct Published {
    step_ms: Float,
    token_ms: Float,
    context_ms: Float,
    attention_ms: Float,
}

impl Level {
    /// Nothing is known yet; `start` is what is guessed for the engine.
    pub fn new(start: Constants) -> Self {
        let published = Published::default();
        published.set(&start);
        Self {
            start,
            learner: Mutex::new(Learner::new(start)),
            published,
        }
    }

    /// What was guessed when nothing was known.
    pub fn start(&self) -> &Constants {
        &self.start
    }

    /// What the pool's endpoints are together, as known now.
    pub fn constants(&self) -> Constants {
        self.constants_times(&Factors::ONE)
    }

    /// The same of an endpoint that differs by so much.
    pub(super) fn constants_times(&self, factors: &Factors) -> Constants {
        let published = &self.published;
        Constants {
            step_ms: published.step_ms.get() * factors.step,
            token_ms: published.token_ms.get() * factors.token,
            context_ms: published.context_ms.get() * factors.context,
            attention_ms: published.attention_ms.get() * factors.attention,
            ..self.start
        }
    }

    /// One endpoint's delay teaches the pool; the constants with it.
    pub(super) fn taught(&self, teach: impl FnOnce(&mut Learner)) -> Logarithms {
        // Arithmetic cannot leave it half-changed in a way that matters: poison carries no news.
        let mut learner = self.learner.lock().unwrap_or_else(PoisonError::into_inner);
        teach(&mut learner);
        self.published.set(&learner.constants());
        learner.logarithms()
    }
}

impl Published {
    fn set(&self, constants: &Constants) {
        self.step_ms.set(constants.step_ms);
        self.token_ms.set(constants.token_ms);
        self.context_ms.set(constants.context_ms);
        self.attention_ms.set(constants.attention_ms);
    }
}
