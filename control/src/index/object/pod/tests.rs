use serde_json::{Value, json};

use super::*;

/// A pod that runs and is ready, with `change` merged into it.
fn pod(change: Value) -> Pod {
    let mut value = json!({
        "metadata": {
            "name": "engine-0",
            "namespace": "models",
            "uid": "u",
            "resourceVersion": "7",
            "managedFields": [{ "manager": "kubelet", "fieldsV1": { "f:a": {} } }],
            "labels": { "app": "chat" },
        },
        "spec": { "nodeName": "node-a", "containers": [{ "name": "engine" }] },
        "status": {
            "phase": "Running",
            "podIP": "10.0.0.1",
            "conditions": [{
                "type": "Ready",
                "status": "True",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
        },
    });
    merge(&mut value, change);
    Pod::of(serde_json::from_value(value).unwrap()).unwrap()
}

fn merge(into: &mut Value, change: Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            for (key, value) in change {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, change) => *into = change,
    }
}

fn ready(status: &str, since: &str) -> Value {
    json!([{ "type": "Ready", "status": status, "lastTransitionTime": since }])
}

fn deleting() -> Value {
    json!({
        "deletionTimestamp": "2026-01-01T01:00:30Z",
        "deletionGracePeriodSeconds": 30,
    })
}

#[test]
fn a_running_ready_pod_with_an_address_serves() {
    let pod = pod(json!({}));
    assert_eq!(pod.state, PodState::Serving);
    assert_eq!(pod.key.to_string(), "models/engine-0");
    assert_eq!((&*pod.node, &*pod.uid), ("node-a", "u"));
    assert_eq!(pod.labels.to_string(), "app=chat");
}

#[test]
fn a_pod_that_does_not_run_is_not_ready_or_has_no_address_is_idle() {
    let cases = [
        json!({ "status": { "phase": "Pending" } }),
        json!({ "status": { "phase": "Succeeded" } }),
        json!({ "status": { "podIP": null } }),
        json!({ "status": { "podIP": "soon" } }),
        json!({ "status": { "conditions": [] } }),
        json!({ "status": { "conditions": ready("False", "2026-01-01T00:00:00Z") } }),
        json!({ "status": { "conditions": ready("Unknown", "2026-01-01T00:00:00Z") } }),
    ];
    for change in cases {
        assert_eq!(pod(change.clone()).state, PodState::Idle, "{change}");
    }
}

#[test]
fn a_mark_makes_a_ready_pod_drain_unless_it_says_false() {
    let marked = |at: &str, value: &str| {
        pod(json!({ "metadata": { (at): { "sluice.dev/draining": value } } })).state
    };
    for at in ["annotations", "labels"] {
        assert_eq!(marked(at, "true"), PodState::Draining, "{at}");
        assert_eq!(marked(at, ""), PodState::Draining, "{at}");
        assert_eq!(marked(at, "false"), PodState::Serving, "{at}");
    }
    let idle = json!({
        "metadata": { "annotations": { "sluice.dev/draining": "true" } },
        "status": { "conditions": ready("False", "2026-01-01T00:00:00Z") },
    });
    assert_eq!(pod(idle).state, PodState::Idle);
}

#[test]
fn a_deleting_pod_drains_even_when_its_probe_fails_for_that() {
    let still = json!({ "metadata": deleting() });
    assert_eq!(pod(still).state, PodState::Draining);
    // It began at 01:00:00, in whole seconds.
    for since in ["2026-01-01T01:00:00Z", "2026-01-01T01:00:05Z"] {
        let failing = json!({
            "metadata": deleting(),
            "status": { "conditions": ready("False", since) },
        });
        assert_eq!(pod(failing).state, PodState::Draining, "{since}");
    }
}

#[test]
fn a_deleting_pod_that_was_not_ready_is_idle() {
    let never = json!({
        "metadata": deleting(),
        "status": { "conditions": ready("False", "2026-01-01T00:59:59Z") },
    });
    assert_eq!(pod(never).state, PodState::Idle);
    let ended = json!({ "metadata": deleting(), "status": { "phase": "Failed" } });
    assert_eq!(pod(ended).state, PodState::Idle);
}

#[test]
fn the_revision_is_what_the_strongest_owner_says() {
    let revision = |labels: Value| {
        pod(json!({ "metadata": { "labels": labels } }))
            .revision()
            .to_owned()
    };
    assert_eq!(revision(json!({})), "");
    assert_eq!(revision(json!({ "pod-template-hash": "d" })), "d");
    let both = json!({ "pod-template-hash": "d", "controller-revision-hash": "s" });
    assert_eq!(revision(both), "s");
    let all = json!({ "modelserving.volcano.sh/revision": "k", "controller-revision-hash": "s" });
    assert_eq!(revision(all), "k");
}

#[test]
fn an_ipv6_address_has_no_brackets() {
    let pod = pod(json!({ "status": { "podIP": "fd00::1" } }));
    assert_eq!(pod.address.unwrap().to_string(), "fd00::1");
}
