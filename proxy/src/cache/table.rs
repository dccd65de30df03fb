//! Who holds a block: the table that decisions read and one writer per pool changes.
//!
//! An open-addressing table of atomics: the key, 64 bits of predicted holders, 64 bits of reported ones. More than 64
//! slots are further *pages*: the same block under another key, `(hash, page)`. Readers take no lock and never wait.
//!
//! A place keeps its key for as long as its table lives: a block that loses its last holder stays as a dead entry, and
//! may come to life again, but its place is not given to another key. So a reader that found a key can only see bits
//! that are that key's, without a second look. Dead entries go when the table is built anew, which happens when four
//! in five places are taken or fewer than three in ten hold something alive; the new table is swapped in whole. Until
//! a reader's next look it may see the old one: that is knowledge from a moment ago, not knowledge of something else.
//!
//! 256 tables by the top bits of the key, so that building one anew moves a 256th. An entry is 24 bytes and tables are
//! 60 to 80 % full: 30 to 40 bytes per block, shared by all of its holders (4 to 5 bytes each with eight).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use super::chain::KEY_BITS;

const SHARDS: usize = 256;
/// Set in a key's place when a request used the block since the sweep of reported blocks last came by.
const USED: u64 = !KEY_BITS;

#[derive(Default)]
struct Entry {
    /// Zero: never taken.
    key: AtomicU64,
    predicted: AtomicU64,
    reported: AtomicU64,
}

impl Entry {
    fn holders(&self) -> u64 {
        self.predicted.load(Ordering::Acquire) | self.reported.load(Ordering::Acquire)
    }
}

/// Which of the two kinds of knowledge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Predicted,
    Reported,
}

#[derive(Default)]
struct Table {
    entries: Box<[Entry]>,
}

impl Table {
    fn with_capacity(capacity: usize) -> Self {
        Self {
            entries: (0..capacity).map(|_| Entry::default()).collect(),
        }
    }

    fn bytes(&self) -> usize {
        self.entries.len() * size_of::<Entry>()
    }

    /// The place of a key, or the free place where it would be. There is always a free one unless the table is empty.
    fn place(&self, key: u64) -> Option<(&Entry, bool)> {
        let capacity = self.entries.len();
        let mut at = (((key & 0xFFFF_FFFF) * capacity as u64) >> 32) as usize;
        for _ in 0..capacity {
            let entry = &self.entries[at];
            match entry.key.load(Ordering::Acquire) & KEY_BITS {
                0 => return Some((entry, false)),
                found if found == key => return Some((entry, true)),
                _ => at = if at + 1 == capacity { 0 } else { at + 1 },
            }
        }
        None
    }

    fn find(&self, key: u64) -> Option<&Entry> {
        self.place(key)
            .and_then(|(entry, found)| found.then_some(entry))
    }
}

/// The key of a block in a page.
pub(super) fn key(hash: u64, page: usize) -> u64 {
    let turned = (page as u64).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    ((hash ^ turned) & KEY_BITS).max(1)
}

fn shard(key: u64) -> usize {
    (key >> 55) as usize % SHARDS
}

/// The readers' side.
pub(super) struct Tables {
    tables: Box<[ArcSwap<Table>]>,
}

impl Tables {
    /// Bits of those who hold a block.
    pub(super) fn holders(&self, key: u64) -> u64 {
        let table = self.tables[shard(key)].load();
        table.find(key).map_or(0, Entry::holders)
    }
}

struct Shard {
    table: Arc<Table>,
    taken: usize,
    alive: usize,
}

/// The writer's side; there is one.
pub(super) struct TablesWriter {
    published: Arc<Tables>,
    shards: Vec<Shard>,
    bytes: usize,
}

impl TablesWriter {
    pub(super) fn new() -> Self {
        let empty = Arc::new(Table::default());
        let tables = (0..SHARDS).map(|_| ArcSwap::new(Arc::clone(&empty)));
        let shard = || Shard {
            table: Arc::clone(&empty),
            taken: 0,
            alive: 0,
        };
        Self {
            published: Arc::new(Tables {
                tables: tables.collect(),
            }),
            shards: (0..SHARDS).map(|_| shard()).collect(),
            bytes: SHARDS * (size_of::<Shard>() + size_of::<ArcSwap<Table>>()),
        }
    }

    pub(super) fn reader(&self) -> Arc<Tables> {
        Arc::clone(&self.published)
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Blocks that someone holds.
    pub(super) fn alive(&self) -> usize {
        self.shards.iter().map(|shard| shard.alive).sum()
    }

    /// A request uses a block: who is predicted and who is reported to hold it.
    pub(super) fn use_of(&self, key: u64) -> (u64, u64) {
        let found = self.shards[shard(key)].table.find(key);
        found.map_or((0, 0), |entry| {
            entry.key.store(key | USED, Ordering::Release);
            let predicted = entry.predicted.load(Ordering::Relaxed);
            (predicted, entry.reported.load(Ordering::Relaxed))
        })
    }

    /// Whether a block was used since this was last asked.
    pub(super) fn take_used(&self, key: u64) -> bool {
        let Some(entry) = self.shards[shard(key)].table.find(key) else {
            return false;
        };
        let used = entry.key.load(Ordering::Relaxed) & USED != 0;
        entry.key.store(key, Ordering::Release);
        used
    }

    pub(super) fn insert(&mut self, key: u64, bit: u64, kind: Kind) {
        let at = shard(key);
        if self.shards[at].table.find(key).is_none() {
            self.make_room(at);
        }
        let shard = &mut self.shards[at];
        let Some((entry, found)) = shard.table.place(key) else {
            return;
        };
        if !found {
            entry.key.store(key, Ordering::Release);
            shard.taken += 1;
        }
        shard.alive += usize::from(entry.holders() == 0);
        match kind {
            Kind::Predicted => entry.predicted.fetch_or(bit, Ordering::Release),
            Kind::Reported => entry.reported.fetch_or(bit, Ordering::Release),
        };
    }

    pub(super) fn remove(&mut self, key: u64, bit: u64, kind: Kind) {
        let at = shard(key);
        let shard = &mut self.shards[at];
        let Some(entry) = shard.table.find(key) else {
            return;
        };
        let before = entry.holders();
        match kind {
            Kind::Predicted => entry.predicted.fetch_and(!bit, Ordering::Release),
            Kind::Reported => entry.reported.fetch_and(!bit, Ordering::Release),
        };
        if before != 0 && entry.holders() == 0 {
            shard.alive -= 1;
            let capacity = shard.table.entries.len();
            if capacity > 64 && shard.alive * 10 < capacity * 3 {
                self.rebuild(at);
            }
        }
    }

    /// Sees to it that one more key fits.
    fn make_room(&mut self, at: usize) {
        let shard = &self.shards[at];
        if (shard.taken + 1) * 5 > shard.table.entries.len() * 4 {
            self.rebuild(at);
        }
    }

    fn rebuild(&mut self, at: usize) {
        let shard = &mut self.shards[at];
        let table = Table::with_capacity(shard.alive * 5 / 3 + 8);
        for entry in &shard.table.entries {
            if entry.holders() == 0 {
                continue;
            }
            let key = entry.key.load(Ordering::Relaxed);
            if let Some((place, _)) = table.place(key & KEY_BITS) {
                let copy = |from: &AtomicU64, to: &AtomicU64| {
                    to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
                };
                place.key.store(key, Ordering::Relaxed);
                copy(&entry.predicted, &place.predicted);
                copy(&entry.reported, &place.reported);
            }
        }
        self.bytes = self.bytes + table.bytes() - shard.table.bytes();
        shard.taken = shard.alive;
        shard.table = Arc::new(table);
        self.published.tables[at].store(Arc::clone(&shard.table));
    }
}
