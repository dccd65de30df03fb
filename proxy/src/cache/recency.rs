//! The blocks predicted to be held by one slot, from the most to the least recently used.
//!
//! An intrusive list through records of 20 bytes. A chain lies in it head first, each block right behind the one
//! before it, so the least recently used block is always the deepest of its chain: what leaves from the end keeps
//! prefixes whole.
//!
//! Knows neither holders nor other slots.

use super::nodes::{Node, Nodes};

const NONE: u32 = u32::MAX;
/// In `state`: a first token has come for a request that used the block. The other bits count requests in flight.
const CONFIRMED: u8 = 0x80;
const IN_FLIGHT: u8 = 0x7F;

#[derive(Clone, Copy)]
struct Entry {
    /// In halves, so that records need no alignment to eight bytes.
    key: [u32; 2],
    newer: u32,
    older: u32,
    /// When it was last used: the low bits of the second. Wraps after 18 hours; see [`Recency::oldest`].
    stamp: u16,
    /// Its size, by number.
    class: u8,
    state: u8,
}

impl Node for Entry {
    fn key(&self) -> u64 {
        u64::from(self.key[0]) | u64::from(self.key[1]) << 32
    }
}

/// Sizes of blocks by number, since few sizes occur and a number takes a byte.
#[derive(Default)]
pub(super) struct Sizes(Vec<u32>);

impl Sizes {
    /// The number of a size; `None` when there are too many.
    pub(super) fn class(&mut self, size: u32) -> Option<u8> {
        let found = self.0.iter().position(|known| *known == size);
        let at = found.unwrap_or_else(|| {
            self.0.push(size);
            self.0.len() - 1
        });
        let class = u8::try_from(at).ok();
        self.0.truncate(usize::from(u8::MAX) + 1);
        class
    }

    pub(super) fn size(&self, class: u8) -> u32 {
        self.0.get(usize::from(class)).copied().unwrap_or(0)
    }
}

/// What [`Recency::place`] did.
pub(super) struct Placed {
    pub(super) index: u32,
    pub(super) fresh: bool,
}

/// Why a block is placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// A request goes there.
    Dispatched,
    /// Its first token came.
    Confirmed,
}

pub(super) struct Recency {
    nodes: Nodes<Entry>,
    newest: u32,
    oldest: u32,
    sizes: Sizes,
    units: u64,
    last_used: u64,
}

impl Recency {
    pub(super) fn new() -> Self {
        Self {
            nodes: Nodes::new(),
            newest: NONE,
            oldest: NONE,
            sizes: Sizes::default(),
            units: 0,
            last_used: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.nodes.bytes()
    }

    /// Bytes or tokens of all blocks.
    pub(super) fn units(&self) -> u64 {
        self.units
    }

    pub(super) fn find(&self, key: u64) -> Option<u32> {
        self.nodes.find(key)
    }

    /// Uses a block: puts it right behind another one, or at the front. `None` when there is no room for it.
    pub(super) fn place(
        &mut self,
        key: u64,
        size: u32,
        behind: Option<u32>,
        purpose: Use,
        now: u64,
    ) -> Option<Placed> {
        let found = self.nodes.find(key);
        let index = match found {
            Some(index) => index,
            None => self.add(key, size)?,
        };
        let in_place = match behind {
            Some(before) => self.nodes.get(before).older == index,
            None => self.newest == index,
        };
        if found.is_none() {
            self.link(index, behind);
        } else if !in_place && behind != Some(index) {
            self.unlink(index);
            self.link(index, behind);
        }
        self.last_used = self.last_used.max(now);
        let entry = self.nodes.get_mut(index);
        entry.stamp = now as u16;
        entry.state = used(entry.state, purpose);
        Some(Placed {
            index,
            fresh: found.is_none(),
        })
    }

    /// A request that used the block never got there; true if the block has to go with it.
    pub(super) fn withdraw(&mut self, key: u64) -> bool {
        let Some(index) = self.nodes.find(key) else {
            return false;
        };
        let entry = self.nodes.get_mut(index);
        if matches!(entry.state & IN_FLIGHT, 0 | IN_FLIGHT) {
            return false;
        }
        entry.state -= 1;
        if entry.state != 0 {
            return false;
        }
        self.remove(index);
        true
    }

    /// Takes out the least recently used block.
    pub(super) fn pop(&mut self) -> Option<u64> {
        (self.oldest != NONE).then(|| self.remove(self.oldest))
    }

    /// When the least recently used block was used, in seconds. Times before 18 hours ago are guessed: the stamp has
    /// wrapped, and the true one may be earlier.
    pub(super) fn oldest(&self, now: u64) -> Option<u64> {
        let stamp = (self.oldest != NONE).then(|| self.nodes.get(self.oldest).stamp)?;
        let age = u64::from((now as u16).wrapping_sub(stamp));
        Some(now.saturating_sub(age).min(self.last_used))
    }

    /// Takes out the least recently used block if it was used before `since`. One that is in flight is used again
    /// instead.
    pub(super) fn pop_before(&mut self, since: u64, now: u64) -> Option<Option<u64>> {
        if self.oldest(now)? >= since {
            return None;
        }
        let index = self.oldest;
        if self.nodes.get(index).state & IN_FLIGHT == 0 {
            return Some(self.pop());
        }
        self.unlink(index);
        self.link(index, None);
        self.nodes.get_mut(index).stamp = now as u16;
        self.last_used = self.last_used.max(now);
        Some(None)
    }

    /// Adds a block behind all others as confirmed; false if it is known or there is no room.
    pub(super) fn append(&mut self, key: u64, size: u32, now: u64) -> bool {
        if self.nodes.find(key).is_some() {
            return false;
        }
        let behind = (self.oldest != NONE).then_some(self.oldest);
        self.place(key, size, behind, Use::Confirmed, now).is_some()
    }

    /// Confirmed blocks and their sizes, most recently used first.
    pub(super) fn confirmed(&self) -> impl Iterator<Item = (u64, u32)> {
        let follow = |index: u32| (index != NONE).then(|| self.nodes.get(index));
        std::iter::successors(follow(self.newest), move |entry| follow(entry.older))
            .filter(|entry| entry.state & CONFIRMED != 0)
            .map(|entry| (entry.key(), self.sizes.size(entry.class)))
    }

    fn add(&mut self, key: u64, size: u32) -> Option<u32> {
        let class = self.sizes.class(size)?;
        let index = self.nodes.push(Entry {
            key: [key as u32, (key >> 32) as u32],
            newer: NONE,
            older: NONE,
            stamp: 0,
            class,
            state: 0,
        })?;
        self.units += u64::from(size);
        Some(index)
    }

    fn remove(&mut self, index: u32) -> u64 {
        self.unlink(index);
        let (entry, moved) = self.nodes.swap_remove(index);
        if let Some(from) = moved {
            self.relink(from, index);
        }
        self.units -= u64::from(self.sizes.size(entry.class));
        entry.key()
    }

    /// The record at `to` was at `from`: tells its neighbours.
    fn relink(&mut self, from: u32, to: u32) {
        let Entry { newer, older, .. } = *self.nodes.get(to);
        debug_assert!(newer != from && older != from);
        self.set_older(newer, to);
        self.set_newer(older, to);
    }

    fn link(&mut self, index: u32, behind: Option<u32>) {
        let newer = behind.unwrap_or(NONE);
        let older = match behind {
            Some(before) => self.nodes.get(before).older,
            None => self.newest,
        };
        let entry = self.nodes.get_mut(index);
        (entry.newer, entry.older) = (newer, older);
        self.set_older(newer, index);
        self.set_newer(older, index);
    }

    fn unlink(&mut self, index: u32) {
        let Entry { newer, older, .. } = *self.nodes.get(index);
        self.set_older(newer, older);
        self.set_newer(older, newer);
    }

    /// What comes behind a record, or is the newest.
    fn set_older(&mut self, index: u32, older: u32) {
        match index {
            NONE => self.newest = older,
            _ => self.nodes.get_mut(index).older = older,
        }
    }

    fn set_newer(&mut self, index: u32, newer: u32) {
        match index {
            NONE => self.oldest = newer,
            _ => self.nodes.get_mut(index).newer = newer,
        }
    }
}

/// A count that is full stays so, whatever is withdrawn, until the block is confirmed: 127 requests waiting for one block's first token. After
/// that their number is not known, but no longer matters, since a confirmed block stays.
fn used(state: u8, purpose: Use) -> u8 {
    let flights = state & IN_FLIGHT;
    match purpose {
        Use::Dispatched => (state & CONFIRMED) | (flights + 1).min(IN_FLIGHT),
        Use::Confirmed if flights == IN_FLIGHT => CONFIRMED,
        Use::Confirmed => CONFIRMED | flights.saturating_sub(1),
    }
}
