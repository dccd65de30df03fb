use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sluice_config::push::{
    Batch, DocumentMessage, EndpointMessage, MembershipMessage, ResourceType, RoleMessage, Upsert,
};
use sluice_config::scheduling::SchedulingParams;
use sluice_config::{Catalog, FilterSet, LoadedDocuments};

use super::*;
use crate::cache::budget::IndexBudget;
use crate::endpoints::scrape::adapters::ModelList;
use crate::endpoints::scrape::metrics::EngineReport;
use crate::filters::{Chain, Registry};
use crate::serving::ServingStore;
use crate::telemetry::{BuildInfo, Metrics};

const DOCUMENTS: &str = "
apiVersion: networking.serving.volcano.sh/v1alpha1
kind: ModelServer
metadata: {name: one, namespace: models}
spec:
  inferenceEngine: vLLM
  model: org/model
  endpoints:
  - {address: '10.0.0.1:8000', labels: {app: one}}
  - {address: '10.0.0.2:8000'}
---
apiVersion: networking.serving.volcano.sh/v1alpha1
kind: ModelServer
metadata: {name: two, namespace: models}
spec:
  inferenceEngine: vLLM
  endpoints:
  - {address: '10.0.0.2:8000'}
---
apiVersion: networking.serving.volcano.sh/v1alpha1
kind: ModelServer
metadata: {name: none, namespace: models}
spec:
  inferenceEngine: SGLang
  workloadSelector: {matchLabels: {app: none}}
  workloadPort: {port: 30000}
---
apiVersion: networking.serving.volcano.sh/v1alpha1
kind: ModelRoute
metadata: {name: chat, namespace: models}
spec:
  modelName: chat
  loraAdapters: [sql]
  rules:
  - name: all
    targetModels: [{modelServerName: one, weight: 7}]
  rateLimit: {inputTokensPerUnit: 30, unit: minute}
";

fn store() -> ServingStore {
    let build = BuildInfo {
        version: "test",
        revision: "test",
    };
    let metrics = Arc::new(Metrics::new(build, SystemTime::UNIX_EPOCH));
    let chain = Chain::compile(&[], Arc::new(Registry::builtin())).unwrap();
    let budget = IndexBudget::new(1 << 20);
    ServingStore::new(chain, metrics, SchedulingParams::default(), budget)
}

fn serving() -> Arc<Serving> {
    let store = store();
    let documents = LoadedDocuments::from_text("routes.yaml", DOCUMENTS);
    let update = Catalog::new(FilterSet::unknown()).update(documents, 1);
    assert_eq!(update.rejected, 0, "{:?}", update.problems);
    store.install(update.snapshot);
    let serving = store.load();
    let said = &serving
        .pools
        .iter()
        .find(|pool| *pool.name == *"models/one")
        .unwrap()
        .members[0];
    let report = EngineReport {
        running: Some(3.0),
        waiting: Some(2.0),
        kv_usage: Some(0.25),
        ..EngineReport::default()
    };
    let (now, long) = (Instant::now(), Duration::from_secs(60));
    said.endpoint.reported.set_metrics(report, now, long);
    let page = br#"{"data":[{"id":"org/model"},{"id":"sql","parent":"org/model"}]}"#;
    let list = ModelList::parse(page).unwrap();
    said.endpoint.reported.set_models(list, now);
    serving
}

fn good(asked: &str) -> Value {
    let (status, value) = answer(&serving(), asked);
    assert_eq!(status, StatusCode::OK, "{asked}: {value}");
    value
}

#[test]
fn documents_are_shown_as_they_were_written() {
    let route = json!({
        "name": "chat",
        "namespace": "models",
        "spec": {
            "modelName": "chat",
            "loraAdapters": ["sql"],
            "rules": [{"name": "all", "targetModels": [{"modelServerName": "one", "weight": 7}]}],
            "rateLimit": {"inputTokensPerUnit": 30, "unit": "minute"},
        },
    });
    assert_eq!(good("modelroutes"), json!({"modelroutes": [route]}));
    assert_eq!(good("namespaces/models/modelroutes/chat"), route);
    let servers = good("modelservers");
    let names = |server: &Value| server["name"].as_str().unwrap().to_owned();
    let servers = servers["modelservers"].as_array().unwrap();
    assert_eq!(
        servers.iter().map(names).collect::<Vec<_>>(),
        ["none", "one", "two"]
    );
    assert_eq!(
        servers[0]["spec"]["workloadSelector"]["matchLabels"]["app"],
        "none"
    );
    assert!(servers[0].get("associatedPods").is_none());
    let pods = ["models/10.0.0.1:8000", "models/10.0.0.2:8000"];
    assert_eq!(servers[1]["associatedPods"], json!(pods));
    assert_eq!(good("namespaces/models/modelservers/one"), servers[1]);
}

#[test]
fn pods_have_engine_models_servers_and_metrics() {
    let all = good("pods");
    let pods = all["pods"].as_array().unwrap();
    assert_eq!(pods.len(), 2, "one that is in two pools is one pod: {all}");
    let expected = json!({
        "name": "10.0.0.1:8000",
        "namespace": "models",
        "engine": "vLLM",
        "metrics": {
            "gpuCacheUsage": 0.25,
            "requestWaitingNum": 2.0,
            "requestRunningNum": 3.0,
            "tpot": 0.0,
            "ttft": 0.0,
        },
        "models": ["org/model", "sql"],
        "modelServers": ["models/one"],
    });
    assert_eq!(pods[0], expected);
    assert_eq!(pods[1]["modelServers"], json!(["models/one", "models/two"]));
    assert_eq!(pods[1]["metrics"]["requestRunningNum"], json!(0.0));
    for name in ["10.0.0.1:8000", "10.0.0.1%3A8000"] {
        let one = good(&format!("namespaces/models/pods/{name}"));
        let info = json!({
            "podIP": "10.0.0.1", "nodeName": "", "phase": "Running", "labels": {"app": "one"}
        });
        assert_eq!(one["podInfo"], info);
        assert_eq!(one["metrics"], expected["metrics"]);
    }
}

#[test]
fn kinds_that_are_not_served_are_empty_lists_and_what_is_missing_is_said_so() {
    for word in ["gateways", "httproutes", "inferencepools"] {
        assert_eq!(good(word), json!({word: []}));
    }
    let refused = |asked: &str| {
        let (status, value) = answer(&serving(), asked);
        assert_eq!(status, StatusCode::NOT_FOUND, "{asked}");
        value["error"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        refused("namespaces/models/modelroutes/other"),
        "ModelRoute not found"
    );
    assert_eq!(
        refused("namespaces/other/modelservers/one"),
        "ModelServer not found"
    );
    assert_eq!(refused("namespaces/models/pods/x"), "Pod not found");
    assert_eq!(refused("namespaces/models/gateways/x"), "Gateway not found");
    for asked in [
        "",
        "routes",
        "namespaces/models",
        "namespaces/models/routes/x",
        "pods/x/y/z",
    ] {
        assert!(
            refused(asked).contains("modelroutes, modelservers, pods"),
            "{asked}"
        );
    }
}

fn pushed(kind: ResourceType, name: &str, message: &impl prost::Message) -> Upsert {
    Upsert {
        kind,
        name: name.to_owned(),
        version: "1".to_owned(),
        value: message.encode_to_vec(),
    }
}

#[test]
fn pushed_pods_have_their_names_nodes_and_roles() {
    let server = json!({
        "apiVersion": "networking.serving.volcano.sh/v1alpha1",
        "kind": "ModelServer",
        "metadata": {"name": "pool", "namespace": "models"},
        "spec": {
            "inferenceEngine": "vLLM",
            "workloadSelector": {"matchLabels": {"app": "x"}},
            "workloadPort": {"port": 8000},
        },
    });
    let document = DocumentMessage {
        json: server.to_string(),
    };
    let mut upserts = vec![pushed(ResourceType::ModelServer, "models/pool", &document)];
    let pods = [
        ("whole-0", RoleMessage::Whole),
        ("decode-0", RoleMessage::Decode),
        ("prefill-0", RoleMessage::Prefill),
    ];
    for (number, (pod, role)) in pods.into_iter().enumerate() {
        let message = EndpointMessage {
            namespace: "models".into(),
            pod: pod.into(),
            uid: pod.into(),
            host: format!("10.0.0.{number}"),
            port: 8000,
            memberships: vec![MembershipMessage {
                server: "pool".into(),
                role: role.into(),
                pd_group: String::new(),
            }],
            node: "node-1".into(),
            labels: [("app".to_owned(), "x".to_owned())].into(),
            ..EndpointMessage::default()
        };
        let name = format!("models/{pod}:8000");
        upserts.push(pushed(ResourceType::Endpoint, &name, &message));
    }
    let mut catalog = Catalog::with_push(FilterSet::unknown());
    let batch = Batch {
        upserts,
        removals: Vec::new(),
    };
    let applied = catalog.push(&batch, 1);
    assert!(applied.refusals.is_empty(), "{:?}", applied.refusals);
    let store = store();
    store.install(applied.update.snapshot);
    let get = |asked: &str| answer(&store.load(), asked).1;
    let names = ["models/decode-0", "models/prefill-0", "models/whole-0"];
    let server = get("namespaces/models/modelservers/pool");
    let mut all: Vec<&str> = (server["associatedPods"].as_array().unwrap().iter())
        .map(|name| name.as_str().unwrap())
        .collect();
    all.sort_unstable();
    assert_eq!(all, names);
    assert_eq!(server["decodePods"], json!(["models/decode-0"]));
    assert_eq!(server["prefillPods"], json!(["models/prefill-0"]));
    let pod = get("namespaces/models/pods/decode-0");
    let info = json!({
        "podIP": "10.0.0.1", "nodeName": "node-1", "phase": "Running", "labels": {"app": "x"}
    });
    assert_eq!(pod["podInfo"], info);
    assert_eq!(pod["modelServers"], json!(["models/pool"]));
}
