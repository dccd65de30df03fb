//! Documents: each as a resource, judged once for each version, and who points at whom.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use sluice_config::Kind;
use sluice_config::push::DocumentMessage;

use super::facts::{RouteFacts, Unresolved};
use super::meaning::{Judged, RouteMeaning};
use super::object::{Document, DocumentKey, ObjectKey, Shown};
use super::routes::Names;
use crate::state::Resource;

/// A document that is there.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) uid: Arc<str>,
    pub(super) generation: i64,
    pub(super) shown: Arc<Shown>,
    pub(super) resource: Resource,
    pub(super) judged: Arc<Judged>,
    created: i64,
}

/// All documents.
#[derive(Debug, Default)]
pub(super) struct Documents {
    entries: HashMap<DocumentKey, Entry>,
    counts: [usize; Kind::ALL.len()],
    names: Names,
    /// Accepted routes, by each document that they target, whether it is there or not.
    targeted_by: HashMap<DocumentKey, BTreeSet<DocumentKey>>,
}

/// What setting or removing a document changed.
pub(super) struct Replaced {
    pub(super) old: Option<Arc<Judged>>,
    pub(super) new: Option<Arc<Judged>>,
    /// Documents of which something else may be known now.
    pub(super) touched: BTreeSet<DocumentKey>,
}

impl Entry {
    /// A document whose bytes are as before means what it meant: only its status changed.
    fn of(document: Document, old: Option<&Self>) -> Self {
        let json = document.value.to_string();
        let value = Bytes::from(DocumentMessage { json }.encode_to_vec());
        let (namespace, key) = (document.key.namespace.clone(), &document.key);
        let resource = Resource::new(key.resource_type(), key.resource_name(), namespace, value);
        let same = old.filter(|old| old.resource.version == resource.version);
        let judged = match same {
            Some(old) => old.judged.clone(),
            None => Arc::new(Judged::of(&document)),
        };
        Self {
            uid: document.uid,
            generation: document.generation,
            shown: document.shown,
            resource,
            judged,
            created: document.created,
        }
    }
}

impl Documents {
    pub(super) fn get(&self, key: &DocumentKey) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// How many of a kind are known.
    pub(super) fn count(&self, kind: Kind) -> usize {
        self.counts[kind as usize]
    }

    /// Keys of a kind, in one namespace or in all.
    pub(super) fn keys(&self, kind: Kind, namespace: Option<&str>) -> Vec<DocumentKey> {
        let inside = |key: &&DocumentKey| {
            key.kind == kind && namespace.is_none_or(|namespace| *key.namespace == *namespace)
        };
        self.entries.keys().filter(inside).cloned().collect()
    }

    /// Keys of all kinds in one namespace.
    pub(super) fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = &DocumentKey> {
        let inside = move |key: &&DocumentKey| *key.namespace == *namespace;
        self.entries.keys().filter(inside)
    }

    /// Takes a document in, or out.
    pub(super) fn replace(&mut self, key: &DocumentKey, document: Option<Document>) -> Replaced {
        let old = self.entries.remove(key);
        let mut touched = BTreeSet::from([key.clone()]);
        let new = document.map(|document| Entry::of(document, old.as_ref()));
        let (old_judged, new_judged) = (judged(&old), judged(&new));
        let meaning = |judged: &Option<Arc<Judged>>| judged.as_ref().map(|j| j.accepted);
        if meaning(&old_judged) != meaning(&new_judged) {
            touched.extend(self.targeted_by.get(key).into_iter().flatten().cloned());
        }
        let same = |old: &Entry, new: &Entry| {
            Arc::ptr_eq(&old.judged, &new.judged) && old.created == new.created
        };
        let only_status = matches!((&old, &new), (Some(old), Some(new)) if same(old, new));
        if key.kind == Kind::ModelRoute && !only_status {
            self.unlink_route(key, &old, &mut touched);
            self.link_route(key, &new, &mut touched);
        }
        match (&old, &new) {
            (None, Some(_)) => self.counts[key.kind as usize] += 1,
            (Some(_), None) => self.counts[key.kind as usize] -= 1,
            _ => {}
        }
        if let Some(new) = new {
            self.entries.insert(key.clone(), new);
        }
        Replaced {
            old: old_judged,
            new: new_judged,
            touched,
        }
    }

    /// What is known of a route.
    pub(super) fn route_facts(&self, key: &DocumentKey, entry: &Entry) -> RouteFacts {
        let mut facts = RouteFacts::default();
        let Some(meaning) = entry.judged.route() else {
            return facts;
        };
        for target in &meaning.targets {
            let found = self.entries.get(&target.document);
            if found.is_none_or(|found| !found.judged.accepted) {
                facts.unresolved.push(Unresolved {
                    path: target.path.clone(),
                    target: target.document.clone(),
                    refused: found.is_some(),
                });
            }
        }
        let meaning_of = |route: &ObjectKey| {
            let key = route_key(route);
            self.entries
                .get(&key)
                .and_then(|entry| entry.judged.route())
        };
        let names = &self.names;
        names.conflicts(
            &key.object(),
            entry.created,
            meaning,
            meaning_of,
            &mut facts,
        );
        facts
    }

    fn unlink_route(
        &mut self,
        key: &DocumentKey,
        old: &Option<Entry>,
        touched: &mut BTreeSet<DocumentKey>,
    ) {
        let Some((old, meaning)) = route(old) else {
            return;
        };
        touched.extend(self.names.sharing(meaning).iter().map(route_key));
        self.names.remove(&key.object(), old.created, meaning);
        for target in &meaning.targets {
            if let Some(routes) = self.targeted_by.get_mut(&target.document) {
                routes.remove(key);
                if routes.is_empty() {
                    self.targeted_by.remove(&target.document);
                }
            }
        }
    }

    fn link_route(
        &mut self,
        key: &DocumentKey,
        new: &Option<Entry>,
        touched: &mut BTreeSet<DocumentKey>,
    ) {
        let Some((new, meaning)) = route(new) else {
            return;
        };
        self.names.insert(&key.object(), new.created, meaning);
        touched.extend(self.names.sharing(meaning).iter().map(route_key));
        for target in &meaning.targets {
            let routes = self.targeted_by.entry(target.document.clone()).or_default();
            routes.insert(key.clone());
        }
    }
}

fn judged(entry: &Option<Entry>) -> Option<Arc<Judged>> {
    entry.as_ref().map(|entry| entry.judged.clone())
}

fn route(entry: &Option<Entry>) -> Option<(&Entry, &RouteMeaning)> {
    let entry = entry.as_ref()?;
    Some((entry, entry.judged.route()?))
}

fn route_key(route: &ObjectKey) -> DocumentKey {
    DocumentKey::new(
        Kind::ModelRoute,
        route.namespace.clone(),
        route.name.clone(),
    )
}
