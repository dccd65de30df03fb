//! What happens in the cluster, into the index, and what comes of it, out.
//!
//! One watch for each kind (and namespace, if restricted); pods are watched only where a ModelServer selects some, and
//! by the smallest label selector that covers all who do, so that pods which serve no model cost nothing. One task takes
//! everything in, lets the index work it off in one pass, and hands on what changed; nothing goes out before every first
//! list is in.
//!
//! Lists are consistent reads, in pages: a list from another API server's cache could go back in time, and take
//! endpoints away that are there. (A list by watch as kube-rs has it asks for any version.)
//! Not for what changes mean (`index`), nor for where they go (`push`, `status`).

mod backoff;
mod cover;
mod follow;
mod metrics;
mod plan;
mod progress;
mod source;
mod trouble;

use std::sync::Arc;

pub use self::follow::{Follower, Outlet};
pub use self::metrics::WatchMetrics;
pub use self::progress::Progress;

/// Label that a Secret must have to be looked at.
pub const CREDENTIAL_LABEL: &str =
    "networking.serving.volcano.sh/external-model-provider-credential=true";

/// Labels of gateways' pods.
pub const PROXY_LABELS: &str = "app.kubernetes.io/name=sluice,app.kubernetes.io/component=proxy";

/// What is watched.
#[derive(Debug, Clone, Default)]
pub struct WatchSettings {
    /// Namespaces of documents and pods; empty: all of them.
    pub namespaces: Vec<Arc<str>>,
    /// Where credentials are looked for. Secrets are more than most clusters let a process read.
    pub secrets: SecretReach,
    /// Namespace of this process, where gateways' pods are; `None`: they are not looked for.
    pub own_namespace: Option<Arc<str>>,
}

/// Namespaces of Secrets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SecretReach {
    /// Those of documents.
    #[default]
    AsDocuments,
    /// These, or none.
    Only(Vec<Arc<str>>),
}
