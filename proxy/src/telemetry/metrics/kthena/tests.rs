use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use super::super::{BuildInfo, Metrics, ShownPool};
use super::*;
use crate::cache::budget::IndexBudget;
use crate::cache::members::PoolCache;
use crate::telemetry::record::RecordError;

/// Kthena's families whose signal there is here: type, labels, bucket bounds.
const FAMILIES: [(&str, &str, &str, &str); 13] = [
    ("active_requests", "gauge", "", ""),
    (
        "requests_total",
        "counter",
        "model path status_code error_type model_route backend_type backend_name upstream_model",
        "",
    ),
    (
        "request_duration_seconds",
        "histogram",
        "model path status_code model_route backend_type backend_name upstream_model",
        "0.005 0.01 0.025 0.05 0.1 0.25 0.5 1 2.5 5 10 30 60 +Inf",
    ),
    (
        "tokens_total",
        "counter",
        "model path token_type model_route backend_type backend_name upstream_model",
        "",
    ),
    (
        "scheduler_plugin_duration_seconds",
        "histogram",
        "model plugin type",
        "0.001 0.005 0.01 0.05 0.1 0.5 +Inf",
    ),
    ("active_downstream_requests", "gauge", "model", ""),
    (
        "active_upstream_requests",
        "gauge",
        "model_server model_route backend_type backend_name upstream_model",
        "",
    ),
    (
        "prefix_cache_match_ratio",
        "histogram",
        "model",
        "0 0.1 0.25 0.5 0.75 0.9 0.95 0.99 1 +Inf",
    ),
    ("prefix_cache_evictions_total", "counter", "model", ""),
    ("prefix_cache_entries", "gauge", "", ""),
    (
        "kvcache_aware_match_ratio",
        "histogram",
        "model",
        "0 0.1 0.25 0.5 0.75 0.9 0.95 0.99 1 +Inf",
    ),
    (
        "kvcache_aware_tokenize_duration_seconds",
        "histogram",
        "model",
        "0.0005 0.001 0.0025 0.005 0.01 0.025 0.05 0.1 0.25 0.5 1 2.5 +Inf",
    ),
    ("kvcache_aware_errors_total", "counter", "model stage", ""),
];

const SCORE: Plugin = Plugin {
    kind: PluginKind::Score,
    name: "prefix-cache",
};

fn metrics() -> Metrics {
    let build = BuildInfo {
        version: "1",
        revision: "2",
    };
    Metrics::new(build, SystemTime::UNIX_EPOCH).with_kthena()
}

fn record(path: &str, model: &str) -> RequestRecord {
    let mut record = RequestRecord::new(
        SystemTime::UNIX_EPOCH,
        http::Method::POST,
        path.to_owned(),
        http::Version::HTTP_11,
        "r".to_owned(),
    );
    record.status = 200;
    record.model = Some(model.to_owned());
    record.route = Some("ns/route".into());
    record.server = Some("ns/pool".into());
    record.upstream_model = Some("upstream".into());
    record.input_tokens = Some(7);
    record.output_tokens = Some(9);
    record.total = Duration::from_millis(1200);
    record
}

/// Everything that can happen to a request of a model, once.
fn everything(metrics: &Metrics) {
    let kthena = metrics.kthena().unwrap();
    let request = kthena.request(Some("llama"));
    let _upstream = kthena.upstream("ns/route", "ns/pool", "upstream");
    request.model().plugin(SCORE, Duration::from_micros(20));
    request.model().matched(true, 0.5);
    request.model().matched(false, 0.2);
    request.model().tokenized(Duration::from_millis(2), true);
    request.model().tokenized(Duration::from_millis(3), false);
    kthena.finish(&request, &record("/v1/chat/completions", "llama"));
}

/// Families of a page in the older format: type, label names, bucket bounds.
fn families(page: &str) -> BTreeMap<String, (String, String, String)> {
    let mut found: BTreeMap<String, (String, BTreeSet<String>, Vec<String>)> = BTreeMap::new();
    let mut order: BTreeMap<String, String> = BTreeMap::new();
    let mut family = String::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE kthena_router_") {
            let (name, kind) = rest.split_once(' ').unwrap();
            family = name.to_owned();
            found.insert(
                family.clone(),
                (kind.to_owned(), BTreeSet::new(), Vec::new()),
            );
        }
        let Some(sample) = line.strip_prefix("kthena_router_") else {
            continue;
        };
        let labels = sample
            .split_once('{')
            .map_or("", |(_, rest)| rest.split_once('}').unwrap().0);
        let names: Vec<&str> = (labels.split("\",").filter(|label| !label.is_empty()))
            .map(|label| label.split_once('=').unwrap().0)
            .filter(|name| *name != "le")
            .collect();
        order.insert(family.clone(), names.join(" "));
        let entry = found.get_mut(&family).unwrap();
        if let Some((_, rest)) = sample.split_once("le=\"") {
            let bound = rest.split_once('"').unwrap().0.to_owned();
            if !entry.2.contains(&bound) {
                entry.2.push(bound);
            }
        }
    }
    found
        .into_iter()
        .map(|(name, (kind, _, bounds))| {
            let labels = order.remove(&name).unwrap_or_default();
            (name, (kind, labels, bounds.join(" ")))
        })
        .collect()
}

#[test]
fn families_labels_and_buckets_are_kthenas() {
    let metrics = metrics();
    let cache = PoolCache::new(&IndexBudget::new(1 << 20));
    let pool: Arc<str> = "ns/pool".into();
    metrics.set_pools(vec![ShownPool {
        server: Arc::clone(&pool),
        members: Vec::new().into(),
        cache,
    }]);
    let kthena = metrics.kthena().unwrap();
    kthena.set_pool_models([(&pool, "llama")].into_iter());
    everything(&metrics);
    let (kind, page) = metrics.page();
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    let expected: BTreeMap<String, (String, String, String)> = FAMILIES
        .into_iter()
        .map(|(name, kind, labels, bounds)| {
            (
                name.to_owned(),
                (kind.to_owned(), labels.to_owned(), bounds.to_owned()),
            )
        })
        .collect();
    assert_eq!(families(&page), expected, "{page}");
}

#[test]
fn without_the_switch_there_is_nothing_of_kthena() {
    let build = BuildInfo {
        version: "1",
        revision: "2",
    };
    let metrics = Metrics::new(build, SystemTime::UNIX_EPOCH);
    assert!(metrics.kthena().is_none());
    let (kind, page) = metrics.page();
    assert!(kind.starts_with("application/openmetrics-text"));
    assert!(!page.contains("kthena"), "{page}");
}

#[test]
fn requests_are_told_in_kthenas_words() {
    let metrics = metrics();
    let kthena = metrics.kthena().unwrap();
    let known = kthena.request(Some("llama"));
    kthena.finish(&known, &record("/v1/chat/completions", "llama"));
    let mut engine = record("/v1/client/chose/this", "llama");
    engine.status = 400;
    kthena.finish(&known, &engine);
    let mut full = record("/v1/completions", "llama");
    full.error = Some(RecordError::new("no_endpoint", "none"));
    (full.status, full.server, full.upstream_model) = (503, None, None);
    kthena.finish(&known, &full);
    let unknown = kthena.request(None);
    let mut missing = record("/v1/chat/completions", "made-up");
    missing.error = Some(RecordError::new("route_not_found", "none"));
    (missing.status, missing.route, missing.server) = (404, None, None);
    (missing.upstream_model, missing.input_tokens) = (None, None);
    missing.output_tokens = None;
    kthena.finish(&unknown, &missing);
    let (_, page) = metrics.page();
    for line in [
        r#"requests_total{model="llama",path="/v1/chat/completions",status_code="200",error_type="successful_request",model_route="ns/route",backend_type="model_server",backend_name="ns/pool",upstream_model="upstream"} 1"#,
        r#"requests_total{model="llama",path="other",status_code="400",error_type="request_failed",model_route="ns/route",backend_type="model_server",backend_name="ns/pool",upstream_model="upstream"} 1"#,
        r#"requests_total{model="llama",path="/v1/completions",status_code="503",error_type="pod_discovery",model_route="ns/route",backend_type="unresolved",backend_name="none",upstream_model="none"} 1"#,
        r#"requests_total{model="unknown",path="/v1/chat/completions",status_code="404",error_type="route_not_found",model_route="none",backend_type="unresolved",backend_name="none",upstream_model="none"} 1"#,
        r#"request_duration_seconds_count{model="unknown",path="/v1/chat/completions",status_code="404",model_route="none",backend_type="unresolved",backend_name="none",upstream_model="none"} 1"#,
        r#"tokens_total{model="llama",path="/v1/chat/completions",token_type="output",model_route="ns/route",backend_type="model_server",backend_name="ns/pool",upstream_model="upstream"} 9"#,
        r#"active_downstream_requests{model="llama"} 1"#,
        r#"active_downstream_requests{model="unknown"} 1"#,
    ] {
        let line = format!("kthena_router_{line}");
        assert!(
            page.lines().any(|found| found == line),
            "no {line} in\n{page}"
        );
    }
    assert!(!page.contains("made-up") && !page.contains("client/chose"));
}

#[test]
fn gauges_fall_when_their_guards_drop() {
    let metrics = metrics();
    let kthena = metrics.kthena().unwrap();
    let guards = (
        kthena.request(Some("llama")),
        kthena.upstream("ns/route", "ns/pool", "llama"),
        metrics.active_request(),
    );
    let has = |lines: [&str; 3]| {
        let (_, page) = metrics.page();
        for line in lines {
            assert!(
                page.contains(&format!("kthena_router_{line}\n")),
                "{line}\n{page}"
            );
        }
    };
    let upstream = "active_upstream_requests{model_server=\"ns/pool\",model_route=\"ns/route\",\
                    backend_type=\"model_server\",backend_name=\"ns/pool\",upstream_model=\"llama\"}";
    has([
        "active_requests 1",
        "active_downstream_requests{model=\"llama\"} 1",
        &format!("{upstream} 1"),
    ]);
    drop(guards);
    has([
        "active_requests 0",
        "active_downstream_requests{model=\"llama\"} 0",
        &format!("{upstream} 0"),
    ]);
}

#[test]
fn series_of_names_that_left_the_configuration_go() {
    let metrics = metrics();
    everything(&metrics);
    assert!(metrics.page().1.contains("ns/pool"));
    metrics.retain(|_, name| name != "llama" && name != "ns/pool");
    let (_, page) = metrics.page();
    let left: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("kthena_router_") && line.contains('{'))
        .filter(|line| !line.contains("model=\"unknown\""))
        .collect();
    assert!(left.is_empty(), "{left:#?}");
}
