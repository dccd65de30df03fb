//! Small records found by a 64-bit key, packed densely: what the recency lists and the engines' hashes are kept in.
//!
//! A record lies in a chunk of the arena and is found through `hashbrown` tables of 4-byte indexes, so a record costs
//! its own size and 6 to 12 bytes. Removal moves the last record into the hole, so memory follows the number of
//! records down as well as up. Tables are split in 64 by hash, so that no growth moves more than a 64th of them
//! while a lock is held.
//!
//! Not for more than `u32::MAX - 1` records.

use hashbrown::HashTable;

/// A record.
pub(super) trait Node: Copy {
    /// What it is found by; one record per key.
    fn key(&self) -> u64;
}

const CHUNK: usize = 1024;
const SHARDS: usize = 64;
/// Smaller tables than this are not worth shrinking.
const SMALL: usize = 64;

/// The records.
pub(super) struct Nodes<T> {
    chunks: Vec<Vec<T>>,
    length: u32,
    tables: Vec<HashTable<u32>>,
    table_bytes: usize,
}

/// Spreads keys that may be anything, such as consecutive numbers.
fn spread(key: u64) -> u64 {
    let product = key.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    product ^ (product >> 32)
}

fn shard(hash: u64) -> usize {
    // Of bits that hashbrown uses for neither the bucket of so small a table nor the tag.
    (hash >> 48) as usize % SHARDS
}

fn split(index: u32) -> (usize, usize) {
    (index as usize / CHUNK, index as usize % CHUNK)
}

impl<T: Node> Nodes<T> {
    pub(super) fn new() -> Self {
        Self {
            chunks: Vec::new(),
            length: 0,
            tables: (0..SHARDS).map(|_| HashTable::new()).collect(),
            table_bytes: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.length as usize
    }

    /// What is allocated.
    pub(super) fn bytes(&self) -> usize {
        self.chunks.len() * CHUNK * size_of::<T>()
            + self.table_bytes
            + SHARDS * size_of::<HashTable<u32>>()
    }

    pub(super) fn get(&self, index: u32) -> &T {
        let (chunk, at) = split(index);
        &self.chunks[chunk][at]
    }

    pub(super) fn get_mut(&mut self, index: u32) -> &mut T {
        let (chunk, at) = split(index);
        &mut self.chunks[chunk][at]
    }

    pub(super) fn find(&self, key: u64) -> Option<u32> {
        let hash = spread(key);
        let found = self.tables[shard(hash)].find(hash, |&index| self.get(index).key() == key);
        found.copied()
    }

    /// Adds a record whose key is not there yet; `None` when there is no room.
    pub(super) fn push(&mut self, node: T) -> Option<u32> {
        let index = self.length;
        if index == u32::MAX - 1 {
            return None;
        }
        let (chunk, _) = split(index);
        if chunk == self.chunks.len() {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        self.chunks[chunk].push(node);
        self.length += 1;
        let hash = spread(node.key());
        let (chunks, table) = (&self.chunks, &mut self.tables[shard(hash)]);
        let before = table.allocation_size();
        table.insert_unique(hash, index, |&index| {
            let (chunk, at) = split(index);
            spread(chunks[chunk][at].key())
        });
        self.table_bytes += table.allocation_size() - before;
        Some(index)
    }

    /// Takes a record out. When that moved another one into its place, the second part is that one's old index.
    pub(super) fn swap_remove(&mut self, index: u32) -> (T, Option<u32>) {
        let removed = *self.get(index);
        self.unlist(removed.key(), index);
        let last = self.length - 1;
        let (chunk, _) = split(last);
        let moved = self.chunks[chunk]
            .pop()
            .expect("the last chunk that is in use has a record");
        self.length = last;
        // One empty chunk stays, so that a record coming and going at a border does not allocate each time.
        self.chunks.truncate(chunk + 2);
        if self.chunks[chunk].is_empty() {
            self.chunks.truncate(chunk + 1);
        }
        if index == last {
            return (removed, None);
        }
        *self.get_mut(index) = moved;
        let hash = spread(moved.key());
        let table = &mut self.tables[shard(hash)];
        if let Some(entry) = table.find_mut(hash, |&listed| listed == last) {
            *entry = index;
        }
        (removed, Some(last))
    }

    fn unlist(&mut self, key: u64, index: u32) {
        let hash = spread(key);
        let (chunks, table) = (&self.chunks, &mut self.tables[shard(hash)]);
        let Ok(entry) = table.find_entry(hash, |&listed| listed == index) else {
            return;
        };
        entry.remove();
        if table.capacity() > SMALL && table.len() < table.capacity() / 4 {
            let before = table.allocation_size();
            table.shrink_to(table.len() * 2, |&index| {
                let (chunk, at) = split(index);
                spread(chunks[chunk][at].key())
            });
            self.table_bytes -= before - table.allocation_size();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, PartialEq, Debug)]
    struct Pair(u64, u32);

    impl Node for Pair {
        fn key(&self) -> u64 {
            self.0
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn does_as_a_map_does(steps in prop::collection::vec((0..4000_u64, any::<bool>()), 0..8000)) {
            let (mut nodes, mut naive) = (Nodes::new(), BTreeMap::new());
            for (step, (key, add)) in steps.into_iter().enumerate() {
                match nodes.find(key) {
                    None if add => {
                        nodes.push(Pair(key, step as u32));
                        naive.insert(key, step as u32);
                    }
                    Some(index) if !add => {
                        let (removed, _) = nodes.swap_remove(index);
                        prop_assert_eq!(naive.remove(&key), Some(removed.1));
                    }
                    _ => {}
                }
            }
            prop_assert_eq!(nodes.len(), naive.len());
            for key in 0..4000 {
                let found = nodes.find(key).map(|index| nodes.get(index).1);
                prop_assert_eq!(found, naive.get(&key).copied());
            }
        }
    }

    #[test]
    fn memory_is_given_back() {
        let mut nodes = Nodes::new();
        let empty = nodes.bytes();
        for key in 0..100_000 {
            nodes.push(Pair(key, 0));
        }
        let full = nodes.bytes();
        assert!(full - empty < 100_000 * (16 + 13));
        for key in 0..100_000 {
            let index = nodes.find(key).unwrap();
            nodes.swap_remove(index);
        }
        assert!(
            nodes.bytes() < full / 20,
            "{} of {full} bytes stay",
            nodes.bytes()
        );
    }
}
