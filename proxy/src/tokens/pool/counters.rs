//! What a pool counts: every prompt once, by what its request got.

use std::sync::atomic::{AtomicU64, Ordering};

use super::super::encode::Memo;
use super::super::request::Reason;

/// What became of asking an engine for a prompt's tokens, where there is no tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineOutcome {
    /// It told them.
    Told,
    /// It was not asked: another prompt was with it, or the body had no room to wait for it.
    Busy,
    /// It did not tell, or has refused to lately and was not asked.
    Failed,
}

/// Counts that threads and requests add to.
#[derive(Debug, Default)]
pub struct Counters {
    in_time: AtomicU64,
    late: AtomicU64,
    by_engine: [AtomicU64; 3],
    unavailable: [AtomicU64; Reason::ALL.len()],
}

/// Counts at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountersSnapshot {
    /// Prompts whose ids came within the deadline.
    pub in_time: u64,
    /// Prompts whose ids came after it, or not at all.
    pub late: u64,
    /// Prompts whose ids an engine told for the next turn, was too busy to, or did not.
    pub by_engine: [u64; 3],
    /// Prompts without ids, by reason.
    pub unavailable: Vec<(Reason, u64)>,
    /// Parts of prompts found in the memo.
    pub memo_hits: u64,
    /// Parts of prompts that had to be encoded.
    pub memo_misses: u64,
    /// Bytes that the memo holds.
    pub memo_bytes: usize,
}

impl Counters {
    pub(super) fn in_time(&self) {
        self.in_time.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn late(&self) {
        self.late.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn by_engine(&self, outcome: EngineOutcome) {
        self.by_engine[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn unavailable(&self, reason: Reason) {
        let place = Reason::ALL.iter().position(|&known| known == reason);
        if let Some(count) = place.and_then(|place| self.unavailable.get(place)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn snapshot(&self, memo: &Memo) -> CountersSnapshot {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (memo_hits, memo_misses) = memo.hits_and_misses();
        CountersSnapshot {
            in_time: read(&self.in_time),
            late: read(&self.late),
            by_engine: self.by_engine.each_ref().map(read),
            unavailable: Reason::ALL
                .into_iter()
                .zip(self.unavailable.iter().map(read))
                .collect(),
            memo_hits,
            memo_misses,
            memo_bytes: memo.bytes(),
        }
    }
}
