//! Valid documents to a [`Snapshot`].
//!
//! Nothing fails here: what could was found by `validate` and `catalog`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sluice_crds::networking::{
    DEFAULT_WEIGHT, EngineSpeed as SpeedSpec, ModelRouteSpec, ModelServerSpec, Protocol,
    Rule as RuleSpec, StringMatch, TargetModel, TrafficPolicy as PolicySpec,
};

use crate::document::{Document, Documents, Identity, Resource};
use crate::filters::FilterSet;
use crate::problem::Problem;
use crate::scheduling::SchedulingParams;
use crate::snapshot::{
    Endpoint, EngineMetrics, EngineSpeed, KvEvents, ModelServer, Route, Rule, Snapshot,
    StringMatcher, Target, TrafficPolicy, WeightedTarget,
};
use crate::validate::{Regexes, split_address};
use crate::{Catalog, LoadedDocuments};

/// Compiles typed documents that did not come from files, in order of precedence; `now` is in Unix
/// seconds. What is wrong is left out of the snapshot and reported, as on a first load of a file.
///
/// A source that changes over time uses a [`Catalog`], which keeps what was last good.
pub fn compile(
    resources: Vec<Resource>,
    filters: &FilterSet,
    now: u64,
) -> (Snapshot, Vec<Problem>) {
    let mut catalog = Catalog::new(filters.clone());
    let update = catalog.update(LoadedDocuments::from_resources("resources", resources), now);
    drop(catalog);
    let snapshot = Arc::into_inner(update.snapshot).expect("the catalog let go of it");
    (snapshot, update.problems)
}

/// A document in force and when it came to be.
pub(crate) struct Input<'a> {
    pub(crate) identity: &'a Identity,
    pub(crate) resource: &'a Resource,
    pub(crate) created: u64,
    pub(crate) document: &'a Arc<Document>,
}

/// `documents` in order of precedence; every ModelServer that a route targets is among them.
pub(crate) fn snapshot(
    documents: &[Input<'_>],
    generation: u64,
    regexes: &mut Regexes,
) -> Snapshot {
    let written = documents.iter().map(|input| Arc::clone(input.document));
    let mut snapshot = Snapshot {
        generation,
        documents: Documents::new(written),
        ..Snapshot::default()
    };
    let mut index = HashMap::new();
    for document in documents {
        if let Resource::Server(server) = document.resource {
            let Identity {
                namespace, name, ..
            } = document.identity;
            index.insert((namespace.as_str(), name.as_str()), snapshot.servers.len());
            snapshot
                .servers
                .push(model_server(document.identity, &server.spec));
        }
    }
    for document in documents {
        if let Resource::Route(route) = document.resource {
            let position = snapshot.routes.len();
            let spec = &route.spec;
            if !spec.model_name.is_empty() {
                snapshot
                    .by_model
                    .entry(spec.model_name.clone())
                    .or_default()
                    .push(position);
            }
            for adapter in &spec.lora_adapters {
                let routes = snapshot.by_lora.entry(adapter.clone()).or_default();
                if routes.last() != Some(&position) {
                    routes.push(position);
                }
            }
            snapshot
                .routes
                .push(compile_route(document, spec, &index, regexes));
        }
    }
    snapshot
}

fn compile_route(
    document: &Input<'_>,
    spec: &ModelRouteSpec,
    servers: &HashMap<(&str, &str), usize>,
    regexes: &mut Regexes,
) -> Route {
    let namespace = document.identity.namespace.as_str();
    let server = |name: &str| servers.get(&(namespace, name)).copied();
    Route {
        namespace: namespace.to_owned(),
        name: document.identity.name.clone(),
        model_name: spec.model_name.clone(),
        lora_adapters: spec.lora_adapters.clone(),
        rules: spec
            .rules
            .iter()
            .map(|rule| compile_rule(rule, &server, regexes))
            .collect(),
        filters: spec.filters.clone(),
        created: document.created,
    }
}

fn compile_rule(
    rule: &RuleSpec,
    server: &impl Fn(&str) -> Option<usize>,
    regexes: &mut Regexes,
) -> Rule {
    let model_match = rule.model_match.as_ref();
    let headers = model_match.into_iter().flat_map(|m| &m.headers);
    let mut targets: Vec<_> = rule
        .target_models
        .iter()
        .filter_map(|t| weighted(t, server))
        .collect();
    targets.sort_by_key(|target| target.weight == 0);
    Rule {
        name: rule.name.clone(),
        headers: headers
            .map(|(name, m)| (name.to_ascii_lowercase(), matcher(Some(m), regexes)))
            .collect(),
        uri: matcher(model_match.and_then(|m| m.uri.as_ref()), regexes),
        body_model: model_match.and_then(|m| m.body.as_ref()?.model.clone()),
        targets,
    }
}

fn weighted(
    target: &TargetModel,
    server: &impl Fn(&str) -> Option<usize>,
) -> Option<WeightedTarget> {
    let weight = target.weight.unwrap_or(DEFAULT_WEIGHT);
    let target = match (
        &target.model_server_name,
        &target.external_model_provider_name,
    ) {
        (Some(name), _) => Target::Server(server(name)?),
        (None, Some(name)) => Target::External(name.clone()),
        (None, None) => return None,
    };
    Some(WeightedTarget { target, weight })
}

fn matcher(string_match: Option<&StringMatch>, regexes: &mut Regexes) -> StringMatcher {
    let Some(string_match) = string_match else {
        return StringMatcher::Any;
    };
    let StringMatch {
        exact,
        prefix,
        regex,
    } = string_match;
    match (exact, prefix, regex) {
        (Some(text), _, _) => StringMatcher::Exact(text.clone()),
        (None, Some(text), _) => StringMatcher::Prefix(text.clone()),
        (None, None, Some(pattern)) => {
            StringMatcher::Regex(regexes.compile(pattern).expect("validation compiled it"))
        }
        (None, None, None) => StringMatcher::Any,
    }
}

fn model_server(identity: &Identity, spec: &ModelServerSpec) -> ModelServer {
    let port = spec.workload_port.as_ref();
    let endpoints = spec.endpoints.iter().filter_map(|endpoint| {
        let (host, port) = split_address(&endpoint.address).ok()?;
        let (address, host, labels) = (
            endpoint.address.clone(),
            host.to_owned(),
            endpoint.labels.clone(),
        );
        Some(Endpoint {
            address,
            host,
            port,
            labels,
        })
    });
    ModelServer {
        namespace: identity.namespace.clone(),
        name: identity.name.clone(),
        model: spec.model.clone(),
        engine: spec.inference_engine,
        tls: port.is_some_and(|port| port.protocol == Protocol::Https),
        http2: port.is_some_and(|port| port.http2),
        policy: spec.traffic_policy.as_ref().map(policy).unwrap_or_default(),
        endpoints: endpoints.collect(),
        scheduling: spec.scheduling.as_ref().map(SchedulingParams::of),
        tokenizer: spec
            .tokenizer
            .as_ref()
            .map(|source| source.path.clone().into()),
        kv_events: kv_events(spec),
        engine_metrics: engine_metrics(spec),
        engine_speed: spec.engine_speed.as_ref().map(speed).unwrap_or_default(),
    }
}

fn kv_events(spec: &ModelServerSpec) -> KvEvents {
    match &spec.kv_events {
        None => KvEvents::Discover,
        Some(events) if !events.enabled => KvEvents::Off,
        Some(events) => match port(events.port) {
            None => KvEvents::Discover,
            Some(publisher) => KvEvents::Ports {
                publisher,
                replay: port(events.replay_port),
                ranks: u16::try_from(events.ranks).unwrap_or(1),
            },
        },
    }
}

fn engine_metrics(spec: &ModelServerSpec) -> Option<EngineMetrics> {
    match &spec.engine_metrics {
        None => Some(EngineMetrics::default()),
        Some(metrics) if !metrics.enabled => None,
        Some(metrics) => Some(EngineMetrics {
            port: port(metrics.port),
            path: metrics.path.clone(),
        }),
    }
}

fn port(port: Option<i32>) -> Option<u16> {
    port.and_then(|port| u16::try_from(port).ok())
}

fn speed(spec: &SpeedSpec) -> EngineSpeed {
    EngineSpeed {
        step_ms: spec.step_milliseconds,
        token_ms: spec.prefill_tokens_per_second.map(|rate| 1e3 / rate),
        context_ms: spec
            .context_microseconds_per_thousand
            .map(|time| time / 1e6),
        batch_tokens: spec
            .batch_tokens
            .and_then(|tokens| u32::try_from(tokens).ok()),
        kv_tokens: spec.kv_tokens.and_then(|tokens| u64::try_from(tokens).ok()),
    }
}

fn policy(spec: &PolicySpec) -> TrafficPolicy {
    TrafficPolicy {
        first_byte_timeout: spec.timeout.map(Duration::from),
        stream_idle_timeout: spec.stream_idle_timeout.map(Duration::from),
        total_timeout: spec.total_timeout.map(Duration::from),
        retry_attempts: spec
            .retry
            .as_ref()
            .map(|retry| u32::try_from(retry.attempts).unwrap_or(0)),
        retry_interval: spec.retry.as_ref().map(|retry| retry.retry_interval.into()),
    }
}
