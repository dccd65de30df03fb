//! Families about single endpoints, read from their live state when metrics are asked for: nothing is counted twice, and
//! an endpoint that leaves the configuration leaves these with it.
//!
//! Not for what requests count: attempts and latencies have families of their own.

use std::fmt::Error;
use std::sync::{Arc, Weak};
use std::time::Instant;

use arc_swap::ArcSwap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::labels::{EndpointLabels, EndpointQuantileLabels, Name};
use crate::endpoints::Endpoint;
use crate::endpoints::observe::{Quantiles, StatsView};
use crate::schedule::Reported;

/// Most endpoints shown.
const MAX_ENDPOINTS: usize = 4096;

/// The endpoints of the configuration in force. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct EndpointSeries(Arc<ArcSwap<Vec<Row>>>);

/// One endpoint in one pool.
#[derive(Debug)]
struct Row {
    labels: EndpointLabels,
    endpoint: Weak<Endpoint>,
}

/// One endpoint at the moment of asking.
struct Sample {
    labels: EndpointLabels,
    stats: StatsView,
    reported: Reported,
    in_flight: f64,
    pending_tokens: f64,
    context_tokens: f64,
    kv_tokens: f64,
    report_age: Option<f64>,
}

/// A gauge: name, help, and its value if it is known.
type Gauge = (&'static str, &'static str, fn(&Sample) -> Option<f64>);

const GAUGES: [Gauge; 15] = [
    (
        "endpoint_in_flight",
        "Requests of this gateway at the endpoint",
        |sample| Some(sample.in_flight),
    ),
    (
        "endpoint_pending_tokens",
        "Uncached prompt tokens whose first output token has not come",
        |sample| Some(sample.pending_tokens),
    ),
    (
        "endpoint_context_tokens",
        "Context tokens of the requests in flight",
        |sample| Some(sample.context_tokens),
    ),
    (
        "endpoint_step_milliseconds",
        "Learned floor of an engine step (W)",
        |sample| Some(sample.stats.constants.step_ms),
    ),
    (
        "endpoint_token_milliseconds",
        "Learned time for one token of a step (D)",
        |sample| Some(sample.stats.constants.token_ms),
    ),
    (
        "endpoint_context_token_milliseconds",
        "Learned time for one token of context in a decode (Kd)",
        |sample| Some(sample.stats.constants.context_ms),
    ),
    (
        "endpoint_attention_milliseconds",
        "Learned time for one prefill token at one token of context (Kp)",
        |sample| Some(sample.stats.constants.attention_ms),
    ),
    (
        "endpoint_request_milliseconds",
        "Learned time that a request costs once besides its steps",
        |sample| Some(sample.stats.request_ms),
    ),
    (
        "endpoint_observations",
        "Delays that the endpoint's constants were learned from",
        |sample| Some(sample.stats.observations as f64),
    ),
    (
        "endpoint_confidence",
        "How well the endpoint's constants are known, 0 to 1",
        |sample| Some(sample.stats.confidence),
    ),
    (
        "endpoint_kv_tokens",
        "Tokens that the endpoint's KV cache holds: reported, else assumed",
        |sample| Some(sample.kv_tokens),
    ),
    (
        "endpoint_reported_age_seconds",
        "Age of what the engine's own metrics said last",
        |sample| sample.report_age,
    ),
    (
        "endpoint_reported_running",
        "Requests running, as the engine said lately",
        |sample| sample.reported.running,
    ),
    (
        "endpoint_reported_waiting",
        "Requests waiting, as the engine said lately",
        |sample| sample.reported.waiting,
    ),
    (
        "endpoint_reported_kv_usage",
        "Share of the KV cache in use, as the engine said lately",
        |sample| sample.reported.kv_usage,
    ),
];

type Times = (&'static str, &'static str, fn(&StatsView) -> Quantiles);

const TIMES: [Times; 2] = [
    (
        "endpoint_time_to_first_token_milliseconds",
        "Time to first token lately, as measured here",
        |stats| stats.ttft,
    ),
    (
        "endpoint_token_gap_milliseconds",
        "Time between tokens lately, as measured here",
        |stats| stats.token_gap,
    ),
];

impl EndpointSeries {
    /// Shows these from now on: (`namespace/name` of a ModelServer, endpoint).
    pub(super) fn set<'a>(&self, members: impl Iterator<Item = (&'a Arc<str>, &'a Arc<Endpoint>)>) {
        let rows = members.take(MAX_ENDPOINTS).map(|(server, endpoint)| Row {
            labels: EndpointLabels {
                server: Name(Arc::clone(server)),
                endpoint: Name(Arc::clone(&endpoint.address)),
            },
            endpoint: Arc::downgrade(endpoint),
        });
        let mut rows: Vec<Row> = rows.collect();
        // A series may be shown once only.
        rows.sort_by(|one, other| one.labels.cmp(&other.labels));
        rows.dedup_by(|one, other| one.labels == other.labels);
        self.0.store(Arc::new(rows));
    }

    fn samples(&self) -> Vec<Sample> {
        let now = Instant::now();
        let sample = |row: &Row| {
            let endpoint = row.endpoint.upgrade()?;
            let load = endpoint.load.load();
            Some(Sample {
                labels: row.labels.clone(),
                stats: endpoint.stats.view(),
                reported: endpoint.reported.load(now),
                in_flight: f64::from(load.in_flight),
                pending_tokens: load.pending_tokens as f64,
                context_tokens: load.context_tokens as f64,
                kv_tokens: endpoint.constants().kv_tokens,
                report_age: endpoint.reported.age(now).map(|age| age.as_secs_f64()),
            })
        };
        self.0.load().iter().filter_map(sample).collect()
    }
}

impl Collector for EndpointSeries {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let samples = self.samples();
        for (name, help, value) in GAUGES {
            let mut values = samples
                .iter()
                .filter_map(|sample| Some((&sample.labels, value(sample)?)))
                .peekable();
            if values.peek().is_none() {
                continue;
            }
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (labels, value) in values {
                family.encode_family(labels)?.encode_gauge(&value)?;
            }
        }
        for (name, help, quantiles) in TIMES {
            encode_times(&mut encoder, &samples, (name, help, quantiles))?;
        }
        Ok(())
    }
}

fn encode_times(
    encoder: &mut DescriptorEncoder<'_>,
    samples: &[Sample],
    (name, help, quantiles): Times,
) -> Result<(), Error> {
    let mut values = samples
        .iter()
        .flat_map(|sample| {
            let Quantiles { p50, p90, p99 } = quantiles(&sample.stats);
            let told = [("0.5", p50), ("0.9", p90), ("0.99", p99)];
            told.into_iter().filter_map(move |(quantile, value)| {
                let labels = EndpointQuantileLabels {
                    server: sample.labels.server.clone(),
                    endpoint: sample.labels.endpoint.clone(),
                    quantile,
                };
                Some((labels, value?))
            })
        })
        .peekable();
    if values.peek().is_none() {
        return Ok(());
    }
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in values {
        family.encode_family(&labels)?.encode_gauge(&value)?;
    }
    Ok(())
}
