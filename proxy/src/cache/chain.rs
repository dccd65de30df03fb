//! Chained block hashes of one prompt: the name by which a prefix is known in an index.
//!
//! A prompt is cut into blocks, and a block's hash covers everything before it, so that one hash stands for one whole
//! prefix: `hash[i] = H(hash[i-1], xxh3(block i), extra[i])` with `hash[-1] = H(seed, layout)`. Only full blocks are
//! hashed. The hashes are ours alone; engines' own hashes are never reproduced (their seeds and functions differ), but
//! translated by `reported`.
//!
//! Two layouts:
//! - *Tokens*: blocks of the engine's size. The size is part of the root, so different sizes never collide.
//! - *Bytes* of the rendered prompt, for pools without a tokenizer: 64-byte blocks at first, coarser with depth as a
//!   pure function of the position (`position / 64` rounded down to a power of two, between 64 B and 4 KiB). An error
//!   of a block is thus at most 1.6 % of the prefix or 64 bytes, and 512 KiB are 512 blocks, not 8192.
//!
//! Hashes are xxh3-64 cut to 63 bits, never zero: the index keeps a flag in the top bit and zero for "empty". With
//! ten million blocks held a given new block meets a false one with probability 1e-12.
//!
//! Not for: rendering, tokenising, knowing who holds what.

use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

/// What is in the top bit belongs to the index.
pub(super) const KEY_BITS: u64 = u64::MAX >> 1;

/// Smallest and largest byte blocks.
const MIN_BYTES: u32 = 64;
const MAX_BYTES: u32 = 4096;

/// Up to here byte blocks are the smallest; it doubles with every doubling of the block.
const FINE_BYTES: u32 = MIN_BYTES * 128;
const FINE_BLOCKS: usize = 128;
/// Blocks of each further size.
const LEVEL_BLOCKS: usize = 64;
/// Sizes between the smallest (excluded) and the largest.
const LEVELS: usize = 6;

/// How a prompt is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Bytes of text in blocks that grow with depth.
    Bytes,
    /// Token ids in blocks of this many.
    Tokens(u32),
}

impl Layout {
    /// Units (bytes or tokens) up to the end of the first so many blocks; saturates.
    #[must_use]
    pub fn covered(self, blocks: usize) -> u32 {
        let units = match self {
            Self::Tokens(block) => (blocks as u64).saturating_mul(u64::from(block)),
            Self::Bytes => byte_boundary(blocks),
        };
        u32::try_from(units).unwrap_or(u32::MAX)
    }

    /// Units in one block by its index.
    pub(super) fn block(self, index: usize) -> u32 {
        match self {
            Self::Tokens(block) => block,
            Self::Bytes => byte_block(byte_boundary(index)),
        }
    }
}

fn byte_boundary(blocks: usize) -> u64 {
    let Some(beyond) = blocks.checked_sub(FINE_BLOCKS) else {
        return blocks as u64 * u64::from(MIN_BYTES);
    };
    let level = (beyond / LEVEL_BLOCKS).min(LEVELS - 1);
    let rest = (beyond - level * LEVEL_BLOCKS) as u64;
    (u64::from(FINE_BYTES) << level) + rest * (u64::from(2 * MIN_BYTES) << level)
}

/// Size of the byte block that starts at `position`.
fn byte_block(position: u64) -> u32 {
    let near = (position / 64).clamp(u64::from(MIN_BYTES), u64::from(MAX_BYTES));
    1 << near.ilog2()
}

/// The hashes of one prompt's full blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    hashes: Vec<u64>,
    layout: Layout,
    length: u32,
}

impl Default for Chain {
    fn default() -> Self {
        Self {
            hashes: Vec::new(),
            layout: Layout::Bytes,
            length: 0,
        }
    }
}

impl Chain {
    /// Of a tokenised prompt. `seed` is [`token_seed`] if engines' events are to match. A block of zero tokens gives
    /// no blocks.
    #[must_use]
    pub fn of_tokens(seed: u64, tokens: &[u32], block: u32) -> Self {
        Self::of_tokens_with(seed, tokens, block, &[])
    }

    /// As [`Self::of_tokens`], with what tells blocks apart beside their tokens: `extra[i]` is mixed into block `i`
    /// unless it is zero or absent. A request's `cache_salt` belongs to block 0 as `extra_digest(&[salt])`; an image
    /// to every block that its placeholder tokens touch, as vLLM does.
    #[must_use]
    pub fn of_tokens_with(seed: u64, tokens: &[u32], block: u32, extra: &[u64]) -> Self {
        let mut hashes = Vec::with_capacity(tokens.len().checked_div(block as usize).unwrap_or(0));
        let mut linker = TokenLinker::new(token_root(seed, block));
        for (index, ids) in tokens.chunks_exact(block.max(1) as usize).enumerate() {
            if block == 0 {
                break;
            }
            hashes.push(linker.push(ids, extra.get(index).copied().unwrap_or(0)));
        }
        Self {
            hashes,
            layout: Layout::Tokens(block),
            length: u32::try_from(tokens.len()).unwrap_or(u32::MAX),
        }
    }

    /// Starts a chain over text.
    #[must_use]
    pub fn bytes(seed: u64) -> ByteChain {
        Self::bytes_of(seed, 0)
    }

    /// As [`Self::bytes`], with room for the hashes of so many bytes.
    #[must_use]
    pub fn bytes_of(seed: u64, expected: usize) -> ByteChain {
        let finest = expected / MIN_BYTES as usize;
        let graded = FINE_BLOCKS + LEVELS * LEVEL_BLOCKS + expected / MAX_BYTES as usize;
        ByteChain {
            hashes: Vec::with_capacity(finest.min(graded)),
            last: link(seed, BYTES_TAG, 0),
            extra: 0,
            start: 0,
            partial: Vec::new(),
        }
    }

    /// How many full blocks.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.hashes.len()
    }

    /// Units (bytes or tokens) up to the end of the first so many blocks; no more than the prompt has.
    #[must_use]
    pub fn covered(&self, blocks: usize) -> u32 {
        self.layout.covered(blocks.min(self.hashes.len()))
    }

    /// Units in all, with the tail that fills no block.
    #[must_use]
    pub fn length(&self) -> u32 {
        self.length
    }

    /// How it was cut.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The hashes, in order; 63 bits each, never zero.
    #[must_use]
    pub fn hashes(&self) -> &[u64] {
        &self.hashes
    }
}

/// A byte chain under construction. The cuts between pushes do not matter.
#[derive(Debug, Clone)]
pub struct ByteChain {
    hashes: Vec<u64>,
    last: u64,
    /// Digests met inside the block that is being filled.
    extra: u64,
    /// Where that block starts.
    start: u64,
    /// Its bytes so far; always fewer than a block.
    partial: Vec<u8>,
}

impl ByteChain {
    /// Adds text.
    pub fn push(&mut self, mut text: &[u8]) {
        while !text.is_empty() {
            let block = byte_block(self.start) as usize;
            let (now, later) = text.split_at(text.len().min(block - self.partial.len()));
            text = later;
            if self.partial.is_empty() && now.len() == block {
                self.close(xxh3_64(now), block);
                continue;
            }
            self.partial.extend_from_slice(now);
            if self.partial.len() == block {
                let local = xxh3_64(&self.partial);
                self.partial.clear();
                self.close(local, block);
            }
        }
    }

    /// Adds something that is no text and has no length: an image's digest, a border between messages. Cannot be
    /// imitated by text.
    pub fn push_digest(&mut self, digest: u64) {
        self.extra = link(self.extra, digest, self.partial.len() as u64 + 1);
    }

    /// As [`Self::push_digest`] for something that fills the prompt like `length` bytes of text would, such as an
    /// image.
    pub fn push_opaque(&mut self, digest: u64, length: u32) {
        const FILL: [u8; MAX_BYTES as usize] = [0; MAX_BYTES as usize];
        self.push_digest(digest);
        let mut left = length as usize;
        while left > 0 {
            let now = left.min(FILL.len());
            self.push(&FILL[..now]);
            left -= now;
        }
    }

    fn close(&mut self, local: u64, block: usize) {
        self.last = link(self.last, local, self.extra);
        self.extra = 0;
        self.start += block as u64;
        self.hashes.push(self.last);
    }

    /// The chain of all that was pushed.
    #[must_use]
    pub fn finish(self) -> Chain {
        let length = self.start + self.partial.len() as u64;
        Chain {
            hashes: self.hashes,
            layout: Layout::Bytes,
            length: u32::try_from(length).unwrap_or(u32::MAX),
        }
    }
}

/// A name space: model, adapters, salt. Parts are told apart by their lengths, so `["ab", "c"]` is not `["a", "bc"]`.
#[must_use]
pub fn seed(parts: &[&str]) -> u64 {
    digest(SEED_TAG, parts)
}

/// The seed of token chains that are to match engines' events: the adapter, or none. Model and engine are the
/// pool's, and an index belongs to one pool.
#[must_use]
pub fn token_seed(lora: Option<&str>) -> u64 {
    match lora {
        Some(name) => seed(&[name]),
        None => digest::<&str>(SEED_TAG, &[]),
    }
}

/// What goes into a block's `extra`: cache salt, multimodal ids. Never zero, since zero means nothing.
#[must_use]
pub fn extra_digest<P: AsRef<[u8]>>(parts: &[P]) -> u64 {
    digest(EXTRA_TAG, parts).max(1)
}

const SEED_TAG: u64 = u64::from_le_bytes(*b"seed....");
const EXTRA_TAG: u64 = u64::from_le_bytes(*b"extra...");
const BYTES_TAG: u64 = u64::from_le_bytes(*b"bytes...");
const TOKENS_TAG: u64 = u64::from_le_bytes(*b"tokens..");

fn digest<P: AsRef<[u8]>>(tag: u64, parts: &[P]) -> u64 {
    let mut hasher = Xxh3Default::new();
    hasher.update(&tag.to_le_bytes());
    for part in parts.iter().map(AsRef::as_ref) {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.digest()
}

/// What the first block of a token chain hangs on.
pub(super) fn token_root(seed: u64, block: u32) -> u64 {
    link(seed, TOKENS_TAG, u64::from(block))
}

/// One step of a chain.
fn link(previous: u64, local: u64, extra: u64) -> u64 {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&previous.to_le_bytes());
    bytes[8..16].copy_from_slice(&local.to_le_bytes());
    bytes[16..].copy_from_slice(&extra.to_le_bytes());
    (xxh3_64(&bytes) & KEY_BITS).max(1)
}

/// Continues a token chain block by block, from its root or from a block in its midst.
pub(super) struct TokenLinker {
    last: u64,
    bytes: Vec<u8>,
}

impl TokenLinker {
    pub(super) fn new(last: u64) -> Self {
        Self {
            last,
            bytes: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, ids: &[u32], extra: u64) -> u64 {
        self.bytes.clear();
        self.bytes
            .extend(ids.iter().flat_map(|id| id.to_le_bytes()));
        self.last = link(self.last, xxh3_64(&self.bytes), extra);
        self.last
    }
}

#[cfg(test)]
mod tests;
