//! One resource document: who it is, what it says, and where it stands.
//!
//! For: one value (of a file or of a push stream) to a typed resource, with all that is wrong with its
//! shape. Not for what its fields mean together (`validate`) or across documents (`catalog`).

mod read;

use std::fmt;
use std::sync::Arc;

use sluice_crds::networking::{ExternalModelProvider, ModelRoute, ModelServer};

pub(crate) use self::read::{Reading, read};
use crate::path::FieldPath;
use crate::problem::{Finding, Problem, Severity};
use crate::yaml::Source;

/// Kinds of document that the gateway reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Which requests go where.
    ModelRoute,
    /// A pool of endpoints.
    ModelServer,
    /// A model served by someone else's API.
    ExternalModelProvider,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 3] = [
        Self::ModelRoute,
        Self::ModelServer,
        Self::ExternalModelProvider,
    ];

    /// As written in `kind:`.
    pub fn name(self) -> &'static str {
        match self {
            Self::ModelRoute => "ModelRoute",
            Self::ModelServer => "ModelServer",
            Self::ExternalModelProvider => "ExternalModelProvider",
        }
    }
}

/// What makes a document that one and no other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// Kind.
    pub kind: Kind,
    /// Namespace; `default` when the document names none.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Identity {
    /// `namespace/name`: its name among those of its kind, on the push stream and in metrics.
    pub fn qualified(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

impl fmt::Display for Identity {
    /// `Kind namespace/name`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind.name(), self.namespace, self.name)
    }
}

/// A document's typed content.
#[derive(Debug, Clone, PartialEq)]
pub enum Resource {
    /// Which requests go where.
    Route(ModelRoute),
    /// A pool of endpoints.
    Server(Box<ModelServer>),
    /// A model served by someone else's API.
    Provider(ExternalModelProvider),
}

impl Resource {
    /// Kind, namespace and name.
    pub fn identity(&self) -> Identity {
        let (kind, metadata) = match self {
            Self::Route(route) => (Kind::ModelRoute, &route.metadata),
            Self::Server(server) => (Kind::ModelServer, &server.metadata),
            Self::Provider(provider) => (Kind::ExternalModelProvider, &provider.metadata),
        };
        Identity {
            kind,
            namespace: metadata
                .namespace
                .clone()
                .unwrap_or_else(|| DEFAULT_NAMESPACE.into()),
            name: metadata.name.clone().unwrap_or_default(),
        }
    }

    /// `metadata.creationTimestamp` in Unix seconds.
    pub(crate) fn created(&self) -> Option<u64> {
        let metadata = match self {
            Self::Route(route) => &route.metadata,
            Self::Server(server) => &server.metadata,
            Self::Provider(provider) => &provider.metadata,
        };
        let seconds = metadata.creation_timestamp.as_ref()?.0.as_second();
        u64::try_from(seconds).ok()
    }
}

/// Namespace of a document that names none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// One document with its place and what is wrong with its shape.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) identity: Identity,
    /// `None`: its shape is so wrong that it has no typed form.
    pub(crate) resource: Option<Arc<Resource>>,
    pub(crate) findings: Vec<Finding>,
    pub(crate) place: DocumentPlace,
}

/// Documents as written, in order of precedence. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Documents(Arc<Vec<(Identity, Arc<Resource>)>>);

impl Documents {
    /// These, or the ones there are if they are the same.
    pub(crate) fn next<'a>(
        &self,
        documents: impl Iterator<Item = (&'a Identity, &'a Arc<Resource>)> + Clone,
    ) -> Self {
        let mut known = self.0.iter();
        let same = |(_, resource): (_, &Arc<Resource>)| {
            (known.next()).is_some_and(|(_, known)| Arc::ptr_eq(known, resource))
        };
        if documents.clone().all(same) && known.next().is_none() {
            return self.clone();
        }
        let owned = documents.map(|(identity, resource)| (identity.clone(), Arc::clone(resource)));
        Self(Arc::new(owned.collect()))
    }

    /// Are these the very same?
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Each with its name.
    pub fn iter(&self) -> impl Iterator<Item = (&Identity, &Resource)> {
        let documents = self.0.iter();
        documents.map(|(identity, resource)| (identity, &**resource))
    }
}

/// Where a document stands.
#[derive(Debug, Clone, Default)]
pub(crate) struct DocumentPlace {
    pub(crate) source: Arc<Source>,
    /// Position in the stream of documents.
    pub(crate) position: usize,
    /// Position in a `List`.
    pub(crate) item: Option<usize>,
}

impl DocumentPlace {
    /// Path of the document inside its YAML document.
    fn prefix(&self) -> FieldPath {
        self.item.map_or_else(FieldPath::default, |item| {
            FieldPath::of("items").index(item)
        })
    }

    pub(crate) fn line(&self, path: &FieldPath) -> usize {
        self.source
            .line(self.position, &self.prefix().join(path), false)
    }

    pub(crate) fn problem(&self, document: Option<String>, finding: &Finding) -> Problem {
        let path = self.prefix().join(&finding.path);
        Problem {
            severity: finding.severity,
            file: self.source.name.clone(),
            line: self.source.line(self.position, &path, finding.duplicate),
            document,
            path: path.to_string(),
            message: finding.message.clone(),
            remedy: finding.remedy.clone(),
            topic: finding.topic,
        }
    }
}

impl Document {
    /// A document that was never text.
    pub(crate) fn typed(source: Arc<Source>, position: usize, resource: Resource) -> Self {
        let identity = resource.identity();
        let place = DocumentPlace {
            source,
            position,
            item: None,
        };
        Self {
            identity,
            resource: Some(Arc::new(resource)),
            findings: Vec::new(),
            place,
        }
    }

    pub(crate) fn problem(&self, finding: &Finding) -> Problem {
        self.place.problem(Some(self.identity.to_string()), finding)
    }

    /// Order among documents without a creation time.
    pub(crate) fn order(&self) -> (&str, usize, Option<usize>) {
        (
            &self.place.source.name,
            self.place.position,
            self.place.item,
        )
    }
}

/// Shape findings go before those about meaning where both speak of one place: a misspelt
/// `endpoint:` must not also be reported as missing endpoints.
pub(crate) fn without_echoes(shape: &[Finding], meaning: Vec<Finding>) -> Vec<Finding> {
    let echo = |finding: &Finding| {
        finding.is_error()
            && shape
                .iter()
                .any(|s| s.severity == Severity::Error && finding.path.contains(&s.path))
    };
    meaning
        .into_iter()
        .filter(|finding| !echo(finding))
        .collect()
}
