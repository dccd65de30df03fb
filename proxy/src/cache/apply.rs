//! KV events turned into knowledge: what an [`Index`] does with what an engine says.
//!
//! A run of stored blocks becomes our own chain: it continues from its parent's hash, which the slot must know, or
//! starts at the root of [`chain::token_seed`] of its adapter and block size. `extra[i]` goes into block `i` just as
//! [`chain::Chain::of_tokens_with`] does it for a request, so the two agree.
//!
//! Nothing that an engine sends is trusted to fit together: what does not is dropped and counted. Events of any length
//! are taken in batches, and their hashes computed outside of the lock.

use super::chain::{self, TokenLinker};
use super::event::{KvEvent, Stored};
use super::index::{Index, Slot};
use super::pool::BATCH;
use super::reported::Place;

/// Larger blocks than this are no blocks of any engine.
const MAX_BLOCK: u32 = 1 << 16;

impl Index {
    /// Takes one event of a slot's engine.
    pub fn apply(&self, slot: Slot, event: &KvEvent) {
        match event {
            KvEvent::Stored(run) => self.stored(slot, run),
            KvEvent::Removed {
                hashes,
                medium,
                group,
            } => {
                for batch in hashes.chunks(BATCH) {
                    self.on(slot, |holding, books| {
                        holding.remove(books, batch, *medium, *group)
                    });
                }
            }
            KvEvent::Cleared => self.clear(slot),
        }
    }

    fn stored(&self, slot: Slot, run: &Stored) {
        if run.partial_attention {
            self.on(slot, |_, books| books.counters.partial += 1);
        } else if run.tokens.is_empty() && !run.hashes.is_empty() {
            let place = Place::new(run.medium, run.group);
            for batch in run.hashes.chunks(BATCH) {
                self.on(slot, |holding, books| holding.promote(books, batch, place));
            }
        } else if !fits(run) {
            self.on(slot, |_, books| books.counters.malformed += 1);
        } else if let Some(start) = self.start(slot, run) {
            self.stored_from(slot, run, start);
        } else {
            self.on(slot, |_, books| books.counters.orphaned += 1);
        }
    }

    /// What a run's first block hangs on.
    fn start(&self, slot: Slot, run: &Stored) -> Option<u64> {
        let Some(parent) = run.parent else {
            let seed = chain::token_seed(run.lora.as_deref());
            return Some(chain::token_root(seed, run.block_size));
        };
        let (own, size) = self.on(slot, |holding, _| holding.own(parent))??;
        (size == run.block_size).then_some(own)
    }

    fn stored_from(&self, slot: Slot, run: &Stored, start: u64) {
        let size = run.block_size;
        let place = Place::new(run.medium, run.group);
        let mut linker = TokenLinker::new(start);
        let mut own = Vec::with_capacity(run.hashes.len().min(BATCH));
        let blocks = run.tokens.chunks_exact(size as usize);
        let mut blocks = blocks.enumerate().map(|(index, ids)| {
            let extra = run.extra.get(index).copied().unwrap_or(0);
            linker.push(ids, extra)
        });
        for hashes in run.hashes.chunks(BATCH) {
            own.clear();
            own.extend(blocks.by_ref().take(hashes.len()));
            let pairs = hashes.iter().copied().zip(own.iter().copied());
            let taken = self.on(slot, |holding, books| {
                let taken = holding.store(books, pairs, size, place);
                books.counters.malformed += u64::from(!taken);
                taken
            });
            if taken != Some(true) {
                return;
            }
        }
    }
}

/// Whether a run's parts fit each other.
fn fits(run: &Stored) -> bool {
    let tokens = run.hashes.len().checked_mul(run.block_size as usize);
    (1..=MAX_BLOCK).contains(&run.block_size)
        && !run.hashes.is_empty()
        && tokens == Some(run.tokens.len())
        && (run.extra.is_empty() || run.extra.len() == run.hashes.len())
}
