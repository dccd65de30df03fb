//! What a connection has to be told: everything of what it has just subscribed to, and of the rest what changed.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use sluice_config::push::ResourceType;
use thiserror::Error;

use super::log::LogEntry;
use super::{Entry, TYPES, Tables};
use crate::grants::Namespaces;

/// What a connection wants, by the position of each type in [`ResourceType::ALL`].
pub type Interests = [Interest; TYPES];

/// What a connection wants of one type.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interest {
    /// Every resource.
    pub everything: bool,
    /// These, by name.
    pub names: BTreeSet<String>,
    /// `everything` is newer than the generation that the connection has.
    pub fresh_everything: bool,
    /// Those of `names` that are newer.
    pub fresh_names: BTreeSet<String>,
    /// Versions of what the connection has of the fresh ones.
    pub known: HashMap<String, String>,
}

/// A connection's question.
#[derive(Debug)]
pub struct Ask<'a> {
    /// The generation that it has.
    pub since: u64,
    /// What it may see.
    pub namespaces: &'a Namespaces,
    /// What it wants.
    pub interests: &'a Interests,
}

/// The answer: the newest of everything, once.
#[derive(Debug, Default)]
pub struct Diff {
    /// What the connection has after this.
    pub generation: u64,
    /// When the oldest of the changes was seen; none in answer to a subscription.
    pub oldest_change: Option<SystemTime>,
    /// By the position of each type in [`ResourceType::ALL`].
    pub types: [TypeDiff; TYPES],
}

/// The answer for one type, ordered by name.
#[derive(Debug, Default)]
pub struct TypeDiff {
    /// New resources and new versions.
    pub upserts: Vec<Arc<Entry>>,
    /// What is gone, or was asked for and does not exist.
    pub removals: Vec<Arc<str>>,
}

/// More has changed than is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("generation {since} is too far behind {generation}: its changes are no longer known")]
pub struct Behind {
    /// What the connection has.
    pub since: u64,
    /// The newest.
    pub generation: u64,
}

impl Interest {
    /// Wants a resource that is told by changes, since the connection knows how it was before.
    fn follows(&self, name: &str) -> bool {
        if self.fresh_everything || self.fresh_names.contains(name) {
            return false;
        }
        self.everything || self.names.contains(name)
    }

    /// Is there something of which changes are enough?
    fn follows_any(&self) -> bool {
        let everything = self.everything && !self.fresh_everything;
        everything || (!self.fresh_everything && self.names.len() > self.fresh_names.len())
    }

    /// Is there something to be told whole?
    pub fn is_fresh(&self) -> bool {
        self.fresh_everything || !self.fresh_names.is_empty()
    }

    /// What was fresh has been told.
    pub fn told(&mut self) {
        self.fresh_everything = false;
        self.fresh_names = BTreeSet::new();
        self.known = HashMap::new();
    }

    fn knows(&self, entry: &Entry) -> bool {
        let known = self.known.get(&*entry.resource.name);
        known.is_some_and(|version| **version == *entry.resource.version)
    }
}

impl Diff {
    /// Is there nothing to tell?
    pub fn is_empty(&self) -> bool {
        self.types
            .iter()
            .all(|diff| diff.upserts.is_empty() && diff.removals.is_empty())
    }
}

pub(super) fn diff(tables: &Tables, ask: &Ask<'_>) -> Result<Diff, Behind> {
    let mut diff = Diff {
        generation: tables.generation,
        ..Diff::default()
    };
    for ((interest, table), into) in ask.interests.iter().zip(&tables.types).zip(&mut diff.types) {
        if interest.fresh_everything {
            tell_everything(table, interest, ask.namespaces, into);
        } else {
            tell_names(table, interest, ask.namespaces, into);
        }
    }
    if ask.interests.iter().any(Interest::follows_any) {
        let changes = tables.log.after(ask.since).ok_or(Behind {
            since: ask.since,
            generation: tables.generation,
        })?;
        tell_changes(tables, ask, changes, &mut diff);
    }
    for told in &mut diff.types {
        told.upserts.sort_unstable_by(by_name);
        told.removals.sort_unstable();
    }
    Ok(diff)
}

fn by_name(one: &Arc<Entry>, other: &Arc<Entry>) -> Ordering {
    one.resource.name.cmp(&other.resource.name)
}

fn tell_everything(
    table: &BTreeMap<Arc<str>, Arc<Entry>>,
    interest: &Interest,
    namespaces: &Namespaces,
    into: &mut TypeDiff,
) {
    let visible = |entry: &&Arc<Entry>| namespaces.allow(&entry.resource.namespace);
    let unknown = table
        .values()
        .filter(visible)
        .filter(|entry| !interest.knows(entry));
    into.upserts.extend(unknown.cloned());
    let gone = |name: &&String| {
        !table
            .get(name.as_str())
            .is_some_and(|entry| visible(&entry))
    };
    let gone = interest.known.keys().filter(gone);
    into.removals
        .extend(gone.map(|name| Arc::from(name.as_str())));
}

fn tell_names(
    table: &BTreeMap<Arc<str>, Arc<Entry>>,
    interest: &Interest,
    namespaces: &Namespaces,
    into: &mut TypeDiff,
) {
    for name in &interest.fresh_names {
        match table.get(name.as_str()) {
            Some(entry) if namespaces.allow(&entry.resource.namespace) => {
                if !interest.knows(entry) {
                    into.upserts.push(Arc::clone(entry));
                }
            }
            _ => into.removals.push(name.as_str().into()),
        }
    }
}

fn tell_changes<'a>(
    tables: &Tables,
    ask: &Ask<'_>,
    changes: impl Iterator<Item = &'a LogEntry>,
    diff: &mut Diff,
) {
    let mut seen = HashSet::<(ResourceType, &str)>::new();
    for change in changes {
        let at = change.kind as usize;
        if !ask.interests[at].follows(&change.name) || !ask.namespaces.allow(&change.namespace) {
            continue;
        }
        let oldest = diff
            .oldest_change
            .map_or(change.seen_at, |oldest| oldest.min(change.seen_at));
        diff.oldest_change = Some(oldest);
        if !seen.insert((change.kind, &change.name)) {
            continue;
        }
        match tables.types[at].get(&change.name) {
            Some(entry) => diff.types[at].upserts.push(Arc::clone(entry)),
            None => diff.types[at].removals.push(Arc::clone(&change.name)),
        }
    }
}
