//! Requests that subscribe: the first ones of a stream, and later ones for Secrets.

use std::collections::{BTreeSet, HashMap};

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{ListValue, Struct, Value};
use sluice_config::push::{ResourceType, WILDCARD};

use super::Known;

/// Who the gateway says that it is.
#[derive(Debug, Clone, Default)]
pub struct NodeParams {
    /// `namespace/name` of its pod, or the host's name.
    pub id: String,
    /// Namespaces to serve; empty: all that it is allowed to.
    pub namespaces: Vec<String>,
}

impl NodeParams {
    fn message(&self) -> Node {
        let text = |text: &str| Value {
            kind: Some(Kind::StringValue(text.to_owned())),
        };
        let version = text(env!("CARGO_PKG_VERSION"));
        let mut fields = HashMap::from([("version".to_owned(), version)]);
        if !self.namespaces.is_empty() {
            let values = self.namespaces.iter().map(|name| text(name)).collect();
            let list = Value {
                kind: Some(Kind::ListValue(ListValue { values })),
            };
            fields.insert("namespaces".to_owned(), list);
        }
        Node {
            id: self.id.clone(),
            metadata: Some(Struct { fields }),
            user_agent_name: "sluice-proxy".to_owned(),
            ..Node::default()
        }
    }
}

/// All types in order, the end of batches last: once it is there, the server knows all that is known here. Secrets only
/// if some are needed, since no name would mean every name.
pub(super) fn first(node: &NodeParams, known: &Known) -> Vec<DeltaDiscoveryRequest> {
    let mut requests = Vec::new();
    for (kind, versions) in ResourceType::ALL.into_iter().zip(&known.versions) {
        let names = match kind {
            ResourceType::Secret => known.wanted_secrets.iter().cloned().collect(),
            _ => vec![WILDCARD.to_owned()],
        };
        if names.is_empty() {
            continue;
        }
        requests.push(DeltaDiscoveryRequest {
            // It must be in the first, and need not be in others.
            node: requests.is_empty().then(|| node.message()),
            type_url: kind.url().to_owned(),
            resource_names_subscribe: names,
            initial_resource_versions: versions.iter().cloned().collect(),
            ..DeltaDiscoveryRequest::default()
        });
    }
    requests
}

/// From the Secrets asked for to those that are needed.
pub(super) fn secrets(
    asked: &BTreeSet<String>,
    wanted: &BTreeSet<String>,
) -> Option<DeltaDiscoveryRequest> {
    (asked != wanted).then(|| DeltaDiscoveryRequest {
        type_url: ResourceType::Secret.url().to_owned(),
        resource_names_subscribe: wanted.difference(asked).cloned().collect(),
        resource_names_unsubscribe: asked.difference(wanted).cloned().collect(),
        ..DeltaDiscoveryRequest::default()
    })
}
