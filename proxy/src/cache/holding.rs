//! What one slot holds, predicted and reported, and how that shows in the table.
//!
//! Every act here touches a bounded number of blocks. Locks and batches are `index`'s.

use super::chain::Chain;
use super::event::{EngineHash, Medium};
use super::pool::{BATCH, SHED};
use super::recency::{Recency, Use};
use super::reported::{Change, Place, Reported};
use super::table::{self, Kind, TablesWriter};

/// Seconds that a confirmed prediction lives once events are there to say better: longer than they are under way,
/// shorter than an engine under pressure keeps a block.
const PREDICTION_TTL: u64 = 5;

/// What happened in a pool since its start. Exported as counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IndexCounters {
    /// Pairs given up because the process's budget was full.
    pub evicted: u64,
    /// Predicted pairs that left because the slot's capacity was reached.
    pub outgrown: u64,
    /// Predicted pairs that expired because the slot's events are to be believed.
    pub expired: u64,
    /// Blocks stored by events.
    pub stored: u64,
    /// Blocks removed by events.
    pub removed: u64,
    /// Runs of blocks dropped because their parent is unknown, or of another block size.
    pub orphaned: u64,
    /// Events dropped because their parts do not fit each other.
    pub malformed: u64,
    /// Runs passed over because their group's attention is not full.
    pub partial: u64,
    /// Blocks named by events that are not known: removed twice, or promoted without tokens.
    pub unknown: u64,
}

/// What the slots of a pool share.
pub(super) struct Books {
    pub(super) tables: TablesWriter,
    pub(super) counters: IndexCounters,
}

pub(super) struct Holding {
    predicted: Recency,
    reported: Reported,
    capacity: u64,
    /// Events are live.
    live: bool,
    page: usize,
    bit: u64,
    reported_block: Option<u32>,
}

impl Holding {
    pub(super) fn new(slot: usize, now: u64) -> Self {
        Self {
            predicted: Recency::new(),
            reported: Reported::new(now),
            capacity: u64::MAX,
            live: false,
            page: slot / 64,
            bit: 1 << (slot % 64),
            reported_block: None,
        }
    }

    /// What its records take.
    pub(super) fn bytes(&self) -> usize {
        self.predicted.bytes() + self.reported.bytes()
    }

    /// How many blocks: predicted and reported.
    pub(super) fn held(&self) -> (usize, usize) {
        (self.predicted.len(), self.reported.len())
    }

    pub(super) fn set_capacity(&mut self, units: u64) {
        self.capacity = units;
    }

    pub(super) fn set_live(&mut self, live: bool) {
        self.live = live;
    }

    /// Tokens per block in its events.
    pub(super) fn reported_block(&self) -> Option<u32> {
        self.reported_block
    }

    /// Of which kind the least recently used block is, and when it was used.
    pub(super) fn oldest(&self, now: u64) -> Option<(u64, Kind)> {
        let predicted = self.predicted.oldest(now).map(|at| (at, Kind::Predicted));
        let reported = self.reported.unused_since().map(|at| (at, Kind::Reported));
        predicted
            .into_iter()
            .chain(reported)
            .min_by_key(|(at, _)| *at)
    }

    /// Uses a batch of a chain's blocks, from block `from` on, each right behind the one before. `previous` is what
    /// the last batch returned: the last block that was placed. `None`: the chain cannot be continued.
    pub(super) fn place(
        &mut self,
        books: &mut Books,
        chain: &Chain,
        (from, previous): (usize, Option<u64>),
        purpose: Use,
        now: u64,
    ) -> Option<Option<u64>> {
        let mut last = previous;
        let mut behind = match previous {
            Some(hash) => Some(self.predicted.find(hash)?),
            None => None,
        };
        for (index, &hash) in chain.hashes().iter().enumerate().skip(from).take(BATCH) {
            if self.live && self.told(books, hash) {
                continue;
            }
            let size = chain.layout().block(index);
            let placed = self.predicted.place(hash, size, behind, purpose, now)?;
            if placed.fresh {
                self.note(books, hash, Kind::Predicted, true);
            }
            (behind, last) = (Some(placed.index), Some(hash));
        }
        Some(last)
    }

    /// Whether a block that is being used is reported, and so needs no prediction.
    fn told(&self, books: &Books, hash: u64) -> bool {
        let key = table::key(hash, self.page);
        let (predicted, reported) = books.tables.use_of(key);
        reported & !predicted & self.bit != 0
    }

    /// Takes back the use of some blocks, which are given from the last to the first.
    pub(super) fn withdraw(&mut self, books: &mut Books, hashes: impl Iterator<Item = u64>) {
        for hash in hashes {
            if self.predicted.withdraw(hash) {
                self.note(books, hash, Kind::Predicted, false);
            }
        }
    }

    /// Lets go of predictions beyond the capacity; true if there may be more.
    pub(super) fn trim(&mut self, books: &mut Books) -> bool {
        for _ in 0..SHED {
            if self.predicted.units() <= self.capacity {
                return false;
            }
            let Some(hash) = self.predicted.pop() else {
                return false;
            };
            self.note(books, hash, Kind::Predicted, false);
            books.counters.outgrown += 1;
        }
        true
    }

    /// Lets go of confirmed predictions that are too old beside live events; true if there may be more.
    pub(super) fn expire(&mut self, books: &mut Books, now: u64) -> bool {
        let Some(since) = now.checked_sub(PREDICTION_TTL).filter(|_| self.live) else {
            return false;
        };
        for _ in 0..SHED {
            match self.predicted.pop_before(since, now) {
                Some(Some(hash)) => {
                    self.note(books, hash, Kind::Predicted, false);
                    books.counters.expired += 1;
                }
                Some(None) => {}
                None => return false,
            }
        }
        true
    }

    /// Forgets so many blocks of each kind, the least recently used predictions first.
    pub(super) fn forget(&mut self, books: &mut Books, predicted: usize, reported: usize) {
        for _ in 0..predicted {
            let Some(hash) = self.predicted.pop() else {
                break;
            };
            self.note(books, hash, Kind::Predicted, false);
        }
        for _ in 0..reported {
            let Some(hash) = self.reported.pop() else {
                break;
            };
            self.note(books, hash, Kind::Reported, false);
        }
    }

    /// Gives up the least recently used blocks of a kind; returns how many.
    pub(super) fn shed(&mut self, books: &mut Books, kind: Kind, blocks: usize, now: u64) -> usize {
        let page = self.page;
        for count in 0..blocks {
            let tables = &books.tables;
            let used = |hash| tables.take_used(table::key(hash, page));
            let hash = match kind {
                Kind::Predicted => self.predicted.pop(),
                Kind::Reported => self.reported.sweep(now, used),
            };
            let Some(hash) = hash else { return count };
            self.note(books, hash, kind, false);
            books.counters.evicted += 1;
        }
        blocks
    }

    /// Our hash and the size of an engine's block.
    pub(super) fn own(&self, engine: EngineHash) -> Option<(u64, u32)> {
        self.reported.own(engine)
    }

    /// Notes blocks as reported; false if there is no room for them.
    pub(super) fn store(
        &mut self,
        books: &mut Books,
        blocks: impl Iterator<Item = (EngineHash, u64)>,
        size: u32,
        place: Place,
    ) -> bool {
        self.reported_block = Some(size);
        for (engine, own) in blocks {
            let Some(change) = self.reported.store(engine, own, size, place) else {
                return false;
            };
            if let Some(own) = change.displaced {
                self.note(books, own, Kind::Reported, false);
            }
            self.note(books, own, Kind::Reported, change.credited);
            books.counters.stored += 1;
        }
        true
    }

    /// Known blocks are in one more place.
    pub(super) fn promote(&mut self, books: &mut Books, hashes: &[EngineHash], place: Place) {
        for &engine in hashes {
            let change = self.reported.promote(engine, place);
            self.follow(books, change);
        }
    }

    /// Blocks left a medium, or one group of it.
    pub(super) fn remove(
        &mut self,
        books: &mut Books,
        hashes: &[EngineHash],
        medium: Medium,
        group: Option<u32>,
    ) {
        for &engine in hashes {
            let change = self.reported.remove(engine, medium, group);
            books.counters.removed += u64::from(change.is_some());
            self.follow(books, change);
        }
    }

    fn follow(&self, books: &mut Books, change: Option<Change>) {
        match change {
            Some(Change { own, credited }) => self.note(books, own, Kind::Reported, credited),
            None => books.counters.unknown += 1,
        }
    }

    /// Confirmed predictions and their sizes, most recently used first.
    pub(super) fn confirmed(&self, at_most: usize) -> Vec<(u64, u32)> {
        self.predicted.confirmed().take(at_most).collect()
    }

    /// Adds confirmed predictions behind all others, as long as they fit.
    pub(super) fn append(&mut self, books: &mut Books, blocks: &[(u64, u32)], now: u64) {
        for &(hash, size) in blocks {
            let fits = self.predicted.units() + u64::from(size) <= self.capacity;
            if fits && self.predicted.append(hash, size, now) {
                self.note(books, hash, Kind::Predicted, true);
            }
        }
    }

    /// Shows in the table that the slot holds a block, or does not.
    fn note(&self, books: &mut Books, hash: u64, kind: Kind, held: bool) {
        let key = table::key(hash, self.page);
        if held {
            books.tables.insert(key, self.bit, kind);
        } else {
            books.tables.remove(key, self.bit, kind);
        }
    }
}
