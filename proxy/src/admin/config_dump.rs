//! Kthena's `/debug/config_dump/...`, in the shapes of Kthena's handlers, for the scripts of those who come from there.
//!
//! A pod is an endpoint here. What Kthena knows of a pod and nobody told this gateway (its start, the node of one that a
//! document lists) is absent or empty, and a number that is not known is 0, as there; `tpot` and `ttft` are seconds, as measured here. Kinds that are not served
//! are empty lists. Ours, with everything that decides, is `/debug/endpoints`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use sluice_config::snapshot::{Endpoint, Role};
use sluice_config::{Identity, Resource};

use crate::endpoints::Member;
use crate::serving::{Pool, Serving};

/// A kind: its word in the path and in answers, and its name.
type Kind = (&'static str, &'static str);

const ROUTES: Kind = ("modelroutes", "ModelRoute");
const SERVERS: Kind = ("modelservers", "ModelServer");
const PODS: Kind = ("pods", "Pod");
/// Not served.
const OTHERS: [Kind; 3] = [
    ("gateways", "Gateway"),
    ("httproutes", "HTTPRoute"),
    ("inferencepools", "InferencePool"),
];

/// What is asked for by the path below `/debug/config_dump/`: a list, or one by `namespaces/NAMESPACE/KIND/NAME`.
pub(super) fn answer(serving: &Serving, asked: &str) -> (StatusCode, Value) {
    let parts: Vec<String> = asked
        .split('/')
        .map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned())
        .collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let answer = match parts[..] {
        [word] => kind(word).map(|kind| (StatusCode::OK, json!({kind.0: list(serving, kind)}))),
        ["namespaces", namespace, word, name] => kind(word).map(|kind| {
            let found = list_detailed(serving, kind)
                .into_iter()
                .find(|one| one["namespace"] == namespace && one["name"] == name);
            let missing = || json!({"error": format!("{} not found", kind.1)});
            found.map_or_else(
                || (StatusCode::NOT_FOUND, missing()),
                |one| (StatusCode::OK, one),
            )
        }),
        _ => None,
    };
    answer.unwrap_or_else(|| {
        let known = [ROUTES, SERVERS, PODS].into_iter().chain(OTHERS);
        let known: Vec<&str> = known.map(|(word, _)| word).collect();
        let error = format!(
            "not found: ask for one of {}, or for namespaces/NAMESPACE/KIND/NAME",
            known.join(", ")
        );
        (StatusCode::NOT_FOUND, json!({"error": error}))
    })
}

fn kind(word: &str) -> Option<Kind> {
    let known = [ROUTES, SERVERS, PODS].into_iter().chain(OTHERS);
    known.into_iter().find(|(known, _)| *known == word)
}

fn list(serving: &Serving, kind: Kind) -> Vec<Value> {
    let mut all = list_detailed(serving, kind);
    if kind == PODS {
        // Kthena tells of the pod itself only where it is asked for by name.
        let maps = all.iter_mut().filter_map(Value::as_object_mut);
        maps.for_each(|pod| drop(pod.shift_remove("podInfo")));
    }
    all
}

fn list_detailed(serving: &Serving, kind: Kind) -> Vec<Value> {
    match kind {
        ROUTES => documents(serving, |identity, resource| match resource {
            Resource::Route(route) => Some(object(identity, json!(route.spec))),
            _ => None,
        }),
        SERVERS => documents(serving, |identity, resource| match resource {
            Resource::Server(server) => {
                let mut one = object(identity, json!(server.spec));
                put_pods(&mut one, serving, identity);
                Some(one)
            }
            _ => None,
        }),
        PODS => pods(serving),
        _ => Vec::new(),
    }
}

fn documents(
    serving: &Serving,
    value: impl Fn(&Identity, &Resource) -> Option<Value>,
) -> Vec<Value> {
    let documents = serving.snapshot.documents.iter();
    documents
        .filter_map(|(identity, resource)| value(identity, resource))
        .collect()
}

fn object(identity: &Identity, spec: Value) -> Value {
    json!({"name": identity.name, "namespace": identity.namespace, "spec": spec})
}

/// Puts a ModelServer's pods in, as Kthena names them: by what they do.
fn put_pods(one: &mut Value, serving: &Serving, server: &Identity) {
    let named = |pool: &&Arc<Pool>| {
        pool.server.namespace == server.namespace && pool.server.name == server.name
    };
    let Some(pool) = serving.pools.iter().find(named) else {
        return;
    };
    let pods = |role: Option<Role>| -> Vec<String> {
        let members = pool.members.iter().map(|member| &member.configured);
        let found = members.filter(|endpoint| role.is_none_or(|role| endpoint.role == role));
        found
            .map(|endpoint| format!("{}/{}", server.namespace, name(endpoint)))
            .collect()
    };
    let lists = [
        ("associatedPods", None),
        ("decodePods", Some(Role::Decode)),
        ("prefillPods", Some(Role::Prefill)),
    ];
    for (key, role) in lists {
        let pods = pods(role);
        if !pods.is_empty() {
            one[key] = json!(pods);
        }
    }
}

/// An endpoint's name as a pod: an endpoint that a document lists has its address for one.
fn name(endpoint: &Endpoint) -> &str {
    match endpoint.pod.rsplit_once('/') {
        Some((_, name)) => name,
        None => &endpoint.address,
    }
}

/// Each pod once, with all pools of its namespace that it is in.
fn pods(serving: &Serving) -> Vec<Value> {
    let mut pods: BTreeMap<(&str, &str), Value> = BTreeMap::new();
    for pool in &serving.pools {
        for member in pool.members.iter() {
            let key = (pool.server.namespace.as_str(), name(&member.configured));
            let pod = pods.entry(key).or_insert_with(|| pod(key, member));
            let servers = pod["modelServers"].as_array_mut();
            if let Some(servers) = servers.filter(|all| all.last() != Some(&json!(&*pool.name))) {
                servers.push(json!(&*pool.name));
            }
        }
    }
    pods.into_values().collect()
}

fn pod((namespace, name): (&str, &str), member: &Member) -> Value {
    let (state, configured) = (&member.endpoint, &member.configured);
    let now = Instant::now();
    let reported = state.reported.load(now);
    let known = |value: Option<f64>| value.filter(|value| value.is_finite()).unwrap_or(0.0);
    json!({
        "name": name,
        "namespace": namespace,
        "podInfo": {
            "podIP": configured.host,
            "nodeName": configured.node,
            "phase": "Running",
            "labels": &*configured.labels,
        },
        "engine": state.engine,
        "metrics": {
            "gpuCacheUsage": known(reported.kv_usage),
            "requestWaitingNum": known(reported.waiting),
            "requestRunningNum": known(reported.running),
            "tpot": known(state.stats.token_gap_ms(now)) / 1e3,
            "ttft": known(state.stats.ttft_ms(now)) / 1e3,
        },
        "models": state.reported.models(now),
        "modelServers": [],
    })
}

#[cfg(test)]
mod tests;
