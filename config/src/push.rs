//! The push protocol: how `sluice-control` tells gateways what to serve.
//!
//! Delta xDS as Envoy defines it (`envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources`),
//! with resource types of our own. One stream a gateway; on it, each type is subscribed to by itself:
//!
//! - **Opening.** The first request names the gateway: `node.id` (its pod), in `node.metadata` the `version` of its program
//!   and, if it wants less than it is allowed, a list `namespaces`. The gateway subscribes to all that it wants, and last to
//!   [`ResourceType::Batch`]: nothing is sent before that, so that the first batch is whole.
//! - **Versions** are hashes of what a resource holds ([`version`]), so that every control loop that sees the same
//!   cluster gives the same ones, and a gateway that reconnects to another is sent the difference only.
//! - **Batches.** One change of the cluster may touch several types. The server sends the types in the order of
//!   [`ResourceType::ALL`], a large one in several responses, and last a response of type [`ResourceType::Batch`] with one
//!   resource, a [`BatchMessage`]. A gateway collects until then, puts the whole into force at once, and only then answers
//!   every response: a ModelServer never without its endpoints. No further batch is sent before that answer, so a slow
//!   gateway skips what lay between instead of having it queued.
//! - **NACK.** What does not compile is refused by name: `error_detail.details` of the answer to that type's response holds
//!   [`RejectionsMessage`]. The rest of the batch is in force, and of a refused resource its last good version. Without
//!   details, all that the response held is refused; for the response of type [`ResourceType::Batch`], the whole batch.
//! - **Reconnect.** `initial_resource_versions` of the first request of each type name what the gateway serves; a
//!   resource whose newest version it refused is named with the version in force, or not at all, so that it is sent, and
//!   refused, anew: a control loop that has just started learns what is wrong.
//! - **Secrets** are subscribed to by name, by those who use them. All other types by wildcard. A name that does not exist,
//!   or that this gateway may not see, is answered as removed.
//! - **End.** The server ends a stream with words in its status, and a gateway connects again whatever they are: at once
//!   after `UNAVAILABLE` (going down, not synced yet) to another address, and with its versions after `ABORTED` (fell behind).
//!
//! Here: names and messages, which both sides share. Not for the stream itself: `sluice-control` serves it,
//! `sluice-proxy` follows it.

mod batch;
mod messages;

pub use batch::{Batch, Refusal, Upsert};
pub use messages::*;

/// What a resource on the stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceType {
    /// A pool, named `namespace/name`; the value is a [`DocumentMessage`].
    ModelServer,
    /// An API of someone else, named `namespace/name`; the value is a [`DocumentMessage`].
    ExternalModelProvider,
    /// Credentials, named `namespace/name`; the value is a [`SecretMessage`].
    Secret,
    /// A pod that serves, named `namespace/pod:port`; the value is an [`EndpointMessage`].
    Endpoint,
    /// Which requests go where, named `namespace/name`; the value is a [`DocumentMessage`].
    ModelRoute,
    /// Another gateway, named `namespace/pod`; the value is a [`PeerMessage`].
    Peer,
    /// The end of a batch, always named `batch`; the value is a [`BatchMessage`].
    Batch,
}

impl ResourceType {
    /// Every type, in the order in which a batch brings them: what is pointed at before what points.
    pub const ALL: [Self; 7] = [
        Self::ModelServer,
        Self::ExternalModelProvider,
        Self::Secret,
        Self::Endpoint,
        Self::ModelRoute,
        Self::Peer,
        Self::Batch,
    ];

    /// Its type URL.
    pub const fn url(self) -> &'static str {
        match self {
            Self::ModelServer => "type.googleapis.com/sluice.push.v1.ModelServer",
            Self::ExternalModelProvider => {
                "type.googleapis.com/sluice.push.v1.ExternalModelProvider"
            }
            Self::Secret => "type.googleapis.com/sluice.push.v1.Secret",
            Self::Endpoint => "type.googleapis.com/sluice.push.v1.Endpoint",
            Self::ModelRoute => "type.googleapis.com/sluice.push.v1.ModelRoute",
            Self::Peer => "type.googleapis.com/sluice.push.v1.Peer",
            Self::Batch => "type.googleapis.com/sluice.push.v1.Batch",
        }
    }

    /// The type of a URL.
    pub fn from_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.url() == url)
    }

    /// The word for it in logs, metrics and debug output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ModelServer => "ModelServer",
            Self::ExternalModelProvider => "ExternalModelProvider",
            Self::Secret => "Secret",
            Self::Endpoint => "Endpoint",
            Self::ModelRoute => "ModelRoute",
            Self::Peer => "Peer",
            Self::Batch => "Batch",
        }
    }
}

/// Name of the one resource of type [`ResourceType::Batch`].
pub const BATCH: &str = "batch";

/// Subscribes to every resource of a type.
pub const WILDCARD: &str = "*";

/// Type URL of a [`RejectionsMessage`] in a NACK's details.
pub const REJECTIONS_URL: &str = "type.googleapis.com/sluice.push.v1.Rejections";

/// The version of a resource with this encoded value: 16 hexadecimal digits of xxh3.
pub fn version(value: &[u8]) -> String {
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(value))
}

#[cfg(test)]
mod tests;
