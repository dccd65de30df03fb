//! What the push is seen by: one struct, registered in one place.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use sluice_config::push::ResourceType;

/// Why a stream was not accepted, or ended. A closed set: the labels of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EndReason {
    /// The gateway closed it.
    Closed,
    /// The connection broke, or a message on it made no sense.
    Broken,
    /// No answer in time.
    Silent,
    /// Its changes were no longer known.
    Behind,
    /// It was open long enough to be authenticated anew.
    Aged,
    /// This process is going down.
    Shutdown,
    /// Nobody knows who it is.
    Unauthenticated,
    /// Its identity has no grant.
    Denied,
    /// This process has not read the cluster yet.
    NotSynced,
    /// There are enough connections.
    Full,
    /// It asked for what it must not.
    Invalid,
    /// Whether its token is good could not be found out.
    Unverified,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TypeLabels {
    r#type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

/// Counters and gauges of the push. Clones count together.
#[derive(Debug, Clone)]
pub struct PushMetrics {
    pub(super) connected: Gauge,
    pub(super) bytes: Counter,
    pub(super) batches: Counter,
    pub(super) acks: Counter,
    pub(super) nacks: Counter,
    pub(super) latency: Histogram,
    upserts: Family<TypeLabels, Counter>,
    removals: Family<TypeLabels, Counter>,
    ends: Family<ReasonLabels, Counter>,
}

impl EndReason {
    const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Broken => "broken",
            Self::Silent => "silent",
            Self::Behind => "behind",
            Self::Aged => "aged",
            Self::Shutdown => "shutdown",
            Self::Unauthenticated => "unauthenticated",
            Self::Denied => "denied",
            Self::NotSynced => "not_synced",
            Self::Full => "full",
            Self::Invalid => "invalid",
            Self::Unverified => "unverified",
        }
    }
}

impl PushMetrics {
    pub(super) fn new() -> Self {
        Self {
            connected: Gauge::default(),
            bytes: Counter::default(),
            batches: Counter::default(),
            acks: Counter::default(),
            nacks: Counter::default(),
            // 1 ms to 33 s.
            latency: Histogram::new(exponential_buckets(0.001, 2.0, 16)),
            upserts: Family::default(),
            removals: Family::default(),
            ends: Family::default(),
        }
    }

    /// Names begin with `sluice_control_push_`; the registry must not add a prefix of its own.
    pub fn register(&self, registry: &mut Registry) {
        let push = registry.sub_registry_with_prefix("sluice_control_push");
        push.register(
            "connected_proxies",
            "Gateways whose stream is open",
            self.connected.clone(),
        );
        push.register_with_unit(
            "sent",
            "Size of the responses sent",
            Unit::Bytes,
            self.bytes.clone(),
        );
        push.register("batches", "Batches begun", self.batches.clone());
        push.register("acks", "Responses accepted by gateways", self.acks.clone());
        push.register(
            "nacks",
            "Responses of which a gateway refused something",
            self.nacks.clone(),
        );
        push.register_with_unit(
            "latency",
            "From seeing the oldest change in a batch to its last answer",
            Unit::Seconds,
            self.latency.clone(),
        );
        push.register(
            "resources",
            "New resources and new versions sent",
            self.upserts.clone(),
        );
        push.register("removals", "Removals sent", self.removals.clone());
        push.register(
            "ends",
            "Streams that were not accepted, or have ended",
            self.ends.clone(),
        );
    }

    pub(super) fn sent(&self, kind: ResourceType, upserts: usize, removals: usize) {
        let labels = TypeLabels {
            r#type: kind.name(),
        };
        self.upserts.get_or_create(&labels).inc_by(upserts as u64);
        self.removals.get_or_create(&labels).inc_by(removals as u64);
    }

    pub(super) fn ended(&self, reason: EndReason) {
        let reason = reason.name();
        self.ends.get_or_create(&ReasonLabels { reason }).inc();
    }
}
