//! The constants of one engine on one accelerator: what a step costs and how much it may hold.
//!
//! The four measured profiles are fits on published kernel profiles of Llama-3.1-8B (H100, A100) and Qwen3-32B, and
//! the 7B engine of Kthena's published benchmark. `instant` costs nothing and serves overhead measurements. No
//! scheduling here: that is the model's.

/// Step costs and capacities of an engine.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// Name as given on the command line.
    pub name: &'static str,
    /// Reading all weights once, in milliseconds: the floor of a small batch.
    pub weights_ms: f64,
    /// Matrix work of one token, in microseconds.
    pub token_us: f64,
    /// Attention of a prefill chunk, in microseconds per (token x context token).
    pub prefill_attention_us: f64,
    /// Attention of a decode, in microseconds per context token.
    pub decode_attention_us: f64,
    /// Launch and scheduling of any step, in milliseconds.
    pub base_ms: f64,
    /// Scheduling and sampling of one sequence, in microseconds.
    pub sequence_us: f64,
    /// Size of the KV cache, in tokens.
    pub kv_tokens: usize,
    /// Tokens in one KV block.
    pub block_tokens: usize,
    /// Tokens that one step may schedule (`max_num_batched_tokens`).
    pub max_batched_tokens: usize,
    /// Sequences that may run at once (`max_num_seqs`).
    pub max_sequences: usize,
}

impl Profile {
    /// The engine of Kthena's published routing benchmark, refitted: a 7B model with 600k tokens of cache.
    pub const K7B: Self = Self {
        name: "k7b",
        weights_ms: 13.0,
        token_us: 70.0,
        prefill_attention_us: 0.0006,
        decode_attention_us: 0.065,
        base_ms: 8.0,
        sequence_us: 20.0,
        kv_tokens: 600_000,
        block_tokens: 128,
        max_batched_tokens: 65_536,
        max_sequences: 256,
    };

    /// Llama-3.1-8B on one H100: the default.
    pub const H8B: Self = Self {
        name: "h8b",
        weights_ms: 8.0,
        token_us: 30.0,
        prefill_attention_us: 0.00106,
        decode_attention_us: 0.0762,
        base_ms: 1.2,
        sequence_us: 5.0,
        kv_tokens: 385_000,
        block_tokens: 16,
        max_batched_tokens: 8_192,
        max_sequences: 256,
    };

    /// Qwen3-32B on two H100.
    pub const Q32: Self = Self {
        name: "q32",
        weights_ms: 9.5,
        token_us: 48.0,
        prefill_attention_us: 0.0004,
        decode_attention_us: 0.03,
        base_ms: 1.5,
        sequence_us: 15.0,
        kv_tokens: 307_328,
        block_tokens: 16,
        max_batched_tokens: 8_192,
        max_sequences: 256,
    };

    /// Llama-3-8B on one A100: the slow pod of a mixed fleet. Its two attention constants are estimates.
    pub const A100_8B: Self = Self {
        name: "a100-8b",
        weights_ms: 10.0,
        token_us: 67.0,
        prefill_attention_us: 0.0015,
        decode_attention_us: 0.06,
        base_ms: 1.5,
        sequence_us: 10.0,
        kv_tokens: 400_000,
        block_tokens: 16,
        max_batched_tokens: 8_192,
        max_sequences: 256,
    };

    /// No cost at all and room for ten thousand streams: what remains is the price of what stands in front.
    pub const INSTANT: Self = Self {
        name: "instant",
        weights_ms: 0.0,
        token_us: 0.0,
        prefill_attention_us: 0.0,
        decode_attention_us: 0.0,
        base_ms: 0.0,
        sequence_us: 0.0,
        kv_tokens: 16_000_000,
        block_tokens: 16,
        max_batched_tokens: 1 << 22,
        max_sequences: 65_536,
    };

    /// Every built-in profile.
    pub const ALL: [Self; 5] = [
        Self::K7B,
        Self::H8B,
        Self::Q32,
        Self::A100_8B,
        Self::INSTANT,
    ];

    /// The built-in profile of that name, in any case.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|profile| profile.name.eq_ignore_ascii_case(name))
    }

    /// Blocks that the KV cache holds.
    pub fn kv_blocks(&self) -> usize {
        self.kv_tokens / self.block_tokens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_found_in_any_case() {
        assert_eq!(Profile::named("H8B"), Some(Profile::H8B));
        assert_eq!(Profile::named("A100-8b"), Some(Profile::A100_8B));
        assert_eq!(Profile::named("h9b"), None);
    }
}
