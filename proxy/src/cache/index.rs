//! What the endpoints of one pool hold in their KV caches: written by dispatches and engines' events, read by every
//! decision.
//!
//! Two kinds of knowledge are kept apart and answered as one:
//! - *predicted*: a chain dispatched to a slot counts as held at once, so that followers of a new prefix go where it is
//!   being computed. At the first token it becomes knowledge, and lives by recency within the slot's capacity. Where
//!   an engine's events are live it expires a few seconds later instead: then events tell.
//! - *reported*: blocks of the engine's own KV events.
//!
//! Readers take no lock (`table`). Writers share one short lock per pool and hold it for at most 256 blocks at a
//! time (1,024 when giving up), so a huge event does not keep a dispatch waiting. All memory is booked with the
//! [`IndexBudget`]; when that is full, the process's least recently used pairs go.
//!
//! One index speaks of one unit: a pool that routes by bytes and by tokens has two, since a slot's capacity is in
//! units. Slots are reused: a call for a slot that was detached does nothing, but a call that comes after its next
//! owner attached is taken for that one's, so keep slots with their endpoint.
//!
//! Measured (`cargo bench --bench cache`, 2 shared cores): 33 bytes per (block, slot) with eight holders of each block
//! (36 at the worst moment of growth), 63 (68) with one; resident memory agrees. A look-up over 64 slots takes 0.4, 2
//! and 8 us at 4k, 32k and 128k tokens when all hold the prompt, 11 to 23 us when each holds another part of it;
//! hashing 128 KB and looking it up 13 us. Events are taken at 0.54 million blocks a second beside 1,000 decisions a
//! second, whose p99 does not change.
//!
//! Chooses nothing, and does not read the wire.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::budget::{Holder, IndexBudget};
use super::chain::Chain;
pub use super::holding::IndexCounters;
use super::holding::{Books, Holding};
use super::pool::{BATCH, Pool, SHED};
use super::prefix;
use super::recency::Use;
use super::table::{self, Tables};

/// An endpoint of a pool, or one data-parallel rank of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(u16);

impl Slot {
    /// For logs and tables.
    #[must_use]
    pub fn number(self) -> usize {
        usize::from(self.0)
    }
}

/// How many blocks of one chain each slot holds, from the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Matched {
    depths: Vec<u32>,
}

impl Matched {
    /// Blocks held; turned into tokens or bytes by [`Chain::covered`].
    #[must_use]
    pub fn blocks(&self, slot: Slot) -> u32 {
        self.depths.get(slot.number()).copied().unwrap_or(0)
    }
}

/// Size and history of an index.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IndexStats {
    /// Slots in use.
    pub slots: usize,
    /// Different blocks that someone holds.
    pub blocks: usize,
    /// Predicted (block, slot) pairs.
    pub predicted: usize,
    /// Reported (block, slot) pairs, credited or not.
    pub reported: usize,
    /// Bytes booked with the budget.
    pub bytes: usize,
    /// What happened since the start.
    pub counters: IndexCounters,
}

/// The index of one pool. Clones are handles to the same one.
#[derive(Clone)]
pub struct Index {
    shared: Arc<Shared>,
}

struct Shared {
    tables: Arc<Tables>,
    /// Pages of 64 slots that readers look through.
    pages: AtomicUsize,
    /// Held for a bounded number of blocks; never over an await, never together with another pool's.
    pool: Mutex<Pool>,
    budget: Arc<IndexBudget>,
}

impl Index {
    /// An empty index.
    #[must_use]
    pub fn new(budget: Arc<IndexBudget>) -> Self {
        let pool = Pool::new();
        let shared = Arc::new(Shared {
            tables: pool.books.tables.reader(),
            pages: AtomicUsize::new(1),
            pool: Mutex::new(pool),
            budget,
        });
        let holder: Arc<dyn Holder> = Arc::<Shared>::clone(&shared);
        shared.budget.enrol(Arc::downgrade(&holder));
        Self { shared }
    }

    /// A slot for a new endpoint; `None` when 1,024 are in use.
    #[must_use]
    pub fn attach(&self) -> Option<Slot> {
        let now = self.now();
        let slot = self.shared.locked(|pool| {
            let slot = pool.attach(now)?;
            let pages = pool.slots().div_ceil(64).max(1);
            self.shared.pages.store(pages, Ordering::Release);
            u16::try_from(slot).ok()
        })?;
        Some(Slot(slot))
    }

    /// Forgets a slot and all that it holds.
    pub fn detach(&self, slot: Slot) {
        self.shared.locked(|pool| pool.leave(slot.number()));
        self.forget_held(slot);
        self.shared.locked(|pool| pool.free(slot.number()));
    }

    /// How many blocks of a chain each slot holds. Takes no lock.
    #[must_use]
    pub fn matched(&self, chain: &Chain) -> Matched {
        let hashes = chain.hashes();
        let pages = self.shared.pages.load(Ordering::Acquire);
        let mut depths = vec![0; pages * 64];
        for (page, depths) in depths.chunks_exact_mut(64).enumerate() {
            let holders = |at: usize| self.shared.tables.holders(table::key(hashes[at], page));
            prefix::depths(hashes.len(), holders, depths);
        }
        Matched { depths }
    }

    /// A request goes to a slot: its blocks count as held from now on. To be followed by [`Self::confirmed`] or
    /// [`Self::withdrawn`] with the same chain.
    pub fn dispatched(&self, slot: Slot, chain: &Chain) {
        self.place(slot, chain, Use::Dispatched);
    }

    /// The request's first token came: the engine has computed the whole prompt.
    pub fn confirmed(&self, slot: Slot, chain: &Chain) {
        self.place(slot, chain, Use::Confirmed);
    }

    /// The request never got there: takes back what only it had inserted.
    pub fn withdrawn(&self, slot: Slot, chain: &Chain) {
        for batch in chain.hashes().rchunks(BATCH) {
            let hashes = batch.iter().rev().copied();
            self.on(slot, |holding, books| holding.withdraw(books, hashes));
        }
    }

    /// What the engine's KV cache holds, in units of the chains (tokens or bytes); no bound at first. Predictions
    /// beyond it go, least recently used first. Reported blocks are the engine's own affair.
    pub fn set_capacity(&self, slot: Slot, units: u64) {
        self.on(slot, |holding, _| holding.set_capacity(units));
        self.trim(slot);
    }

    /// Whether this slot's events are live. If they are, predictions expire 5 s after their last use.
    pub fn set_reported(&self, slot: Slot, live: bool) {
        self.on(slot, |holding, _| holding.set_live(live));
    }

    /// The engine was restarted, or dropped its whole cache: forgets what the slot held until now.
    pub fn clear(&self, slot: Slot) {
        self.forget_held(slot);
    }

    /// Lets predictions expire that events have overtaken. To be called every second or so; dispatches do it for
    /// their own slot.
    pub fn expire(&self) {
        let now = self.now();
        for slot in 0..self.shared.locked(|pool| pool.slots()) {
            let expire =
                |pool: &mut Pool| pool.with(slot, |holding, books| holding.expire(books, now));
            while self.shared.locked(expire) == Some(true) {}
        }
    }

    /// Tokens per block in the slot's events, as last reported.
    #[must_use]
    pub fn reported_block(&self, slot: Slot) -> Option<u32> {
        self.on(slot, |holding, _| holding.reported_block())?
    }

    /// Size and history, for metrics.
    #[must_use]
    pub fn stats(&self) -> IndexStats {
        self.shared.locked(|pool| {
            let (predicted, reported) = pool.pairs();
            IndexStats {
                slots: pool.attached(),
                blocks: pool.books.tables.alive(),
                predicted,
                reported,
                bytes: pool.bytes(),
                counters: pool.books.counters,
            }
        })
    }

    /// A slot's confirmed predictions, most recently used first, as hash and size in units. Holds the lock for all of
    /// them: for use at shutdown.
    #[must_use]
    pub fn export(&self, slot: Slot, at_most: usize) -> Vec<(u64, u32)> {
        let blocks = self.on(slot, |holding, _| holding.confirmed(at_most));
        blocks.unwrap_or_default()
    }

    /// Takes over what [`Self::export`] gave, behind everything that the slot holds already and within its capacity.
    pub fn import(&self, slot: Slot, blocks: &[(u64, u32)]) {
        let now = self.now();
        for batch in blocks.chunks(BATCH) {
            self.on(slot, |holding, books| holding.append(books, batch, now));
        }
    }

    fn now(&self) -> u64 {
        self.shared.budget.now()
    }

    /// Works on a slot under the lock, on at most [`BATCH`] blocks; `None` if the slot is not attached.
    pub(super) fn on<T>(
        &self,
        slot: Slot,
        work: impl FnOnce(&mut Holding, &mut Books) -> T,
    ) -> Option<T> {
        self.shared.locked(|pool| pool.with(slot.number(), work))
    }

    fn place(&self, slot: Slot, chain: &Chain, purpose: Use) {
        let now = self.now();
        let mut previous = None;
        for from in (0..chain.blocks()).step_by(BATCH) {
            let placed = self.on(slot, |holding, books| {
                holding.expire(books, now);
                let placed = holding.place(books, chain, (from, previous), purpose, now);
                holding.trim(books);
                placed
            });
            let Some(Some(last)) = placed else { break };
            previous = last;
        }
        self.trim(slot);
    }

    fn trim(&self, slot: Slot) {
        while self.on(slot, Holding::trim) == Some(true) {}
    }

    /// Forgets what the slot holds now, even if it is leaving; not what it gets meanwhile.
    fn forget_held(&self, slot: Slot) {
        let slot = slot.number();
        let held = |pool: &mut Pool| pool.with_any(slot, |holding, _| holding.held());
        let (mut predicted, mut reported) = self.shared.locked(held).unwrap_or_default();
        while predicted + reported > 0 {
            let (some, too) = (predicted.min(SHED), reported.min(SHED));
            self.shared.locked(|pool| {
                pool.with_any(slot, |holding, books| holding.forget(books, some, too))
            });
            predicted -= some;
            reported -= too;
        }
    }
}

impl Shared {
    fn locked<T>(&self, work: impl FnOnce(&mut Pool) -> T) -> T {
        let done = self.booked(work);
        self.budget.relieve();
        done
    }

    /// Works under the lock and books what that changed.
    fn booked<T>(&self, work: impl FnOnce(&mut Pool) -> T) -> T {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        let done = work(&mut pool);
        let bytes = pool.bytes();
        self.budget.book(pool.booked, bytes);
        pool.booked = bytes;
        done
    }
}

impl Holder for Shared {
    fn oldest(&self) -> Option<u64> {
        let now = self.budget.now();
        self.booked(|pool| pool.oldest(now))
    }

    fn shed(&self, blocks: usize) -> usize {
        let now = self.budget.now();
        self.booked(|pool| pool.shed(blocks, now))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let pool = self.pool.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.budget.book(pool.booked, 0);
    }
}

impl std::fmt::Debug for Index {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Index").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
