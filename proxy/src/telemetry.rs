//! What the gateway tells about itself: one access event per request, metrics, and process logs.
//!
//! For: turning a finished [`RequestRecord`] into a log line and into numbers.
//! Not for: deciding anything about a request, the `/metrics` listener, or any Pingora type.
//! Prompts, replies and keys never enter this room.

pub mod access_log;
pub mod logging;
pub mod metrics;
pub mod record;

pub use access_log::AccessLog;
pub use metrics::{
    AttemptReason, BuildInfo, GaugeGuard, Metrics, NameKind, RequestMetrics, ServerMetrics,
};
pub use record::{GapSummary, RecordError, RequestRecord};
