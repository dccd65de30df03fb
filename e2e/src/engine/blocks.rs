//! The KV cache's blocks: reference counts, the LRU free list and the prefix cache by block hash.
//!
//! Rules of vLLM v1: a free block keeps its content until it is reused; a hit takes it out of the free list; a
//! finished sequence gives its blocks back tail first, so that prefixes live longest. Which sequence needs which
//! block is not decided here.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Index of a block.
pub(crate) type BlockId = u32;

const NONE: BlockId = BlockId::MAX;

/// A change of the prefix cache, as a router that follows KV events would see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvEvent {
    /// A block became full and can be found.
    Stored {
        /// Chained hash of the block.
        hash: u64,
        /// Hash of the block before it, if any.
        parent: Option<u64>,
        /// The block's tokens.
        tokens: Vec<u32>,
        /// Salt of the sequence it was computed for.
        salt: u64,
    },
    /// A block's content was given up.
    Removed {
        /// Chained hash of the block.
        hash: u64,
    },
    /// The whole prefix cache was dropped.
    AllCleared,
}

#[derive(Clone, Debug)]
struct Block {
    references: u32,
    hash: Option<u64>,
    previous: BlockId,
    next: BlockId,
}

/// Passes already mixed hashes through.
#[derive(Clone, Copy, Debug, Default)]
struct Mixed(u64);

impl Hasher for Mixed {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = super::hash::bytes(self.0, bytes);
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// All blocks of one engine. Blocks never used are not in memory yet: they count as the oldest free ones.
#[derive(Clone, Debug)]
pub(crate) struct BlockPool {
    capacity: usize,
    blocks: Vec<Block>,
    /// Oldest and newest block of the free list.
    oldest: BlockId,
    newest: BlockId,
    listed: usize,
    cached: HashMap<u64, BlockId, BuildHasherDefault<Mixed>>,
    removed: Vec<u64>,
}

impl BlockPool {
    pub(crate) fn new(capacity: usize) -> Self {
        let capacity = capacity.min(NONE as usize);
        Self {
            capacity,
            blocks: Vec::new(),
            oldest: NONE,
            newest: NONE,
            listed: 0,
            cached: HashMap::default(),
            removed: Vec::new(),
        }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Blocks that nobody references; their content may still be found.
    pub(crate) fn free(&self) -> usize {
        self.capacity - self.blocks.len() + self.listed
    }

    pub(crate) fn used(&self) -> usize {
        self.capacity - self.free()
    }

    /// The block that holds this content.
    pub(crate) fn find(&self, hash: u64) -> Option<BlockId> {
        self.cached.get(&hash).copied()
    }

    pub(crate) fn is_free(&self, block: BlockId) -> bool {
        self.blocks[block as usize].references == 0
    }

    /// References a found block, taking it out of the free list.
    pub(crate) fn acquire(&mut self, block: BlockId) {
        if self.is_free(block) {
            self.unlink(block);
        }
        self.blocks[block as usize].references += 1;
    }

    /// A block to write to: one never used, else the oldest free one, whose content is lost.
    pub(crate) fn allocate(&mut self) -> Option<BlockId> {
        if self.blocks.len() < self.capacity {
            self.blocks.push(Block {
                references: 1,
                hash: None,
                previous: NONE,
                next: NONE,
            });
            return Some((self.blocks.len() - 1) as BlockId);
        }
        let block = self.oldest;
        if block == NONE {
            return None;
        }
        self.unlink(block);
        if let Some(hash) = self.blocks[block as usize].hash.take() {
            self.cached.remove(&hash);
            self.removed.push(hash);
        }
        self.blocks[block as usize].references = 1;
        Some(block)
    }

    /// Gives back a sequence's blocks, tail first: its first block will be reused last.
    pub(crate) fn release(&mut self, blocks: &[BlockId]) {
        for &block in blocks.iter().rev() {
            let entry = &mut self.blocks[block as usize];
            entry.references -= 1;
            if entry.references == 0 {
                self.push_newest(block);
            }
        }
    }

    /// Makes a full block findable; false when another block already holds the same content.
    pub(crate) fn publish(&mut self, block: BlockId, hash: u64) -> bool {
        if self.cached.contains_key(&hash) {
            return false;
        }
        self.cached.insert(hash, block);
        self.blocks[block as usize].hash = Some(hash);
        true
    }

    /// Forgets all content; false, and nothing done, while blocks are in use.
    pub(crate) fn clear(&mut self) -> bool {
        if self.used() > 0 {
            return false;
        }
        *self = Self::new(self.capacity);
        true
    }

    /// Hashes given up since the last call.
    pub(crate) fn take_removed(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.removed)
    }

    fn unlink(&mut self, block: BlockId) {
        let (previous, next) = {
            let entry = &self.blocks[block as usize];
            (entry.previous, entry.next)
        };
        match previous {
            NONE => self.oldest = next,
            other => self.blocks[other as usize].next = next,
        }
        match next {
            NONE => self.newest = previous,
            other => self.blocks[other as usize].previous = previous,
        }
        self.listed -= 1;
    }

    fn push_newest(&mut self, block: BlockId) {
        let previous = self.newest;
        self.blocks[block as usize].previous = previous;
        self.blocks[block as usize].next = NONE;
        match previous {
            NONE => self.oldest = block,
            other => self.blocks[other as usize].next = block,
        }
        self.newest = block;
        self.listed += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(pool: &mut BlockPool, hashes: &[u64]) -> Vec<BlockId> {
        let blocks: Vec<_> = hashes.iter().map(|_| pool.allocate().unwrap()).collect();
        for (&block, &hash) in blocks.iter().zip(hashes) {
            assert!(pool.publish(block, hash));
        }
        blocks
    }

    #[test]
    fn blocks_come_back_tail_first() {
        let mut pool = BlockPool::new(3);
        let blocks = filled(&mut pool, &[1, 2, 3]);
        pool.release(&blocks);
        pool.allocate().unwrap();
        assert_eq!(
            (
                pool.find(1).is_some(),
                pool.find(2).is_some(),
                pool.find(3).is_some()
            ),
            (true, true, false)
        );
        pool.allocate().unwrap();
        assert_eq!(
            (pool.find(1).is_some(), pool.find(2).is_some()),
            (true, false)
        );
        assert_eq!(pool.take_removed(), [3, 2]);
    }

    #[test]
    fn a_hit_leaves_the_free_list_and_survives() {
        let mut pool = BlockPool::new(2);
        let blocks = filled(&mut pool, &[1, 2]);
        pool.release(&blocks);
        pool.acquire(pool.find(2).unwrap());
        assert_eq!(pool.free(), 1);
        pool.allocate().unwrap();
        assert_eq!(pool.allocate(), None);
        assert!(pool.find(2).is_some());
        assert!(pool.find(1).is_none());
    }

    #[test]
    fn a_shared_block_is_free_only_after_its_last_user() {
        let mut pool = BlockPool::new(1);
        let blocks = filled(&mut pool, &[1]);
        pool.acquire(blocks[0]);
        pool.release(&blocks);
        assert_eq!(pool.free(), 0);
        pool.release(&blocks);
        assert_eq!(pool.free(), 1);
    }

    #[test]
    fn the_same_content_is_published_once() {
        let mut pool = BlockPool::new(2);
        let first = filled(&mut pool, &[1])[0];
        let second = pool.allocate().unwrap();
        assert!(!pool.publish(second, 1));
        assert_eq!(pool.find(1), Some(first));
    }

    #[test]
    fn clearing_waits_until_no_block_is_used() {
        let mut pool = BlockPool::new(2);
        let blocks = filled(&mut pool, &[1]);
        assert!(!pool.clear());
        pool.release(&blocks);
        assert!(pool.clear());
        assert!(pool.find(1).is_none());
    }
}
