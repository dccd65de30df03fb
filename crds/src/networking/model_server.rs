//! ModelServer: a pool of inference endpoints that serve one model.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::Duration;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::scheduling::SchedulingConfig;

/// A pool of inference endpoints and how to talk to them.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "networking.serving.volcano.sh",
    version = "v1alpha1",
    kind = "ModelServer",
    namespaced,
    doc = "A pool of inference endpoints that serve one model, and how to talk to them.",
    status = "ModelServerStatus",
    derive = "PartialEq",
    printcolumn(name = "Engine", type_ = "string", json_path = ".spec.inferenceEngine"),
    printcolumn(
        name = "Port",
        type_ = "integer",
        json_path = ".spec.workloadPort.port"
    ),
    printcolumn(
        name = "Protocol",
        type_ = "string",
        json_path = ".spec.workloadPort.protocol"
    ),
    printcolumn(name = "Endpoints", type_ = "integer", json_path = ".status.endpoints"),
    printcolumn(name = "Ready", type_ = "integer", json_path = ".status.ready"),
    printcolumn(
        name = "Draining",
        type_ = "integer",
        json_path = ".status.draining",
        priority = 1
    ),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status",
        priority = 1
    ),
    printcolumn(
        name = "Programmed",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Programmed\")].status"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[x_kube(
    validation = Rule::new(
        "has(self.workloadSelector) || (has(self.endpoints) && size(self.endpoints) > 0)"
    )
    .message("workloadSelector is required unless endpoints are given"),
    validation = Rule::new(
        "has(self.workloadPort) || (has(self.endpoints) && size(self.endpoints) > 0)"
    )
    .message("workloadPort is required unless endpoints are given")
)]
#[schemars(transform = crate::structural::plain)]
#[serde(rename_all = "camelCase")]
pub struct ModelServerSpec {
    /// Overwrites `model` in forwarded bodies, except on a LoRA hit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub model: Option<String>,
    /// What runs behind the endpoints.
    pub inference_engine: InferenceEngine,
    /// Pods of the same namespace. May be absent when `endpoints` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_selector: Option<WorkloadSelector>,
    /// Port the engine listens on. May be absent when `endpoints` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_port: Option<WorkloadPort>,
    /// Timeouts and retries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic_policy: Option<TrafficPolicy>,
    /// How prefill hands KV blocks to decode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_connector: Option<KvConnector>,
    /// Sluice: endpoints written down, for use without Kubernetes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<StaticEndpoint>,
    /// Sluice: how a request's endpoint is chosen. Default: the gateway's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduling: Option<SchedulingConfig>,
    /// Sluice: how the model's prompts become tokens; without it engines are asked, for the next turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<TokenizerSource>,
    /// Sluice: where the engines publish changes of their KV caches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_events: Option<KvEvents>,
    /// Sluice: where the engines tell of their load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_metrics: Option<EngineMetrics>,
    /// Sluice: what is known of the engines' speed before anything is measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_speed: Option<EngineSpeed>,
}

/// Observed state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::structural::plain)]
#[serde(rename_all = "camelCase")]
pub struct ModelServerStatus {
    /// Generation the conditions and counts speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Accepted`, `ResolvedRefs` and `Programmed`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Endpoints of the pool: pods that the selector chooses, in whatever state, and those written down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<i32>,
    /// Endpoints that get new requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<i32>,
    /// Endpoints that finish what they have and get nothing new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draining: Option<i32>,
    /// Of these, the ones that prefill; with `pdGroup`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefill: Option<EndpointCounts>,
    /// Of these, the ones that decode; with `pdGroup`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decode: Option<EndpointCounts>,
}

/// Endpoints of one role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EndpointCounts {
    /// All, in whatever state.
    #[serde(default)]
    pub endpoints: i32,
    /// Those that get new requests.
    #[serde(default)]
    pub ready: i32,
    /// Those that finish what they have.
    #[serde(default)]
    pub draining: i32,
}

/// Engine family: picks the default port, metric names and connector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "product names")]
pub enum InferenceEngine {
    #[serde(rename = "vLLM")]
    Vllm,
    #[serde(rename = "SGLang")]
    SgLang,
    #[serde(rename = "llama.cpp")]
    LlamaCpp,
    #[serde(rename = "TGI")]
    Tgi,
    Triton,
    #[serde(rename = "TensorRT-LLM")]
    TensorRtLlm,
    MindIE,
}

/// Selects pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadSelector {
    /// Every label must be equal.
    #[schemars(schema_with = "crate::structural::selecting_labels")]
    pub match_labels: BTreeMap<String, String>,
    /// Ties prefill and decode pods together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pd_group: Option<PdGroup>,
}

/// Which pods prefill, which decode, and which belong together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PdGroup {
    /// Label key whose value names the group.
    #[schemars(length(min = 1, max = 317))]
    pub group_key: String,
    /// Labels of prefill pods.
    #[schemars(schema_with = "crate::structural::selecting_labels")]
    pub prefill_labels: BTreeMap<String, String>,
    /// Labels of decode pods.
    #[schemars(schema_with = "crate::structural::selecting_labels")]
    pub decode_labels: BTreeMap<String, String>,
}

/// Port and protocol of the engine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WorkloadPort {
    /// TCP port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// `http` or `https`.
    #[serde(default)]
    pub protocol: Protocol,
    /// Sluice: speak HTTP/2 to the engine (prior knowledge with `http`, ALPN with `https`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[schemars(extend("default" = false))]
    pub http2: bool,
}

/// How the engine is spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Plain text.
    #[default]
    Http,
    /// TLS.
    Https,
}

/// Timeouts and retries of one pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrafficPolicy {
    /// From dial to response head, per attempt.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::duration::deserialize_option"
    )]
    #[schemars(schema_with = "crate::duration::schema")]
    pub timeout: Option<Duration>,
    /// Retries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Sluice: longest silence between two reads of a response body.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::duration::deserialize_option"
    )]
    #[schemars(schema_with = "crate::duration::schema")]
    pub stream_idle_timeout: Option<Duration>,
    /// Sluice: whole request, all attempts and the body included.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::duration::deserialize_option"
    )]
    #[schemars(schema_with = "crate::duration::schema")]
    pub total_timeout: Option<Duration>,
}

/// Retry rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// Most retries after the first attempt. Kthena lets it be absent, which means none.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub attempts: i32,
    /// Pause between attempts.
    #[serde(
        default = "default_retry_interval",
        deserialize_with = "crate::duration::deserialize"
    )]
    #[schemars(schema_with = "crate::duration::schema")]
    pub retry_interval: Duration,
}

fn default_retry_interval() -> Duration {
    std::time::Duration::from_millis(100).into()
}

/// KV connector.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct KvConnector {
    /// Protocol.
    #[serde(rename = "type", default)]
    pub kind: KvConnectorType,
}

/// Protocol by which KV blocks move from prefill to decode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "product names")]
pub enum KvConnectorType {
    #[default]
    Http,
    Lmcache,
    Nixl,
    Mooncake,
}

/// One endpoint written down by hand.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StaticEndpoint {
    /// `host:port`; IPv6 in brackets.
    #[schemars(regex(pattern = r"^(\[[^\[\]/\s]+\]|[^\[\]:/@\s]+):[0-9]{1,5}$"))]
    pub address: String,
    /// Labels, as a pod would carry them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::structural::labels")]
    pub labels: BTreeMap<String, String>,
}

/// A tokenizer on the gateway's disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenizerSource {
    /// A folder with `tokenizer.json`, `tokenizer_config.json` and, if apart, the chat template; or a
    /// `tokenizer.json` alone. Nothing is downloaded.
    #[schemars(length(min = 1, max = 4096))]
    pub path: String,
}

/// Publishers of KV events: ZeroMQ, as vLLM and SGLang have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KvEvents {
    /// Follow them.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Port of the first data-parallel rank's publisher on each endpoint's host, rank r at port + r. Absent:
    /// the engine is asked (`/kv_event_sources`, `/server_info`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// Port of the first rank's replay socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub replay_port: Option<i32>,
    /// Data-parallel ranks, with `port`.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 256))]
    pub ranks: i32,
}

/// Where an engine's metrics are read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EngineMetrics {
    /// Read them.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Port, where it is not the one that serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// Path.
    #[serde(default = "metrics_path")]
    #[schemars(length(min = 1, max = 1024))]
    pub path: String,
}

/// An engine's speed, as a start for what is learned. Each field that is absent has the default of an 8B model on
/// one H100.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EngineSpeed {
    /// Shortest time of a step, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_milliseconds: Option<f64>,
    /// Prefill rate without anything else to do, in tokens a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefill_tokens_per_second: Option<f64>,
    /// What a thousand tokens of context add to a step, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_microseconds_per_thousand: Option<f64>,
    /// Most tokens in a step (`max_num_batched_tokens`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub batch_tokens: Option<i64>,
    /// Tokens that the KV cache holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub kv_tokens: Option<i64>,
}

fn yes() -> bool {
    true
}

fn one() -> i32 {
    1
}

fn metrics_path() -> String {
    "/metrics".into()
}
