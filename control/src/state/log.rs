//! The last changes, in their order: which names, not which values. Bounded.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use sluice_config::push::ResourceType;

use super::Entry;

/// That a resource came, changed or went.
#[derive(Debug, Clone)]
pub(super) struct LogEntry {
    pub(super) generation: u64,
    pub(super) seen_at: SystemTime,
    pub(super) kind: ResourceType,
    pub(super) name: Arc<str>,
    /// Kept here, since the resource may be gone when somebody asks.
    pub(super) namespace: Arc<str>,
}

/// The changes after some generation, up to now.
#[derive(Debug)]
pub(super) struct ChangeLog {
    entries: VecDeque<LogEntry>,
    capacity: usize,
    /// The newest generation of which an entry was dropped.
    lost: u64,
}

impl LogEntry {
    pub(super) fn new(generation: u64, seen_at: SystemTime, entry: &Entry) -> Self {
        Self {
            generation,
            seen_at,
            kind: entry.resource.kind,
            name: Arc::clone(&entry.resource.name),
            namespace: Arc::clone(&entry.resource.namespace),
        }
    }
}

impl ChangeLog {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            capacity,
            lost: 0,
        }
    }

    /// Generations come in ascending order.
    pub(super) fn push(&mut self, entry: LogEntry) {
        self.entries.push_back(entry);
        while self.entries.len() > self.capacity {
            let dropped = self.entries.pop_front();
            self.lost = dropped.map_or(self.lost, |entry| entry.generation);
        }
    }

    /// Every change after a generation, newest first; `None` when some of them are no longer known.
    pub(super) fn after(&self, generation: u64) -> Option<impl Iterator<Item = &LogEntry>> {
        let first = self
            .entries
            .partition_point(|entry| entry.generation <= generation);
        (generation >= self.lost).then(|| self.entries.range(first..).rev())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(capacity: usize, generations: &[u64]) -> ChangeLog {
        let mut log = ChangeLog::new(capacity);
        for &generation in generations {
            log.push(LogEntry {
                generation,
                seen_at: SystemTime::UNIX_EPOCH,
                kind: ResourceType::Peer,
                name: "a/b".into(),
                namespace: "a".into(),
            });
        }
        log
    }

    fn after(log: &ChangeLog, generation: u64) -> Option<Vec<u64>> {
        Some(
            log.after(generation)?
                .map(|entry| entry.generation)
                .collect(),
        )
    }

    #[test]
    fn what_came_after_a_generation_is_told_newest_first() {
        let log = log(9, &[1, 2, 2, 3]);
        assert_eq!(after(&log, 0), Some(vec![3, 2, 2, 1]));
        assert_eq!(after(&log, 1), Some(vec![3, 2, 2]));
        assert_eq!(after(&log, 3), Some(vec![]));
    }

    #[test]
    fn half_a_generation_is_not_told_as_a_whole_one() {
        let log = log(2, &[1, 2, 2, 3]);
        assert_eq!(after(&log, 1), None, "one of two changes was dropped");
        assert_eq!(after(&log, 2), Some(vec![3]));
    }
}
