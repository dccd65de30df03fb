//! The blocks that one slot's engine has reported, by the engine's own names.
//!
//! Translates engine hashes to ours and keeps where a block lies. Presence is per medium and KV cache group: what is
//! removed from one stays in the others. A block is *credited* (counts as a cached prefix) while a full-attention
//! group holds it on the device or the host; blocks in slower storage are known, so that their children find them
//! and they can be promoted, but not credited. Only full-attention groups are kept here at all: sliding-window and
//! mamba groups are left out by `apply`. With several full-attention groups any of them is enough.
//!
//! Groups above 5 share one place, and a removal that names no group removes from all groups of its medium: both err
//! towards less credit. Two engine hashes of one token chain are one block of ours, and removing either removes it.
//!
//! Records are 20 bytes. There is no recency list: when memory is short, a hand goes around and takes what neither a
//! request used nor an event stored since it came by last (second chance).

use super::event::{EngineHash, Medium};
use super::nodes::{Node, Nodes};
use super::recency::Sizes;

/// Places of groups within a medium: none named, 0 to 4, and all others.
const GROUPS: u32 = 7;
const MEDIUM_BITS: u32 = (1 << GROUPS) - 1;
const PRESENCE: u32 = (1 << (3 * GROUPS)) - 1;
/// On the device or the host.
const CREDITED: u32 = (1 << (2 * GROUPS)) - 1;
/// The hand has not come by since the last store.
const FRESH: u32 = 1 << (3 * GROUPS);
const CLASS_SHIFT: u32 = 24;

/// Steps of the hand in one search.
const HAND_STEPS: usize = 64;

#[derive(Clone, Copy)]
struct Entry {
    engine: [u32; 2],
    own: [u32; 2],
    /// Presence, the fresh bit, and the size by number.
    word: u32,
}

fn halves(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}

fn whole(halves: [u32; 2]) -> u64 {
    u64::from(halves[0]) | u64::from(halves[1]) << 32
}

impl Node for Entry {
    fn key(&self) -> u64 {
        whole(self.engine)
    }
}

impl Entry {
    fn credited(&self) -> bool {
        self.word & CREDITED != 0
    }
}

fn medium_shift(medium: Medium) -> u32 {
    match medium {
        Medium::Device => 0,
        Medium::Host => GROUPS,
        Medium::Storage => 2 * GROUPS,
    }
}

/// Where a block lies: one medium and group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(u32);

impl Place {
    pub(super) fn new(medium: Medium, group: Option<u32>) -> Self {
        let group = group.map_or(0, |group| group.saturating_add(1).min(GROUPS - 1));
        Self(1 << (medium_shift(medium) + group))
    }

    /// What a removal takes away.
    fn removed(medium: Medium, group: Option<u32>) -> u32 {
        match group {
            Some(_) => Self::new(medium, group).0,
            None => MEDIUM_BITS << medium_shift(medium),
        }
    }
}

/// A block of ours and whether its slot is now credited with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) own: u64,
    pub(super) credited: bool,
}

/// What a store changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StoreChange {
    pub(super) credited: bool,
    /// Another block of ours that the engine's name stood for before, and that was credited.
    pub(super) displaced: Option<u64>,
}

pub(super) struct Reported {
    nodes: Nodes<Entry>,
    sizes: Sizes,
    hand: u32,
    /// When the hand began this round and the one before.
    rounds: [u64; 2],
}

impl Reported {
    pub(super) fn new(now: u64) -> Self {
        Self {
            nodes: Nodes::new(),
            sizes: Sizes::default(),
            hand: 0,
            rounds: [now; 2],
        }
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.nodes.bytes()
    }

    /// Since when what the hand would take is unused.
    pub(super) fn unused_since(&self) -> Option<u64> {
        (self.len() > 0).then_some(self.rounds[1])
    }

    /// Our hash of an engine's block, and its size in tokens.
    pub(super) fn own(&self, engine: EngineHash) -> Option<(u64, u32)> {
        let entry = self.nodes.get(self.nodes.find(engine.0)?);
        let class = (entry.word >> CLASS_SHIFT) as u8;
        Some((whole(entry.own), self.sizes.size(class)))
    }

    /// Notes a block; storing it twice changes nothing. `None` when there is no room, or too many block sizes.
    pub(super) fn store(
        &mut self,
        engine: EngineHash,
        own: u64,
        size: u32,
        place: Place,
    ) -> Option<StoreChange> {
        let class = u32::from(self.sizes.class(size)?) << CLASS_SHIFT;
        let mut displaced = None;
        let index = match self.nodes.find(engine.0) {
            Some(index) => {
                let entry = self.nodes.get_mut(index);
                let before = whole(entry.own);
                if before != own {
                    displaced = entry.credited().then_some(before);
                    entry.word = 0;
                }
                index
            }
            None => self.nodes.push(Entry {
                engine: halves(engine.0),
                own: halves(own),
                word: 0,
            })?,
        };
        let entry = self.nodes.get_mut(index);
        entry.own = halves(own);
        entry.word = (entry.word & PRESENCE) | place.0 | FRESH | class;
        Some(StoreChange {
            credited: entry.credited(),
            displaced,
        })
    }

    /// A known block is now in one more place; `None` if it is not known.
    pub(super) fn promote(&mut self, engine: EngineHash, place: Place) -> Option<Change> {
        let index = self.nodes.find(engine.0)?;
        let entry = self.nodes.get_mut(index);
        entry.word |= place.0 | FRESH;
        Some(Change {
            own: whole(entry.own),
            credited: entry.credited(),
        })
    }

    /// A block left a medium, or one group of it; `None` if it was not known.
    pub(super) fn remove(
        &mut self,
        engine: EngineHash,
        medium: Medium,
        group: Option<u32>,
    ) -> Option<Change> {
        let index = self.nodes.find(engine.0)?;
        let entry = self.nodes.get_mut(index);
        entry.word &= !Place::removed(medium, group);
        let change = Change {
            own: whole(entry.own),
            credited: entry.credited(),
        };
        if entry.word & PRESENCE == 0 {
            self.nodes.swap_remove(index);
        }
        Some(change)
    }

    /// Takes out any block; returns ours.
    pub(super) fn pop(&mut self) -> Option<u64> {
        let last = self.nodes.len().checked_sub(1)?;
        let (entry, _) = self.nodes.swap_remove(last as u32);
        Some(whole(entry.own))
    }

    /// Takes out a block that was not used for a round of the hand, or after some steps any; returns ours. `used`
    /// tells whether requests used a block since it was last asked about it.
    pub(super) fn sweep(&mut self, now: u64, mut used: impl FnMut(u64) -> bool) -> Option<u64> {
        for step in 1..=HAND_STEPS {
            if self.hand as usize >= self.nodes.len() {
                self.hand = 0;
                self.rounds = [now, self.rounds[0]];
            }
            if self.nodes.len() == 0 {
                return None;
            }
            let entry = self.nodes.get_mut(self.hand);
            let spared = entry.word & FRESH != 0 || used(whole(entry.own));
            entry.word &= !FRESH;
            if !spared || step == HAND_STEPS {
                let (entry, _) = self.nodes.swap_remove(self.hand);
                return Some(whole(entry.own));
            }
            self.hand += 1;
        }
        None
    }
}
