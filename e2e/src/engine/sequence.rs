//! One prompt on its way through the model: its tokens, what is computed of them and the blocks that hold it.

use std::time::Duration;

use super::blocks::BlockId;
use super::hash;

/// Names one submitted sequence within its engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// What to generate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GenerateRequest {
    /// The prompt's tokens.
    pub prompt: Vec<u32>,
    /// Sequences share cached blocks only with the same salt (LoRA adapter, `cache_salt`).
    pub salt: u64,
    /// Output tokens after which the sequence is finished; at least one is generated.
    pub max_tokens: u32,
    /// Decides the output: see [`hash::output_token`].
    pub output_seed: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Sequence {
    pub(crate) id: RequestId,
    pub(crate) request: GenerateRequest,
    pub(crate) generated: u32,
    /// Tokens whose keys and values lie in `blocks`.
    pub(crate) computed: usize,
    /// Tokens that the step at hand computes.
    pub(crate) scheduled: usize,
    pub(crate) blocks: Vec<BlockId>,
    /// Chained hashes of the full blocks of the tokens so far, as far as they were needed.
    hashes: Vec<u64>,
    /// Full blocks already offered to the prefix cache.
    pub(crate) published: usize,
    /// Prompt tokens found in the prefix cache at the first admission; none before it.
    pub(crate) cached: Option<usize>,
    pub(crate) preemptions: u32,
    pub(crate) arrived: Duration,
    pub(crate) admitted: Duration,
    pub(crate) first_token: Option<Duration>,
}

impl Sequence {
    pub(crate) fn new(id: RequestId, request: GenerateRequest, now: Duration) -> Self {
        Self {
            id,
            request,
            generated: 0,
            computed: 0,
            scheduled: 0,
            blocks: Vec::new(),
            hashes: Vec::new(),
            published: 0,
            cached: None,
            preemptions: 0,
            arrived: now,
            admitted: now,
            first_token: None,
        }
    }

    /// Prompt and generated tokens.
    pub(crate) fn total(&self) -> usize {
        self.request.prompt.len() + self.generated as usize
    }

    /// Tokens not computed yet: one for a decode.
    pub(crate) fn remaining(&self) -> usize {
        self.total() - self.computed
    }

    /// Whether the next token is a decode, not the rest of a prefill.
    pub(crate) fn decodes(&self) -> bool {
        self.generated > 0 && self.remaining() == 1
    }

    pub(crate) fn finished(&self) -> bool {
        self.generated >= self.request.max_tokens.max(1)
    }

    pub(crate) fn token(&self, position: usize) -> u32 {
        match self.request.prompt.get(position) {
            Some(&token) => token,
            None => hash::output_token(
                self.request.output_seed,
                (position - self.request.prompt.len()) as u32,
            ),
        }
    }

    /// Tokens of the full block `index`.
    pub(crate) fn block_tokens(&self, index: usize, size: usize) -> impl Iterator<Item = u32> + '_ {
        (index * size..(index + 1) * size).map(|position| self.token(position))
    }

    /// Chained hash of block `index`, which must be full.
    pub(crate) fn hash(&mut self, index: usize, size: usize) -> u64 {
        while self.hashes.len() <= index {
            let next = self.hashes.len();
            let parent = self
                .hashes
                .last()
                .copied()
                .unwrap_or(hash::mix(self.request.salt, size as u64));
            let hash = hash::chain(parent, self.block_tokens(next, size));
            self.hashes.push(hash);
        }
        self.hashes[index]
    }

    /// Forgets all computed state: what preemption does. Generated tokens stay and are computed again.
    pub(crate) fn reset(&mut self) -> Vec<BlockId> {
        self.computed = 0;
        self.scheduled = 0;
        self.published = 0;
        self.preemptions += 1;
        std::mem::take(&mut self.blocks)
    }
}
