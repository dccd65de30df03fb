//! Valid documents to parts of a [`Snapshot`].
//!
//! Nothing fails here: what could was found by `validate` and `catalog`. Not for which parts there are, and which of
//! them a change leaves alone: see `live`.

use std::sync::Arc;
use std::time::Duration;

use sluice_crds::networking::{
    DEFAULT_WEIGHT, EngineSpeed as SpeedSpec, ModelRouteSpec, ModelServerSpec, Protocol,
    Rule as RuleSpec, StringMatch, TargetModel, TrafficPolicy as PolicySpec,
};

use crate::document::{Identity, Resource};
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
    (snapshot, Arc::unwrap_or_clone(update.problems))
}

/// What a rule's target compiles to, by the ModelServer's name.
pub(crate) type Resolve<'a> = &'a dyn Fn(&str) -> Target;

/// A ModelRoute. `created` is in Unix seconds.
pub(crate) fn route(
    identity: &Identity,
    spec: &ModelRouteSpec,
    created: u64,
    resolve: Resolve<'_>,
    regexes: &mut Regexes,
) -> Route {
    Route {
        namespace: identity.namespace.clone(),
        name: identity.name.clone(),
        model_name: spec.model_name.clone(),
        lora_adapters: spec.lora_adapters.clone(),
        rules: spec
            .rules
            .iter()
            .map(|rule| compile_rule(rule, resolve, regexes))
            .collect(),
        filters: spec.filters.clone(),
        created,
    }
}

/// The same route with its targets resolved anew: what it matches stays as it was compiled.
pub(crate) fn retarget(route: &Route, spec: &ModelRouteSpec, resolve: Resolve<'_>) -> Route {
    let mut next = route.clone();
    for (rule, spec) in next.rules.iter_mut().zip(&spec.rules) {
        rule.targets = targets(spec, resolve);
    }
    next
}

/// Names of the ModelServers that a route targets, in the order in which they are resolved.
pub(crate) fn server_names(spec: &ModelRouteSpec) -> impl Iterator<Item = &str> {
    let targets = spec.rules.iter().flat_map(|rule| &rule.target_models);
    targets.filter_map(|target| target.model_server_name.as_deref())
}

fn targets(rule: &RuleSpec, resolve: Resolve<'_>) -> Vec<WeightedTarget> {
    let targets = rule.target_models.iter();
    let mut targets: Vec<_> = targets.filter_map(|t| weighted(t, resolve)).collect();
    targets.sort_by_key(|target| target.weight == 0);
    targets
}

fn compile_rule(rule: &RuleSpec, resolve: Resolve<'_>, regexes: &mut Regexes) -> Rule {
    let model_match = rule.model_match.as_ref();
    let headers = model_match.into_iter().flat_map(|m| &m.headers);
    Rule {
        name: rule.name.clone(),
        headers: headers
            .map(|(name, m)| (name.to_ascii_lowercase(), matcher(Some(m), regexes)))
            .collect(),
        uri: matcher(model_match.and_then(|m| m.uri.as_ref()), regexes),
        body_model: model_match.and_then(|m| m.body.as_ref()?.model.clone()),
        targets: targets(rule, resolve),
    }
}

fn weighted(target: &TargetModel, resolve: Resolve<'_>) -> Option<WeightedTarget> {
    let weight = target.weight.unwrap_or(DEFAULT_WEIGHT);
    let target = match (
        &target.model_server_name,
        &target.external_model_provider_name,
    ) {
        (Some(name), _) => resolve(name),
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

/// A ModelServer with the endpoints that its document lists.
pub(crate) fn model_server(identity: &Identity, spec: &ModelServerSpec) -> ModelServer {
    let port = spec.workload_port.as_ref();
    let endpoints = spec.endpoints.iter().filter_map(|endpoint| {
        let (host, port) = split_address(&endpoint.address).ok()?;
        Some(Arc::new(Endpoint {
            address: endpoint.address.clone(),
            host: host.to_owned(),
            port,
            labels: Arc::new(endpoint.labels.clone()),
            ..Endpoint::default()
        }))
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
