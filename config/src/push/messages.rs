//! Values of the push protocol's resources, as protobuf messages (package `sluice.push.v1`).
//!
//! Written as Rust with prost's derive: the tags below are the contract, and golden tests hold them. A field is added
//! with a new tag; a tag is never used twice.

use std::collections::BTreeMap;

/// A ModelServer, ModelRoute or ExternalModelProvider.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DocumentMessage {
    /// The document as JSON, in Kubernetes form, without `status` and `metadata.managedFields`. It is passed on as
    /// written, right or wrong: the gateway judges it, and keeps its last good version of a wrong one.
    #[prost(string, tag = "1")]
    pub json: String,
}

/// One pod on one port, with every pool that it is in.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct EndpointMessage {
    /// Namespace of the pod, and of its pools.
    #[prost(string, tag = "1")]
    pub namespace: String,
    /// Name of the pod.
    #[prost(string, tag = "2")]
    pub pod: String,
    /// `metadata.uid` of the pod: another one at the same address is another endpoint.
    #[prost(string, tag = "3")]
    pub uid: String,
    /// IP address, IPv6 without brackets.
    #[prost(string, tag = "4")]
    pub host: String,
    /// Port, 1 to 65535.
    #[prost(uint32, tag = "5")]
    pub port: u32,
    /// The pools, ordered by name; never empty.
    #[prost(message, repeated, tag = "6")]
    pub memberships: Vec<MembershipMessage>,
    /// Labels of the pod.
    #[prost(btree_map = "string, string", tag = "7")]
    pub labels: BTreeMap<String, String>,
    /// What it was made from, as its owner says; empty if nobody does.
    #[prost(string, tag = "8")]
    pub revision: String,
    /// Node that it runs on.
    #[prost(string, tag = "9")]
    pub node: String,
    /// Zone of the node; empty if the node has none.
    #[prost(string, tag = "10")]
    pub zone: String,
    /// Gets no new requests; running ones go on.
    #[prost(bool, tag = "11")]
    pub draining: bool,
    /// Further topology labels of the node, by their keys (`topology.kubernetes.io/region` and the like).
    #[prost(btree_map = "string, string", tag = "12")]
    pub topology: BTreeMap<String, String>,
}

/// An endpoint's place in one pool.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct MembershipMessage {
    /// Name of the ModelServer, in the endpoint's namespace.
    #[prost(string, tag = "1")]
    pub server: String,
    /// What it does there.
    #[prost(enumeration = "RoleMessage", tag = "2")]
    pub role: i32,
    /// Value of the pool's `pdGroup.groupKey` label: prefill and decode go together within it. Empty without one.
    #[prost(string, tag = "3")]
    pub pd_group: String,
}

/// What an endpoint does in a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum RoleMessage {
    /// Whole requests.
    Whole = 0,
    /// Prefill.
    Prefill = 1,
    /// Decode.
    Decode = 2,
}

/// Keys of a Kubernetes Secret. Never logged, never written to disk.
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
pub struct SecretMessage {
    /// Namespace.
    #[prost(string, tag = "1")]
    pub namespace: String,
    /// Name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Only the keys that somebody refers to.
    #[prost(btree_map = "string, bytes", tag = "3")]
    pub data: BTreeMap<String, Vec<u8>>,
}

impl std::fmt::Debug for SecretMessage {
    /// Without the values.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("SecretMessage")
            .field("namespace", &self.namespace)
            .field("name", &self.name)
            .field("keys", &self.data.keys().collect::<Vec<_>>())
            .finish()
    }
}

/// Another gateway of the same control loop.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PeerMessage {
    /// Namespace of its pod.
    #[prost(string, tag = "1")]
    pub namespace: String,
    /// Name of its pod.
    #[prost(string, tag = "2")]
    pub pod: String,
    /// IP address.
    #[prost(string, tag = "3")]
    pub host: String,
    /// Zone of its node; empty if it has none.
    #[prost(string, tag = "4")]
    pub zone: String,
    /// Is it ready?
    #[prost(bool, tag = "5")]
    pub ready: bool,
}

/// The end of a batch.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct BatchMessage {
    /// Counts the states of one control process; only grows.
    #[prost(uint64, tag = "1")]
    pub generation: u64,
    /// When the control loop saw the oldest change in this batch, in microseconds of Unix time; 0 in a batch that
    /// answers a connect. Lag is measured from here.
    #[prost(uint64, tag = "2")]
    pub changed_at: u64,
    /// Name of the control process (its pod).
    #[prost(string, tag = "3")]
    pub control: String,
}

/// Why resources of one response were refused.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RejectionsMessage {
    /// One for each finding; several may speak of one resource.
    #[prost(message, repeated, tag = "1")]
    pub rejections: Vec<RejectionMessage>,
}

/// Why one resource was refused.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RejectionMessage {
    /// Name of the resource on the stream.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Field path, such as `spec.rules[0].modelMatch.uri.regex`; empty for the whole.
    #[prost(string, tag = "2")]
    pub path: String,
    /// What is wrong.
    #[prost(string, tag = "3")]
    pub message: String,
    /// What to do.
    #[prost(string, tag = "4")]
    pub remedy: String,
}
