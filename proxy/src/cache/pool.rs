//! What an index's lock guards: the table's writing side, and what each slot is predicted and reported to hold.
//!
//! Each operation here touches a bounded number of blocks; `index` calls them batch by batch, and lets go of the lock
//! between two.

use super::chain::Chain;
use super::event::{EngineHash, Medium};
use super::recency::{Recency, Use};
use super::reported::{Change, Place, Reported};
use super::table::{self, Kind, TablesWriter};

/// Blocks that are handled under one hold of the lock.
pub(super) const BATCH: usize = 256;
/// Blocks that are given up under one hold of the lock.
pub(super) const SHED: usize = 1024;
/// Seconds that a confirmed prediction lives once events are there to say better.
pub(super) const PREDICTION_TTL: u64 = 5;
/// 16 pages of 64 slots.
pub(super) const MAX_SLOTS: usize = 1024;

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

pub(super) struct SlotState {
    predicted: Recency,
    reported: Reported,
    capacity: u64,
    /// Events are live.
    live: bool,
    /// Being forgotten; takes nothing new.
    leaving: bool,
    page: usize,
    bit: u64,
    pub(super) reported_block: Option<u32>,
}

impl SlotState {
    fn new(slot: usize, now: u64) -> Self {
        Self {
            predicted: Recency::new(),
            reported: Reported::new(now),
            capacity: u64::MAX,
            live: false,
            leaving: false,
            page: slot / 64,
            bit: 1 << (slot % 64),
            reported_block: None,
        }
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + self.predicted.bytes() + self.reported.bytes()
    }

    fn oldest(&self, now: u64) -> Option<(u64, Kind)> {
        let predicted = self.predicted.oldest(now).map(|at| (at, Kind::Predicted));
        let reported = self.reported.unused_since().map(|at| (at, Kind::Reported));
        predicted
            .into_iter()
            .chain(reported)
            .min_by_key(|(at, _)| *at)
    }
}

pub(super) struct Pool {
    pub(super) tables: TablesWriter,
    slots: Vec<Option<SlotState>>,
    pub(super) counters: IndexCounters,
    /// What the budget was last told.
    pub(super) booked: usize,
}

impl Pool {
    pub(super) fn new() -> Self {
        Self {
            tables: TablesWriter::new(),
            slots: Vec::new(),
            counters: IndexCounters::default(),
            booked: 0,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let slots: usize = self.slots.iter().flatten().map(SlotState::bytes).sum();
        slots + self.tables.bytes()
    }

    /// Predicted and reported pairs.
    pub(super) fn pairs(&self) -> (usize, usize) {
        let sum = |count: fn(&SlotState) -> usize| self.slots.iter().flatten().map(count).sum();
        (
            sum(|slot| slot.predicted.len()),
            sum(|slot| slot.reported.len()),
        )
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
        self.slots[slot] = Some(SlotState::new(slot, now));
        Some(slot)
    }

    /// How many slots there ever were at once.
    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn leave(&mut self, slot: usize) {
        if let Some(Some(state)) = self.slots.get_mut(slot) {
            state.leaving = true;
        }
    }

    pub(super) fn free(&mut self, slot: usize) {
        if let Some(state) = self.slots.get_mut(slot) {
            *state = None;
        }
    }

    pub(super) fn slot(&mut self, slot: usize) -> Option<&mut SlotState> {
        self.slots
            .get_mut(slot)?
            .as_mut()
            .filter(|state| !state.leaving)
    }

    fn parts(
        &mut self,
        slot: usize,
    ) -> Option<(&mut SlotState, &mut TablesWriter, &mut IndexCounters)> {
        let state = self.slots.get_mut(slot)?.as_mut()?;
        let wanted = !state.leaving;
        wanted.then_some((state, &mut self.tables, &mut self.counters))
    }

    /// Uses a batch of a chain's blocks, from block `from` on, each right behind the one before. `previous` is what
    /// the last batch returned: the last block that was placed. `None`: the chain cannot be continued.
    pub(super) fn place(
        &mut self,
        slot: usize,
        chain: &Chain,
        from: usize,
        previous: Option<u64>,
        purpose: Use,
        now: u64,
    ) -> Option<Option<u64>> {
        let (state, tables, _) = self.parts(slot)?;
        let mut last = previous;
        let mut behind = match previous {
            Some(hash) => Some(state.predicted.find(hash)?),
            None => None,
        };
        for (index, &hash) in chain.hashes().iter().enumerate().skip(from).take(BATCH) {
            let key = table::key(hash, state.page);
            if state.live {
                tables.mark_used(key);
                let (predicted, reported) = tables.get(key);
                if reported & !predicted & state.bit != 0 {
                    continue;
                }
            }
            let size = chain.layout().block(index);
            let placed = state.predicted.place(hash, size, behind, purpose, now)?;
            if placed.fresh {
                tables.insert(key, state.bit, Kind::Predicted);
            }
            (behind, last) = (Some(placed.index), Some(hash));
        }
        Some(last)
    }

    /// Takes back the use of some blocks, which are given from the last to the first.
    pub(super) fn withdraw(&mut self, slot: usize, hashes: impl Iterator<Item = u64>) {
        let Some((state, tables, _)) = self.parts(slot) else {
            return;
        };
        for hash in hashes {
            if state.predicted.withdraw(hash) {
                tables.remove(table::key(hash, state.page), state.bit, Kind::Predicted);
            }
        }
    }

    pub(super) fn set_capacity(&mut self, slot: usize, units: u64) {
        if let Some(state) = self.slot(slot) {
            state.capacity = units;
        }
    }

    pub(super) fn set_live(&mut self, slot: usize, live: bool) {
        if let Some(state) = self.slot(slot) {
            state.live = live;
        }
    }

    /// Lets go of what exceeds the slot's capacity; true if there may be more.
    pub(super) fn trim(&mut self, slot: usize) -> bool {
        let Some((state, tables, counters)) = self.parts(slot) else {
            return false;
        };
        for _ in 0..SHED {
            if state.predicted.units() <= state.capacity {
                return false;
            }
            let Some(hash) = state.predicted.pop() else {
                return false;
            };
            tables.remove(table::key(hash, state.page), state.bit, Kind::Predicted);
            counters.outgrown += 1;
        }
        true
    }

    /// Lets go of confirmed predictions that are too old beside live events; true if there may be more.
    pub(super) fn expire(&mut self, slot: usize, now: u64) -> bool {
        let Some((state, tables, counters)) = self.parts(slot) else {
            return false;
        };
        let Some(since) = now.checked_sub(PREDICTION_TTL).filter(|_| state.live) else {
            return false;
        };
        for _ in 0..SHED {
            match state.predicted.pop_before(since, now) {
                Some(Some(hash)) => {
                    tables.remove(table::key(hash, state.page), state.bit, Kind::Predicted);
                    counters.expired += 1;
                }
                Some(None) => {}
                None => return false,
            }
        }
        true
    }

    /// How much a slot holds: predicted and reported.
    pub(super) fn held(&self, slot: usize) -> (usize, usize) {
        let state = self.slots.get(slot).and_then(Option::as_ref);
        state.map_or((0, 0), |state| {
            (state.predicted.len(), state.reported.len())
        })
    }

    /// Forgets so many of a slot's blocks, the least recently used predictions first, even if it is leaving.
    pub(super) fn forget(&mut self, slot: usize, predicted: usize, reported: usize) {
        let Some(Some(state)) = self.slots.get_mut(slot) else {
            return;
        };
        for hash in std::iter::from_fn(|| state.predicted.pop()).take(predicted) {
            let key = table::key(hash, state.page);
            self.tables.remove(key, state.bit, Kind::Predicted);
        }
        for hash in std::iter::from_fn(|| state.reported.pop()).take(reported) {
            let key = table::key(hash, state.page);
            self.tables.remove(key, state.bit, Kind::Reported);
        }
    }

    /// The slot whose least recently used block is the oldest, and when that was used.
    fn coldest(&self, now: u64) -> Option<(u64, usize, Kind)> {
        let slots = self.slots.iter().enumerate();
        let oldest = slots.filter_map(|(slot, state)| {
            let (at, kind) = state.as_ref()?.oldest(now)?;
            Some((at, slot, kind))
        });
        oldest.min_by_key(|(at, _, _)| *at)
    }

    pub(super) fn oldest(&self, now: u64) -> Option<u64> {
        self.coldest(now).map(|(at, _, _)| at)
    }

    /// Gives up blocks of the coldest slot; returns how many.
    pub(super) fn shed(&mut self, blocks: usize, now: u64) -> usize {
        let Some((_, slot, kind)) = self.coldest(now) else {
            return 0;
        };
        let Some(Some(state)) = self.slots.get_mut(slot) else {
            return 0;
        };
        let (page, tables) = (state.page, &mut self.tables);
        let mut count = 0;
        while count < blocks {
            let hash = match kind {
                Kind::Predicted => state.predicted.pop(),
                Kind::Reported => {
                    let used = |hash| tables.take_used(table::key(hash, page));
                    state.reported.sweep(now, used)
                }
            };
            let Some(hash) = hash else { break };
            tables.remove(table::key(hash, page), state.bit, kind);
            count += 1;
        }
        self.counters.evicted += count as u64;
        count
    }

    /// Our hash and the size of an engine's block.
    pub(super) fn own(&mut self, slot: usize, engine: EngineHash) -> Option<(u64, u32)> {
        self.slot(slot)?.reported.own(engine)
    }

    /// Notes a batch of blocks as reported; false if there is no room for them.
    pub(super) fn store(
        &mut self,
        slot: usize,
        blocks: impl Iterator<Item = (EngineHash, u64)>,
        size: u32,
        place: Place,
    ) -> bool {
        let Some((state, tables, counters)) = self.parts(slot) else {
            return false;
        };
        state.reported_block = Some(size);
        for (engine, own) in blocks {
            let Some(change) = state.reported.store(engine, own, size, place) else {
                return false;
            };
            if let Some(own) = change.displaced {
                let key = table::key(own, state.page);
                tables.remove(key, state.bit, Kind::Reported);
            }
            credit(state, tables, change.now);
            counters.stored += 1;
        }
        true
    }

    /// Known blocks are in one more place.
    pub(super) fn promote(&mut self, slot: usize, hashes: &[EngineHash], place: Place) {
        self.change(slot, hashes, |reported, engine| {
            reported.promote(engine, place)
        });
    }

    /// Blocks left a medium.
    pub(super) fn remove(
        &mut self,
        slot: usize,
        hashes: &[EngineHash],
        medium: Medium,
        group: Option<u32>,
    ) {
        let known = self.change(slot, hashes, |reported, engine| {
            reported.remove(engine, medium, group)
        });
        self.counters.removed += known;
    }

    fn change(
        &mut self,
        slot: usize,
        hashes: &[EngineHash],
        act: impl Fn(&mut Reported, EngineHash) -> Option<Change>,
    ) -> u64 {
        let Some((state, tables, counters)) = self.parts(slot) else {
            return 0;
        };
        let mut known = 0;
        for &engine in hashes {
            match act(&mut state.reported, engine) {
                Some(change) => {
                    known += 1;
                    credit(state, tables, change);
                }
                None => counters.unknown += 1,
            }
        }
        known
    }

    /// A slot's confirmed predictions and their sizes, most recently used first.
    pub(super) fn confirmed(&mut self, slot: usize, at_most: usize) -> Vec<(u64, u32)> {
        let state = self.slot(slot);
        state.map_or_else(Vec::new, |state| {
            state.predicted.confirmed().take(at_most).collect()
        })
    }

    /// Adds confirmed predictions behind all others.
    pub(super) fn append(&mut self, slot: usize, blocks: &[(u64, u32)], now: u64) {
        let Some((state, tables, _)) = self.parts(slot) else {
            return;
        };
        for &(hash, size) in blocks {
            let fits = state.predicted.units() + u64::from(size) <= state.capacity;
            if fits && state.predicted.append(hash, size, now) {
                tables.insert(table::key(hash, state.page), state.bit, Kind::Predicted);
            }
        }
    }
}

fn credit(state: &SlotState, tables: &mut TablesWriter, change: Change) {
    let key = table::key(change.own, state.page);
    if change.credited {
        tables.insert(key, state.bit, Kind::Reported);
    } else {
        tables.remove(key, state.bit, Kind::Reported);
    }
}
