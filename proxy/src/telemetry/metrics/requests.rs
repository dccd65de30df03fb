//! Per-request families and the handles resolved from them.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::{Registry, Unit};

use super::buckets;
use super::cache::HandleCache;
use super::family::Family;
use super::gen_ai::{GenAiFamilies, GenAiMetrics, Operation};
use super::histogram::Histogram;
use super::labels::{NONE, Name, OutcomeLabels, RequestLabels, TokenLabels, UNKNOWN};
use crate::telemetry::record::RequestRecord;

/// Families labelled by model, route and server.
#[derive(Debug, Clone)]
struct Families {
    requests: Family<OutcomeLabels, Counter>,
    duration: Family<RequestLabels, Histogram>,
    first_token: Family<RequestLabels, Histogram>,
    inter_token: Family<RequestLabels, Histogram>,
    tokens: Family<TokenLabels, Counter>,
    gen_ai: GenAiFamilies,
}

/// The families with their resolved handles.
#[derive(Debug)]
pub(super) struct RequestSeries {
    families: Families,
    handles: HandleCache<RequestMetrics>,
    /// Where everything goes that found the cache full.
    overflow: Arc<RequestMetrics>,
}

/// Resolved metrics of one (route, server, model): updating them allocates nothing and takes no lock.
#[derive(Debug)]
pub struct RequestMetrics {
    labels: RequestLabels,
    families: Families,
    /// The common outcome, resolved: status 200, reason `ok`.
    succeeded: Counter,
    duration: Histogram,
    first_token: Histogram,
    inter_token: Histogram,
    input_tokens: Counter,
    output_tokens: Counter,
    cached_tokens: Counter,
    /// By [`Operation`], resolved when a model is first used that way.
    gen_ai: [OnceLock<GenAiMetrics>; Operation::COUNT],
}

impl RequestSeries {
    pub(super) fn register(registry: &mut Registry, max_handles: usize) -> Self {
        let families = Families {
            requests: Family::default(),
            duration: Family::new(|| Histogram::new(&buckets::LATENCY)),
            first_token: Family::new(|| Histogram::new(&buckets::LATENCY)),
            inter_token: Family::new(|| Histogram::new(&buckets::INTER_TOKEN)),
            tokens: Family::default(),
            gen_ai: GenAiFamilies::register(registry),
        };
        let sluice = registry.sub_registry_with_prefix("sluice");
        sluice.register("requests", "Finished requests", families.requests.clone());
        sluice.register_with_unit(
            "request_duration",
            "From the request head to the end of the answer",
            Unit::Seconds,
            families.duration.clone(),
        );
        sluice.register_with_unit(
            "time_to_first_token",
            "From the request head to the first body byte of a streamed answer",
            Unit::Seconds,
            families.first_token.clone(),
        );
        sluice.register_with_unit(
            "inter_token",
            "Pauses between the chunks of streamed answers",
            Unit::Seconds,
            families.inter_token.clone(),
        );
        sluice.register(
            "tokens",
            "Tokens; cached ones are counted among the input too",
            families.tokens.clone(),
        );
        let overflow = Arc::new(RequestMetrics::resolve(&families, NONE, NONE, UNKNOWN));
        Self {
            families,
            handles: HandleCache::new(max_handles),
            overflow,
        }
    }

    pub(super) fn handles(&self, route: &str, server: &str, model: &str) -> Arc<RequestMetrics> {
        let is = |metrics: &RequestMetrics| {
            *metrics.labels.route.0 == *route && *metrics.labels.server.0 == *server
        };
        let make = || RequestMetrics::resolve(&self.families, route, server, model);
        self.handles
            .find(model, is)
            .or_else(|| self.handles.add(model, is, make))
            .unwrap_or_else(|| Arc::clone(&self.overflow))
    }

    /// Drops series and handles of names that are gone.
    pub(super) fn retain(
        &self,
        model: impl Fn(&str) -> bool,
        route: impl Fn(&str) -> bool,
        server: impl Fn(&str) -> bool,
    ) {
        let keep = |m: &Name, r: &Name, s: &Name| model(&m.0) && route(&r.0) && server(&s.0);
        let keep_request = |l: &RequestLabels| keep(&l.model, &l.route, &l.server);
        self.handles.retain(|metrics| keep_request(&metrics.labels));
        self.families
            .requests
            .retain(|l| keep(&l.model, &l.route, &l.server));
        self.families.duration.retain(keep_request);
        self.families.first_token.retain(keep_request);
        self.families.inter_token.retain(keep_request);
        self.families.tokens.retain(|l| model(&l.model.0));
        self.families.gen_ai.retain(&model);
    }
}

impl RequestMetrics {
    fn resolve(families: &Families, route: &str, server: &str, model: &str) -> Self {
        let name = |text: &str| Name(Arc::from(text));
        let labels = RequestLabels {
            model: name(model),
            route: name(route),
            server: name(server),
        };
        let tokens = |r#type| {
            families.tokens.child(&TokenLabels {
                model: labels.model.clone(),
                r#type,
            })
        };
        Self {
            succeeded: families.requests.child(&outcome(&labels, 200, "ok")),
            duration: families.duration.child(&labels),
            first_token: families.first_token.child(&labels),
            inter_token: families.inter_token.child(&labels),
            input_tokens: tokens("input"),
            output_tokens: tokens("output"),
            cached_tokens: tokens("cached"),
            gen_ai: Default::default(),
            families: families.clone(),
            labels,
        }
    }

    /// Counts one pause between two chunks. For the streaming hot path: two relaxed atomic adds.
    pub fn observe_gap(&self, gap: Duration) {
        self.inter_token.observe_duration(gap);
    }

    /// Everything a finished request adds, except gaps: [`Self::observe_gap`] has counted those as they happened.
    pub(super) fn record(&self, record: &RequestRecord) {
        let reason = record.reason();
        if record.status == 200 && reason == "ok" {
            self.succeeded.inc();
        } else {
            self.families
                .requests
                .child(&outcome(&self.labels, record.status, reason))
                .inc();
        }
        self.duration.observe_duration(record.total);
        if let Some(ttft) = record.ttft {
            self.first_token.observe_duration(ttft);
        }
        self.input_tokens.inc_by(record.input_tokens.unwrap_or(0));
        self.output_tokens.inc_by(record.output_tokens.unwrap_or(0));
        self.cached_tokens.inc_by(record.cached_tokens.unwrap_or(0));
        // The conventions speak of the model server: a request that no endpoint saw is not its.
        if let (Some(operation), Some(_)) = (Operation::of_path(&record.path), &record.endpoint) {
            self.gen_ai[operation as usize]
                .get_or_init(|| {
                    self.families
                        .gen_ai
                        .resolve(operation, self.labels.model.clone())
                })
                .record(record);
        }
    }
}

fn outcome(labels: &RequestLabels, status_code: u16, reason: &'static str) -> OutcomeLabels {
    let RequestLabels {
        model,
        route,
        server,
    } = labels.clone();
    OutcomeLabels {
        model,
        route,
        server,
        status_code,
        reason,
    }
}
