//! What watching costs, and what it fails at.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::index::{Index, ObjectKind};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

/// Counts of watches and passes. Clones count into the same.
#[derive(Debug, Clone)]
pub struct WatchMetrics {
    events: Family<KindLabels, Counter>,
    lists: Family<KindLabels, Counter>,
    errors: Family<KindLabels, Counter>,
    objects: Family<KindLabels, Gauge>,
    queue: Gauge,
    pod_watches: Gauge,
    passes: Histogram,
}

impl Default for WatchMetrics {
    fn default() -> Self {
        Self {
            events: Family::default(),
            lists: Family::default(),
            errors: Family::default(),
            objects: Family::default(),
            queue: Gauge::default(),
            pod_watches: Gauge::default(),
            // 20 microseconds to 10 seconds.
            passes: Histogram::new(exponential_buckets(20e-6, 2.0, 20)),
        }
    }
}

impl WatchMetrics {
    /// Makes them readable.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "sluice_control_watch_events",
            "Changes of single objects, by kind",
            self.events.clone(),
        );
        registry.register(
            "sluice_control_watch_restarts",
            "Lists begun: the first of each watch, and each time that one had to start anew",
            self.lists.clone(),
        );
        registry.register(
            "sluice_control_watch_errors",
            "Failed lists and watches, by kind",
            self.errors.clone(),
        );
        registry.register(
            "sluice_control_objects",
            "Objects of the cluster that are known, by kind",
            self.objects.clone(),
        );
        registry.register(
            "sluice_control_queue_depth",
            "Changes that wait to be taken in",
            self.queue.clone(),
        );
        registry.register(
            "sluice_control_pod_watches",
            "Namespaces whose pods are watched",
            self.pod_watches.clone(),
        );
        registry.register(
            "sluice_control_reconcile_seconds",
            "Time of one pass over what changed",
            self.passes.clone(),
        );
    }

    pub(super) fn event(&self, kind: ObjectKind) {
        self.events.get_or_create(&labels(kind)).inc();
    }

    pub(super) fn listing(&self, kind: ObjectKind) {
        self.lists.get_or_create(&labels(kind)).inc();
    }

    pub(super) fn error(&self, kind: ObjectKind) {
        self.errors.get_or_create(&labels(kind)).inc();
    }

    pub(super) fn queue(&self, depth: usize) {
        self.queue.set(depth as i64);
    }

    pub(super) fn pod_watches(&self, count: usize) {
        self.pod_watches.set(count as i64);
    }

    pub(super) fn pass(&self, time: Duration, index: &Index) {
        self.passes.observe(time.as_secs_f64());
        for kind in ObjectKind::ALL {
            let count = index.len(kind) as i64;
            self.objects.get_or_create(&labels(kind)).set(count);
        }
    }
}

fn labels(kind: ObjectKind) -> KindLabels {
    KindLabels { kind: kind.name() }
}
