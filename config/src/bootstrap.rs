//! The bootstrap file: what is fixed for the life of the process. Every field has a default.
//!
//! Not for routes and pools: those are hot (see [`crate::snapshot`]).

mod load;
mod push;
mod settings;
mod validate;

use std::net::SocketAddr;
use std::path::PathBuf;

use kube::core::Duration;
pub use push::{ControlAddress, PushConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_crds::networking::SchedulingConfig;

pub use self::load::Loaded;
pub use self::settings::{Setting, SettingOutcome};
pub use crate::auth::{AuthConfig, ClaimsConfig, JwtConfig};

/// The whole bootstrap file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Bootstrap {
    /// Where clients connect.
    pub listeners: Vec<Listener>,
    /// Debug endpoints; keep it on loopback.
    pub admin: AdminConfig,
    /// `/metrics`, `/healthz`, `/readyz` for Prometheus and probes.
    pub metrics: MetricsConfig,
    /// Worker threads; default: the CPU quota of the cgroup, else the number of CPUs.
    pub threads: Option<usize>,
    /// Sizes.
    pub limits: Limits,
    /// Defaults for what a ModelServer does not set, and client-side timeouts.
    pub timeouts: Timeouts,
    /// Retries.
    pub retry: RetryConfig,
    /// Connections to engines.
    pub upstream: UpstreamConfig,
    /// How endpoints are chosen where a ModelServer does not say. Goes before `source.routerConfiguration`; default:
    /// as that says, else `mtl`.
    pub scheduling: Option<SchedulingConfig>,
    /// What engines are asked besides requests.
    pub engines: EnginesConfig,
    /// Prompts to tokens.
    pub tokenizers: TokenizersConfig,
    /// What is known of engines' caches, over a restart.
    pub cache: CacheConfig,
    /// One line per request.
    pub access_log: AccessLogConfig,
    /// Where routes come from.
    pub source: SourceConfig,
    /// Who may ask. Goes before the `auth` of `source.routerConfiguration`; default: as that says, else everybody.
    pub auth: AuthConfig,
    /// What happens on SIGTERM.
    pub drain: DrainConfig,
    /// Filters, in order.
    pub filters: Vec<FilterConfig>,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self {
            listeners: vec![Listener::default()],
            admin: AdminConfig::default(),
            metrics: MetricsConfig::default(),
            threads: None,
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            retry: RetryConfig::default(),
            upstream: UpstreamConfig::default(),
            scheduling: None,
            engines: EnginesConfig::default(),
            tokenizers: TokenizersConfig::default(),
            cache: CacheConfig::default(),
            access_log: AccessLogConfig::default(),
            source: SourceConfig::default(),
            auth: AuthConfig::default(),
            drain: DrainConfig::default(),
            filters: Vec::new(),
        }
    }
}

/// One listening socket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Listener {
    /// `ip:port`.
    pub address: SocketAddr,
    /// Serve TLS with this certificate (HTTP/2 by ALPN).
    pub tls: Option<ListenerTls>,
    /// Accept HTTP/2 by prior knowledge on a plain listener.
    pub h2c: bool,
}

impl Default for Listener {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([0, 0, 0, 0], 8080)),
            tls: None,
            h2c: true,
        }
    }
}

/// Certificate of a listener.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListenerTls {
    /// PEM chain.
    pub cert_file: PathBuf,
    /// PEM private key.
    pub key_file: PathBuf,
}

/// Debug endpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct AdminConfig {
    /// `ip:port`.
    pub address: SocketAddr,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 15000)),
        }
    }
}

/// Metrics and probes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// `ip:port`.
    pub address: SocketAddr,
    /// Kthena's metric families beside ours, under Kthena's names and labels.
    pub kthena: bool,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([0, 0, 0, 0], 9090)),
            kthena: false,
        }
    }
}

/// Sizes that bound what one client, and all together, can make the gateway hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Limits {
    /// Largest request body in bytes; above it 413.
    pub body_bytes: usize,
    /// All request bodies held at one time, in bytes; above it 503.
    pub body_budget_bytes: usize,
    /// Request head in bytes; above it 431.
    pub header_bytes: usize,
    /// Header fields of a request; above it 431.
    pub header_count: usize,
    /// What is known of engines' caches, in bytes; above it the least recently used is forgotten.
    pub index_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 16 << 20,
            body_budget_bytes: 256 << 20,
            header_bytes: 64 << 10,
            header_count: 128,
            index_bytes: 256 << 20,
        }
    }
}

/// Timeouts; a ModelServer's `trafficPolicy` goes before those of the engine side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Timeouts {
    /// An idle client connection is closed after this.
    #[schemars(with = "String")]
    pub client_idle: Duration,
    /// Longest silence while a client sends its request.
    #[schemars(with = "String")]
    pub client_read: Duration,
    /// Longest time one write to a client may block.
    #[schemars(with = "String")]
    pub client_write: Duration,
    /// TCP (and TLS) connect to an engine.
    #[schemars(with = "String")]
    pub connect: Duration,
    /// From dial to response head.
    #[schemars(with = "String")]
    pub first_byte: Duration,
    /// Longest silence between two reads of a response body.
    #[schemars(with = "String")]
    pub stream_idle: Duration,
    /// Whole request with all attempts.
    #[schemars(with = "String")]
    pub total: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            client_idle: seconds(60),
            client_read: seconds(60),
            client_write: seconds(60),
            connect: seconds(5),
            first_byte: seconds(600),
            stream_idle: seconds(300),
            total: seconds(3600),
        }
    }
}

/// Retries: how many, how fast, and what part of the traffic they may be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RetryConfig {
    /// Most retries after the first attempt.
    pub attempts: u32,
    /// Pause before a retry, unless the first attempt never reached the engine.
    #[schemars(with = "String")]
    pub interval: Duration,
    /// Retries may be this part of the requests of the last `budgetWindow`, in per cent.
    pub budget_percent: u32,
    /// Retries always allowed in one window, however few requests there are.
    pub budget_floor: u32,
    /// Length of the sliding window.
    #[schemars(with = "String")]
    pub budget_window: Duration,
    /// Also try another endpoint when one answers 429.
    pub on_429: bool,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            attempts: 2,
            interval: std::time::Duration::from_millis(25).into(),
            budget_percent: 20,
            budget_floor: 10,
            budget_window: seconds(10),
            on_429: false,
        }
    }
}

/// Connections to engines.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct UpstreamConfig {
    /// Idle connections kept per endpoint.
    pub max_idle: usize,
    /// An idle connection is not used again after this. Below uvicorn's 5 s by default.
    #[schemars(with = "String")]
    pub idle_timeout: Duration,
    /// PEM file of the authorities that sign engines' certificates; default: the system's.
    pub ca_file: Option<PathBuf>,
    /// Accept any certificate from engines.
    pub insecure_skip_verify: bool,
}

impl Default for UpstreamConfig {
    fn default() -> Self {
        Self {
            max_idle: 512,
            idle_timeout: seconds(4),
            ca_file: None,
            insecure_skip_verify: false,
        }
    }
}

/// What engines are asked besides requests. A ModelServer can switch each off for its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct EnginesConfig {
    /// Read their metrics and lists of models.
    pub metrics: bool,
    /// Follow their KV events.
    pub kv_events: bool,
}

impl Default for EnginesConfig {
    fn default() -> Self {
        Self {
            metrics: true,
            kv_events: true,
        }
    }
}

/// Prompts to tokens, off the threads that serve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TokenizersConfig {
    /// Threads.
    pub threads: usize,
    /// Longest wait for a prompt's tokens; later ones serve the next turn.
    #[schemars(with = "String")]
    pub deadline: Duration,
    /// Tokens remembered by text, in bytes.
    pub memo_bytes: usize,
}

impl Default for TokenizersConfig {
    fn default() -> Self {
        Self {
            threads: 2,
            deadline: std::time::Duration::from_millis(3).into(),
            memo_bytes: 64 << 20,
        }
    }
}

/// What is known of engines' caches, over a restart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct CacheConfig {
    /// Written at shutdown, read at the start; default: none.
    pub file: Option<PathBuf>,
    /// An older file is ignored: engines have forgotten most of it.
    #[schemars(with = "String")]
    pub max_age: Duration,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            file: None,
            max_age: seconds(600),
        }
    }
}

/// Access log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct AccessLogConfig {
    /// Write it at all.
    pub enabled: bool,
    /// Shape of a line.
    pub format: AccessLogFormat,
    /// `stdout`, `stderr` or a file's path.
    pub output: String,
    /// Events waiting for the writer; more are dropped and counted.
    pub queue: usize,
}

impl Default for AccessLogConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            format: AccessLogFormat::Json,
            output: "stdout".into(),
            queue: 8192,
        }
    }
}

/// Shape of an access-log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AccessLogFormat {
    /// One JSON object.
    #[default]
    Json,
    /// Kthena's `key=value` text.
    Text,
}

/// Where resource documents come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct SourceConfig {
    /// A YAML file, or a folder of them.
    pub routes: Option<PathBuf>,
    /// Kthena's router configuration, bare or in its ConfigMap: defaults for scheduling, and who may ask. Watched.
    pub router_configuration: Option<PathBuf>,
    /// Quiet time after a change before it is read.
    #[schemars(with = "String")]
    pub debounce: Duration,
    /// A control loop that pushes them.
    pub push: Option<PushConfig>,
}

impl Default for SourceConfig {
    fn default() -> Self {
        Self {
            routes: None,
            router_configuration: None,
            debounce: std::time::Duration::from_millis(100).into(),
            push: None,
        }
    }
}

/// Shutdown by SIGTERM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct DrainConfig {
    /// Not ready but still accepting, until load balancers have noticed.
    #[schemars(with = "String")]
    pub delay: Duration,
    /// Longest wait for open streams after that.
    #[schemars(with = "String")]
    pub timeout: Duration,
}

impl Default for DrainConfig {
    fn default() -> Self {
        Self {
            delay: seconds(5),
            timeout: seconds(300),
        }
    }
}

/// One filter of the chain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FilterConfig {
    /// Unique name, used by per-route overrides.
    pub name: String,
    /// Which filter.
    #[serde(rename = "type")]
    pub kind: String,
    /// The filter's own configuration.
    #[serde(default)]
    pub config: serde_json::Value,
    /// Off unless a route gives it a `config`.
    #[serde(default)]
    pub disabled: bool,
    /// What a failing filter does to its request.
    #[serde(default)]
    pub fail_policy: FailPolicy,
}

/// What a failing filter does to its request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FailPolicy {
    /// The request is answered with 500.
    #[default]
    Closed,
    /// The filter is skipped.
    Open,
}

fn seconds(n: u64) -> Duration {
    std::time::Duration::from_secs(n).into()
}
