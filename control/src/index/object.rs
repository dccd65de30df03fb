//! Objects of the cluster, trimmed at the door to what the index needs, and what happens to them.
//!
//! Not for where they come from (`watch`), nor for what they amount to (`index`).

mod document;
mod pod;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{self, Namespace as KubeNamespace};
use kube::api::PartialObjectMeta;
use sluice_config::Kind;

pub use self::document::{Document, DocumentKey, Shown};
pub use self::pod::{Pod, PodObject, PodState};
use super::labels::Labels;

/// Kinds of object that the index takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// A ModelRoute, a ModelServer or an ExternalModelProvider.
    Document(Kind),
    /// A pod that may serve a model.
    Pod,
    /// A gateway's pod.
    Proxy,
    /// A labelled Secret.
    Secret,
    /// A namespace.
    Namespace,
    /// A node.
    Node,
}

impl ObjectKind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::Document(Kind::ModelServer),
        Self::Document(Kind::ExternalModelProvider),
        Self::Document(Kind::ModelRoute),
        Self::Pod,
        Self::Proxy,
        Self::Secret,
        Self::Namespace,
        Self::Node,
    ];

    /// The word for it in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Document(kind) => kind.name(),
            Self::Pod => "Pod",
            Self::Proxy => "Proxy",
            Self::Secret => "Secret",
            Self::Namespace => "Namespace",
            Self::Node => "Node",
        }
    }
}

/// Namespace and name; the namespace is empty for what lies in none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl ObjectKey {
    /// From its two parts.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl std::fmt::Display for ObjectKey {
    /// `namespace/name`, or the name alone.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.namespace.is_empty() {
            write!(formatter, "{}/", self.namespace)?;
        }
        formatter.write_str(&self.name)
    }
}

/// One object.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    /// One of ours.
    Document(Document),
    /// A pod that may serve a model.
    Pod(Pod),
    /// A gateway's pod.
    Proxy(Pod),
    /// A labelled Secret.
    Secret(Secret),
    /// A namespace.
    Namespace(Namespace),
    /// A node.
    Node(Node),
}

impl Object {
    /// Namespace and name.
    pub fn key(&self) -> ObjectKey {
        match self {
            Self::Document(document) => document.key.object(),
            Self::Pod(pod) | Self::Proxy(pod) => pod.key.clone(),
            Self::Secret(secret) => secret.key.clone(),
            Self::Namespace(namespace) => ObjectKey::new("", namespace.name.clone()),
            Self::Node(node) => ObjectKey::new("", node.name.clone()),
        }
    }
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Input {
    /// An object is new, or as it is now.
    Applied(Object),
    /// An object is gone.
    Deleted(ObjectKind, ObjectKey),
    /// A list: in this namespace (in all, if `None`) there are these objects of the kind and no others.
    Restarted {
        /// Kind of all of them.
        kind: ObjectKind,
        /// What the list covers.
        namespace: Option<Arc<str>>,
        /// The objects.
        objects: Vec<Object>,
    },
    /// The pods of a ModelServer are not known yet, or (with `None`) they are.
    Awaiting {
        /// The ModelServer.
        server: ObjectKey,
        /// Why not.
        why: Option<Arc<str>>,
    },
}

/// Credentials that somebody labelled for our use.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// Namespace and name.
    pub key: ObjectKey,
    /// Values by key.
    pub data: BTreeMap<String, Vec<u8>>,
}

impl Secret {
    /// From the API's object; `None` without a name.
    pub fn of(secret: v1::Secret) -> Option<Self> {
        let key = key_of(&secret.metadata)?;
        let data = secret.data.unwrap_or_default().into_iter();
        let data = data.map(|(key, value)| (key, value.0)).collect();
        Some(Self { key, data })
    }
}

impl std::fmt::Debug for Secret {
    /// Without the values.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Secret")
            .field("key", &self.key)
            .field("keys", &self.data.keys().collect::<Vec<_>>())
            .finish()
    }
}

/// A namespace, as far as it matters: nothing can be created in one that is going.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// Name.
    pub name: Arc<str>,
    /// Is it being deleted?
    pub terminating: bool,
}

impl Namespace {
    /// From the API's metadata; `None` without a name.
    pub fn of(namespace: &PartialObjectMeta<KubeNamespace>) -> Option<Self> {
        Some(Self {
            name: namespace.metadata.name.as_deref()?.into(),
            terminating: namespace.metadata.deletion_timestamp.is_some(),
        })
    }
}

/// Prefix of the labels that say where a node stands.
const TOPOLOGY: &str = "topology.kubernetes.io/";
const ZONE: &str = "topology.kubernetes.io/zone";
const HOST: &str = "kubernetes.io/hostname";

/// A node, as far as it matters: where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Name.
    pub name: Arc<str>,
    /// Labels of its topology and no others.
    labels: Labels,
}

impl Node {
    /// From the API's metadata; `None` without a name.
    pub fn of(node: &PartialObjectMeta<v1::Node>) -> Option<Self> {
        let labels = node.metadata.labels.iter().flatten();
        Some(Self {
            name: node.metadata.name.as_deref()?.into(),
            labels: labels
                .filter(|(key, _)| key.starts_with(TOPOLOGY) || *key == HOST)
                .map(|(key, value)| (key.as_str(), value.as_str()))
                .collect(),
        })
    }

    /// Its zone; empty if it has none.
    pub fn zone(&self) -> &str {
        self.labels.get(ZONE).unwrap_or_default()
    }

    /// Its other topology labels.
    pub fn topology(&self) -> BTreeMap<String, String> {
        let mut labels = self.labels.to_map();
        labels.remove(ZONE);
        labels
    }
}

/// Namespace and name of an object of the API.
fn key_of(metadata: &kube::core::ObjectMeta) -> Option<ObjectKey> {
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    Some(ObjectKey::new(namespace, metadata.name.as_deref()?))
}
