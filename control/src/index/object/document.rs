//! A resource document: a value as it was written, not yet judged.

use std::sync::Arc;

use kube::core::DynamicObject;
use serde_json::{Map, Value, json};
use sluice_config::Kind;
use sluice_config::push::ResourceType;
use sluice_crds::networking::{GROUP, ModelServerStatus, VERSION};

use super::ObjectKey;

/// Kind, namespace and name of a document.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocumentKey {
    /// Kind.
    pub kind: Kind,
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl DocumentKey {
    /// From its parts.
    pub fn new(kind: Kind, namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self {
            kind,
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// Without the kind.
    pub fn object(&self) -> ObjectKey {
        ObjectKey::new(self.namespace.clone(), self.name.clone())
    }

    /// Type of its resource on the push stream.
    pub fn resource_type(&self) -> ResourceType {
        match self.kind {
            Kind::ModelRoute => ResourceType::ModelRoute,
            Kind::ModelServer => ResourceType::ModelServer,
            Kind::ExternalModelProvider => ResourceType::ExternalModelProvider,
        }
    }

    /// Name of its resource on the push stream.
    pub fn resource_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

impl std::fmt::Display for DocumentKey {
    /// `Kind namespace/name`.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "{} {}/{}",
            self.kind.name(),
            self.namespace,
            self.name
        )
    }
}

/// A document's status as the cluster shows it. A ModelServer's has the fields of every kind's.
pub type Shown = ModelServerStatus;

/// A document as written.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Which one it is.
    pub key: DocumentKey,
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// `metadata.generation`.
    pub generation: i64,
    /// `metadata.creationTimestamp` in Unix seconds.
    pub created: i64,
    /// The whole without status and without metadata that no gateway needs. Keys are in order, so that every control
    /// process makes the same bytes of it.
    pub value: Value,
    /// Its status.
    pub shown: Arc<Shown>,
}

impl Document {
    /// From the API's object; `None` without a name or namespace, which the API always sends.
    pub fn of(kind: Kind, object: DynamicObject) -> Option<Self> {
        let metadata = object.metadata;
        let (namespace, name) = (metadata.namespace?, metadata.name?);
        let mut rest = match object.data {
            Value::Object(rest) => rest,
            _ => Map::new(),
        };
        let status = rest.remove("status").unwrap_or_default();
        let (uid, generation) = (metadata.uid.unwrap_or_default(), metadata.generation);
        let created = metadata.creation_timestamp;
        let mut about = json!({ "name": name, "namespace": namespace });
        if let Some(generation) = generation {
            about["generation"] = generation.into();
        }
        if let Some(time) = &created {
            about["creationTimestamp"] = json!(time);
        }
        if !uid.is_empty() {
            about["uid"] = uid.as_str().into();
        }
        rest.insert("apiVersion".into(), format!("{GROUP}/{VERSION}").into());
        rest.insert("kind".into(), kind.name().into());
        rest.insert("metadata".into(), about);
        let mut value = Value::Object(rest);
        value.sort_all_objects();
        Some(Self {
            key: DocumentKey::new(kind, namespace, name),
            uid: uid.into(),
            generation: generation.unwrap_or_default(),
            created: created.map_or(0, |time| time.0.as_second()),
            value,
            // What does not fit was not written by us, and will be.
            shown: Arc::new(serde_json::from_value(status).unwrap_or_default()),
        })
    }

    /// `spec`, null if there is none.
    pub fn spec(&self) -> &Value {
        &self.value["spec"]
    }
}
