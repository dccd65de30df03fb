//! How long one step takes: the step-time formula, and nothing about which tokens are in the step.
//!
//! ```text
//! T = sqrt(W^2 + (D*N)^2) + Kp * sum c*(k + c/2) + Kd * sum x + B0 + R*S
//! ```
//!
//! It keeps the three effects that routing trades: prefill stalls decodes, a decode costs more the more context it
//! holds, and small batches are free up to the weight-read floor.

use std::time::Duration;

use super::profile::Profile;

/// What one step computes, summed up while it is scheduled.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Batch {
    /// Tokens scheduled (N).
    pub tokens: usize,
    /// Sequences scheduled (S).
    pub sequences: usize,
    /// Sum of c * (k + c/2) over the prefill chunks.
    pub prefill_attention: f64,
    /// Sum of the contexts of the decodes.
    pub decode_context: f64,
}

impl Batch {
    /// Adds a prefill chunk of `tokens` tokens that follow `context` computed ones.
    pub fn add_prefill(&mut self, tokens: usize, context: usize) {
        self.tokens += tokens;
        self.sequences += 1;
        self.prefill_attention += tokens as f64 * (context as f64 + tokens as f64 / 2.0);
    }

    /// Adds the decode of one token at `context` computed ones.
    pub fn add_decode(&mut self, context: usize) {
        self.tokens += 1;
        self.sequences += 1;
        self.decode_context += context as f64;
    }

    /// The time of the step; zero for an empty one.
    pub fn duration(&self, profile: &Profile) -> Duration {
        if self.tokens == 0 {
            return Duration::ZERO;
        }
        let matrices_us = (profile.weights_ms * 1e3).hypot(profile.token_us * self.tokens as f64);
        let attention_us = profile.prefill_attention_us * self.prefill_attention
            + profile.decode_attention_us * self.decode_context;
        let overhead_us = profile.base_ms * 1e3 + profile.sequence_us * self.sequences as f64;
        Duration::from_nanos(((matrices_us + attention_us + overhead_us) * 1e3) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_decode_costs_the_weights_and_the_base() {
        let mut batch = Batch::default();
        batch.add_decode(1000);
        // sqrt(8000^2 + 30^2) + 0.0762 * 1000 + 1200 + 5, in microseconds.
        let expected = (8000.0f64.powi(2) + 900.0).sqrt() + 76.2 + 1205.0;
        let micros = batch.duration(&Profile::H8B).as_secs_f64() * 1e6;
        assert!(
            (micros - expected).abs() < 0.01,
            "{micros} against {expected}"
        );
    }

    #[test]
    fn a_long_prefill_runs_at_the_peak_rate() {
        let mut batch = Batch::default();
        batch.add_prefill(8192, 0);
        let rate = 8192.0 / batch.duration(&Profile::H8B).as_secs_f64();
        assert!(
            (25_000.0..34_000.0).contains(&rate),
            "{rate} tokens per second"
        );
    }

    #[test]
    fn the_context_before_a_chunk_makes_it_dearer() {
        let (mut first, mut later) = (Batch::default(), Batch::default());
        first.add_prefill(512, 0);
        later.add_prefill(512, 16_000);
        assert!(later.duration(&Profile::H8B) > first.duration(&Profile::H8B));
    }

    #[test]
    fn an_empty_step_and_an_instant_engine_take_no_time() {
        let mut batch = Batch::default();
        assert_eq!(batch.duration(&Profile::H8B), Duration::ZERO);
        batch.add_prefill(4096, 0);
        assert_eq!(batch.duration(&Profile::INSTANT), Duration::ZERO);
    }
}
