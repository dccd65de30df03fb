//! The hit rate that no router can pass: all prompts in the order of their sending, in front of one cache without limit.

use std::collections::HashSet;

use sluice_e2e::engine::hash;

/// A prefix cache that forgets nothing, with an engine's blocks and its rules.
#[derive(Clone, Debug)]
pub struct IdealCache {
    block_tokens: usize,
    /// Chained hashes of full blocks.
    blocks: HashSet<u64>,
    queries: u64,
    hits: u64,
}

impl IdealCache {
    /// An empty cache with blocks of that many tokens.
    pub fn new(block_tokens: usize) -> Self {
        Self {
            block_tokens: block_tokens.max(1),
            blocks: HashSet::new(),
            queries: 0,
            hits: 0,
        }
    }

    /// Takes a prompt that is answered with `output`; counts what of the prompt was there before. As in an engine, a
    /// prompt's last token is always computed, and the last token of an output never.
    pub fn take(&mut self, prompt: &[u32], output: &[u32]) {
        let reusable = prompt.len().saturating_sub(1) / self.block_tokens;
        let kept = &output[..output.len().saturating_sub(1)];
        let mut tokens = prompt.iter().chain(kept).copied();
        let blocks = (prompt.len() + kept.len()) / self.block_tokens;
        let (mut chain, mut hit, mut present) = (0, 0, true);
        for index in 0..blocks {
            chain = hash::chain(chain, tokens.by_ref().take(self.block_tokens));
            present &= !self.blocks.insert(chain);
            hit += usize::from(present && index < reusable);
        }
        self.queries += prompt.len() as u64;
        self.hits += (hit * self.block_tokens) as u64;
    }

    /// Tokens found over tokens looked up; zero before the first prompt.
    pub fn rate(&self) -> f64 {
        self.hits as f64 / self.queries.max(1) as f64
    }
}
