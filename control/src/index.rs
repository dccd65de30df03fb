//! Objects of the cluster to resources that gateways are pushed, and to what is known of each document.
//!
//! A pure core: no I/O, no time, no randomness. It is told what happened ([`Index::apply`]), notes what that may touch,
//! and works it off in one pass ([`Index::reconcile`]), so that a burst costs one look at each thing it touched. Level
//! triggered: whatever the order of events, what has come out in sum is what the objects amount to, and a test holds it
//! to a computation from nothing.
//!
//! Not for who gets what (`push`), nor for conditions and their words (`status`).

mod credentials;
mod documents;
mod endpoint;
mod facts;
mod labels;
mod meaning;
mod object;
mod output;
mod overlap;
mod peers;
mod routes;
mod selection;
mod workloads;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use sluice_config::Kind;

use self::credentials::Credentials;
use self::documents::{Documents, Entry, Replaced};
use self::labels::Interner;
use self::meaning::Meaning;
use self::output::GivenOut;
use self::peers::Peers;
use self::workloads::Workloads;

pub use self::facts::{
    Conflict, Counts, Credential, Detail, Facts, RouteFacts, ServerFacts, Unresolved,
};
pub use self::labels::{Label, Labels};
pub use self::object::{
    Document, DocumentKey, Input, Namespace, Node, Object, ObjectKey, ObjectKind, Pod, PodObject,
    PodState, Secret, Shown,
};
pub use self::output::Output;
pub use self::routes::MAX_CONFLICTS;
pub use self::selection::{Place, Selection};

/// What is there, and what was last said of it.
#[derive(Debug, Default)]
pub struct Index {
    interner: Interner,
    documents: Documents,
    workloads: Workloads,
    credentials: Credentials,
    peers: Peers,
    nodes: HashMap<Arc<str>, Node>,
    /// Namespaces that are being deleted.
    terminating: HashSet<Arc<str>>,
    namespaces: HashSet<Arc<str>>,
    /// ModelServers whose pods are not known, and why.
    awaiting: HashMap<ObjectKey, Arc<str>>,

    given_out: GivenOut,
    facts: HashMap<DocumentKey, Arc<Facts>>,
    dirty_documents: BTreeSet<DocumentKey>,
    dirty_facts: BTreeSet<DocumentKey>,
}

impl Index {
    /// Takes in what happened. Nothing comes out before [`reconcile`](Self::reconcile).
    pub fn apply(&mut self, input: Input) {
        match input {
            Input::Applied(object) => self.set(object),
            Input::Deleted(kind, key) => self.remove(kind, &key),
            Input::Restarted {
                kind,
                namespace,
                objects,
            } => {
                let listed: HashSet<ObjectKey> = objects.iter().map(Object::key).collect();
                for key in self.keys(kind, namespace.as_deref()) {
                    if !listed.contains(&key) {
                        self.remove(kind, &key);
                    }
                }
                objects.into_iter().for_each(|object| self.set(object));
            }
            Input::Awaiting { server, why } => {
                let was = match why {
                    Some(why) => self.awaiting.insert(server.clone(), why.clone()) == Some(why),
                    None => self.awaiting.remove(&server).is_none(),
                };
                if !was {
                    self.touch(Kind::ModelServer, HashSet::from([server]));
                }
            }
        }
    }

    /// Works off what has been touched since the last time.
    pub fn reconcile(&mut self) -> Output {
        let mut output = Output::default();
        let recounted = self.workloads.reconcile(&self.nodes, &mut output);
        self.touch(Kind::ModelServer, recounted);
        let providers = self.credentials.reconcile(&mut self.given_out, &mut output);
        self.touch(Kind::ExternalModelProvider, providers);
        self.peers
            .reconcile(&self.nodes, &mut self.given_out, &mut output);
        for key in std::mem::take(&mut self.dirty_documents) {
            let resource = self.documents.get(&key).map(|entry| entry.resource.clone());
            let (kind, name) = (key.resource_type(), key.resource_name().into());
            self.given_out.settle(kind, name, resource, &mut output);
        }
        for key in std::mem::take(&mut self.dirty_facts) {
            self.reconcile_facts(key, &mut output);
        }
        output.sort();
        output
    }

    /// How many objects of a kind are known.
    pub fn len(&self, kind: ObjectKind) -> usize {
        match kind {
            ObjectKind::Document(kind) => self.documents.count(kind),
            ObjectKind::Pod => self.workloads.len(),
            ObjectKind::Proxy => self.peers.len(),
            ObjectKind::Secret => self.credentials.len(),
            ObjectKind::Namespace => self.namespaces.len(),
            ObjectKind::Node => self.nodes.len(),
        }
    }

    fn set(&mut self, object: Object) {
        match object {
            Object::Document(mut document) => {
                self.interner.word(&mut document.key.namespace);
                self.replace(&document.key.clone(), Some(document));
            }
            Object::Pod(pod) => {
                let pod = self.shared(pod);
                self.workloads.set_pod(pod);
            }
            Object::Proxy(pod) => {
                let pod = self.shared(pod);
                self.peers.set(pod);
            }
            Object::Secret(secret) => self.credentials.set(secret),
            Object::Namespace(namespace) => self.set_namespace(namespace),
            Object::Node(node) => {
                if self.nodes.get(&node.name) != Some(&node) {
                    self.node_changed(&node.name);
                    self.nodes.insert(node.name.clone(), node);
                }
            }
        }
    }

    fn remove(&mut self, kind: ObjectKind, key: &ObjectKey) {
        match kind {
            ObjectKind::Document(kind) => {
                if kind == Kind::ModelServer {
                    self.awaiting.remove(key);
                }
                let (namespace, name) = (key.namespace.clone(), key.name.clone());
                self.replace(&DocumentKey::new(kind, namespace, name), None);
            }
            ObjectKind::Pod => self.workloads.remove_pod(key),
            ObjectKind::Proxy => self.peers.remove(key),
            ObjectKind::Secret => self.credentials.remove(key),
            ObjectKind::Namespace => {
                self.namespaces.remove(&key.name);
                if self.terminating.remove(&key.name) {
                    self.touch_namespace(&key.name);
                }
            }
            ObjectKind::Node => {
                if self.nodes.remove(&key.name).is_some() {
                    self.node_changed(&key.name);
                }
            }
        }
    }

    fn keys(&self, kind: ObjectKind, namespace: Option<&str>) -> Vec<ObjectKey> {
        let inside = |key: &&ObjectKey| namespace.is_none_or(|n| *key.namespace == *n);
        let unplaced = |name: &Arc<str>| ObjectKey::new("", name.clone());
        match kind {
            ObjectKind::Document(kind) => {
                let keys = self.documents.keys(kind, namespace);
                keys.iter().map(DocumentKey::object).collect()
            }
            ObjectKind::Pod => self.workloads.pods(namespace),
            ObjectKind::Proxy => self.peers.keys().filter(inside).cloned().collect(),
            ObjectKind::Secret => self.credentials.keys().filter(inside).cloned().collect(),
            ObjectKind::Namespace => self.namespaces.iter().map(unplaced).collect(),
            ObjectKind::Node => self.nodes.keys().map(unplaced).collect(),
        }
    }

    /// A document is new, different or gone.
    fn replace(&mut self, key: &DocumentKey, document: Option<Document>) {
        let Replaced { old, new, touched } = self.documents.replace(key, document);
        let object = key.object();
        let selection = |judged: &Option<Arc<_>>| {
            let judged: &Arc<meaning::Judged> = judged.as_ref()?;
            judged.selection().cloned()
        };
        if key.kind == Kind::ModelServer && selection(&old) != selection(&new) {
            let mut selection = selection(&new);
            for labels in selection.iter_mut().flat_map(Selection::label_sets) {
                self.interner.labels(labels);
            }
            self.workloads.select(&object, selection);
        }
        if key.kind == Kind::ExternalModelProvider {
            let (old, new) = (old.as_deref(), new.as_deref());
            self.credentials.refer(
                &object,
                old.and_then(meaning::Judged::credential),
                new.and_then(meaning::Judged::credential),
            );
        }
        self.dirty_documents.insert(key.clone());
        self.dirty_facts.extend(touched);
    }

    fn set_namespace(&mut self, namespace: Namespace) {
        self.namespaces.insert(namespace.name.clone());
        let changed = match namespace.terminating {
            true => self.terminating.insert(namespace.name.clone()),
            false => self.terminating.remove(&namespace.name),
        };
        if changed {
            self.touch_namespace(&namespace.name);
        }
    }

    fn touch_namespace(&mut self, namespace: &str) {
        let keys = self.documents.in_namespace(namespace);
        self.dirty_facts.extend(keys.cloned());
    }

    fn touch(&mut self, kind: Kind, objects: HashSet<ObjectKey>) {
        let key = |object: ObjectKey| DocumentKey::new(kind, object.namespace, object.name);
        self.dirty_facts.extend(objects.into_iter().map(key));
    }

    fn node_changed(&mut self, node: &str) {
        self.workloads.node_changed(node);
        self.peers.node_changed(node);
    }

    /// With the parts that other pods have too.
    fn shared(&mut self, mut pod: Pod) -> Pod {
        self.interner.labels(&mut pod.labels);
        self.interner.word(&mut pod.key.namespace);
        self.interner.word(&mut pod.node);
        pod
    }

    fn reconcile_facts(&mut self, key: DocumentKey, output: &mut Output) {
        let Some(entry) = self.documents.get(&key) else {
            if self.facts.remove(&key).is_some() {
                output.facts.push((key, None));
            }
            return;
        };
        let facts = Facts {
            uid: entry.uid.clone(),
            generation: entry.generation,
            version: entry.resource.version.clone(),
            shown: entry.shown.clone(),
            accepted: entry.judged.accepted,
            problems: entry.judged.problems.clone(),
            terminating: self.terminating.contains(&key.namespace),
            detail: self.detail(&key, entry),
            key: key.clone(),
        };
        if self.facts.get(&key).is_none_or(|known| **known != facts) {
            let facts = Arc::new(facts);
            self.facts.insert(key.clone(), facts.clone());
            output.facts.push((key, Some(facts)));
        }
    }

    fn detail(&self, key: &DocumentKey, entry: &Entry) -> Detail {
        match &entry.judged.meaning {
            Meaning::Route(_) => Detail::Route(self.documents.route_facts(key, entry)),
            Meaning::Server(server) => Detail::Server(ServerFacts {
                selector: server.selection.as_ref().map(|s| s.labels.to_string()),
                has_port: server.selection.as_ref().is_some_and(|s| s.port.is_some()),
                has_roles: server.selection.as_ref().is_some_and(Selection::has_roles),
                written: server.written,
                counts: self.workloads.counts(&key.object()),
                awaiting: self.awaiting.get(&key.object()).cloned(),
            }),
            Meaning::Provider(None) => Detail::Provider(Credential::NotRequired),
            Meaning::Provider(Some(reference)) => {
                Detail::Provider(self.credentials.credential(reference))
            }
        }
    }
}

#[cfg(test)]
mod tests;
