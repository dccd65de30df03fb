//! Resolved handles by name: read without a lock, written only when a configured name is seen first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

type Entries<V> = HashMap<Arc<str>, Vec<Arc<V>>>;

/// Handles grouped by their first name: few share one, so the rest is compared in a row.
#[derive(Debug)]
pub(super) struct HandleCache<V> {
    entries: ArcSwap<Entries<V>>,
    /// Held while a changed copy is made, so that two writers cannot lose each other's handle.
    writer: Mutex<()>,
    /// Most handles. The configuration bounds the names; this bounds a configuration gone wild.
    capacity: usize,
}

impl<V> HandleCache<V> {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            entries: ArcSwap::default(),
            writer: Mutex::default(),
            capacity,
        }
    }

    pub(super) fn find(&self, first: &str, is: impl Fn(&V) -> bool) -> Option<Arc<V>> {
        self.entries
            .load()
            .get(first)?
            .iter()
            .find(|value| is(value))
            .cloned()
    }

    /// Adds what `make` returns unless it is there by now; `None` when the cache is full.
    pub(super) fn add(
        &self,
        first: &str,
        is: impl Fn(&V) -> bool,
        make: impl FnOnce() -> V,
    ) -> Option<Arc<V>> {
        let _writing = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = self.find(first, is) {
            return Some(found);
        }
        let mut entries = Entries::clone(&self.entries.load());
        if entries.values().map(Vec::len).sum::<usize>() >= self.capacity {
            return None;
        }
        let value = Arc::new(make());
        entries
            .entry(Arc::from(first))
            .or_default()
            .push(Arc::clone(&value));
        self.entries.store(Arc::new(entries));
        Some(value)
    }

    pub(super) fn retain(&self, keep: impl Fn(&V) -> bool) {
        let _writing = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut entries = Entries::clone(&self.entries.load());
        entries.retain(|_, values| {
            values.retain(|value| keep(value));
            !values.is_empty()
        });
        self.entries.store(Arc::new(entries));
    }
}
