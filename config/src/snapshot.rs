//! The compiled configuration that requests read: immutable, with no string left to parse.
//!
//! A request loads one `Arc<Snapshot>` once and keeps it to its end, so it never sees half an edit. Parts that a change
//! left alone are shared with the snapshot before, so that whoever hangs something on a part can tell by its address
//! whether it is still the same.

mod endpoint;
mod pushed;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use regex::Regex;
use sluice_crds::networking::{FilterOverride, InferenceEngine};

pub use self::endpoint::{Endpoint, Role, authority};
pub use self::pushed::{Peer, Secret};
use crate::document::Documents;
use crate::scheduling::SchedulingParams;

/// Everything routing needs, compiled.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Grows by one with every snapshot of this process; 0 is "nothing loaded yet".
    pub generation: u64,
    /// Routes in order of precedence: those of files before pushed ones, oldest first, files in document order.
    pub routes: Arc<Vec<Arc<Route>>>,
    /// Pools by namespace and name; [`Target::Server`] indexes into this.
    pub servers: Vec<Arc<ModelServer>>,
    /// Base model name to indexes of `routes`, in order of precedence.
    pub by_model: Arc<HashMap<String, Vec<usize>>>,
    /// LoRA adapter name to indexes of `routes`, in order of precedence.
    pub by_lora: Arc<HashMap<String, Vec<usize>>>,
    /// Pushed credentials that documents in force refer to, by `namespace/name`.
    pub secrets: Arc<BTreeMap<String, Secret>>,
    /// Other gateways of the same control loop, by `namespace/pod`.
    pub peers: Arc<BTreeMap<String, Peer>>,
    /// What routes and pools were compiled from, for those who want to see it.
    pub documents: Documents,
}

impl Snapshot {
    /// Does any route serve this model or adapter?
    pub fn knows(&self, model: &str) -> bool {
        self.by_model.contains_key(model) || self.by_lora.contains_key(model)
    }

    /// For each of `servers` the model of the first route that targets it: its base model, else its first adapter.
    pub fn models_of_servers(&self) -> Vec<Option<&str>> {
        let mut models = vec![None; self.servers.len()];
        for route in self.routes.iter().rev() {
            let base = Some(route.model_name.as_str()).filter(|name| !name.is_empty());
            let model = base.or_else(|| route.lora_adapters.first().map(String::as_str));
            for target in route.rules.iter().flat_map(|rule| &rule.targets) {
                if let Target::Server(server) = target.target {
                    models[server] = model;
                }
            }
        }
        models
    }
}

/// One ModelRoute.
#[derive(Debug, Clone)]
pub struct Route {
    /// Namespace; `default` when a file names none.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Base model name; empty when the route serves adapters only.
    pub model_name: String,
    /// LoRA adapter names.
    pub lora_adapters: Vec<String>,
    /// Rules; the first that matches wins.
    pub rules: Vec<Rule>,
    /// Filter overrides by filter name.
    pub filters: BTreeMap<String, FilterOverride>,
    /// Unix seconds: `metadata.creationTimestamp`, or when the file's document was first loaded.
    pub created: u64,
}

/// One rule of a route.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Label only.
    pub name: Option<String>,
    /// Lower-case header name and what its value (empty when absent) must be; all must hold.
    pub headers: Vec<(String, StringMatcher)>,
    /// On the URL path.
    pub uri: StringMatcher,
    /// Exact value of the body's `model`.
    pub body_model: Option<String>,
    /// Targets with a weight above zero come first in the file's order; at least one has weight.
    pub targets: Vec<WeightedTarget>,
}

/// A compiled StringMatch.
#[derive(Debug, Clone)]
pub enum StringMatcher {
    /// Nothing was asked.
    Any,
    /// Equal.
    Exact(String),
    /// Starts with.
    Prefix(String),
    /// Found anywhere in the value.
    Regex(Regex),
}

impl StringMatcher {
    /// Does `value` fulfil it?
    pub fn matches(&self, value: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(want) => value == want,
            Self::Prefix(want) => value.starts_with(want.as_str()),
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}

/// A target and its share.
#[derive(Debug, Clone)]
pub struct WeightedTarget {
    /// Where to.
    pub target: Target,
    /// Relative share; 0 takes no traffic.
    pub weight: u32,
}

/// What a rule points at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Index into [`Snapshot::servers`].
    Server(usize),
    /// `namespace/name` of a ModelServer that does not exist, or not yet: passed over. Only where documents are pushed.
    Missing(String),
    /// An ExternalModelProvider by name: accepted, not acted on yet (a load-time warning says so).
    External(String),
}

/// One ModelServer: a pool.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelServer {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Overwrites `model` in forwarded bodies, except on a LoRA hit.
    pub model: Option<String>,
    /// Engine family.
    pub engine: InferenceEngine,
    /// Speak TLS to the endpoints.
    pub tls: bool,
    /// Speak HTTP/2 to the endpoints (prior knowledge without TLS, ALPN with it).
    pub http2: bool,
    /// Timeouts and retries; `None` means the bootstrap file's default.
    pub policy: TrafficPolicy,
    /// Endpoints in the order written, then those pushed, by their names.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// How endpoints are chosen; `None`: by the bootstrap file's default.
    pub scheduling: Option<SchedulingParams>,
    /// Folder or file of the model's tokenizer.
    pub tokenizer: Option<PathBuf>,
    /// Where KV events are published.
    pub kv_events: KvEvents,
    /// Where metrics are read; `None`: nowhere.
    pub engine_metrics: Option<EngineMetrics>,
    /// What is known of the engines' speed.
    pub engine_speed: EngineSpeed,
}

impl ModelServer {
    /// A pool of vLLM engines in the namespace `default`, at `host:port` each, with defaults for all else.
    pub fn of(name: &str, addresses: &[&str]) -> Self {
        let endpoint = |address: &&str| {
            let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
            Arc::new(Endpoint {
                address: (*address).to_owned(),
                host: host.to_owned(),
                port: port.parse().unwrap_or(80),
                ..Endpoint::default()
            })
        };
        Self {
            namespace: "default".into(),
            name: name.to_owned(),
            model: None,
            engine: InferenceEngine::Vllm,
            tls: false,
            http2: false,
            policy: TrafficPolicy::default(),
            endpoints: addresses.iter().map(endpoint).collect(),
            scheduling: None,
            tokenizer: None,
            kv_events: KvEvents::default(),
            engine_metrics: Some(EngineMetrics::default()),
            engine_speed: EngineSpeed::default(),
        }
    }
}

/// Where a pool's engines publish KV events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KvEvents {
    /// The engine is asked.
    #[default]
    Discover,
    /// On each endpoint's host.
    Ports {
        /// Of the first rank's publisher; rank r is at port + r.
        publisher: u16,
        /// Of the first rank's replay socket.
        replay: Option<u16>,
        /// Data-parallel ranks.
        ranks: u16,
    },
    /// They are not followed.
    Off,
}

/// Where an engine's metrics are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineMetrics {
    /// Port, where it is not the endpoint's.
    pub port: Option<u16>,
    /// Path.
    pub path: String,
}

impl Default for EngineMetrics {
    fn default() -> Self {
        Self {
            port: None,
            path: "/metrics".into(),
        }
    }
}

/// An engine's speed as far as it is configured.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct EngineSpeed {
    /// Shortest time of a step.
    pub step_ms: Option<f64>,
    /// Prefill time of one token.
    pub token_ms: Option<f64>,
    /// What one token of context adds to a step.
    pub context_ms: Option<f64>,
    /// Most tokens in a step.
    pub batch_tokens: Option<u32>,
    /// Tokens that the KV cache holds.
    pub kv_tokens: Option<u64>,
}

/// Timeouts and retries of a pool, as far as its document sets them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TrafficPolicy {
    /// From dial to response head, per attempt.
    pub first_byte_timeout: Option<Duration>,
    /// Longest silence between two reads of the response body.
    pub stream_idle_timeout: Option<Duration>,
    /// Whole request with all attempts.
    pub total_timeout: Option<Duration>,
    /// Most retries after the first attempt.
    pub retry_attempts: Option<u32>,
    /// Pause before a retry.
    pub retry_interval: Option<Duration>,
}
