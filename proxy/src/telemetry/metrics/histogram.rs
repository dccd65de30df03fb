//! A histogram without locks: one relaxed atomic add per bucket and one for the sum.
//!
//! `prometheus-client`'s own histogram takes a write lock per observation, too much for one per streamed chunk.
//! Values are integers (microseconds or tokens); a scrape may see a bucket before its sum, never a torn value.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// Upper bounds of buckets, ascending, and how many of their units make one exposed unit.
#[derive(Debug)]
pub(super) struct Buckets {
    /// Inclusive upper bounds in the stored unit.
    pub(super) bounds: &'static [u64],
    /// Stored units per exposed unit: 1 000 000 for microseconds shown as seconds.
    pub(super) units: f64,
}

/// Cheap to clone; clones share their numbers.
#[derive(Debug, Clone)]
pub(super) struct Histogram {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    buckets: &'static Buckets,
    /// Not cumulative; the last is above every bound.
    counts: Box<[AtomicU64]>,
    /// In microseconds it wraps after 584 942 years of added-up latency.
    sum: AtomicU64,
}

impl Histogram {
    pub(super) fn new(buckets: &'static Buckets) -> Self {
        let counts = (0..=buckets.bounds.len())
            .map(|_| AtomicU64::new(0))
            .collect();
        Self {
            inner: Arc::new(Inner {
                buckets,
                counts,
                sum: AtomicU64::new(0),
            }),
        }
    }

    /// Observes a value in the stored unit.
    pub(super) fn observe(&self, value: u64) {
        let bucket = self
            .inner
            .buckets
            .bounds
            .partition_point(|bound| *bound < value);
        self.inner.counts[bucket].fetch_add(1, Relaxed);
        self.inner.sum.fetch_add(value, Relaxed);
    }

    /// Observes a duration in a histogram of microseconds.
    pub(super) fn observe_duration(&self, duration: Duration) {
        self.observe(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Buckets { bounds, units } = self.inner.buckets;
        // `f64::MAX` is how the encoder is told "+Inf".
        let uppers = bounds
            .iter()
            .map(|bound| *bound as f64 / units)
            .chain([f64::MAX]);
        let buckets: Vec<(f64, u64)> = uppers
            .zip(&self.inner.counts)
            .map(|(upper, count)| (upper, count.load(Relaxed)))
            .collect();
        // From the same reads as the buckets, so that `_count` equals the `+Inf` bucket.
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = self.inner.sum.load(Relaxed) as f64 / units;
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}
