//! Token ids of prompts as engines told them, for pools without a tokenizer of their own: what a session's next turn
//! begins with.
//!
//! Kept under the hash of a prompt's last full block, which every later turn's chain goes through. A turn replaces the
//! one before it, so that a session takes one place. The oldest go when the pool's share of memory is full, which is
//! booked with the index budget: all pools of the process have one part of that together, however many they are. Does not
//! ask anyone (`gateway::remember`), nor does it know who holds what (`index`).

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::budget::IndexBudget;
use super::chain::Chain;

/// One of so many parts of the process's budget is for ids, of all pools together.
const PARTS: usize = 16;
/// Of an entry besides its ids: its places in the map and in the order.
const ENTRY_BYTES: usize = 64;

/// One pool's prompts.
#[derive(Debug)]
pub(super) struct Remembered {
    /// Held for a few look-ups, never over an await.
    inner: Mutex<Inner>,
    /// Set with the first prompt: pools that never ask pay a load.
    any: AtomicBool,
    budget: Arc<IndexBudget>,
}

#[derive(Debug, Default)]
struct Inner {
    kept: HashMap<u64, Kept>,
    /// Oldest first, with their stamps. Those that were replaced stay until their turn comes.
    order: VecDeque<(u64, u64)>,
    bytes: usize,
    /// Of the next that is kept.
    stamp: u64,
}

#[derive(Debug)]
struct Kept {
    ids: Arc<[u32]>,
    /// Tells a prompt that was kept anew from its earlier place in the order.
    stamp: u64,
}

impl Remembered {
    /// None yet.
    pub(super) fn new(budget: &Arc<IndexBudget>) -> Self {
        budget.join();
        Self {
            inner: Mutex::default(),
            any: AtomicBool::new(false),
            budget: Arc::clone(budget),
        }
    }

    /// The ids of a prompt. One shorter than a block has no name and is not kept.
    pub(super) fn keep(&self, chain: &Chain, ids: Vec<u32>) {
        let Some(&key) = chain.hashes().last() else {
            return;
        };
        let mut inner = self.lock();
        let before = inner.bytes;
        if let Some(earlier) = inner.longest(chain) {
            inner.remove(earlier);
        }
        inner.add(key, ids.into());
        inner.shrink(self.budget.share(PARTS));
        self.budget.book(before, inner.bytes);
        self.any.store(true, Ordering::Release);
    }

    /// The ids of the longest prompt that this one goes on from, as far as is known.
    pub(super) fn beginning(&self, chain: &Chain) -> Option<Arc<[u32]>> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let inner = self.lock();
        let key = inner.longest(chain)?;
        inner.kept.get(&key).map(|kept| Arc::clone(&kept.ids))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A map between two of its own calls is whole: poison carries no news.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Remembered {
    fn drop(&mut self) {
        let bytes = self.lock().bytes;
        self.budget.book(bytes, 0);
        self.budget.leave();
    }
}

impl Inner {
    fn longest(&self, chain: &Chain) -> Option<u64> {
        let mut deepest_first = chain.hashes().iter().rev();
        deepest_first
            .find(|key| self.kept.contains_key(key))
            .copied()
    }

    fn add(&mut self, key: u64, ids: Arc<[u32]>) {
        let stamp = self.stamp;
        self.stamp += 1;
        self.bytes += bytes(&ids);
        self.kept.insert(key, Kept { ids, stamp });
        self.order.push_back((key, stamp));
    }

    fn remove(&mut self, key: u64) {
        if let Some(kept) = self.kept.remove(&key) {
            self.bytes -= bytes(&kept.ids);
        }
    }

    /// Down to so many bytes, and an order not much longer than what it orders.
    fn shrink(&mut self, limit: usize) {
        while self.bytes > limit || self.order.len() > 2 * self.kept.len() + 16 {
            let Some((oldest, stamp)) = self.order.pop_front() else {
                return;
            };
            let still = (self.kept.get(&oldest)).is_some_and(|kept| kept.stamp == stamp);
            if still {
                self.remove(oldest);
            }
        }
    }
}

fn bytes(ids: &[u32]) -> usize {
    size_of_val(ids) + ENTRY_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(text: &str) -> Chain {
        let mut chain = Chain::bytes(0);
        chain.push(text.as_bytes());
        chain.finish()
    }

    #[test]
    fn a_later_turn_begins_with_what_was_kept_of_the_one_before() {
        let budget = IndexBudget::new(1 << 20);
        let remembered = Remembered::new(&budget);
        let (first, second) = ("x".repeat(200), "x".repeat(200) + &"y".repeat(200));
        assert!(remembered.beginning(&chain(&second)).is_none());
        remembered.keep(&chain(&first), vec![1, 2, 3]);
        assert_eq!(*remembered.beginning(&chain(&second)).unwrap(), [1, 2, 3]);
        assert!(remembered.beginning(&chain(&"z".repeat(400))).is_none());
        remembered.keep(&chain(&second), vec![1, 2, 3, 4]);
        assert_eq!(remembered.lock().kept.len(), 1, "one place for a session");
        assert!(budget.used() > 0);
        drop(remembered);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn the_oldest_go_when_the_share_is_full() {
        let budget = IndexBudget::new(16 << 10);
        let remembered = Remembered::new(&budget);
        for session in 0..100 {
            let text = format!("{session:064}");
            remembered.keep(&chain(&text), vec![session; 100]);
            assert!(remembered.lock().bytes <= 1 << 10);
        }
        assert!(
            remembered
                .beginning(&chain(&format!("{:064}", 99)))
                .is_some()
        );
        assert!(
            remembered
                .beginning(&chain(&format!("{:064}", 0)))
                .is_none()
        );
    }

    #[test]
    fn many_pools_take_no_more_than_one_and_one_that_leaves_makes_room() {
        let budget = IndexBudget::new(16 << 10);
        let keep = |remembered: &Remembered| {
            for session in 0..20 {
                remembered.keep(&chain(&format!("{session:064}")), vec![session; 20]);
            }
        };
        let pools: Vec<Remembered> = (0..4).map(|_| Remembered::new(&budget)).collect();
        for pool in &pools {
            keep(pool);
            assert!(pool.lock().bytes > 0);
        }
        assert!(budget.used() <= 1 << 10);
        let mut pools = pools.into_iter();
        let last = pools.next_back().unwrap();
        drop(pools);
        keep(&last);
        assert!((512..=1024).contains(&budget.used()));
    }

    #[test]
    fn a_prompt_that_is_kept_again_and_again_takes_one_place() {
        let budget = IndexBudget::new(1 << 20);
        let remembered = Remembered::new(&budget);
        for _ in 0..1000 {
            remembered.keep(&chain(&"x".repeat(100)), vec![7; 10]);
        }
        let inner = remembered.lock();
        assert_eq!((inner.kept.len(), inner.bytes), (1, 104));
        assert!(inner.order.len() < 20);
    }
}
