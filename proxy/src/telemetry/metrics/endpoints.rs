//! Families about single endpoints, read from their live state when metrics are asked for: nothing is counted twice, and
//! an endpoint that leaves the configuration leaves these with it.
//!
//! Not for what requests count: attempts and latencies have families of their own.

use std::fmt::Error;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use sluice_config::snapshot;

use super::ShownPool;
use super::labels::{EndpointLabels, EndpointPlaceLabels, EndpointQuantileLabels, Name};
use crate::endpoints::Member;
use crate::endpoints::observe::{Quantiles, StatsView};
use crate::schedule::Reported;

/// Most endpoints shown.
const MAX_ENDPOINTS: usize = 4096;

/// The endpoints of the configuration in force. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct EndpointSeries(Arc<ArcSwap<Vec<ShownPool>>>);

/// One endpoint at the moment of asking.
struct Sample {
    labels: EndpointLabels,
    place: EndpointPlaceLabels,
    draining: bool,
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

const GAUGES: [Gauge; 16] = [
    (
        "endpoint_draining",
        "1 where an endpoint gets no new requests while another can take them",
        |sample| Some(f64::from(u8::from(sample.draining))),
    ),
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
    /// Shows those of these pools from now on.
    pub(super) fn set(&self, pools: Arc<Vec<ShownPool>>) {
        self.0.store(pools);
    }

    /// Those that are shown, and how many are not.
    fn samples(&self) -> (Vec<Sample>, usize) {
        let (now, pools) = (Instant::now(), self.0.load());
        let all: usize = pools.iter().map(|pool| pool.members.len()).sum();
        let members = pools.iter().flat_map(|pool| {
            let members = pool.members.iter();
            members.map(|member| (labels(&pool.server, member), member))
        });
        let mut members: Vec<_> = members.take(MAX_ENDPOINTS).collect();
        // A series may be shown once only.
        members.sort_by(|one, other| one.0.cmp(&other.0));
        members.dedup_by(|one, other| one.0 == other.0);
        let samples = members.into_iter();
        let samples = samples.map(|(labels, member)| Sample::of(labels, member, now));
        (samples.collect(), all.saturating_sub(MAX_ENDPOINTS))
    }
}

/// By which one endpoint in one pool is shown.
pub(super) fn labels(server: &Arc<str>, member: &Member) -> EndpointLabels {
    EndpointLabels {
        server: Name(Arc::clone(server)),
        endpoint: Name(Arc::clone(&member.endpoint.address)),
    }
}

impl Sample {
    fn of(labels: EndpointLabels, member: &Member, now: Instant) -> Self {
        let endpoint = &member.endpoint;
        let load = endpoint.load.load();
        Self {
            place: EndpointPlaceLabels::of(&labels, &member.configured),
            draining: member.configured.draining,
            labels,
            stats: endpoint.stats.view(),
            reported: endpoint.reported.load(now),
            in_flight: f64::from(load.in_flight),
            pending_tokens: load.pending_tokens as f64,
            context_tokens: load.context_tokens as f64,
            kv_tokens: endpoint.constants().kv_tokens,
            report_age: endpoint.reported.age(now).map(|age| age.as_secs_f64()),
        }
    }
}

impl EndpointPlaceLabels {
    fn of(labels: &EndpointLabels, configured: &snapshot::Endpoint) -> Self {
        let name = |text: &str| Name(Arc::from(text));
        Self {
            server: labels.server.clone(),
            endpoint: labels.endpoint.clone(),
            pod: name(&configured.pod),
            node: name(&configured.node),
            zone: name(&configured.zone),
            role: configured.role.as_str(),
        }
    }
}

impl Collector for EndpointSeries {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let (samples, not_shown) = self.samples();
        encode_not_shown(&mut encoder, not_shown)?;
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
        encode_places(&mut encoder, &samples)
    }
}

/// Also when it is 0, so that an alert can rest on it.
fn encode_not_shown(encoder: &mut DescriptorEncoder<'_>, not_shown: usize) -> Result<(), Error> {
    let help = format!(
        "Endpoints beyond the first {MAX_ENDPOINTS}, which the families of single endpoints leave out"
    );
    let name = "endpoints_not_shown";
    let mut metric = encoder.encode_descriptor(name, &help, None, MetricType::Gauge)?;
    let not_shown = i64::try_from(not_shown).unwrap_or(i64::MAX);
    metric.encode_gauge(&not_shown)
}

/// A gauge that is always 1, to be joined with the others: which pod an endpoint is, and where it runs.
fn encode_places(encoder: &mut DescriptorEncoder<'_>, samples: &[Sample]) -> Result<(), Error> {
    let mut pods = samples
        .iter()
        .filter(|sample| !sample.place.pod.0.is_empty())
        .peekable();
    if pods.peek().is_none() {
        return Ok(());
    }
    let help = "Pod, node, zone and role of the endpoint";
    let mut family = encoder.encode_descriptor("endpoint_pod", help, None, MetricType::Gauge)?;
    for pod in pods {
        family.encode_family(&pod.place)?.encode_gauge(&1_i64)?;
    }
    Ok(())
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
