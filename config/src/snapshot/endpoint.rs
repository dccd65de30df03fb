//! One endpoint as configured: written in a document, or a pod that was pushed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// One endpoint in one pool. What only pods have is empty for one that a document lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// `host:port`, as written: the endpoint's name in logs and metrics.
    pub address: String,
    /// Host without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Labels.
    pub labels: Arc<BTreeMap<String, String>>,
    /// `namespace/name` of the pod.
    pub pod: String,
    /// `metadata.uid` of the pod: another one at the same address is another endpoint.
    pub uid: String,
    /// Node that it runs on.
    pub node: String,
    /// Zone of the node.
    pub zone: String,
    /// Further topology labels of the node.
    pub topology: Arc<BTreeMap<String, String>>,
    /// What the pod was made from, as its owner says.
    pub revision: String,
    /// What it does in this pool.
    pub role: Role,
    /// Prefill and decode go together within it.
    pub pd_group: String,
    /// Gets no new requests while another endpoint can take them; running ones go on.
    pub draining: bool,
}

impl Endpoint {
    /// What it is, and no other that was or will be at its address: the address, and the pod's uid if it is a pod.
    pub fn instance(&self) -> String {
        match self.uid.as_str() {
            "" => self.address.clone(),
            uid => format!("{} {uid}", self.address),
        }
    }
}

/// `host:port` as in a URL: IPv6 in brackets.
pub fn authority(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// What an endpoint does in a pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Role {
    /// Whole requests.
    #[default]
    Whole,
    /// Prefill.
    Prefill,
    /// Decode.
    Decode,
}

impl Role {
    /// The word for it in debug output and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Prefill => "prefill",
            Self::Decode => "decode",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}
