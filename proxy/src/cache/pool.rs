//! What an index's lock guards: the slots, the table's writing side, and the count of their bytes.
//!
//! What is done to a slot is `holding`'s, a bounded number of blocks at a time; `index` calls it batch by batch, and
//! lets go of the lock between two.

use super::holding::{Books, Holding, IndexCounters};
use super::table::{Kind, TablesWriter};

/// Blocks that are handled under one hold of the lock.
pub(super) const BATCH: usize = 256;
/// Blocks that are given up under one hold of the lock.
pub(super) const SHED: usize = 1024;
/// 16 pages of 64 slots.
const MAX_SLOTS: usize = 1024;

struct Place {
    holding: Holding,
    /// Being forgotten; takes nothing new.
    leaving: bool,
    /// Its part of [`Pool::slot_bytes`].
    counted: usize,
}

pub(super) struct Pool {
    pub(super) books: Books,
    slots: Vec<Option<Place>>,
    slot_bytes: usize,
    /// What the budget was last told.
    pub(super) booked: usize,
}

impl Pool {
    pub(super) fn new() -> Self {
        Self {
            books: Books {
                tables: TablesWriter::new(),
                counters: IndexCounters::default(),
            },
            slots: Vec::new(),
            slot_bytes: 0,
            booked: 0,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.slot_bytes + self.books.tables.bytes()
    }

    /// Predicted and reported pairs.
    pub(super) fn pairs(&self) -> (usize, usize) {
        let held = self
            .slots
            .iter()
            .flatten()
            .map(|place| place.holding.held());
        held.fold((0, 0), |sum, held| (sum.0 + held.0, sum.1 + held.1))
    }

    pub(super) fn attached(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    pub(super) fn attach(&mut self, now: u64) -> Option<usize> {
        let free = self.slots.iter().position(Option::is_none);
        let slot = free.unwrap_or(self.slots.len());
        if slot >= MAX_SLOTS {
            return None;
        }
        if free.is_none() {
            self.slots.push(None);
        }
        self.slots[slot] = Some(Place {
            holding: Holding::new(slot, now),
            leaving: false,
            counted: 0,
        });
        self.with_any(slot, |_, _| ());
        Some(slot)
    }

    /// How many slots there ever were at once.
    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Lets a slot take nothing new.
    pub(super) fn leave(&mut self, slot: usize) {
        if let Some(Some(place)) = self.slots.get_mut(slot) {
            place.leaving = true;
        }
    }

    /// Gives a slot free that holds nothing any more.
    pub(super) fn free(&mut self, slot: usize) {
        if let Some(place) = self.slots.get_mut(slot).and_then(Option::take) {
            self.slot_bytes -= place.counted;
        }
    }

    /// Works on a slot, unless it is free or leaving.
    pub(super) fn with<T>(
        &mut self,
        slot: usize,
        work: impl FnOnce(&mut Holding, &mut Books) -> T,
    ) -> Option<T> {
        let place = self.slots.get(slot)?.as_ref()?;
        if place.leaving {
            return None;
        }
        self.with_any(slot, work)
    }

    /// Works on a slot unless it is free, and counts its bytes.
    pub(super) fn with_any<T>(
        &mut self,
        slot: usize,
        work: impl FnOnce(&mut Holding, &mut Books) -> T,
    ) -> Option<T> {
        let place = self.slots.get_mut(slot)?.as_mut()?;
        let done = work(&mut place.holding, &mut self.books);
        let bytes = size_of::<Place>() + place.holding.bytes();
        self.slot_bytes = self.slot_bytes - place.counted + bytes;
        place.counted = bytes;
        Some(done)
    }

    /// When the least recently used block was used.
    pub(super) fn oldest(&self, now: u64) -> Option<u64> {
        self.coldest(now).map(|(at, _, _)| at)
    }

    /// Gives up blocks of the coldest slot; returns how many.
    pub(super) fn shed(&mut self, blocks: usize, now: u64) -> usize {
        let shed = self.coldest(now).and_then(|(_, slot, kind)| {
            self.with_any(slot, |holding, books| {
                holding.shed(books, kind, blocks, now)
            })
        });
        shed.unwrap_or(0)
    }

    /// The slot whose least recently used block is the oldest, and when that was used.
    fn coldest(&self, now: u64) -> Option<(u64, usize, Kind)> {
        let slots = self.slots.iter().enumerate();
        let oldest = slots.filter_map(|(slot, place)| {
            let (at, kind) = place.as_ref()?.holding.oldest(now)?;
            Some((at, slot, kind))
        });
        oldest.min_by_key(|(at, _, _)| *at)
    }
}
