//! Kthena's metric families under Kthena's names, labels, label values and buckets, beside ours: dashboards and alerts
//! of those who come from there go on. Only with `metrics.kthena`; without it nothing here exists.
//!
//! What is there, each `kthena_router_...`: `requests_total`, `request_duration_seconds`, `tokens_total`,
//! `active_requests`, `active_downstream_requests`, `active_upstream_requests`, `scheduler_plugin_duration_seconds`
//! (Kthena's plug-ins one by one with `policy: kthena`, any other policy as one score plug-in of its name),
//! `prefix_cache_match_ratio`, `prefix_cache_evictions_total`, `prefix_cache_entries`, `kvcache_aware_match_ratio`,
//! `kvcache_aware_tokenize_duration_seconds`, `kvcache_aware_errors_total` (stage `tokenize`).
//!
//! What is not, because nothing here does such a thing yet: `request_prefill_duration_seconds` and
//! `request_decode_duration_seconds` (requests are not split), `rate_limit_exceeded_total`, `fairness_queue_*`,
//! `session_boost_queue_*`. And never: `kvcache_aware_redis_duration_seconds` and `tokenizer_unsupported_engine_total`
//! (no Redis and no engine is asked when a request is routed).
//!
//! As in Kthena, a request counts once its body has told a model: refused tokens and broken bodies do not.

use std::collections::BTreeMap;
use std::fmt::Error;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use self::destination::{DestinationMetrics, Families as DestinationFamilies};
use self::labels::{ErrorStageLabels, ModelLabels, PluginLabels, UpstreamLabels};
use super::cache::HandleCache;
use super::family::Family;
use super::histogram::Histogram;
use super::knowledge::KnowledgeSeries;
use super::labels::{NONE, Name, UNKNOWN};
use super::{GaugeGuard, buckets};
use crate::schedule::{Plugin, PluginKind};
use crate::telemetry::record::RequestRecord;

mod destination;
mod labels;
#[cfg(test)]
mod tests;
mod words;

/// Ratios are kept in millionths.
const RATIO_UNITS: f64 = 1e6;

/// Families labelled by model.
#[derive(Debug, Clone)]
struct ModelFamilies {
    downstream: Family<ModelLabels, Gauge>,
    plugins: Family<PluginLabels, Histogram>,
    prefix_ratio: Family<ModelLabels, Histogram>,
    token_ratio: Family<ModelLabels, Histogram>,
    tokenize: Family<ModelLabels, Histogram>,
    errors: Family<ErrorStageLabels, Counter>,
}

/// Kthena's families with their resolved handles.
#[derive(Debug)]
pub struct KthenaSeries {
    models: ModelFamilies,
    model_handles: HandleCache<ModelMetrics>,
    unknown_model: Arc<ModelMetrics>,
    destinations: DestinationFamilies,
    destination_handles: HandleCache<DestinationMetrics>,
    upstream: Family<UpstreamLabels, Gauge>,
    upstream_handles: HandleCache<UpstreamMetrics>,
    pools: PoolModels,
}

/// Model names by `namespace/name` of a ModelServer.
type PoolModels = Arc<ArcSwap<BTreeMap<Name, Name>>>;

/// Resolved metrics of a model.
#[derive(Debug)]
pub struct ModelMetrics {
    model: Name,
    families: ModelFamilies,
    downstream: Gauge,
    prefix_ratio: Histogram,
    token_ratio: Histogram,
    tokenize: Histogram,
}

/// Resolved gauge of requests at a destination.
#[derive(Debug)]
struct UpstreamMetrics {
    labels: UpstreamLabels,
    active: Gauge,
}

/// One request, from when its model is known to its end.
#[derive(Debug)]
pub struct KthenaRequest {
    model: Arc<ModelMetrics>,
    _active: GaugeGuard,
}

impl KthenaSeries {
    pub(super) fn register(
        registry: &mut Registry,
        max_handles: usize,
        active_requests: &Gauge,
        knowledge: &KnowledgeSeries,
    ) -> Self {
        let registry = registry.sub_registry_with_prefix("kthena_router");
        registry.register(
            "active_requests",
            "Requests being served now",
            active_requests.clone(),
        );
        let destinations = DestinationFamilies::register(registry);
        let upstream = Family::default();
        registry.register(
            "active_upstream_requests",
            "Requests at backends now",
            upstream.clone(),
        );
        let models = ModelFamilies::register(registry);
        let pools = PoolModels::default();
        registry.register_collector(Box::new(PrefixCache {
            knowledge: knowledge.clone(),
            pools: Arc::clone(&pools),
        }));
        Self {
            unknown_model: Arc::new(ModelMetrics::resolve(&models, UNKNOWN)),
            models,
            model_handles: HandleCache::new(max_handles),
            destinations,
            destination_handles: HandleCache::new(max_handles),
            upstream,
            upstream_handles: HandleCache::new(max_handles),
            pools,
        }
    }

    /// A request whose body has named a model; `None`: one that no route names.
    pub fn request(&self, model: Option<&str>) -> KthenaRequest {
        let model = model.map_or_else(|| Arc::clone(&self.unknown_model), |name| self.model(name));
        KthenaRequest {
            _active: GaugeGuard::new(&model.downstream),
            model,
        }
    }

    /// Resolved metrics of a configured model.
    pub fn model(&self, model: &str) -> Arc<ModelMetrics> {
        let make = || ModelMetrics::resolve(&self.models, model);
        self.model_handles
            .find(model, |_| true)
            .or_else(|| self.model_handles.add(model, |_| true, make))
            .unwrap_or_else(|| Arc::clone(&self.unknown_model))
    }

    /// One more request of a route at a ModelServer until the guard drops; `None` where no more are told apart.
    pub fn upstream(&self, route: &str, server: &str, upstream_model: &str) -> Option<GaugeGuard> {
        let is = |metrics: &UpstreamMetrics| {
            let labels = &metrics.labels;
            *labels.model_route.0 == *route && *labels.upstream_model.0 == *upstream_model
        };
        let make = || {
            let labels = UpstreamLabels::new(route, server, upstream_model);
            let active = self.upstream.child(&labels);
            UpstreamMetrics { labels, active }
        };
        let found = self.upstream_handles.find(server, is);
        let metrics = found.or_else(|| self.upstream_handles.add(server, is, make))?;
        Some(GaugeGuard::new(&metrics.active))
    }

    /// Everything that a finished request adds.
    pub fn finish(&self, request: &KthenaRequest, record: &RequestRecord) {
        let model = &request.model.model.0;
        let path = words::path(&record.path);
        let name = |name: &Option<Arc<str>>| name.clone().unwrap_or_else(|| Arc::from(NONE));
        let (route, server) = (name(&record.route), name(&record.server));
        let upstream_model = record.upstream_model.as_deref().unwrap_or(NONE);
        let is = |metrics: &DestinationMetrics| metrics.is(path, &route, &server, upstream_model);
        let make = |model: &str| {
            let families = &self.destinations;
            DestinationMetrics::new(families, model, path, &route, &server, upstream_model)
        };
        let handles = &self.destination_handles;
        let found = handles.find(model, is);
        let found = found.or_else(|| handles.add(model, is, || make(model)));
        match found {
            Some(metrics) => metrics.record(record),
            // So many names that more are not told apart.
            None => DestinationMetrics::new(&self.destinations, UNKNOWN, path, NONE, NONE, NONE)
                .record(record),
        }
    }

    /// Which model each ModelServer (`namespace/name`) serves; call it after a configuration change.
    pub fn set_pool_models<'a>(&self, pools: impl Iterator<Item = (&'a Arc<str>, &'a str)>) {
        let row = |(server, model): (&'a Arc<str>, &'a str)| {
            (Name(Arc::clone(server)), Name(Arc::from(model)))
        };
        self.pools.store(Arc::new(pools.map(row).collect()));
    }

    /// Drops series and handles of names that are gone.
    pub(super) fn retain(
        &self,
        model: impl Fn(&str) -> bool,
        route: impl Fn(&str) -> bool,
        server: impl Fn(&str) -> bool,
        upstream: impl Fn(&str) -> bool,
    ) {
        self.model_handles.retain(|metrics| model(&metrics.model.0));
        self.models.retain(&model);
        let keep = |labels: &UpstreamLabels| {
            route(&labels.model_route.0)
                && server(&labels.backend_name.0)
                && upstream(&labels.upstream_model.0)
        };
        self.upstream_handles
            .retain(|metrics| keep(&metrics.labels));
        self.upstream.retain(keep);
        let keep = |m: &Name, r: &Name, s: &Name, u: &Name| {
            model(&m.0) && route(&r.0) && server(&s.0) && upstream(&u.0)
        };
        self.destination_handles
            .retain(|metrics| metrics.kept(keep));
        self.destinations.retain(keep);
    }
}

impl KthenaRequest {
    /// Its model.
    pub fn model(&self) -> &ModelMetrics {
        &self.model
    }
}

impl ModelFamilies {
    fn register(registry: &mut Registry) -> Self {
        let families = Self {
            downstream: Family::default(),
            plugins: Family::new(|| Histogram::new(&buckets::KTHENA_PLUGIN)),
            prefix_ratio: Family::new(|| Histogram::new(&buckets::KTHENA_RATIO)),
            token_ratio: Family::new(|| Histogram::new(&buckets::KTHENA_RATIO)),
            tokenize: Family::new(|| Histogram::new(&buckets::KTHENA_TOKENIZE)),
            errors: Family::default(),
        };
        registry.register(
            "active_downstream_requests",
            "Requests of clients now, by model",
            families.downstream.clone(),
        );
        registry.register_with_unit(
            "scheduler_plugin_duration",
            "Time of each scheduler plug-in",
            Unit::Seconds,
            families.plugins.clone(),
        );
        registry.register(
            "prefix_cache_match_ratio",
            "Share of the prompt that the best candidate was predicted to have cached",
            families.prefix_ratio.clone(),
        );
        registry.register(
            "kvcache_aware_match_ratio",
            "Share of the prompt that the best candidate has cached as its KV events tell",
            families.token_ratio.clone(),
        );
        registry.register_with_unit(
            "kvcache_aware_tokenize_duration",
            "Time that requests waited for their tokens",
            Unit::Seconds,
            families.tokenize.clone(),
        );
        registry.register(
            "kvcache_aware_errors",
            "Prompts without tokens in time",
            families.errors.clone(),
        );
        families
    }

    fn retain(&self, model: impl Fn(&str) -> bool) {
        self.downstream.retain(|labels| model(&labels.model.0));
        self.plugins.retain(|labels| model(&labels.model.0));
        self.prefix_ratio.retain(|labels| model(&labels.model.0));
        self.token_ratio.retain(|labels| model(&labels.model.0));
        self.tokenize.retain(|labels| model(&labels.model.0));
        self.errors.retain(|labels| model(&labels.model.0));
    }
}

impl ModelMetrics {
    fn resolve(families: &ModelFamilies, model: &str) -> Self {
        let model = Name(Arc::from(model));
        let labels = ModelLabels {
            model: model.clone(),
        };
        Self {
            downstream: families.downstream.child(&labels),
            prefix_ratio: families.prefix_ratio.child(&labels),
            token_ratio: families.token_ratio.child(&labels),
            tokenize: families.tokenize.child(&labels),
            families: families.clone(),
            model,
        }
    }

    /// A plug-in ran for so long.
    pub fn plugin(&self, plugin: Plugin, took: Duration) {
        let labels = PluginLabels {
            model: self.model.clone(),
            plugin: plugin.name,
            r#type: match plugin.kind {
                PluginKind::Filter => "filter",
                PluginKind::Score => "score",
            },
        };
        self.families.plugins.child(&labels).observe_duration(took);
    }

    /// The best candidate holds this share of the prompt, by its KV events or as predicted.
    pub fn matched(&self, by_events: bool, share: f64) {
        let ratio = if by_events {
            &self.token_ratio
        } else {
            &self.prefix_ratio
        };
        ratio.observe((share.clamp(0.0, 1.0) * RATIO_UNITS).round() as u64);
    }

    /// A request waited so long for its tokens, and got them or not.
    pub fn tokenized(&self, took: Duration, got: bool) {
        self.tokenize.observe_duration(took);
        if !got {
            let labels = ErrorStageLabels {
                model: self.model.clone(),
                stage: "tokenize",
            };
            self.families.errors.child(&labels).inc();
        }
    }
}

/// What is known of caches, as Kthena's `prefix-cache` tells it.
#[derive(Debug)]
struct PrefixCache {
    knowledge: KnowledgeSeries,
    pools: PoolModels,
}

impl Collector for PrefixCache {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let indexes = self.knowledge.byte_indexes();
        let entries: usize = (indexes.iter())
            .map(|(_, stats)| stats.predicted + stats.reported)
            .sum();
        let help = "Pairs of a block and an endpoint that is known to hold it";
        encoder
            .encode_descriptor("prefix_cache_entries", help, None, MetricType::Gauge)?
            .encode_gauge(&(entries as f64))?;
        let mut evicted = BTreeMap::<&Name, u64>::new();
        let pools = self.pools.load();
        for (server, stats) in indexes {
            if let Some(model) = pools.get(&server) {
                let counters = stats.counters;
                *evicted.entry(model).or_default() += counters.evicted + counters.outgrown;
            }
        }
        if evicted.is_empty() {
            return Ok(());
        }
        let help = "Such pairs given up because there was no room";
        let name = "prefix_cache_evictions";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (model, count) in evicted {
            let model = model.clone();
            family
                .encode_family(&ModelLabels { model })?
                .encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        Ok(())
    }
}
