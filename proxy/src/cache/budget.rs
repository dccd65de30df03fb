//! The bytes that all indexes of the process may take together, and their common clock.
//!
//! Counts what tables and records allocate (not what the allocator rounds up). An index that grows past the limit
//! makes the pools give up their least recently used blocks, 1,024 at a time, until the sum fits again, before it goes
//! on; so the limit is passed by one batch of blocks and one table's growth at most.
//!
//! Does not know what the indexes hold.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// Something that holds memory and can do with less.
pub(super) trait Holder: Send + Sync {
    /// When its least recently used part was used, in seconds of [`IndexBudget::now`]; `None` if it holds nothing.
    fn oldest(&self) -> Option<u64>;
    /// Gives up so many of its least recently used blocks; returns how many it could.
    fn shed(&self, blocks: usize) -> usize;
}

/// How many blocks are given up at a time.
const STEP: usize = 1024;

enum Clock {
    Real(Instant),
    Virtual(AtomicU64),
}

/// The process's budget for cache knowledge.
pub struct IndexBudget {
    limit: usize,
    used: AtomicUsize,
    /// Pools that share a part of it evenly.
    pools: AtomicUsize,
    /// Held while blocks are given up, so that two threads do not do it twice. Taken before a pool's own lock.
    holders: Mutex<Vec<Weak<dyn Holder>>>,
    clock: Clock,
}

impl IndexBudget {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(limit: usize) -> Arc<Self> {
        Self::with(limit, Clock::Real(Instant::now()))
    }

    /// A budget whose time passes only by [`Self::advance`]: for simulations and tests.
    #[must_use]
    pub fn in_virtual_time(limit: usize) -> Arc<Self> {
        Self::with(limit, Clock::Virtual(AtomicU64::new(0)))
    }

    fn with(limit: usize, clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicUsize::new(0),
            pools: AtomicUsize::new(0),
            holders: Mutex::new(Vec::new()),
            clock,
        })
    }

    /// Bytes that all indexes may take.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Bytes that they take.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Lets virtual time pass; no effect on real time.
    pub fn advance(&self, by: Duration) {
        if let Clock::Virtual(millis) = &self.clock {
            let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
            millis.fetch_add(by, Ordering::Relaxed);
        }
    }

    /// Whole seconds since the start.
    pub(super) fn now(&self) -> u64 {
        match &self.clock {
            Clock::Real(start) => start.elapsed().as_secs(),
            Clock::Virtual(millis) => millis.load(Ordering::Relaxed) / 1000,
        }
    }

    /// One pool more has a share, until [`Self::leave`].
    pub(super) fn join(&self) {
        self.pools.fetch_add(1, Ordering::Relaxed);
    }

    /// A pool that had joined has a share no more.
    pub(super) fn leave(&self) {
        self.pools.fetch_sub(1, Ordering::Relaxed);
    }

    /// Bytes that each pool may take of one of so many parts of the budget. Less with every pool that joins: to be
    /// asked for each time.
    pub(super) fn share(&self, parts: usize) -> usize {
        self.limit / parts / self.pools.load(Ordering::Relaxed).max(1)
    }

    pub(super) fn enrol(&self, holder: Weak<dyn Holder>) {
        let mut holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        holders.retain(|holder| holder.strong_count() > 0);
        holders.push(holder);
    }

    /// Books a change of what a holder takes.
    pub(super) fn book(&self, before: usize, after: usize) {
        if after >= before {
            self.used.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.used.fetch_sub(before - after, Ordering::Relaxed);
        }
    }

    /// Makes holders give up blocks until the sum fits. The caller holds no pool's lock.
    pub(super) fn relieve(&self) {
        if self.used() <= self.limit {
            return;
        }
        let holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        while self.used() > self.limit {
            let alive = holders.iter().filter_map(Weak::upgrade);
            let oldest = alive.filter_map(|holder| Some((holder.oldest()?, holder)));
            let Some((_, holder)) = oldest.min_by_key(|(oldest, _)| *oldest) else {
                return;
            };
            if holder.shed(STEP) == 0 {
                return;
            }
        }
    }
}

impl std::fmt::Debug for IndexBudget {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut fields = formatter.debug_struct("IndexBudget");
        fields.field("limit", &self.limit).field("used", &self.used);
        fields.finish_non_exhaustive()
    }
}
