//! What gateways are to serve: resources of the push protocol in their versions.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use sluice_config::push::{ResourceType, version};

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
