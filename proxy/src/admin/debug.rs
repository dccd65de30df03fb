//! `/debug/config` and `/debug/endpoints`: what is in force, and how it is doing.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice_config::Problem;
use sluice_config::snapshot::{Route, Rule, Target};

use crate::cache::members::MemberCache;
use crate::endpoints::{Admission, Member};
use crate::gateway::Gateway;
use crate::router_configuration::Defaults;
use crate::serving::Serving;
use crate::source::Source;

/// The configuration in force, and what was wrong with the last load.
pub(super) fn config(gateway: &Gateway, source: &Source, defaults: &Defaults) -> Value {
    let serving = gateway.serving.load();
    let snapshot = &serving.snapshot;
    let routes: Vec<Value> = snapshot
        .routes
        .iter()
        .map(|one| route(&serving, one))
        .collect();
    let servers: Vec<Value> = snapshot
        .servers
        .iter()
        .map(|server| {
            json!({
                "name": format!("{}/{}", server.namespace, server.name),
                "model": server.model,
                "engine": server.engine,
                "tls": server.tls,
                "http2": server.http2,
                "policy": format!("{:?}", server.policy),
                "endpoints": server.endpoints.iter().map(|one| &one.address).collect::<Vec<_>>(),
            })
        })
        .collect();
    let (found, of_defaults) = (source.problems(), defaults.problems());
    let problems: Vec<&Problem> = of_defaults.iter().chain(found.iter()).collect();
    json!({
        "generation": snapshot.generation,
        "bootstrap": gateway.config,
        "routes": routes,
        "servers": servers,
        "defaults": defaults.describe(),
        "auth": gateway.auth.describe(),
        "problems": problems,
        "push": source.push().map(|push| push.show()),
    })
}

fn route(serving: &Serving, route: &Route) -> Value {
    let rules: Vec<Value> = route.rules.iter().map(|one| rule(serving, one)).collect();
    json!({
        "name": format!("{}/{}", route.namespace, route.name),
        "modelName": route.model_name,
        "loraAdapters": route.lora_adapters,
        "created": route.created,
        "rules": rules,
        "filters": route.filters,
    })
}

fn rule(serving: &Serving, rule: &Rule) -> Value {
    let targets: Vec<Value> = rule
        .targets
        .iter()
        .map(|target| match &target.target {
            Target::Server(index) => {
                json!({"server": &*serving.pools[*index].name, "weight": target.weight})
            }
            Target::Missing(name) => json!({"missing": name, "weight": target.weight}),
            Target::External(name) => json!({"external": name, "weight": target.weight}),
        })
        .collect();
    json!({
        "name": rule.name,
        "headers": rule
            .headers
            .iter()
            .map(|(name, matcher)| json!({"name": name, "match": format!("{matcher:?}")}))
            .collect::<Vec<_>>(),
        "uri": format!("{:?}", rule.uri),
        "bodyModel": rule.body_model,
        "targets": targets,
    })
}

fn endpoint(member: &Member, now: Duration) -> Value {
    let endpoint = &member.endpoint;
    let load = endpoint.load.load();
    let stats = endpoint.stats.view();
    let reported = endpoint.reported.load(Instant::now());
    let configured = &member.configured;
    let mut shown = json!({
        "address": &*endpoint.address,
        "labels": &*configured.labels,
        "draining": configured.draining,
        "inFlight": load.in_flight,
        "pendingTokens": load.pending_tokens,
        "contextTokens": load.context_tokens,
        "idleConnections": endpoint.link.idle_connections(),
        "health": match endpoint.health.admission(now) {
            Admission::Healthy => "healthy",
            Admission::Probe => "to be probed",
            Admission::Ejected => "ejected",
        },
        "constants": endpoint.constants(),
        "observations": stats.observations,
        "confidence": stats.confidence,
        "reported": {
            "running": reported.running,
            "waiting": reported.waiting,
            "kvUsage": reported.kv_usage,
        },
        "kvEvents": kv_events(&member.cache),
    });
    if !configured.pod.is_empty() {
        shown["pod"] = json!({
            "name": configured.pod,
            "uid": configured.uid,
            "node": configured.node,
            "zone": configured.zone,
            "topology": &*configured.topology,
            "revision": configured.revision,
            "role": configured.role.as_str(),
            "pdGroup": configured.pd_group,
        });
    }
    shown
}

fn kv_events(cache: &MemberCache) -> Value {
    let following = cache.following();
    let counts = following.counts();
    let states: Vec<&str> = following
        .states()
        .iter()
        .map(|state| state.as_str())
        .collect();
    json!({
        "live": cache.is_live(),
        "subscriptions": states,
        "trouble": following.trouble(),
        "batches": counts.batches,
        "events": counts.events,
        "ignored": counts.ignored,
        "gaps": counts.gaps,
        "replays": counts.replays,
        "failedReplays": counts.failed_replays,
        "clears": counts.clears,
        "decodeErrors": counts.decode_errors,
        "dropped": counts.dropped,
        "connections": counts.connections,
    })
}

/// Live state of every endpoint and route.
pub(super) fn endpoints(gateway: &Gateway) -> Value {
    let serving = gateway.serving.load();
    let now = gateway.now();
    let pools: Vec<Value> = serving
        .pools
        .iter()
        .map(|pool| {
            let endpoints: Vec<Value> = pool
                .members
                .iter()
                .map(|member| endpoint(member, now))
                .collect();
            json!({"server": &*pool.name, "endpoints": endpoints})
        })
        .collect();
    let routes: Vec<Value> = serving
        .routes
        .iter()
        .map(|route| json!({"route": &*route.name, "inFlight": route.in_flight()}))
        .collect();
    json!({"active": gateway.drain.active(), "pools": pools, "routes": routes})
}
