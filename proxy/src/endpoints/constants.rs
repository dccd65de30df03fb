//! The constants of an engine's speed that costs in milliseconds are made of.
//!
//! ```text
//! step = sqrt(W^2 + (D*N)^2) + Kp * sum c*(k + c/2) + Kd * sum x
//! ```
//!
//! for a step of N tokens, prefill chunks of c tokens at context k and decodes at context x.

use sluice_crds::networking::InferenceEngine;

use super::load::{Load, Work};

/// Constants of one endpoint, in milliseconds and tokens.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Constants {
    /// W: the floor of a step, reading the weights, with what every step costs besides.
    pub step_ms: f64,
    /// D: matrix work for one token.
    pub token_ms: f64,
    /// Kd: decode attention for one token of context.
    pub context_ms: f64,
    /// Kp: prefill attention for one token at one token of context.
    pub attention_ms: f64,
    /// Bt: most tokens in one step.
    pub batch_tokens: f64,
    /// C: tokens that the KV cache holds.
    pub kv_tokens: f64,
}

impl Constants {
    /// An 8B model on an H100 under vLLM's defaults: the start where nothing better is known.
    pub const DEFAULT: Self = Self {
        step_ms: 9.2,
        token_ms: 0.030,
        context_ms: 0.000_076_2,
        attention_ms: 0.000_001_06,
        batch_tokens: 8192.0,
        kv_tokens: 385_000.0,
    };

    /// Time until what is pending (q) has been prefilled, in full steps, in milliseconds.
    pub fn wait_ms(&self, load: Load) -> f64 {
        let work_ms = self.token_ms * self.batch_tokens;
        // Not `hypot`: nothing overflows here, and this runs for every candidate of every request.
        let full_step = (self.step_ms * self.step_ms + work_ms * work_ms).sqrt()
            + self.context_ms * load.context_tokens as f64;
        load.pending_tokens as f64 * full_step / self.batch_tokens
    }

    /// Time that the prefill of a request takes by itself, in milliseconds.
    pub fn prefill_ms(&self, work: Work) -> f64 {
        let (prompt, uncached) = (f64::from(work.prompt_tokens), f64::from(work.uncached()));
        uncached * (self.token_ms + self.attention_ms * (prompt - uncached / 2.0))
    }

    /// Where an engine's constants start. A guess within a factor of 20 will do: the rest is learned.
    pub const fn for_engine(engine: InferenceEngine) -> Self {
        match engine {
            // A small model on a few cores, with llama.cpp's default batch.
            InferenceEngine::LlamaCpp => Self {
                step_ms: 25.0,
                token_ms: 0.5,
                context_ms: 0.001,
                attention_ms: 0.000_02,
                batch_tokens: 2048.0,
                kv_tokens: 16_384.0,
            },
            // An 8B model on an Ascend 910B prefills 7.7k to 11.2k tokens per second.
            InferenceEngine::MindIE => Self {
                step_ms: 15.0,
                token_ms: 0.1,
                ..Self::DEFAULT
            },
            InferenceEngine::Vllm
            | InferenceEngine::SgLang
            | InferenceEngine::Tgi
            | InferenceEngine::Triton
            | InferenceEngine::TensorRtLlm => Self::DEFAULT,
        }
    }
}

impl Default for Constants {
    fn default() -> Self {
        Self::DEFAULT
    }
}
