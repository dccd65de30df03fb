//! Families about the push stream, shown only where one is followed.

use std::fmt::Error;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Unit;
use sluice_config::push::ResourceType;

use super::buckets;
use super::family::Family;
use super::histogram::Histogram;
use super::labels::ResourceLabels;

/// What is counted of the push stream.
#[derive(Debug)]
pub struct PushMetrics {
    /// 1 while a stream is followed.
    pub connected: Gauge,
    /// The control loop's number of the state in force.
    pub generation: Gauge,
    /// Resources whose newest version is refused.
    pub rejected: Gauge,
    /// Attempts to connect after the first.
    pub reconnects: Counter,
    /// Batches put into force.
    pub batches: Counter,
    lag: Histogram,
    resources: Family<ResourceLabels, Gauge>,
}

impl Default for PushMetrics {
    fn default() -> Self {
        Self {
            connected: Gauge::default(),
            generation: Gauge::default(),
            rejected: Gauge::default(),
            reconnects: Counter::default(),
            batches: Counter::default(),
            lag: Histogram::new(&buckets::PUSH_LAG),
            resources: Family::default(),
        }
    }
}

impl PushMetrics {
    /// From a change that the control loop saw to its being in force here.
    pub fn observe_lag(&self, lag: Duration) {
        self.lag.observe_duration(lag);
    }

    /// Resources in force, by type.
    pub fn set_resources(&self, counts: &[(ResourceType, usize)]) {
        for (kind, count) in counts {
            let gauge = self.resources.child(&ResourceLabels {
                r#type: kind.name(),
            });
            gauge.set(i64::try_from(*count).unwrap_or(i64::MAX));
        }
    }
}

/// Shows them once there are any. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct PushSeries(Arc<OnceLock<Arc<PushMetrics>>>);

impl PushSeries {
    pub(super) fn metrics(&self) -> Arc<PushMetrics> {
        Arc::clone(self.0.get_or_init(Arc::default))
    }
}

impl Collector for PushSeries {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let Some(metrics) = self.0.get() else {
            return Ok(());
        };
        let mut show = |name, help, unit: Option<&Unit>, metric: &dyn Shown| {
            let family = encoder.encode_descriptor(name, help, unit, metric.kind())?;
            metric.show(family)
        };
        show(
            "push_connected",
            "1 while a control loop is followed",
            None,
            &metrics.connected,
        )?;
        show(
            "push_generation",
            "The control loop's number of the state in force",
            None,
            &metrics.generation,
        )?;
        show(
            "push_rejected",
            "Pushed resources whose newest version is refused",
            None,
            &metrics.rejected,
        )?;
        show(
            "push_reconnects",
            "Attempts to connect to a control loop after the first",
            None,
            &metrics.reconnects,
        )?;
        show(
            "push_batches",
            "Batches put into force",
            None,
            &metrics.batches,
        )?;
        show(
            "push_lag",
            "From the control loop's seeing a change to its being in force here",
            Some(&Unit::Seconds),
            &metrics.lag,
        )?;
        show(
            "push_resources",
            "Pushed resources in force",
            None,
            &metrics.resources,
        )
    }
}

/// A metric of whatever kind.
trait Shown {
    fn kind(&self) -> MetricType;
    fn show(&self, encoder: prometheus_client::encoding::MetricEncoder<'_>) -> Result<(), Error>;
}

impl<M: EncodeMetric> Shown for M {
    fn kind(&self) -> MetricType {
        self.metric_type()
    }

    fn show(&self, encoder: prometheus_client::encoding::MetricEncoder<'_>) -> Result<(), Error> {
        self.encode(encoder)
    }
}
