//! Resources as a control loop pushes them, made from the text a user would write and the engines of a test.

use std::net::SocketAddr;

use prost::Message;
use serde_json::{Value, json};
use sluice_config::push::{
    DocumentMessage, EndpointMessage, MembershipMessage, ResourceType, RoleMessage, Upsert, version,
};

/// An encoded message under a name.
pub fn resource(kind: ResourceType, name: &str, message: &impl Message) -> Upsert {
    let value = message.encode_to_vec();
    Upsert {
        kind,
        name: name.to_owned(),
        version: version(&value),
        value,
    }
}

/// The documents of a YAML text, in the namespace `default`.
///
/// # Panics
/// When it is no YAML, or of a kind that is not pushed.
pub fn documents(text: &str) -> Vec<Upsert> {
    use serde::Deserialize;
    let documents = serde_yaml::Deserializer::from_str(text);
    let values = documents.map(|one| Value::deserialize(one).expect("the document is YAML"));
    values
        .filter(|value| !value.is_null())
        .map(document)
        .collect()
}

/// One document.
///
/// # Panics
/// When it is of a kind that is not pushed.
pub fn document(mut value: Value) -> Upsert {
    value["metadata"]["namespace"] = json!("default");
    let kind = match value["kind"].as_str() {
        Some("ModelServer") => ResourceType::ModelServer,
        Some("ModelRoute") => ResourceType::ModelRoute,
        Some("ExternalModelProvider") => ResourceType::ExternalModelProvider,
        other => panic!("{other:?} is not pushed"),
    };
    let name = value["metadata"]["name"].as_str().unwrap_or_default();
    let name = format!("default/{name}");
    let json = value.to_string();
    resource(kind, &name, &DocumentMessage { json })
}

/// A ModelServer whose endpoints are pods.
pub fn server(name: &str) -> Upsert {
    document(json!({
        "apiVersion": "networking.serving.volcano.sh/v1alpha1",
        "kind": "ModelServer",
        "metadata": {"name": name},
        "spec": {
            "inferenceEngine": "vLLM",
            "workloadSelector": {"matchLabels": {"app": name}},
            "workloadPort": {"port": 8000},
        },
    }))
}

/// A ModelRoute with one rule: `targets` are pairs of ModelServer and weight.
pub fn route(name: &str, model: &str, targets: &[(&str, u32)]) -> Upsert {
    documents(&super::model_route(name, model, targets)).remove(0)
}

/// A pod that serves at an address, in these pools.
#[derive(Debug, Clone)]
pub struct Pod {
    message: EndpointMessage,
}

impl Pod {
    /// A ready pod.
    pub fn new(name: &str, address: SocketAddr, pools: &[&str]) -> Self {
        let membership = |server: &&str| MembershipMessage {
            server: (*server).to_owned(),
            role: RoleMessage::Whole.into(),
            pd_group: String::new(),
        };
        Self {
            message: EndpointMessage {
                namespace: "default".to_owned(),
                pod: name.to_owned(),
                uid: format!("uid-{name}"),
                host: address.ip().to_string(),
                port: u32::from(address.port()),
                memberships: pools.iter().map(membership).collect(),
                zone: "zone-a".to_owned(),
                ..EndpointMessage::default()
            },
        }
    }

    /// It gets no new requests from now on.
    pub fn draining(mut self) -> Self {
        self.message.draining = true;
        self
    }

    /// Another message under the same name.
    pub fn with(mut self, change: impl FnOnce(&mut EndpointMessage)) -> Self {
        change(&mut self.message);
        self
    }

    /// Its name on the stream.
    pub fn name(&self) -> String {
        let EndpointMessage {
            namespace,
            pod,
            port,
            ..
        } = &self.message;
        format!("{namespace}/{pod}:{port}")
    }

    /// To be pushed.
    pub fn upsert(&self) -> Upsert {
        resource(ResourceType::Endpoint, &self.name(), &self.message)
    }
}
