//! What the members of one pool hold of a prompt, in tokens: the byte index and the token index asked as one.
//!
//! Bytes are known of every request at once; tokens only where the pool has a tokenizer and its engines publish KV
//! events, and only in time. Where a member's events are live and the prompt's tokens are there, the token index
//! answers for it; else the byte index does, with the pool's own ratio of bytes to tokens. Where only the tokens of the
//! prompt's beginning are there, as an engine told them of the turn before, they answer as far as they go.
//!
//! Not for how an index works (`index`), nor for choosing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use arc_swap::ArcSwap;

use super::budget::IndexBudget;
use super::chain::{Chain, Layout, extra_digest, token_seed};
use super::counts::{Counts, Measure};
use super::event::KvEvent;
use super::following::Following;
use super::index::{Index, Matched, Slot};
use super::prompt::Prompt;
use super::remembered::Remembered;

/// Bytes of prompt text that a token takes, until answers have told.
const BYTES_PER_TOKEN: f64 = 4.0;
/// How much one request's ratio moves the pool's, once so many have been heard that the first guess is forgotten; until
/// then the pool's is their mean.
const RATIO_GAIN: f64 = 0.05;
/// Of a shorter prompt the template is most: it tells nothing of the ratio.
const TELLING_BYTES: u32 = 256;
/// Most block sizes of one pool's engines that prompts are cut into; members with others are known by bytes.
const MAX_BLOCK_SIZES: usize = 4;
/// Most data-parallel ranks of an endpoint that are told apart.
const MAX_RANKS: usize = 64;

/// What one pool knows of its members' caches.
#[derive(Debug)]
pub struct PoolCache {
    bytes: Index,
    tokens: Index,
    /// Bits of an `f64`: bytes of prompt text for one token as engines count them.
    bytes_per_token: AtomicU64,
    /// What engines counted in beginnings of prompts.
    counts: Counts,
    /// What engines said the tokens of prompts are.
    remembered: Remembered,
    /// Answers that told of the ratio; counted up to where [`RATIO_GAIN`] takes over.
    told: AtomicU32,
}

impl PoolCache {
    /// Nothing known yet.
    pub fn new(budget: &Arc<IndexBudget>) -> Arc<Self> {
        Arc::new(Self {
            bytes: Index::new(Arc::clone(budget)),
            tokens: Index::new(Arc::clone(budget)),
            bytes_per_token: AtomicU64::new(BYTES_PER_TOKEN.to_bits()),
            counts: Counts::new(budget),
            remembered: Remembered::new(budget),
            told: AtomicU32::new(0),
        })
    }

    /// The index by bytes, for metrics and snapshots.
    pub fn byte_index(&self) -> &Index {
        &self.bytes
    }

    /// The index by tokens, for metrics.
    pub fn token_index(&self) -> &Index {
        &self.tokens
    }

    /// Who holds how much of a prompt. `tokens` if they are there in time; `block_sizes` as [`block_sizes`] says.
    pub fn find(
        &self,
        prompt: &Arc<Prompt>,
        tokens: Option<&[u32]>,
        block_sizes: &[u32],
    ) -> Arc<Found> {
        let beginning = match tokens {
            None if !block_sizes.is_empty() => self.remembered.beginning(&prompt.chain),
            _ => None,
        };
        let chains = (tokens.or(beginning.as_deref()))
            .map(|tokens| token_chains(prompt, tokens, block_sizes));
        let look_up = |chain: Chain| {
            let matched = self.tokens.matched(&chain);
            (chain, matched)
        };
        // Counted if tokenised or sent as tokens, else estimated from the text.
        let sent = (prompt.tokens_sent > 0).then_some(prompt.tokens_sent);
        let counted = tokens.map(|tokens| u32::try_from(tokens.len()).unwrap_or(u32::MAX));
        let counted = counted.or(sent);
        let measure = self
            .counts
            .measure(&prompt.chain, counted, self.bytes_per_token());
        Arc::new(Found {
            prompt: Arc::clone(prompt),
            prompt_tokens: measure.all(),
            measure,
            bytes: self.bytes.matched(&prompt.chain),
            only_beginning: beginning.is_some(),
            tokens: chains.into_iter().flatten().map(look_up).collect(),
        })
    }

    /// Bytes of prompt text for one token, as learned from this pool's answers.
    pub fn bytes_per_token(&self) -> f64 {
        f64::from_bits(self.bytes_per_token.load(Ordering::Relaxed))
    }

    /// An engine counted `tokens` in a prompt.
    pub fn counted(&self, prompt: &Prompt, tokens: u64) {
        let prompt_bytes = prompt.chain.length();
        if prompt_bytes < TELLING_BYTES || tokens == 0 {
            return;
        }
        let counted = u32::try_from(tokens).unwrap_or(u32::MAX);
        self.counts.note(&prompt.chain, counted);
        let ratio = (f64::from(prompt_bytes) / tokens as f64).clamp(0.25, 32.0);
        let before = self.bytes_per_token();
        // Of two at once one of two almost equal steps is lost.
        let after = before + self.gain() * (ratio - before);
        self.bytes_per_token
            .store(after.to_bits(), Ordering::Relaxed);
    }

    /// An engine told the tokens of a prompt: a later one that goes on from it begins with them.
    pub fn remember(&self, prompt: &Prompt, tokens: Vec<u32>) {
        self.remembered.keep(&prompt.chain, tokens);
    }

    /// What one more answer weighs among those heard.
    fn gain(&self) -> f64 {
        let told = self.told.load(Ordering::Relaxed).saturating_add(1);
        let mean = 1.0 / f64::from(told);
        if mean <= RATIO_GAIN {
            return RATIO_GAIN;
        }
        self.told.store(told, Ordering::Relaxed);
        mean
    }
}

fn token_chains(prompt: &Prompt, tokens: &[u32], block_sizes: &[u32]) -> Vec<Chain> {
    let seed = token_seed(prompt.adapter.as_deref());
    let salt = prompt.salt.as_deref().map(|salt| extra_digest(&[salt]));
    block_sizes
        .iter()
        .map(|&block| Chain::of_tokens_with(seed, tokens, block, salt.as_slice()))
        .collect()
}

/// A prompt as one pool sees it, and who holds how much of it.
#[derive(Debug, Default)]
pub struct Found {
    /// Prompt tokens, counted or estimated.
    pub prompt_tokens: u32,
    prompt: Arc<Prompt>,
    measure: Measure,
    bytes: Matched,
    /// The tokens are those of the prompt's beginning.
    only_beginning: bool,
    /// One for each block size.
    tokens: Vec<(Chain, Matched)>,
}

impl Found {
    /// Tokens held by the slot of the byte index.
    fn cached_by_bytes(&self, slot: Slot) -> u32 {
        let chain = &self.prompt.chain;
        let covered = chain.covered(self.bytes.blocks(slot) as usize);
        self.measure.tokens(covered)
    }

    /// Tokens held by any of the slots of the token index.
    fn cached_by_tokens(&self, ranks: &[(Option<u32>, Slot)]) -> u32 {
        let held = |(chain, matched): &(Chain, Matched)| {
            let covered = |&(_, slot)| reused(chain, matched.blocks(slot) as usize);
            ranks.iter().map(covered).max().unwrap_or(0)
        };
        self.tokens.iter().map(held).max().unwrap_or(0)
    }

    /// Tokens held by any of the slots, of a prompt whose beginning is known as this chain. Where all of that is held
    /// the bytes may tell of more.
    fn cached_from_beginning(
        &self,
        chain: usize,
        ranks: &[(Option<u32>, Slot)],
        by_bytes: u32,
    ) -> u32 {
        let (chain, matched) = &self.tokens[chain];
        let held = ranks.iter().map(|&(_, slot)| matched.blocks(slot)).max();
        let held = held.unwrap_or(0) as usize;
        match chain.covered(held) {
            tokens if held == chain.blocks() => tokens.max(by_bytes),
            tokens => tokens,
        }
    }
}

/// Tokens that an engine takes from its cache when it holds the first so many blocks. Of a prompt that it holds to the
/// last token it computes the last block anew, for the logits (vLLM's `max_cache_hit_length`, and SGLang alike).
fn reused(chain: &Chain, blocks: usize) -> u32 {
    let held = chain.covered(blocks);
    if held < chain.length() {
        held
    } else {
        chain.covered(chain.blocks().saturating_sub(1))
    }
}

/// The block sizes of the live among a pool's members, each once.
pub fn block_sizes<'a>(members: impl Iterator<Item = &'a Arc<MemberCache>>) -> Vec<u32> {
    let mut sizes = Vec::new();
    for size in members.filter_map(|member| member.block_size()) {
        if !sizes.contains(&size) && sizes.len() < MAX_BLOCK_SIZES {
            sizes.push(size);
        }
    }
    sizes
}

/// One member's place in its pool's indexes; dropping it forgets what the member holds.
#[derive(Debug)]
pub struct MemberCache {
    pool: Arc<PoolCache>,
    /// `None` when the index has no slot left: the member then counts as cold.
    bytes: Option<Slot>,
    /// Slots of its data-parallel ranks. Only the thread that follows events changes them.
    ranks: ArcSwap<Vec<(Option<u32>, Slot)>>,
    /// Its KV events are followed and come.
    live: AtomicBool,
    following: Following,
    /// Tokens in a block, as its events say; 0: not said yet.
    block: AtomicU32,
    /// Tokens that its KV cache holds; 0: not known.
    capacity: AtomicU64,
}

impl MemberCache {
    /// A place for a new member.
    pub fn new(pool: &Arc<PoolCache>) -> Arc<Self> {
        Arc::new(Self {
            bytes: pool.bytes.attach(),
            pool: Arc::clone(pool),
            ranks: ArcSwap::default(),
            live: AtomicBool::new(false),
            following: Following::default(),
            block: AtomicU32::new(0),
            capacity: AtomicU64::new(0),
        })
    }

    /// Whether the member's KV events are followed and come.
    pub fn is_live(&self) -> bool {
        self.live.load(Ordering::Relaxed)
    }

    /// How the following of its KV events stands.
    pub fn following(&self) -> &Following {
        &self.following
    }

    /// What is known of it by bytes, most recently used first, as hash and size of a block.
    pub fn export(&self, at_most: usize) -> Vec<(u64, u32)> {
        self.bytes
            .map(|slot| self.pool.bytes.export(slot, at_most))
            .unwrap_or_default()
    }

    /// Takes over what [`Self::export`] gave.
    pub fn import(&self, blocks: &[(u64, u32)]) {
        if let Some(slot) = self.bytes {
            self.pool.bytes.import(slot, blocks);
        }
    }

    /// Tokens in a block of its engine, if its events are live and have said.
    fn block_size(&self) -> Option<u32> {
        let block = self.block.load(Ordering::Relaxed);
        (self.is_live() && block > 0).then_some(block)
    }

    /// Tokens of a prompt that the member holds.
    pub fn cached(&self, found: &Found) -> u32 {
        let by_bytes = || self.bytes.map_or(0, |slot| found.cached_by_bytes(slot));
        let ranks = self.ranks.load();
        match self.token_chain(found) {
            Some(chain) if found.only_beginning => {
                found.cached_from_beginning(chain, &ranks, by_bytes())
            }
            Some(_) => found.cached_by_tokens(&ranks),
            None => by_bytes(),
        }
    }

    /// The engine's KV cache holds so many tokens.
    pub fn set_capacity(&self, kv_tokens: u64) {
        if self.capacity.swap(kv_tokens, Ordering::Relaxed) == kv_tokens {
            return;
        }
        if let Some(slot) = self.bytes {
            let bytes = kv_tokens as f64 * self.pool.bytes_per_token();
            self.pool.bytes.set_capacity(slot, bytes as u64);
        }
        for &(_, slot) in self.ranks.load().iter() {
            self.pool.tokens.set_capacity(slot, kv_tokens);
        }
    }

    /// A request with the prompt found goes to the member: it counts as held from now on.
    pub fn dispatched(self: &Arc<Self>, found: &Arc<Found>) -> Claim {
        let tokens = self.token_slot(found);
        let claim = Claim {
            member: Arc::clone(self),
            found: Arc::clone(found),
            tokens,
            confirmed: false,
        };
        claim.each(Index::dispatched);
        claim
    }

    /// Where a dispatch is noted by tokens: only with one rank is it known which one serves.
    fn token_slot(&self, found: &Found) -> Option<(Slot, usize)> {
        let &[(_, slot)] = self.ranks.load().as_slice() else {
            return None;
        };
        Some((slot, self.token_chain(found)?))
    }

    /// Which of the found chains is cut as the member's blocks are. Until its events have said how, there is none, and
    /// bytes tell: else a prompt on its way there would not be seen.
    fn token_chain(&self, found: &Found) -> Option<usize> {
        let layout = Layout::Tokens(self.block_size()?);
        let mut chains = found.tokens.iter();
        chains.position(|(chain, _)| chain.layout() == layout)
    }

    /// One KV event of a data-parallel rank.
    pub fn apply(&self, rank: Option<u32>, event: &KvEvent) {
        if let KvEvent::Stored(stored) = event
            && stored.block_size > 0
        {
            self.block.store(stored.block_size, Ordering::Relaxed);
        }
        if let Some(slot) = self.rank_slot(rank) {
            self.pool.tokens.apply(slot, event);
        }
        if matches!(event, KvEvent::Cleared) {
            self.forget_bytes();
        }
    }

    /// What events said of a rank no longer holds.
    pub fn clear(&self, rank: Option<u32>) {
        if let Some(slot) = self.rank_slot(rank) {
            self.pool.tokens.clear(slot);
        }
        self.forget_bytes();
    }

    /// Whether its KV events come.
    pub fn set_live(&self, live: bool) {
        self.live.store(live, Ordering::Relaxed);
        for &(_, slot) in self.ranks.load().iter() {
            self.pool.tokens.set_reported(slot, live);
        }
    }

    fn forget_bytes(&self) {
        if let Some(slot) = self.bytes {
            self.pool.bytes.clear(slot);
        }
    }

    fn rank_slot(&self, rank: Option<u32>) -> Option<Slot> {
        let ranks = self.ranks.load();
        if let Some(&(_, slot)) = ranks.iter().find(|(known, _)| *known == rank) {
            return Some(slot);
        }
        if ranks.len() >= MAX_RANKS {
            return None;
        }
        let tokens = &self.pool.tokens;
        let slot = tokens.attach()?;
        tokens.set_reported(slot, self.is_live());
        let capacity = self.capacity.load(Ordering::Relaxed);
        if capacity > 0 {
            tokens.set_capacity(slot, capacity);
        }
        let mut more = ranks.to_vec();
        more.push((rank, slot));
        self.ranks.store(Arc::new(more));
        Some(slot)
    }
}

impl Drop for MemberCache {
    fn drop(&mut self) {
        if let Some(slot) = self.bytes {
            self.pool.bytes.detach(slot);
        }
        for &(_, slot) in self.ranks.load().iter() {
            self.pool.tokens.detach(slot);
        }
    }
}

/// One dispatched prompt's entry in the indexes. Dropped before it is confirmed, it is taken back.
#[derive(Debug)]
pub struct Claim {
    member: Arc<MemberCache>,
    found: Arc<Found>,
    /// Slot of the token index, and which of the found chains is noted there.
    tokens: Option<(Slot, usize)>,
    confirmed: bool,
}

impl Claim {
    /// The first token came: the engine holds the whole prompt.
    pub fn confirm(&mut self) {
        if !std::mem::replace(&mut self.confirmed, true) {
            self.each(Index::confirmed);
        }
    }

    fn each(&self, note: impl Fn(&Index, Slot, &Chain)) {
        let pool = &self.member.pool;
        if let Some(slot) = self.member.bytes {
            note(&pool.bytes, slot, &self.found.prompt.chain);
        }
        if let Some((slot, chain)) = self.tokens {
            note(&pool.tokens, slot, &self.found.tokens[chain].0);
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.confirmed {
            self.each(Index::withdrawn);
        }
    }
}

#[cfg(test)]
mod tests;
