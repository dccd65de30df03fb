//! Which pods have to be watched, as ModelServers come, change and go. Without I/O.
//!
//! One watch for each namespace where a server selects pods. When its selector has to become another one, the new watch
//! is started beside the old one and takes over when it has listed; a server whose new selection the old one does not
//! cover is held back until then, with the version that the index has staying in force, so that no pod is missing in
//! between. A server that is new does not wait: it has no pods to lose. Until its pods are known, its status says so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::cover::{Cover, is_possible};
use super::source::SourceId;
use crate::index::{
    Document, DocumentKey, Input, Labels, Object, ObjectKey, ObjectKind, Selection,
};

/// A watch that brings more than is needed any more is replaced by a narrower one, when that has been so for a while.
const SHRINK_AFTER: Duration = Duration::from_secs(60);

/// What is to be done, in this order.
#[derive(Debug, Clone)]
pub(super) enum Action {
    /// Into the index.
    Pass(Input),
    /// Watch the pods of a namespace.
    Start {
        id: SourceId,
        namespace: Arc<str>,
        selector: Option<String>,
    },
    /// Stop that.
    Stop(SourceId),
}

/// All namespaces.
#[derive(Debug, Default)]
pub(super) struct PodPlan {
    namespaces: BTreeMap<Arc<str>, Pods>,
    /// Namespaces where something may have to be done.
    touched: BTreeSet<Arc<str>>,
}

/// One namespace.
#[derive(Debug, Default)]
struct Pods {
    /// Servers as the index has them.
    known: BTreeMap<Arc<str>, Option<Labels>>,
    /// Newer versions that wait for their pods.
    held: BTreeMap<Arc<str>, (Option<Labels>, Document)>,
    /// Servers whose pods are not known yet, as the index was told.
    awaiting: BTreeMap<Arc<str>, Arc<str>>,
    current: Option<PodWatch>,
    next: Option<PodWatch>,
    /// Since when the current watch has been too wide.
    wide_since: Option<Instant>,
}

#[derive(Debug)]
struct PodWatch {
    id: SourceId,
    cover: Cover,
    /// Why it has not listed yet.
    trouble: Option<Arc<str>>,
}

impl PodPlan {
    /// A server is new, or different.
    pub(super) fn applied(&mut self, document: Document, actions: &mut Vec<Action>) {
        let (namespace, name) = (document.key.namespace.clone(), document.key.name.clone());
        let selection = selection(&document);
        let pods = self.namespaces.entry(namespace.clone()).or_default();
        self.touched.insert(namespace);
        let known = pods.known.get(&name);
        let is_new = known.is_none();
        let same = known.is_some_and(|known| *known == selection);
        if is_new || same || pods.is_covered(&selection) {
            pods.release(name, selection, document, actions);
        } else {
            pods.held.insert(name, (selection, document));
        }
    }

    /// A server is gone.
    pub(super) fn deleted(&mut self, server: &ObjectKey, actions: &mut Vec<Action>) {
        if let Some(pods) = self.namespaces.get_mut(&server.namespace) {
            pods.known.remove(&server.name);
            pods.held.remove(&server.name);
            pods.awaiting.remove(&server.name);
            self.touched.insert(server.namespace.clone());
        }
        let kind = ObjectKind::Document(sluice_config::Kind::ModelServer);
        actions.push(Action::Pass(Input::Deleted(kind, server.clone())));
    }

    /// These are all the servers, of one namespace or of all.
    pub(super) fn listed(
        &mut self,
        namespace: Option<&str>,
        documents: Vec<Document>,
        actions: &mut Vec<Action>,
    ) {
        let there: BTreeSet<DocumentKey> = documents.iter().map(|d| d.key.clone()).collect();
        let inside = |of: &str| namespace.is_none_or(|namespace| namespace == of);
        let mut gone = Vec::new();
        for (of, pods) in self.namespaces.iter().filter(|(of, _)| inside(of)) {
            for name in pods.known.keys().chain(pods.held.keys()) {
                let kind = sluice_config::Kind::ModelServer;
                if !there.contains(&DocumentKey::new(kind, of.clone(), name.clone())) {
                    gone.push(ObjectKey::new(of.clone(), name.clone()));
                }
            }
        }
        gone.iter().for_each(|server| self.deleted(server, actions));
        for document in documents {
            self.applied(document, actions);
        }
    }

    /// Does this source's word count? A watch that has been replaced may still have something in the channel.
    pub(super) fn is_current(&self, namespace: &str, id: SourceId) -> bool {
        let pods = self.namespaces.get(namespace);
        let current = pods.and_then(|pods| pods.current.as_ref());
        current.is_some_and(|watch| watch.id == id)
    }

    /// A watch of pods has listed.
    pub(super) fn pods_listed(
        &mut self,
        namespace: &Arc<str>,
        id: SourceId,
        objects: Vec<Object>,
        actions: &mut Vec<Action>,
    ) {
        let Some(pods) = self.namespaces.get_mut(namespace) else {
            return;
        };
        let takes_over = pods.next.as_ref().is_some_and(|watch| watch.id == id);
        if takes_over && !pods.may_take_over() {
            // A server came meanwhile whose pods only the old one brings.
            pods.stop_next(actions);
            self.touched.insert(namespace.clone());
            return;
        }
        if takes_over {
            let old = std::mem::replace(&mut pods.current, pods.next.take());
            actions.extend(old.map(|watch| Action::Stop(watch.id)));
            pods.wide_since = None;
        }
        let Some(current) = pods.current.as_mut().filter(|watch| watch.id == id) else {
            return;
        };
        current.trouble = None;
        actions.push(Action::Pass(Input::Restarted {
            kind: ObjectKind::Pod,
            namespace: Some(namespace.clone()),
            objects,
        }));
        let held = std::mem::take(&mut pods.held);
        for (name, (selection, document)) in held {
            match pods.is_covered(&selection) {
                true => pods.release(name, selection, document, actions),
                false => _ = pods.held.insert(name, (selection, document)),
            }
        }
        self.touched.insert(namespace.clone());
    }

    /// A watch of pods failed. One that has listed will come back, and what it has brought stays.
    pub(super) fn pods_failed(&mut self, namespace: &Arc<str>, id: SourceId, why: &Arc<str>) {
        let Some(pods) = self.namespaces.get_mut(namespace) else {
            return;
        };
        if let Some(watch) = pods.next.as_mut().filter(|watch| watch.id == id) {
            watch.trouble = Some(why.clone());
            self.touched.insert(namespace.clone());
        }
    }

    /// Starts and stops watches as the servers need them. To be called when a burst has been taken in.
    pub(super) fn settle(
        &mut self,
        now: Instant,
        mut new_id: impl FnMut() -> SourceId,
        actions: &mut Vec<Action>,
    ) {
        for namespace in std::mem::take(&mut self.touched) {
            let Some(pods) = self.namespaces.get_mut(&namespace) else {
                continue;
            };
            pods.settle(&namespace, now, &mut new_id, actions);
            if pods.known.is_empty() && pods.held.is_empty() {
                self.namespaces.remove(&namespace);
            }
        }
    }

    /// When a watch may be narrowed.
    pub(super) fn next_shrink(&self) -> Option<Instant> {
        let since = self.namespaces.values().filter_map(|pods| pods.wide_since);
        since.min().map(|since| since + SHRINK_AFTER)
    }

    /// Looks at those again whose time it is.
    pub(super) fn touch_wide(&mut self, now: Instant) {
        for (namespace, pods) in &self.namespaces {
            if pods
                .wide_since
                .is_some_and(|since| now >= since + SHRINK_AFTER)
            {
                self.touched.insert(namespace.clone());
            }
        }
    }

    /// Namespaces whose pods have not been listed, and what is in the way.
    pub(super) fn awaiting(&self) -> impl Iterator<Item = (&Arc<str>, Option<&Arc<str>>)> {
        let waiting = self
            .namespaces
            .iter()
            .filter(|(_, pods)| !pods.awaiting.is_empty());
        waiting.map(|(namespace, pods)| {
            let next = pods.next.as_ref();
            (namespace, next.and_then(|watch| watch.trouble.as_ref()))
        })
    }
}

impl Pods {
    fn is_covered(&self, selection: &Option<Labels>) -> bool {
        let Some(selection) = selection else {
            return true;
        };
        let current = self.current.as_ref();
        current.is_some_and(|watch| watch.cover.covers(selection))
    }

    fn release(
        &mut self,
        name: Arc<str>,
        selection: Option<Labels>,
        document: Document,
        actions: &mut Vec<Action>,
    ) {
        self.held.remove(&name);
        self.known.insert(name, selection);
        actions.push(Action::Pass(Input::Applied(Object::Document(document))));
    }

    /// Every selection that is in force or waits.
    fn needs(&self) -> Vec<&Labels> {
        let held = self.held.values().map(|(selection, _)| selection);
        self.known.values().chain(held).flatten().collect()
    }

    /// Would the switch take away pods that are known?
    fn may_take_over(&self) -> bool {
        let Some(next) = &self.next else {
            return false;
        };
        let loses = |selection: &&Labels| {
            let current = self.current.as_ref();
            current.is_some_and(|current| current.cover.covers(selection))
                && !next.cover.covers(selection)
        };
        !self
            .known
            .values()
            .flatten()
            .any(|selection| loses(&selection))
    }

    fn settle(
        &mut self,
        namespace: &Arc<str>,
        now: Instant,
        new_id: &mut impl FnMut() -> SourceId,
        actions: &mut Vec<Action>,
    ) {
        let needs = self.needs();
        if needs.is_empty() {
            self.stop_all(namespace, actions);
            return;
        }
        let covers = |watch: &Option<PodWatch>| {
            let covers = |watch: &PodWatch| needs.iter().all(|need| watch.cover.covers(need));
            watch.as_ref().is_some_and(covers)
        };
        let (current_covers, next_covers) = (covers(&self.current), covers(&self.next));
        let cover = Cover::of(needs.iter().copied());
        if current_covers {
            let is_wide = self
                .current
                .as_ref()
                .is_some_and(|watch| watch.cover != cover);
            if !is_wide {
                self.wide_since = None;
                self.stop_next(actions);
            } else if self.next.is_none() {
                let since = *self.wide_since.get_or_insert(now);
                if now >= since + SHRINK_AFTER {
                    self.start(namespace, cover, new_id, actions);
                }
            }
        } else if !next_covers {
            // One that lists is let finish, or servers that come one by one would keep it from ever doing so.
            let stuck = self
                .next
                .as_ref()
                .is_some_and(|watch| watch.trouble.is_some());
            if stuck {
                self.stop_next(actions);
            }
            if self.next.is_none() {
                self.start(namespace, cover, new_id, actions);
            }
        }
        self.tell_awaiting(namespace, actions);
    }

    fn start(
        &mut self,
        namespace: &Arc<str>,
        cover: Cover,
        new_id: &mut impl FnMut() -> SourceId,
        actions: &mut Vec<Action>,
    ) {
        let id = new_id();
        actions.push(Action::Start {
            id,
            namespace: namespace.clone(),
            selector: cover.selector(),
        });
        self.wide_since = None;
        self.next = Some(PodWatch {
            id,
            cover,
            trouble: None,
        });
    }

    fn stop_next(&mut self, actions: &mut Vec<Action>) {
        actions.extend(self.next.take().map(|watch| Action::Stop(watch.id)));
    }

    fn stop_all(&mut self, namespace: &Arc<str>, actions: &mut Vec<Action>) {
        self.stop_next(actions);
        self.wide_since = None;
        if let Some(current) = self.current.take() {
            actions.push(Action::Stop(current.id));
            actions.push(Action::Pass(Input::Restarted {
                kind: ObjectKind::Pod,
                namespace: Some(namespace.clone()),
                objects: Vec::new(),
            }));
        }
        self.tell_awaiting(namespace, actions);
    }

    /// Keeps the index informed of the servers whose pods are not known yet.
    fn tell_awaiting(&mut self, namespace: &Arc<str>, actions: &mut Vec<Action>) {
        let trouble = self.next.as_ref().and_then(|watch| watch.trouble.clone());
        let why = trouble.unwrap_or_else(|| "they are being listed".into());
        let mut awaiting = BTreeMap::new();
        for (name, selection) in &self.known {
            if !self.is_covered(selection) {
                awaiting.insert(name.clone(), why.clone());
            }
        }
        let tell = |name: &Arc<str>, why: Option<Arc<str>>| {
            let server = ObjectKey::new(namespace.clone(), name.clone());
            Action::Pass(Input::Awaiting { server, why })
        };
        for name in self
            .awaiting
            .keys()
            .filter(|name| !awaiting.contains_key(*name))
        {
            actions.push(tell(name, None));
        }
        for (name, why) in &awaiting {
            if self.awaiting.get(name) != Some(why) {
                actions.push(tell(name, Some(why.clone())));
            }
        }
        self.awaiting = awaiting;
    }
}

/// `None` when it selects no pods, or none that there can be.
fn selection(document: &Document) -> Option<Labels> {
    let selection = Selection::of(document.spec())?;
    is_possible(&selection.labels).then_some(selection.labels)
}

#[cfg(test)]
mod tests;
