//! Statuses of documents: what is known of each, in conditions and words, and who writes them.
//!
//! The words are pure ([`Desired::of`]); the writer is the edge ([`StatusWriter`]). Only the leader writes, and only
//! what differs from what the cluster shows.
//!
//! Conditions of each kind: `Accepted` (do gateways take the document?), `ResolvedRefs` (is there what it points at?),
//! `Programmed` (have gateways acknowledged this version?). A route has `Conflicted` besides: older routes come first,
//! so a younger one may get fewer requests than its rules say, or none. It stays accepted, for that is an order and no
//! mistake. An ExternalModelProvider keeps Kthena's `Ready` and `CredentialsResolved` with Kthena's reasons.

mod board;
mod compare;
mod condition;
mod desired;
mod gate;
mod pace;
mod programmed;
mod provider;
mod queue;
mod route;
mod server;
mod writer;

pub use self::board::Board;
pub use self::compare::{Difference, Urgency};
pub use self::condition::{ConditionType, Reason, Truth, Verdict};
pub use self::desired::Desired;
pub use self::gate::WriteGate;
pub use self::programmed::{Acknowledged, Acknowledgements};
pub(crate) use self::writer::api_resource;
pub use self::writer::{StatusMetrics, StatusWriter};
