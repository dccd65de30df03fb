//! The metrics of the process: one registry, OpenMetrics text.
//!
//! Rooms register their own families ([`Metrics::register`]); what is state rather than a count is read when metrics are
//! asked for ([`Metrics::sample`]), so it cannot go stale. Label values come from closed sets.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

/// `Content-Type` of what [`Metrics::encode`] returns.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    component: &'static str,
    version: &'static str,
}

/// Every family of the process. Filled while the process is put together, then shared in an `Arc`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// What was built, and when the process began.
    pub fn new(started: SystemTime) -> Self {
        let mut registry = Registry::default();
        let build = BuildLabels {
            component: "control",
            version: env!("CARGO_PKG_VERSION"),
        };
        registry.register("sluice_build", "What was built", Info::new(build));
        let since = started.duration_since(SystemTime::UNIX_EPOCH);
        let mut metrics = Self { registry };
        let seconds = since.unwrap_or_default().as_secs_f64();
        let help = "When the process started, since the epoch";
        metrics.sample("process_start_time", help, Some(Unit::Seconds), move || {
            Some(seconds)
        });
        metrics
    }

    /// For families of a room; their names begin with `sluice_control_`.
    pub fn register(&mut self, register: impl FnOnce(&mut Registry)) {
        register(&mut self.registry);
    }

    /// A gauge that is read when metrics are asked for; `None`: it has no value now.
    pub fn sample(
        &mut self,
        name: &'static str,
        help: &'static str,
        unit: Option<Unit>,
        value: impl Fn() -> Option<f64> + Send + Sync + 'static,
    ) {
        let sampled = Sampled {
            name,
            help,
            unit,
            value: Arc::new(value),
        };
        self.registry.register_collector(Box::new(sampled));
    }

    /// Gauges with one label, read when metrics are asked for.
    pub fn sample_by(
        &mut self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        values: impl Fn() -> Vec<(String, f64)> + Send + Sync + 'static,
    ) {
        let sampled = SampledBy {
            name,
            help,
            label,
            values: Arc::new(values),
        };
        self.registry.register_collector(Box::new(sampled));
    }

    /// OpenMetrics text of everything.
    pub fn encode(&self) -> String {
        let mut text = String::with_capacity(16 << 10);
        text::encode(&mut text, &self.registry).expect("writing to a string cannot fail");
        text
    }
}

struct Sampled {
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    value: Arc<dyn Fn() -> Option<f64> + Send + Sync>,
}

impl Collector for Sampled {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(value) = (self.value)() else {
            return Ok(());
        };
        let gauge = encoder.encode_descriptor(
            self.name,
            self.help,
            self.unit.as_ref(),
            MetricType::Gauge,
        )?;
        ConstGauge::new(value).encode(gauge)
    }
}

struct SampledBy {
    name: &'static str,
    help: &'static str,
    label: &'static str,
    values: Arc<dyn Fn() -> Vec<(String, f64)> + Send + Sync>,
}

impl Collector for SampledBy {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut family =
            encoder.encode_descriptor(self.name, self.help, None, MetricType::Gauge)?;
        for (label, value) in (self.values)() {
            let gauge = ConstGauge::new(value);
            gauge.encode(family.encode_family(&[(self.label, label)])?)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Sampled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl fmt::Debug for SampledBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn states_are_read_when_asked_for_and_left_out_when_unknown() {
        let mut metrics = Metrics::new(SystemTime::UNIX_EPOCH + Duration::from_millis(1500));
        let leads = Arc::new(AtomicBool::new(false));
        let state = leads.clone();
        metrics.sample("sluice_control_leader", "Leads", None, move || {
            state.load(Ordering::Relaxed).then_some(1.0)
        });
        metrics.sample_by("sluice_control_things", "Things", "kind", || {
            vec![("a".into(), 2.0)]
        });
        let text = metrics.encode();
        assert!(!text.contains("sluice_control_leader"), "{text}");
        assert!(
            text.contains("sluice_control_things{kind=\"a\"} 2.0"),
            "{text}"
        );
        assert!(text.contains("process_start_time_seconds 1.5"), "{text}");
        assert!(
            text.contains("sluice_build_info{component=\"control\""),
            "{text}"
        );
        leads.store(true, Ordering::Relaxed);
        assert!(metrics.encode().contains("sluice_control_leader 1.0"));
    }
}
