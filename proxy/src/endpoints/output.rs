//! How many tokens a model's answers take: what a policy may expect of the next one.
//!
//! One moving mean per model, kept by the gateway and not per endpoint: length is the model's and its users' way.
//! Not for billing; a wrong guess only rescales a policy's decode term.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// Before the first answer has been seen.
const START_TOKENS: f64 = 200.0;
/// Weight of the start value, in answers.
const START_WEIGHT: u32 = 4;
/// The mean follows about this many answers.
const MEMORY: u32 = 100;
/// Models with a mean of their own; the rest share one.
const MAX_MODELS: usize = 1024;

/// Mean output length per model. Reading takes a shared lock and one atomic.
#[derive(Debug, Default)]
pub struct OutputLengths {
    models: RwLock<HashMap<Box<str>, Arc<Length>>>,
    /// Of all answers: the start for a model not seen yet.
    all: Length,
}

/// Count and mean in one word, so that neither is read without the other.
#[derive(Debug)]
struct Length(AtomicU64);

impl Default for Length {
    fn default() -> Self {
        Self::starting_at(START_TOKENS)
    }
}

impl Length {
    fn starting_at(mean: f64) -> Self {
        Self(AtomicU64::new(pack(START_WEIGHT, mean)))
    }

    fn mean(&self) -> f64 {
        unpack(self.0.load(Ordering::Relaxed)).1
    }

    fn add(&self, tokens: f64) {
        let update = |word| {
            let (count, mean) = unpack(word);
            let count = (count + 1).min(MEMORY);
            Some(pack(count, mean + (tokens - mean) / f64::from(count)))
        };
        // Always `Ok`: the closure never refuses.
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, update)
            .ok();
    }
}

fn pack(count: u32, mean: f64) -> u64 {
    u64::from(count) << 32 | u64::from((mean as f32).to_bits())
}

fn unpack(word: u64) -> (u32, f64) {
    let mean = f32::from_bits(word as u32);
    ((word >> 32) as u32, f64::from(mean))
}

impl OutputLengths {
    /// Output tokens to expect of `model` for a request that allows at most `max_tokens`.
    pub fn expected(&self, model: &str, max_tokens: Option<u32>) -> f64 {
        let mean = self
            .length(model)
            .map_or_else(|| self.all.mean(), |length| length.mean());
        max_tokens.map_or(mean, |limit| mean.min(f64::from(limit)))
    }

    /// Counts an answer that ended by itself; one that was cut off says nothing. `model` as configured.
    pub fn finished(&self, model: &str, tokens: u32) {
        let tokens = f64::from(tokens);
        match self.length(model).or_else(|| self.insert(model)) {
            Some(length) => length.add(tokens),
            None => tracing::trace!("too many models for output lengths of their own"),
        }
        self.all.add(tokens);
    }

    /// Drops models that are configured no more.
    pub fn retain(&self, known: impl Fn(&str) -> bool) {
        let mut models = self.models.write().unwrap_or_else(PoisonError::into_inner);
        models.retain(|model, _| known(model));
    }

    fn length(&self, model: &str) -> Option<Arc<Length>> {
        let models = self.models.read().unwrap_or_else(PoisonError::into_inner);
        models.get(model).cloned()
    }

    fn insert(&self, model: &str) -> Option<Arc<Length>> {
        let mut models = self.models.write().unwrap_or_else(PoisonError::into_inner);
        if models.len() >= MAX_MODELS && !models.contains_key(model) {
            return None;
        }
        let start = || Arc::new(Length::starting_at(self.all.mean()));
        Some(Arc::clone(models.entry(model.into()).or_insert_with(start)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_model_has_its_own_length_and_a_new_one_starts_at_the_mean_of_all() {
        let lengths = OutputLengths::default();
        assert_eq!(lengths.expected("a", None), START_TOKENS);
        for _ in 0..500 {
            lengths.finished("a", 1000);
        }
        for _ in 0..500 {
            lengths.finished("b", 50);
        }
        let (a, b) = (lengths.expected("a", None), lengths.expected("b", None));
        assert!((990.0..=1000.0).contains(&a), "{a}");
        assert!((50.0..60.0).contains(&b), "{b}");
        assert!(lengths.expected("new", None) < 100.0);
    }

    #[test]
    fn the_requests_own_limit_holds() {
        let lengths = OutputLengths::default();
        assert_eq!(lengths.expected("a", Some(5)), 5.0);
    }

    #[test]
    fn the_number_of_models_is_bounded() {
        let lengths = OutputLengths::default();
        for index in 0..MAX_MODELS + 10 {
            lengths.finished(&format!("model-{index}"), 10);
        }
        assert_eq!(lengths.models.read().unwrap().len(), MAX_MODELS);
        lengths.retain(|model| model == "model-1");
        assert_eq!(lengths.models.read().unwrap().len(), 1);
    }
}
