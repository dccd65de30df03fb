//! The engine model: vLLM v1's scheduler over a block pool, one step at a time.
//!
//! Pure: no I/O and no clock of its own. Whoever drives it passes the time and waits, or does not (virtual time). The
//! rules: running sequences first, a decode takes one token and an unfinished prefill what is left of the budget
//! (chunked prefill); then waiting ones, first come first served, but none in a step that preempted; without a free
//! block the last running sequence is preempted and goes to the head of the queue.

use std::collections::VecDeque;
use std::time::Duration;

use super::blocks::{BlockPool, KvEvent};
use super::profile::Profile;
use super::sequence::{GenerateRequest, RequestId, Sequence};
use super::timing::Batch;

#[cfg(test)]
mod tests;

/// Why a sequence cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// It would preempt itself for ever.
    #[error(
        "the sequence needs {needed} KV blocks and the engine has {capacity}, shorten it or use a larger profile"
    )]
    TooLong {
        /// Blocks for prompt and output.
        needed: usize,
        /// Blocks of the engine.
        capacity: usize,
    },
    /// There is nothing to compute.
    #[error("the prompt is empty, send at least one token")]
    EmptyPrompt,
}

/// One generated token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// Whose it is.
    pub id: RequestId,
    /// Its place in the output, from zero.
    pub index: u32,
    /// Prompt tokens that were found in the prefix cache.
    pub cached_tokens: usize,
    /// Whether it is the last one.
    pub last: bool,
}

/// The life of a finished sequence, in the driver's time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Which one.
    pub id: RequestId,
    /// When it was submitted.
    pub arrived: Duration,
    /// When it was first admitted.
    pub admitted: Duration,
    /// When its first token was ready.
    pub first_token: Duration,
    /// When its last token was ready.
    pub finished: Duration,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Of these, found in the prefix cache.
    pub cached_tokens: usize,
    /// Output tokens.
    pub output_tokens: u32,
    /// How often it was preempted.
    pub preemptions: u32,
}

/// What one step did. Its tokens are ready `duration` after the step began.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepResult {
    /// How long the step takes; zero when nothing ran.
    pub duration: Duration,
    /// What it computed.
    pub batch: Batch,
    /// Tokens generated, in the order of the running sequences.
    pub tokens: Vec<Token>,
    /// Sequences whose last token is among them.
    pub finished: Vec<Finished>,
    /// Sequences that lost their blocks and wait again.
    pub preempted: Vec<RequestId>,
    /// Changes of the prefix cache; empty unless [`Engine::record_events`] was called.
    pub events: Vec<KvEvent>,
}

/// State and totals to show on a metrics page.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Gauges {
    /// Sequences running.
    pub running: usize,
    /// Sequences waiting.
    pub waiting: usize,
    /// Share of the blocks in use, 0 to 1.
    pub kv_usage: f64,
    /// Prompt tokens looked up in the prefix cache.
    pub prefix_queries: u64,
    /// Of these, found.
    pub prefix_hits: u64,
    /// Preemptions so far.
    pub preemptions: u64,
}

/// One engine replica.
#[derive(Clone, Debug)]
pub struct Engine {
    profile: Profile,
    pool: BlockPool,
    running: Vec<Sequence>,
    waiting: VecDeque<Sequence>,
    next_id: u64,
    prefix_queries: u64,
    prefix_hits: u64,
    preemptions: u64,
    events: Option<Vec<KvEvent>>,
}

impl Engine {
    /// An idle engine with an empty cache.
    pub fn new(profile: Profile) -> Self {
        let pool = BlockPool::new(profile.kv_blocks());
        Self {
            profile,
            pool,
            running: Vec::new(),
            waiting: VecDeque::new(),
            next_id: 0,
            prefix_queries: 0,
            prefix_hits: 0,
            preemptions: 0,
            events: None,
        }
    }

    /// The constants it runs with.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Collect KV events into each [`StepResult`] from now on.
    pub fn record_events(&mut self) {
        self.events.get_or_insert_default();
    }

    /// Queues a sequence that arrived at `now`.
    ///
    /// # Errors
    /// When the prompt is empty, or prompt and output do not fit the whole cache.
    pub fn submit(
        &mut self,
        request: GenerateRequest,
        now: Duration,
    ) -> Result<RequestId, SubmitError> {
        if request.prompt.is_empty() {
            return Err(SubmitError::EmptyPrompt);
        }
        let tokens = request.prompt.len() + request.max_tokens as usize;
        let (needed, capacity) = (
            tokens.div_ceil(self.profile.block_tokens),
            self.pool.capacity(),
        );
        if needed > capacity {
            return Err(SubmitError::TooLong { needed, capacity });
        }
        let id = RequestId(self.next_id);
        self.next_id += 1;
        self.waiting.push_back(Sequence::new(id, request, now));
        Ok(id)
    }

    /// Drops a sequence and frees its blocks; false when it is not here (any more).
    pub fn cancel(&mut self, id: RequestId) -> bool {
        if let Some(index) = self.running.iter().position(|sequence| sequence.id == id) {
            let sequence = self.running.remove(index);
            self.pool.release(&sequence.blocks);
            return true;
        }
        match self.waiting.iter().position(|sequence| sequence.id == id) {
            Some(index) => self.waiting.remove(index).is_some(),
            None => false,
        }
    }

    /// Whether a step would have anything to look at.
    pub fn has_work(&self) -> bool {
        !self.running.is_empty() || !self.waiting.is_empty()
    }

    /// Forgets the prefix cache; false, and nothing done, while sequences hold blocks.
    pub fn reset_prefix_cache(&mut self) -> bool {
        let cleared = self.pool.clear();
        if let (true, Some(events)) = (cleared, &mut self.events) {
            events.push(KvEvent::AllCleared);
        }
        cleared
    }

    /// State and totals as they are now.
    pub fn gauges(&self) -> Gauges {
        Gauges {
            running: self.running.len(),
            waiting: self.waiting.len(),
            kv_usage: self.pool.used() as f64 / self.pool.capacity().max(1) as f64,
            prefix_queries: self.prefix_queries,
            prefix_hits: self.prefix_hits,
            preemptions: self.preemptions,
        }
    }

    /// Runs one step that begins at `now`.
    pub fn step(&mut self, now: Duration) -> StepResult {
        let mut result = StepResult::default();
        let mut budget = self.profile.max_batched_tokens;
        self.schedule_running(&mut budget, &mut result);
        if result.preempted.is_empty() {
            self.admit(&mut budget, &mut result, now);
        }
        result.duration = result.batch.duration(&self.profile);
        self.complete(&mut result, now);
        if let Some(events) = &mut self.events {
            result.events.append(events);
        }
        result
    }

    /// Gives running sequences their tokens, in order, preempting from the back when blocks run out.
    fn schedule_running(&mut self, budget: &mut usize, result: &mut StepResult) {
        let mut index = 0;
        while index < self.running.len() && *budget > 0 {
            let tokens = self.running[index].remaining().min(*budget);
            while index < self.running.len() && !self.grow(index, tokens) {
                self.preempt_last(result);
            }
            if let Some(sequence) = self.running.get_mut(index) {
                charge(&mut result.batch, sequence, tokens);
                *budget -= tokens;
            }
            index += 1;
        }
    }

    /// Allocates blocks for `tokens` more tokens of a running sequence; false, and nothing done, when too few are free.
    fn grow(&mut self, index: usize, tokens: usize) -> bool {
        let sequence = &mut self.running[index];
        let wanted = (sequence.computed + tokens).div_ceil(self.profile.block_tokens);
        let missing = wanted.saturating_sub(sequence.blocks.len());
        if missing > self.pool.free() {
            return false;
        }
        sequence
            .blocks
            .extend((0..missing).map_while(|_| self.pool.allocate()));
        true
    }

    fn preempt_last(&mut self, result: &mut StepResult) {
        let Some(mut victim) = self.running.pop() else {
            return;
        };
        let blocks = victim.reset();
        self.pool.release(&blocks);
        self.preemptions += 1;
        result.preempted.push(victim.id);
        self.waiting.push_front(victim);
    }

    /// Admits waiting sequences while budget, places and free blocks last.
    fn admit(&mut self, budget: &mut usize, result: &mut StepResult, now: Duration) {
        while *budget > 0 && self.running.len() < self.profile.max_sequences {
            let Some(mut sequence) = self.waiting.pop_front() else {
                return;
            };
            let hits = self.hits(&mut sequence);
            let tokens = (sequence.total() - hits.tokens).min(*budget);
            let wanted =
                (hits.tokens + tokens).div_ceil(self.profile.block_tokens) - hits.blocks.len();
            if wanted + hits.were_free > self.pool.free() {
                self.waiting.push_front(sequence);
                return;
            }
            for &block in &hits.blocks {
                self.pool.acquire(block);
            }
            sequence.computed = hits.tokens;
            sequence.published = hits.blocks.len();
            sequence.blocks = hits.blocks;
            sequence
                .blocks
                .extend((0..wanted).map_while(|_| self.pool.allocate()));
            if sequence.cached.is_none() {
                sequence.cached = Some(hits.tokens);
                sequence.admitted = now;
                self.prefix_queries += sequence.request.prompt.len() as u64;
                self.prefix_hits += hits.tokens as u64;
            }
            charge(&mut result.batch, &mut sequence, tokens);
            *budget -= tokens;
            self.running.push(sequence);
        }
    }

    /// The longest chain of full blocks in the cache; the last token is always left to compute.
    fn hits(&self, sequence: &mut Sequence) -> Hits {
        let size = self.profile.block_tokens;
        let limit = (sequence.total() - 1) / size;
        let mut hits = Hits::default();
        while hits.blocks.len() < limit {
            let Some(block) = self.pool.find(sequence.hash(hits.blocks.len(), size)) else {
                break;
            };
            hits.were_free += usize::from(self.pool.is_free(block));
            hits.blocks.push(block);
        }
        hits.tokens = hits.blocks.len() * size;
        hits
    }

    /// Books what the step computed: full blocks, new tokens, finished sequences.
    fn complete(&mut self, result: &mut StepResult, now: Duration) {
        let ready = now + result.duration;
        let mut running = std::mem::take(&mut self.running);
        for hash in self.pool.take_removed() {
            if let Some(events) = &mut self.events {
                events.push(KvEvent::Removed { hash });
            }
        }
        running.retain_mut(|sequence| {
            sequence.computed += std::mem::take(&mut sequence.scheduled);
            self.publish(sequence);
            if sequence.remaining() > 0 {
                return true;
            }
            sequence.generated += 1;
            let (last, cached_tokens) = (sequence.finished(), sequence.cached.unwrap_or(0));
            result.tokens.push(Token {
                id: sequence.id,
                index: sequence.generated - 1,
                cached_tokens,
                last,
            });
            let first_token = *sequence.first_token.get_or_insert(ready);
            if last {
                self.pool.release(&sequence.blocks);
                result.finished.push(Finished {
                    id: sequence.id,
                    arrived: sequence.arrived,
                    admitted: sequence.admitted,
                    first_token,
                    finished: ready,
                    prompt_tokens: sequence.request.prompt.len(),
                    cached_tokens,
                    output_tokens: sequence.generated,
                    preemptions: sequence.preemptions,
                });
            }
            !last
        });
        self.running = running;
    }

    /// Offers the sequence's newly full blocks to the prefix cache.
    fn publish(&mut self, sequence: &mut Sequence) {
        let size = self.profile.block_tokens;
        for index in sequence.published..sequence.computed / size {
            let hash = sequence.hash(index, size);
            if self.pool.publish(sequence.blocks[index], hash)
                && let Some(events) = &mut self.events
            {
                let parent = index
                    .checked_sub(1)
                    .map(|before| sequence.hash(before, size));
                let tokens = sequence.block_tokens(index, size).collect();
                events.push(KvEvent::Stored {
                    hash,
                    parent,
                    tokens,
                    salt: sequence.request.salt,
                });
            }
        }
        sequence.published = sequence.published.max(sequence.computed / size);
    }
}

/// A prompt's part that the prefix cache holds.
#[derive(Debug, Default)]
struct Hits {
    blocks: Vec<u32>,
    tokens: usize,
    /// Hit blocks that nobody uses: they count as free until acquired.
    were_free: usize,
}

fn charge(batch: &mut Batch, sequence: &mut Sequence, tokens: usize) {
    match sequence.decodes() {
        true => batch.add_decode(sequence.computed),
        false => batch.add_prefill(tokens, sequence.computed),
    }
    sequence.scheduled = tokens;
}
