//! A catalog that batches are pushed to, and resources to push.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message;
use serde_json::{Value, json};
use sluice_config::push::{
    Batch, DocumentMessage, EndpointMessage, MembershipMessage, ResourceType, RoleMessage,
    SecretMessage, Upsert, version,
};
use sluice_config::snapshot::Snapshot;
use sluice_config::{Applied, Catalog, FilterSet};

const API_VERSION: &str = "networking.serving.volcano.sh/v1alpha1";

/// See the module.
pub(crate) struct Bed {
    pub(crate) catalog: Catalog,
}

impl Bed {
    pub(crate) fn new() -> Self {
        Self {
            catalog: Catalog::with_push(FilterSet::unknown()),
        }
    }

    pub(crate) fn push(&mut self, batch: &Batch) -> Applied {
        self.catalog.push(batch, 1)
    }

    pub(crate) fn put(&mut self, upserts: &[Upsert]) -> Applied {
        self.push(&Batch {
            upserts: upserts.to_vec(),
            removals: Vec::new(),
        })
    }

    pub(crate) fn remove(&mut self, kind: ResourceType, name: &str) -> Applied {
        self.push(&Batch {
            upserts: Vec::new(),
            removals: vec![(kind, name.to_owned())],
        })
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(self.catalog.snapshot())
    }

    pub(crate) fn routes(&self) -> Vec<String> {
        let snapshot = self.snapshot();
        snapshot
            .routes
            .iter()
            .map(|route| route.name.clone())
            .collect()
    }

    /// Addresses of the endpoints of a pool.
    pub(crate) fn addresses(&self, pool: &str) -> Vec<String> {
        let snapshot = self.snapshot();
        let server = snapshot.servers.iter().find(|server| server.name == pool);
        let endpoints = &server.expect("the pool is there").endpoints;
        endpoints.iter().map(|one| one.address.clone()).collect()
    }
}

pub(crate) fn upsert(kind: ResourceType, name: &str, message: &impl Message) -> Upsert {
    let value = message.encode_to_vec();
    Upsert {
        kind,
        name: name.to_owned(),
        version: version(&value),
        value,
    }
}

pub(crate) fn document(kind: ResourceType, value: &Value) -> Upsert {
    let metadata = &value["metadata"];
    let text = |key: &str| metadata[key].as_str().unwrap_or_default();
    let name = format!("{}/{}", text("namespace"), text("name"));
    let json = value.to_string();
    upsert(kind, &name, &DocumentMessage { json })
}

/// Changes to a document that is about to be pushed.
pub(crate) trait With {
    /// With the field at a dotted path set to this JSON.
    fn with(self, path: &str, json: &str) -> Self;
}

impl With for Upsert {
    fn with(self, path: &str, json: &str) -> Self {
        let message = DocumentMessage::decode(self.value.as_slice()).unwrap();
        let mut value: Value = serde_json::from_str(&message.json).unwrap();
        let mut at = &mut value;
        for key in path.split('.') {
            at = &mut at[key];
        }
        *at = serde_json::from_str(json).unwrap();
        let json = value.to_string();
        upsert(self.kind, &self.name, &DocumentMessage { json })
    }
}

pub(crate) fn server(name: &str) -> Upsert {
    let value = json!({
        "apiVersion": API_VERSION,
        "kind": "ModelServer",
        "metadata": {"namespace": "default", "name": name, "uid": "x", "generation": 1},
        "spec": {
            "inferenceEngine": "vLLM",
            "workloadSelector": {"matchLabels": {"app": name}},
            "workloadPort": {"port": 8000},
        },
    });
    document(ResourceType::ModelServer, &value)
}

/// Serves the model `chat`; targets with their weights.
pub(crate) fn route(name: &str, created: &str, targets: &[(&str, u32)]) -> Upsert {
    let targets: Vec<Value> = targets
        .iter()
        .map(|(server, weight)| json!({"modelServerName": server, "weight": weight}))
        .collect();
    let value = json!({
        "apiVersion": API_VERSION,
        "kind": "ModelRoute",
        "metadata": {"namespace": "default", "name": name, "creationTimestamp": created},
        "spec": {"modelName": "chat", "rules": [{"targetModels": targets}]},
    });
    document(ResourceType::ModelRoute, &value)
}

pub(crate) fn provider(name: &str, secret: &str) -> Upsert {
    let value = json!({
        "apiVersion": API_VERSION,
        "kind": "ExternalModelProvider",
        "metadata": {"namespace": "default", "name": name},
        "spec": {
            "baseURL": "https://api.example.com/v1",
            "auth": {"secretRef": {"name": secret, "key": "token"}},
        },
    });
    document(ResourceType::ExternalModelProvider, &value)
}

pub(crate) fn secret(name: &str, token: &str) -> Upsert {
    let message = SecretMessage {
        namespace: "default".into(),
        name: name.into(),
        data: BTreeMap::from([("token".to_owned(), token.as_bytes().to_vec())]),
    };
    upsert(ResourceType::Secret, &format!("default/{name}"), &message)
}

pub(crate) fn endpoint_message(pod: &str, host: &str, pools: &[&str]) -> EndpointMessage {
    EndpointMessage {
        namespace: "default".into(),
        pod: pod.into(),
        uid: format!("uid-{pod}"),
        host: host.into(),
        port: 8000,
        memberships: pools
            .iter()
            .map(|pool| MembershipMessage {
                server: (*pool).to_owned(),
                role: RoleMessage::Whole.into(),
                pd_group: String::new(),
            })
            .collect(),
        ..EndpointMessage::default()
    }
}

pub(crate) fn endpoint(pod: &str, host: &str, pools: &[&str]) -> Upsert {
    let message = endpoint_message(pod, host, pools);
    upsert(
        ResourceType::Endpoint,
        &format!("default/{pod}:8000"),
        &message,
    )
}
