//! Objects of a small cluster, at random: few names, so that they meet.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use sluice_config::Kind;

use crate::index::*;

/// Mostly `a`: things have to meet for something to happen.
fn namespace() -> impl Strategy<Value = &'static str> {
    select(vec!["a", "a", "a", "b"])
}

fn labels() -> impl Strategy<Value = Labels> {
    let app = select(vec!["", "chat", "chat", "chat", "code"]);
    let role = select(vec!["", "prefill", "decode", "other"]);
    let group = select(vec!["", "g1", "g2"]);
    (app, role, group).prop_map(|(app, role, group)| {
        let pairs = [("app", app), ("role", role), ("group", group)];
        pairs
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .collect()
    })
}

fn pod(names: &'static [&'static str]) -> impl Strategy<Value = Pod> {
    let (idle, serving, draining) = (PodState::Idle, PodState::Serving, PodState::Draining);
    let state = select(vec![idle, serving, serving, draining]);
    let node = select(vec!["", "n0", "n0", "n1"]);
    let address = select(vec![
        None,
        Some("10.0.0.1"),
        Some("10.0.0.2"),
        Some("fd00::2"),
    ]);
    let name = select(names);
    (
        namespace(),
        name,
        labels(),
        state,
        node,
        address,
        any::<bool>(),
    )
        .prop_map(
            |(namespace, name, labels, state, node, address, running)| Pod {
                key: ObjectKey::new(namespace, name),
                uid: "u".into(),
                labels,
                node: node.into(),
                address: address.map(|address| address.parse().unwrap()),
                running,
                state,
            },
        )
}

/// A document; `noise` changes its status and nothing else.
fn document(
    kind: Kind,
    name: &str,
    namespace: &str,
    created: i64,
    spec: Value,
    noise: i64,
) -> Object {
    let value = json!({
        "apiVersion": "networking.serving.volcano.sh/v1alpha1",
        "kind": kind.name(),
        "metadata": { "name": name, "namespace": namespace },
        "spec": spec,
    });
    Object::Document(Document {
        key: DocumentKey::new(kind, namespace, name),
        uid: "u".into(),
        generation: 1,
        created,
        value,
        shown: Arc::new(Shown {
            observed_generation: Some(noise),
            ..Shown::default()
        }),
    })
}

fn server() -> impl Strategy<Value = Object> {
    let selector = select(vec![
        json!({ "matchLabels": { "app": "chat" } }),
        json!({ "matchLabels": { "app": "chat", "role": "decode" } }),
        json!({ "matchLabels": { "group": "g1" } }),
        json!({ "matchLabels": {} }),
        json!({ "matchLabels": { "app": "chat" }, "pdGroup": {
            "groupKey": "group",
            "prefillLabels": { "role": "prefill" },
            "decodeLabels": { "role": "decode" },
        }}),
        Value::Null,
    ]);
    let port = select(vec![
        json!(8000),
        json!(8000),
        json!(8001),
        json!(70000),
        Value::Null,
    ]);
    let engine = select(vec!["vLLM", "unknown"]);
    let name = select(vec!["s0", "s1", "s2"]);
    (namespace(), name, selector, port, engine, 0..3i64).prop_map(
        |(namespace, name, selector, port, engine, noise)| {
            let spec = json!({
                "inferenceEngine": engine,
                "workloadSelector": selector,
                "workloadPort": { "port": port },
            });
            document(Kind::ModelServer, name, namespace, 0, spec, noise)
        },
    )
}

fn route() -> impl Strategy<Value = Object> {
    let names = select(vec![
        json!({ "modelName": "m" }),
        json!({ "modelName": "n", "loraAdapters": ["m", "x"] }),
        json!({ "loraAdapters": ["x"] }),
        json!({}),
    ]);
    let model_match = select(vec![
        json!({}),
        json!({ "headers": { "tier": { "exact": "a" } } }),
        json!({ "headers": { "tier": { "prefix": "" } }, "body": { "model": "m" } }),
    ]);
    let target = select(vec![
        json!({ "modelServerName": "s0" }),
        json!({ "modelServerName": "s1" }),
        json!({ "externalModelProviderName": "e0" }),
    ]);
    let rule = (model_match, target).prop_map(
        |(model_match, target)| json!({ "modelMatch": model_match, "targetModels": [target] }),
    );
    let rules = prop::collection::vec(rule, 1..3);
    let name = select(vec!["r0", "r1", "r2"]);
    (namespace(), name, names, rules, 0..3i64, 0..3i64).prop_map(
        |(namespace, name, mut spec, rules, created, noise)| {
            spec["rules"] = rules.into();
            document(Kind::ModelRoute, name, namespace, created, spec, noise)
        },
    )
}

fn provider() -> impl Strategy<Value = Object> {
    let reference = (select(vec!["k0", "k1"]), select(vec!["token", "other"]))
        .prop_map(|(name, key)| json!({ "secretRef": { "name": name, "key": key } }));
    let auth = prop_oneof![Just(Value::Null), reference];
    let name = select(vec!["e0", "e1"]);
    let url = select(vec!["https://a.example", "http://a.example"]);
    (namespace(), name, auth, url).prop_map(|(namespace, name, auth, url)| {
        let spec = json!({ "baseURL": url, "auth": auth });
        document(Kind::ExternalModelProvider, name, namespace, 0, spec, 0)
    })
}

fn secret() -> impl Strategy<Value = Object> {
    let name = select(vec!["k0", "k1"]);
    let key = select(vec!["token", "unused"]);
    let value = select(vec!["secret", "", "a\nb"]);
    (namespace(), name, key, value).prop_map(|(namespace, name, key, value)| {
        Object::Secret(Secret {
            key: ObjectKey::new(namespace, name),
            data: BTreeMap::from([(key.to_owned(), value.as_bytes().to_vec())]),
        })
    })
}

fn node() -> impl Strategy<Value = Object> {
    (select(vec!["n0", "n1"]), select(vec!["z0", "z1"])).prop_map(|(name, zone)| {
        let meta: kube::api::PartialObjectMeta<k8s_openapi::api::core::v1::Node> =
            serde_json::from_value(json!({ "metadata": {
                "name": name,
                "labels": {
                    "topology.kubernetes.io/zone": zone,
                    "kubernetes.io/hostname": name,
                    "beta.kubernetes.io/arch": "amd64",
                },
            }}))
            .unwrap();
        Object::Node(Node::of(&meta).unwrap())
    })
}

/// Any object, with its kind.
pub(super) fn object() -> impl Strategy<Value = (ObjectKind, Object)> {
    let document = |kind| move |object| (ObjectKind::Document(kind), object);
    let pods: &[&str] = &["p0", "p1", "p2", "p3"];
    let proxies: &[&str] = &["x0", "x1"];
    prop_oneof![
        6 => pod(pods).prop_map(|pod| (ObjectKind::Pod, Object::Pod(pod))),
        3 => server().prop_map(document(Kind::ModelServer)),
        3 => route().prop_map(document(Kind::ModelRoute)),
        2 => provider().prop_map(document(Kind::ExternalModelProvider)),
        2 => secret().prop_map(|secret| (ObjectKind::Secret, secret)),
        1 => pod(proxies).prop_map(|pod| (ObjectKind::Proxy, Object::Proxy(pod))),
        2 => node().prop_map(|node| (ObjectKind::Node, node)),
        1 => (namespace(), any::<bool>()).prop_map(|(name, terminating)| {
            let name = name.into();
            (ObjectKind::Namespace, Object::Namespace(Namespace { name, terminating }))
        }),
    ]
}
