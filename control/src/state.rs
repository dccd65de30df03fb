//! What gateways are to serve: every resource in its newest version, and which changed lately.
//!
//! For: the one place between whoever finds out what the cluster holds and the connections that pass it on. Values are
//! shared, never copied for a connection; a connection keeps a generation and asks what changed since.
//! Not for what a resource means, nor for who has acknowledged it (`push::acks`).

mod diff;
mod log;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::SystemTime;

use bytes::Bytes;
use sluice_config::push::{ResourceType, version};
use tokio::sync::watch;

pub use diff::{Ask, Behind, Diff, Interest, Interests, TypeDiff};
use log::{ChangeLog, LogEntry};

/// Types that have resources of their own: all but the end of a batch, which comes last in their order.
pub const TYPES: usize = ResourceType::ALL.len() - 1;

/// Changes that a connection may lie behind before it has to compare everything anew.
pub const LOG_CAPACITY: usize = 65_536;

/// One resource in one version.
#[derive(Clone, PartialEq, Eq)]
pub struct Resource {
    /// What it is; never the end of a batch.
    pub kind: ResourceType,
    /// Its name on the stream, which begins with its namespace and a `/`.
    pub name: Arc<str>,
    /// Decides who may see it.
    pub namespace: Arc<str>,
    /// Hash of its value.
    pub version: Arc<str>,
    /// Its encoded message.
    pub value: Bytes,
}

/// What one look at the cluster changes. Removals come first: a name in both is there afterwards.
#[derive(Debug, Clone)]
pub struct Change {
    /// New resources and new versions.
    pub upserts: Vec<Resource>,
    /// Resources that are gone.
    pub removals: Vec<(ResourceType, Arc<str>)>,
    /// When the cause was seen; lag is measured from here.
    pub seen_at: SystemTime,
}

/// A resource, and since when it is as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The resource.
    pub resource: Resource,
    /// The first generation that holds this version.
    pub generation: u64,
}

/// Everything that gateways are to serve. Shared by reference.
#[derive(Debug)]
pub struct PushState {
    identity: String,
    /// Held for lookups, comparisons and changes of maps: never across an await.
    tables: RwLock<Tables>,
    generation: watch::Sender<u64>,
    synced: AtomicBool,
}

/// What the lock guards.
#[derive(Debug)]
struct Tables {
    generation: u64,
    /// By type, then by name.
    types: [BTreeMap<Arc<str>, Arc<Entry>>; TYPES],
    log: ChangeLog,
}

impl Resource {
    /// With the version that belongs to the value.
    pub fn new(
        kind: ResourceType,
        name: impl Into<Arc<str>>,
        namespace: impl Into<Arc<str>>,
        value: Bytes,
    ) -> Self {
        Self {
            kind,
            name: name.into(),
            namespace: namespace.into(),
            version: version(&value).into(),
            value,
        }
    }
}

impl std::fmt::Debug for Resource {
    /// Without the value, which may be a secret.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Resource")
            .field("kind", &self.kind)
            .field("name", &self.name)
            .field("version", &self.version)
            .field("bytes", &self.value.len())
            .finish()
    }
}

impl PushState {
    /// Nothing yet, and not synced. `identity` names this process to gateways (its pod).
    pub fn new(identity: String) -> Self {
        Self::with_log_capacity(identity, LOG_CAPACITY)
    }

    /// With another number of changes than [`LOG_CAPACITY`].
    pub fn with_log_capacity(identity: String, capacity: usize) -> Self {
        Self {
            identity,
            tables: RwLock::new(Tables {
                generation: 0,
                types: Default::default(),
                log: ChangeLog::new(capacity),
            }),
            generation: watch::Sender::new(0),
            synced: AtomicBool::new(false),
        }
    }

    /// The name of this process.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Puts a change into force and wakes the connections. What is there already in that version, or is gone already, is
    /// left out; a change of which nothing remains makes no generation.
    ///
    /// Returns the generation that holds the change.
    pub fn apply(&self, change: Change) -> u64 {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        let next = tables.generation + 1;
        let mut changed = false;
        for (kind, name) in change.removals {
            changed |= tables.remove(kind, &name, next, change.seen_at);
        }
        for resource in change.upserts {
            changed |= tables.upsert(resource, next, change.seen_at);
        }
        if changed {
            tables.generation = next;
            // Under the lock, so that generations are announced in their order.
            self.generation.send_replace(next);
        }
        tables.generation
    }

    /// The newest generation.
    pub fn generation(&self) -> u64 {
        *self.generation.borrow()
    }

    /// Follows the newest generation.
    pub fn generations(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// From now on this is what the cluster holds, not a part of it: gateways may be served.
    pub fn mark_synced(&self) {
        self.synced.store(true, Ordering::Release);
    }

    /// Has [`mark_synced`](Self::mark_synced) been called?
    pub fn is_synced(&self) -> bool {
        self.synced.load(Ordering::Acquire)
    }

    /// A resource by its name.
    pub fn get(&self, kind: ResourceType, name: &str) -> Option<Arc<Entry>> {
        self.read().types.get(kind as usize)?.get(name).cloned()
    }

    /// All of a type, ordered by name. For debug output; the values are shared.
    pub fn list(&self, kind: ResourceType) -> Vec<Arc<Entry>> {
        let tables = self.read();
        let table = tables.types.get(kind as usize);
        table
            .into_iter()
            .flat_map(|table| table.values().cloned())
            .collect()
    }

    /// How many resources of each type there are.
    pub fn counts(&self) -> [(ResourceType, usize); TYPES] {
        let tables = self.read();
        std::array::from_fn(|index| (ResourceType::ALL[index], tables.types[index].len()))
    }

    /// What a connection has to be told.
    ///
    /// # Errors
    /// When the changes since its generation are no longer known: it has to connect anew, with what it has.
    pub fn diff(&self, ask: &Ask<'_>) -> Result<Diff, Behind> {
        diff::diff(&self.read(), ask)
    }

    fn read(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    fn remove(
        &mut self,
        kind: ResourceType,
        name: &Arc<str>,
        generation: u64,
        seen_at: SystemTime,
    ) -> bool {
        let Some(table) = self.types.get_mut(kind as usize) else {
            return false;
        };
        let Some(entry) = table.remove(name) else {
            return false;
        };
        self.log.push(LogEntry::new(generation, seen_at, &entry));
        true
    }

    fn upsert(&mut self, resource: Resource, generation: u64, seen_at: SystemTime) -> bool {
        let Some(table) = self.types.get_mut(resource.kind as usize) else {
            debug_assert!(false, "the end of a batch is no resource to keep");
            return false;
        };
        let present = table.get(&resource.name);
        if present.is_some_and(|entry| entry.resource.version == resource.version) {
            return false;
        }
        let entry = Arc::new(Entry {
            resource,
            generation,
        });
        self.log.push(LogEntry::new(generation, seen_at, &entry));
        // An old key would keep an allocation alive beside the new one's.
        table.remove(&entry.resource.name);
        table.insert(Arc::clone(&entry.resource.name), entry);
        true
    }
}

#[cfg(test)]
mod tests;
