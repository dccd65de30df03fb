//! Envoy's discovery messages as this server reads and writes them.
//!
//! The messages are those of `envoy.service.discovery.v3`, tag for tag, and tests hold them against envoy-types'. Why not
//! envoy-types itself: a first push holds thousands of resources, and its messages own a copy of every name and value; here a
//! response is written straight from the shared state into the transport's buffer. Fields that we do not use are skipped.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::BufMut;
use envoy_types::pb::google::protobuf::{Struct, value};
use envoy_types::pb::google::rpc;
use prometheus_client::metrics::counter::Counter;
use prost::{Message, encode_length_delimiter, length_delimiter_len};
use sluice_config::push::ResourceType;
use tonic::Status;
use tonic::codec::{EncodeBuf, Encoder};

use crate::state::Entry;

/// `DeltaDiscoveryRequest`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Request {
    #[prost(message, optional, tag = "1")]
    pub(super) node: Option<Node>,
    #[prost(string, tag = "2")]
    pub(super) type_url: String,
    #[prost(string, repeated, tag = "3")]
    pub(super) subscribe: Vec<String>,
    #[prost(string, repeated, tag = "4")]
    pub(super) unsubscribe: Vec<String>,
    #[prost(map = "string, string", tag = "5")]
    pub(super) initial_resource_versions: HashMap<String, String>,
    #[prost(string, tag = "6")]
    pub(super) response_nonce: String,
    #[prost(message, optional, tag = "7")]
    pub(super) error_detail: Option<rpc::Status>,
}

/// `Node`: who asks.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Node {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(message, optional, tag = "3")]
    metadata: Option<Struct>,
}

/// `DeltaDiscoveryResponse`, written from what is shared.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) kind: ResourceType,
    /// Names this response among those of its stream.
    pub(super) nonce: u64,
    /// Ordered by name.
    pub(super) upserts: Vec<Arc<Entry>>,
    pub(super) removals: Vec<Arc<str>>,
}

/// Writes [`Response`]s and counts their bytes.
#[derive(Debug, Clone)]
pub(super) struct PushEncoder {
    pub(super) bytes: Counter,
}

impl Node {
    /// A text in its metadata; empty if there is none.
    pub(super) fn text(&self, key: &str) -> &str {
        match self.kind(key) {
            Some(value::Kind::StringValue(text)) => text,
            _ => "",
        }
    }

    /// The texts of a list in its metadata; none if there is no list.
    pub(super) fn texts(&self, key: &str) -> Vec<String> {
        let Some(value::Kind::ListValue(list)) = self.kind(key) else {
            return Vec::new();
        };
        let text = |value: &envoy_types::pb::google::protobuf::Value| match &value.kind {
            Some(value::Kind::StringValue(text)) => Some(text.clone()),
            _ => None,
        };
        list.values.iter().filter_map(text).collect()
    }

    fn kind(&self, key: &str) -> Option<&value::Kind> {
        self.metadata.as_ref()?.fields.get(key)?.kind.as_ref()
    }
}

/// Keys of the fields, all of them length-delimited.
mod key {
    const fn of(tag: u8) -> u8 {
        tag << 3 | 2
    }

    pub(super) const RESPONSE_RESOURCES: u8 = of(2);
    pub(super) const RESPONSE_TYPE_URL: u8 = of(4);
    pub(super) const RESPONSE_NONCE: u8 = of(5);
    pub(super) const RESPONSE_REMOVED: u8 = of(6);
    pub(super) const RESOURCE_VERSION: u8 = of(1);
    pub(super) const RESOURCE_ANY: u8 = of(2);
    pub(super) const RESOURCE_NAME: u8 = of(3);
    pub(super) const ANY_TYPE_URL: u8 = of(1);
    pub(super) const ANY_VALUE: u8 = of(2);
}

/// Bytes of a field whose content has this length.
fn field_len(content: usize) -> usize {
    1 + length_delimiter_len(content) + content
}

fn put_head(key: u8, content: usize, into: &mut impl BufMut) {
    into.put_u8(key);
    // Only a buffer without room fails, and room was reserved.
    let _ = encode_length_delimiter(content, into);
}

fn put_field(key: u8, content: &[u8], into: &mut impl BufMut) {
    put_head(key, content.len(), into);
    into.put_slice(content);
}

fn any_len(entry: &Entry) -> usize {
    field_len(entry.resource.kind.url().len()) + field_len(entry.resource.value.len())
}

fn resource_len(entry: &Entry) -> usize {
    let resource = &entry.resource;
    field_len(resource.version.len()) + field_len(any_len(entry)) + field_len(resource.name.len())
}

fn put_resource(entry: &Entry, into: &mut impl BufMut) {
    let resource = &entry.resource;
    put_head(key::RESPONSE_RESOURCES, resource_len(entry), into);
    put_field(key::RESOURCE_VERSION, resource.version.as_bytes(), into);
    put_head(key::RESOURCE_ANY, any_len(entry), into);
    put_field(key::ANY_TYPE_URL, resource.kind.url().as_bytes(), into);
    put_field(key::ANY_VALUE, &resource.value, into);
    put_field(key::RESOURCE_NAME, resource.name.as_bytes(), into);
}

impl Response {
    /// Bytes on the wire, for one resource in it.
    fn encoded_len(&self, nonce: &str) -> usize {
        let resources: usize = self
            .upserts
            .iter()
            .map(|entry| field_len(resource_len(entry)))
            .sum();
        let removals: usize = self.removals.iter().map(|name| field_len(name.len())).sum();
        resources + removals + field_len(self.kind.url().len()) + field_len(nonce.len())
    }

    fn put(&self, nonce: &str, into: &mut impl BufMut) {
        for entry in &self.upserts {
            put_resource(entry, into);
        }
        put_field(key::RESPONSE_TYPE_URL, self.kind.url().as_bytes(), into);
        put_field(key::RESPONSE_NONCE, nonce.as_bytes(), into);
        for name in &self.removals {
            put_field(key::RESPONSE_REMOVED, name.as_bytes(), into);
        }
    }
}

impl Encoder for PushEncoder {
    type Item = Arc<Response>;
    type Error = Status;

    fn encode(&mut self, item: Arc<Response>, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let nonce = item.nonce.to_string();
        let length = item.encoded_len(&nonce);
        into.reserve(length);
        item.put(&nonce, into);
        self.bytes.inc_by(length as u64);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::core::v3 as core;
    use envoy_types::pb::envoy::service::discovery::v3 as discovery;
    use envoy_types::pb::google::protobuf::{Any, ListValue, Value};

    use super::*;
    use crate::state::Resource;

    fn text(text: &str) -> Value {
        Value {
            kind: Some(value::Kind::StringValue(text.into())),
        }
    }

    #[test]
    fn requests_are_read_as_envoy_writes_them() {
        let names = ListValue {
            values: vec![text("a"), Value::default(), text("b")],
        };
        let list = Value {
            kind: Some(value::Kind::ListValue(names)),
        };
        let fields = [
            ("version".to_owned(), text("1.2")),
            ("namespaces".to_owned(), list),
        ];
        let error = rpc::Status {
            code: 3,
            message: "no".into(),
            details: vec![],
        };
        let sent = discovery::DeltaDiscoveryRequest {
            node: Some(core::Node {
                id: "pod".into(),
                cluster: "skipped".into(),
                metadata: Some(Struct {
                    fields: fields.into(),
                }),
                user_agent_name: "skipped".into(),
                ..core::Node::default()
            }),
            type_url: "t".into(),
            resource_names_subscribe: vec!["x".into(), "y".into()],
            resource_names_unsubscribe: vec!["z".into()],
            initial_resource_versions: HashMap::from([("x".into(), "1".into())]),
            response_nonce: "7".into(),
            error_detail: Some(error.clone()),
            ..discovery::DeltaDiscoveryRequest::default()
        };
        let read = Request::decode(sent.encode_to_vec().as_slice()).unwrap();
        let node = read.node.unwrap();
        assert_eq!(node.id, "pod");
        assert_eq!(node.text("version"), "1.2");
        assert_eq!(node.texts("namespaces"), ["a", "b"]);
        assert_eq!(node.text("namespaces"), "");
        assert_eq!(read.type_url, "t");
        assert_eq!(read.subscribe, ["x", "y"]);
        assert_eq!(read.unsubscribe, ["z"]);
        assert_eq!(read.initial_resource_versions["x"], "1");
        assert_eq!(read.response_nonce, "7");
        assert_eq!(read.error_detail, Some(error));
    }

    #[test]
    fn responses_are_written_as_envoy_reads_them() {
        let long = vec![7; 300];
        let resources = [("a/1", long.clone()), ("a/2", vec![])];
        let upserts = resources.map(|(name, value)| {
            let resource = Resource::new(ResourceType::ModelRoute, name, "a", value.into());
            Arc::new(Entry {
                resource,
                generation: 1,
            })
        });
        let response = Response {
            kind: ResourceType::ModelRoute,
            nonce: 12,
            upserts: upserts.to_vec(),
            removals: vec!["a/3".into(), "a/4".into()],
        };
        let mut written = Vec::new();
        response.put("12", &mut written);
        assert_eq!(written.len(), response.encoded_len("12"));
        let read = discovery::DeltaDiscoveryResponse::decode(written.as_slice()).unwrap();
        let url = ResourceType::ModelRoute.url();
        let resource = |name: &str, value: Vec<u8>| discovery::Resource {
            name: name.into(),
            version: sluice_config::push::version(&value),
            resource: Some(Any {
                type_url: url.into(),
                value,
            }),
            ..discovery::Resource::default()
        };
        let expected = discovery::DeltaDiscoveryResponse {
            resources: vec![resource("a/1", long), resource("a/2", vec![])],
            type_url: url.into(),
            removed_resources: vec!["a/3".into(), "a/4".into()],
            nonce: "12".into(),
            ..discovery::DeltaDiscoveryResponse::default()
        };
        assert_eq!(read, expected);
    }
}
