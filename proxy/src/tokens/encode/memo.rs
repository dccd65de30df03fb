//! What was encoded before: ids of segments by the hash of their text, bounded in bytes, shared by all threads
//! and models.
//!
//! Two generations stand for a full LRU list: entries that are used move to the young one, and when that is full
//! the old one goes as a whole. An entry stays at least until half the budget was used by others after it.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of an entry besides its ids: key, pointer, the two counts of the `Arc`, slack of the table.
const ENTRY_BYTES: usize = 96;

/// Ids by segment. All methods are short and wait for nothing but each other.
#[derive(Debug)]
pub struct Memo {
    /// Held for one look-up or insert: no encoding and no copying of ids happens under it.
    generations: Mutex<Generations>,
    generation_bytes: usize,
    hits: AtomicU64,
    misses: AtomicU64,
}

#[derive(Debug, Default)]
struct Generations {
    young: Table,
    young_bytes: usize,
    old: Table,
    old_bytes: usize,
}

type Table = HashMap<u128, Arc<[u32]>, BuildHasherDefault<KeyHasher>>;

impl Memo {
    /// Holds at most `bytes`, counting the tables.
    pub fn new(bytes: usize) -> Self {
        Self {
            generations: Mutex::default(),
            generation_bytes: bytes / 2,
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// Segments found and not found since the start.
    pub fn hits_and_misses(&self) -> (u64, u64) {
        (
            self.hits.load(Ordering::Relaxed),
            self.misses.load(Ordering::Relaxed),
        )
    }

    /// Bytes held now.
    pub fn bytes(&self) -> usize {
        let held = self.lock();
        held.young_bytes + held.old_bytes
    }

    pub(super) fn find(&self, key: u128) -> Option<Arc<[u32]>> {
        let mut held = self.lock();
        let found = held.young.get(&key).cloned().or_else(|| {
            let ids = held.old.remove(&key)?;
            held.old_bytes -= cost(&ids);
            self.insert_young(&mut held, key, ids.clone());
            Some(ids)
        });
        drop(held);
        let count = if found.is_some() {
            &self.hits
        } else {
            &self.misses
        };
        count.fetch_add(1, Ordering::Relaxed);
        found
    }

    /// Keeps the ids of a segment; one that would fill a good part of the memo is not kept.
    pub(super) fn insert(&self, key: u128, ids: Arc<[u32]>) {
        if cost(&ids) <= self.generation_bytes / 4 {
            self.insert_young(&mut self.lock(), key, ids);
        }
    }

    fn insert_young(&self, held: &mut Generations, key: u128, ids: Arc<[u32]>) {
        let added = cost(&ids);
        if held.young_bytes + added > self.generation_bytes {
            held.old = mem::take(&mut held.young);
            held.old_bytes = mem::take(&mut held.young_bytes);
        }
        held.young_bytes += added;
        if let Some(before) = held.young.insert(key, ids) {
            held.young_bytes -= cost(&before);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Generations> {
        // Nothing that can panic runs under the lock, and a memo is never wrong, only incomplete.
        self.generations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn cost(ids: &[u32]) -> usize {
    ENTRY_BYTES + mem::size_of_val(ids)
}

/// The keys are hashes already.
#[derive(Debug, Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 ^= u64::from_le_bytes(word);
        }
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = (key >> 64) as u64 ^ key as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(count: u32) -> Arc<[u32]> {
        (0..count).collect()
    }

    #[test]
    fn what_is_used_stays_and_what_is_not_goes() {
        let memo = Memo::new(20 * (ENTRY_BYTES + 40));
        memo.insert(0, ids(10));
        for key in 1..100 {
            memo.insert(key, ids(10));
            assert!(memo.find(0).is_some(), "used after every insert");
            assert!(memo.bytes() <= 20 * (ENTRY_BYTES + 40));
        }
        assert_eq!(memo.find(1), None);
        assert_eq!(memo.find(99), Some(ids(10)));
        assert_eq!(memo.hits_and_misses(), (100, 1));
    }

    #[test]
    fn an_entry_too_large_for_the_memo_is_not_kept() {
        let memo = Memo::new(4_000);
        memo.insert(1, ids(1_000));
        assert_eq!(memo.bytes(), 0);
    }

    #[test]
    fn inserting_again_counts_once() {
        let memo = Memo::new(1 << 20);
        memo.insert(1, ids(10));
        memo.insert(1, ids(10));
        assert_eq!(memo.bytes(), cost(&ids(10)));
    }
}
