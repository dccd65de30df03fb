//! Documents as people write them: read in full, defaults filled, written back the same.
//!
//! Not for: what an API server refuses (`structural.rs`, `rules.rs`).

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sluice_crds::networking::{
    AuthScheme, DEFAULT_WEIGHT, ExternalModelProvider, InferenceEngine, KvConnectorType,
    ModelRoute, ModelServer, Protocol, ProviderType, RateLimitUnit,
};

const ROUTE: &str = r#"
apiVersion: networking.serving.volcano.sh/v1alpha1
kind: ModelRoute
metadata:
  name: chat
  namespace: models
spec:
  modelName: chat
  loraAdapters: [chat-sql, chat-law]
  parentRefs:
    - group: gateway.networking.k8s.io
      kind: Gateway
      namespace: infra
      name: edge
      sectionName: https
      port: 443
  rules:
    - name: beta
      modelMatch:
        headers:
          x-tier: { exact: beta }
          x-region: { prefix: eu- }
        uri: { regex: "^/v1/(chat/)?completions$" }
        body: { model: chat }
      targetModels:
        - modelServerName: chat-new
          weight: 10
        - modelServerName: chat-old
          weight: 90
    - targetModels:
        - externalModelProviderName: hosted
  rateLimit:
    inputTokensPerUnit: 1000
    outputTokensPerUnit: 4294967295
    unit: month
    global:
      redis: { address: "redis:6379" }
  filters:
    auth: { disabled: true }
    guard: { config: { words: [a, 1, null], nested: { deep: true } } }
status:
  observedGeneration: 3
  conditions:
    - type: Accepted
      status: "True"
      reason: Accepted
      message: ""
      observedGeneration: 3
      lastTransitionTime: "2026-01-02T03:04:05Z"
"#;

const SERVER: &str = r#"
apiVersion: networking.serving.volcano.sh/v1alpha1
kind: ModelServer
metadata:
  name: chat-new
  namespace: models
spec:
  model: org/chat-7b
  inferenceEngine: TensorRT-LLM
  workloadSelector:
    matchLabels: { app: chat }
    pdGroup:
      groupKey: example.com/group
      prefillLabels: { role: prefill }
      decodeLabels: { role: decode }
  workloadPort: { port: 8000, protocol: https, http2: true }
  trafficPolicy:
    timeout: 90s
    retry: { attempts: 3, retryInterval: 500µs }
    streamIdleTimeout: 30s
    totalTimeout: 600s
  kvConnector: { type: nixl }
  endpoints:
    - address: 10.0.0.1:8000
      labels: { role: prefill }
    - address: "[::1]:8000"
  scheduling:
    policy: kthena
    mtl: { inflicted: 0.1, decode: 0.1, price: 1.0 }
    leastLatency: { firstTokenWeight: 0.5 }
    session: { header: x-session-id, cookie: session }
    scheduler:
      pluginConfig: [{ name: least-request, args: { maxWaitingRequests: 10 } }]
      plugins:
        Filter: { enabled: [least-request], disabled: [lora-affinity] }
        Score: { enabled: [{ name: prefix-cache, weight: 2 }] }
  tokenizer: { path: /models/llama }
  kvEvents: { enabled: true, port: 5557, replayPort: 5558, ranks: 2 }
  engineMetrics: { enabled: true, port: 9090, path: /metrics }
  engineSpeed:
    stepMilliseconds: 9.2
    prefillTokensPerSecond: 33000.0
    contextMicrosecondsPerThousand: 76.2
    batchTokens: 8192
    kvTokens: 385000
status:
  observedGeneration: 3
  conditions:
    - type: Accepted
      status: "True"
      reason: Accepted
      message: ""
      observedGeneration: 3
      lastTransitionTime: "2026-01-02T03:04:05Z"
  endpoints: 4
  ready: 2
  draining: 1
  prefill: { endpoints: 2, ready: 1, draining: 1 }
  decode: { endpoints: 2, ready: 1, draining: 0 }
"#;

const PROVIDER: &str = r#"
apiVersion: networking.serving.volcano.sh/v1alpha1
kind: ExternalModelProvider
metadata:
  name: hosted
  namespace: models
spec:
  providerType: Anthropic
  model: big
  baseURL: https://api.example.com/v1
  insecureSkipVerify: true
  auth:
    scheme: APIKey
    secretRef: { name: hosted, key: token, optional: false }
  headers: { x-team: chat }
status:
  observedGeneration: 3
  conditions:
    - type: Ready
      status: "True"
      reason: Ready
      message: ""
      observedGeneration: 3
      lastTransitionTime: "2026-01-02T03:04:05Z"
"#;

fn assert_round_trip<K: Serialize + DeserializeOwned>(text: &str) {
    let written: Value = serde_yaml::from_str(text).unwrap();
    let typed: K = serde_yaml::from_str(text).unwrap();
    assert_eq!(serde_json::to_value(&typed).unwrap(), written);
}

#[test]
fn a_full_document_of_each_kind_survives_the_round_trip() {
    assert_round_trip::<ModelRoute>(ROUTE);
    assert_round_trip::<ModelServer>(SERVER);
    assert_round_trip::<ExternalModelProvider>(PROVIDER);
}

/// Every property of a schema that `document` does not set.
fn unset(path: &str, schema: &Value, document: &Value, missing: &mut Vec<String>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        match document.get(name) {
            Some(value) => unset(&path, property, value, missing),
            None => missing.push(path),
        }
    }
    let entries = document
        .as_object()
        .into_iter()
        .flat_map(|entries| entries.values());
    let items = document.as_array().into_iter().flatten();
    for (below, mut values) in [
        ("items", Box::new(items) as Box<dyn Iterator<Item = &Value>>),
        ("additionalProperties", Box::new(entries)),
    ] {
        if schema[below].is_object() {
            // A property counts as set when any of its siblings sets it.
            let lists: Vec<Vec<String>> = values
                .by_ref()
                .map(|value| {
                    let mut list = Vec::new();
                    unset(&format!("{path}[]"), &schema[below], value, &mut list);
                    list
                })
                .collect();
            let in_all = |name: &&String| lists.iter().all(|list| list.contains(name));
            missing.extend(lists.first().into_iter().flatten().filter(in_all).cloned());
        }
    }
}

#[test]
fn the_full_documents_set_every_property_of_the_schemas() {
    let mut missing = Vec::new();
    for (definition, text) in sluice_crds::manifest::definitions()
        .into_iter()
        .zip([PROVIDER, ROUTE, SERVER])
    {
        let value = serde_json::to_value(&definition).unwrap();
        let schema = &value["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let document: Value = serde_yaml::from_str(text).unwrap();
        unset(&definition.spec.names.kind, schema, &document, &mut missing);
    }
    assert_eq!(missing, Vec::<String>::new());
}

fn read<K: DeserializeOwned>(kind: &str, spec: Value) -> Result<K, serde_json::Error> {
    serde_json::from_value(json!({
        "apiVersion": "networking.serving.volcano.sh/v1alpha1",
        "kind": kind,
        "metadata": { "name": "a" },
        "spec": spec,
    }))
}

#[test]
fn a_bare_route_gets_the_defaults() {
    let rules = json!([{ "targetModels": [{ "modelServerName": "a" }] }]);
    let route: ModelRoute = read("ModelRoute", json!({ "rules": rules, "rateLimit": {} })).unwrap();
    assert_eq!(route.spec.model_name, "");
    assert_eq!(route.spec.rate_limit.unwrap().unit, RateLimitUnit::Second);
    // The API server fills the weight; read from a file it stays open, and its reader fills it.
    assert_eq!(route.spec.rules[0].target_models[0].weight, None);
    assert_eq!(DEFAULT_WEIGHT, 100);
}

#[test]
fn a_bare_server_gets_the_defaults() {
    let server: ModelServer = read(
        "ModelServer",
        json!({
            "inferenceEngine": "vLLM",
            "workloadPort": { "port": 8000 },
            "kvConnector": {},
            "trafficPolicy": { "retry": {} },
        }),
    )
    .unwrap();
    assert_eq!(server.spec.inference_engine, InferenceEngine::Vllm);
    assert_eq!(server.spec.workload_port.unwrap().protocol, Protocol::Http);
    assert_eq!(
        server.spec.kv_connector.unwrap().kind,
        KvConnectorType::Http
    );
    let policy = server.spec.traffic_policy.unwrap();
    assert_eq!(policy.timeout, None);
    let retry = policy.retry.unwrap();
    assert_eq!(retry.attempts, 0);
    assert_eq!(retry.retry_interval, Duration::from_millis(100));
}

#[test]
fn a_bare_provider_gets_the_defaults() {
    let spec = json!({
        "baseURL": "https://a",
        "auth": { "secretRef": { "name": "s", "key": "k" } },
    });
    let provider: ExternalModelProvider = read("ExternalModelProvider", spec).unwrap();
    assert_eq!(provider.spec.provider_type, ProviderType::OpenAI);
    assert!(!provider.spec.insecure_skip_verify);
    assert_eq!(provider.spec.auth.unwrap().scheme, None::<AuthScheme>);
}

#[test]
fn durations_are_read_in_the_form_of_go() {
    let cases = [
        ("100ms", Duration::from_millis(100)),
        ("1m30s", Duration::from_secs(90)),
        ("500us", Duration::from_micros(500)),
    ];
    for (text, want) in cases {
        let spec = json!({
            "inferenceEngine": "SGLang",
            "trafficPolicy": { "timeout": text, "retry": { "attempts": 1, "retryInterval": text } },
        });
        let server: ModelServer = read("ModelServer", spec).unwrap();
        let policy = server.spec.traffic_policy.unwrap();
        assert_eq!(policy.timeout.unwrap(), want, "{text}");
        assert_eq!(policy.retry.unwrap().retry_interval, want, "{text}");
    }
}

#[test]
fn a_bad_duration_is_an_error_and_no_panic() {
    for text in ["soon", "-1s", "1s-5s", "99999999999999999999h"] {
        for field in ["timeout", "streamIdleTimeout", "totalTimeout"] {
            let spec = json!({ "inferenceEngine": "vLLM", "trafficPolicy": { (field): text } });
            let error = read::<ModelServer>("ModelServer", spec)
                .unwrap_err()
                .to_string();
            assert!(error.contains(text), "{field}: {error}");
        }
    }
}

#[test]
fn an_unknown_field_is_ignored_as_kubernetes_prunes_it() {
    let spec = json!({
        "inferenceEngine": "vLLM",
        "pipelineMode": "later",
        "workloadPort": { "port": 8000, "name": "http" },
    });
    let server: ModelServer = read("ModelServer", spec).unwrap();
    assert_eq!(server.spec.workload_port.unwrap().port, 8000);
}

#[test]
fn an_unknown_enum_value_is_refused() {
    assert!(read::<ModelServer>("ModelServer", json!({ "inferenceEngine": "vllm" })).is_err());
}
