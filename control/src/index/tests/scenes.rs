//! Single scenes that a property of all of them would not tell apart.

use std::sync::Arc;

use serde_json::{Value, json};
use sluice_config::Kind;
use sluice_config::push::ResourceType;

use crate::index::*;

fn document(kind: Kind, namespace: &str, name: &str, spec: Value) -> Object {
    let object = json!({
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": "u",
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": spec,
    });
    let object = serde_json::from_value(object).unwrap();
    Object::Document(Document::of(kind, object).unwrap())
}

fn server(namespace: &str, app: &str) -> Object {
    let spec = json!({
        "inferenceEngine": "vLLM",
        "workloadSelector": { "matchLabels": { "app": app } },
        "workloadPort": { "port": 8000 },
    });
    document(Kind::ModelServer, namespace, "server", spec)
}

fn pod(name: &str, app: &str) -> Object {
    Object::Pod(Pod {
        key: ObjectKey::new("a", name),
        uid: "u".into(),
        labels: [("app", app)].into_iter().collect(),
        node: "".into(),
        address: Some("10.0.0.1".parse().unwrap()),
        running: true,
        state: PodState::Serving,
    })
}

fn names(output: &Output, kind: ResourceType) -> Vec<&str> {
    let upserts = output
        .upserts
        .iter()
        .filter(|resource| resource.kind == kind);
    upserts.map(|resource| &*resource.name).collect()
}

#[test]
fn of_two_equally_old_routes_the_one_that_gateways_take_first_is_the_older() {
    let spec =
        json!({ "modelName": "m", "rules": [{ "targetModels": [{ "modelServerName": "s" }] }] });
    let mut index = Index::default();
    // As a text `a-b/x` comes before `a/x`, for `-` comes before `/`.
    for namespace in ["a", "a-b"] {
        index.apply(Input::Applied(document(
            Kind::ModelRoute,
            namespace,
            "x",
            spec.clone(),
        )));
    }
    let output = index.reconcile();
    let shadowed: Vec<&str> = output
        .facts
        .iter()
        .filter(|(_, facts)| match &facts.as_ref().unwrap().detail {
            Detail::Route(route) => route.shadowed,
            _ => false,
        })
        .map(|(key, _)| &*key.namespace)
        .collect();
    assert_eq!(shadowed, ["a"]);
}

#[test]
fn a_selector_may_select_five_thousand_pods_and_let_go_of_them_again() {
    let mut index = Index::default();
    for number in 0..5000 {
        index.apply(Input::Applied(pod(&format!("p-{number}"), "chat")));
    }
    index.apply(Input::Applied(pod("other", "code")));
    index.apply(Input::Applied(server("a", "chat")));
    let output = index.reconcile();
    assert_eq!(names(&output, ResourceType::Endpoint).len(), 5000);
    index.apply(Input::Applied(server("a", "code")));
    let output = index.reconcile();
    assert_eq!(output.removals.len(), 5000);
    assert_eq!(names(&output, ResourceType::Endpoint), ["a/other:8000"]);
}

#[test]
fn a_pod_that_is_replaced_within_one_pass_is_one_new_version() {
    let mut index = Index::default();
    index.apply(Input::Applied(server("a", "chat")));
    index.apply(Input::Applied(pod("p", "chat")));
    index.reconcile();
    index.apply(Input::Deleted(ObjectKind::Pod, ObjectKey::new("a", "p")));
    let Object::Pod(mut again) = pod("p", "chat") else {
        unreachable!()
    };
    again.uid = "v".into();
    index.apply(Input::Applied(Object::Pod(again)));
    let output = index.reconcile();
    assert_eq!(names(&output, ResourceType::Endpoint), ["a/p:8000"]);
    assert!(output.removals.is_empty());
}

#[test]
fn a_server_in_use_that_is_deleted_takes_its_endpoints_and_is_missed_by_its_route() {
    let route = json!({ "modelName": "m", "rules": [{ "targetModels": [{ "modelServerName": "server" }] }] });
    let mut index = Index::default();
    index.apply(Input::Applied(document(
        Kind::ModelRoute,
        "a",
        "route",
        route,
    )));
    index.apply(Input::Applied(server("a", "chat")));
    index.apply(Input::Applied(pod("p", "chat")));
    index.reconcile();
    let kind = ObjectKind::Document(Kind::ModelServer);
    index.apply(Input::Deleted(kind, ObjectKey::new("a", "server")));
    let output = index.reconcile();
    let gone: Vec<&str> = output.removals.iter().map(|(_, name)| &**name).collect();
    assert_eq!(gone, ["a/server", "a/p:8000"]);
    let route = output
        .facts
        .iter()
        .find_map(|(_, facts)| facts.as_ref())
        .unwrap();
    let Detail::Route(route) = &route.detail else {
        unreachable!()
    };
    assert_eq!(route.unresolved.len(), 1);
}

#[test]
fn two_indexes_give_equal_versions_whatever_the_order_of_the_keys() {
    let version = |text: &str| {
        let object = serde_json::from_str(text).unwrap();
        let document = Document::of(Kind::ModelServer, object).unwrap();
        let mut index = Index::default();
        index.apply(Input::Applied(Object::Document(document)));
        index.reconcile().upserts[0].version.clone()
    };
    let one = version(
        r#"{"metadata":{"name":"s","namespace":"a","uid":"u"},"spec":{"b":{"x":1,"y":2},"a":[]}}"#,
    );
    let other = version(
        r#"{"spec":{"a":[],"b":{"y":2,"x":1}},"status":{"conditions":[]},"metadata":{"uid":"u","namespace":"a","name":"s"}}"#,
    );
    assert_eq!(one, other);
}

#[test]
fn documents_of_a_namespace_that_is_going_say_so() {
    let mut index = Index::default();
    index.apply(Input::Applied(server("a", "chat")));
    let going = |terminating| {
        let name = "a".into();
        Input::Applied(Object::Namespace(Namespace { name, terminating }))
    };
    index.apply(going(false));
    index.reconcile();
    index.apply(going(true));
    let output = index.reconcile();
    assert!(output.facts[0].1.as_ref().unwrap().terminating);
    assert!(output.upserts.is_empty(), "its objects go when they go");
}

#[test]
fn a_server_whose_pods_are_not_known_says_why() {
    let mut index = Index::default();
    index.apply(Input::Applied(server("a", "chat")));
    let key = ObjectKey::new("a", "server");
    let mut awaiting = |why: Option<&str>| {
        let why: Option<Arc<str>> = why.map(Into::into);
        index.apply(Input::Awaiting {
            server: key.clone(),
            why,
        });
        let output = index.reconcile();
        let facts = output.facts.into_iter().find_map(|(_, facts)| facts)?;
        match &facts.detail {
            Detail::Server(server) => Some(server.awaiting.clone()),
            _ => unreachable!(),
        }
    };
    assert_eq!(awaiting(Some("denied")).unwrap().as_deref(), Some("denied"));
    assert_eq!(awaiting(Some("denied")), None, "nothing new");
    assert_eq!(awaiting(None), Some(None));
}
