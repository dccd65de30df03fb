//! The gateway's metrics: one struct, registered in one place, shown as OpenMetrics text.
//!
//! Labels hold closed sets and configured names only. A request resolves its handles once
//! ([`Metrics::handles`], [`Metrics::server`]) and then updates atomics; [`Metrics::record`] adds the finished request.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use self::auth::AuthSeries;
use self::certificates::CertificateSeries;
use self::endpoints::EndpointSeries;
use self::family::Family;
use self::knowledge::KnowledgeSeries;
use self::labels::{BuildLabels, FilterLabels, Name, SeverityLabels};
use self::push::PushSeries;
use self::requests::RequestSeries;
use self::servers::ServerSeries;
use super::record::RequestRecord;
use crate::cache::budget::IndexBudget;
use crate::cache::members::PoolCache;
use crate::endpoints::Member;
use crate::tokens::TokenPool;

mod auth;
mod buckets;
mod cache;
mod certificates;
mod classic;
mod endpoints;
mod family;
mod gen_ai;
mod histogram;
mod knowledge;
mod kthena;
mod labels;
mod push;
mod requests;
mod servers;
#[cfg(test)]
mod tests;

pub use self::kthena::{KthenaRequest, KthenaSeries, ModelMetrics};
pub use self::labels::{NONE, UNKNOWN};
pub use self::push::PushMetrics;
pub use self::requests::RequestMetrics;
pub use self::servers::{AttemptReason, ServerMetrics};

/// `Content-Type` of OpenMetrics.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Most (route, server, model) triples, and most servers, with series of their own; the rest share one.
const MAX_HANDLES: usize = 4096;

/// What was built.
#[derive(Debug, Clone, Copy)]
pub struct BuildInfo<'a> {
    /// Crate version.
    pub version: &'a str,
    /// Source revision, or `unknown`.
    pub revision: &'a str,
}

/// A pool as metrics show it.
#[derive(Debug, Clone)]
pub struct ShownPool {
    /// `namespace/name` of its ModelServer.
    pub server: Arc<str>,
    /// Its endpoints.
    pub members: Arc<[Member]>,
    /// What is known of their caches.
    pub cache: Arc<PoolCache>,
}

/// Which of a configuration's names [`Metrics::retain`] asks about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameKind {
    /// A model or adapter name.
    Model,
    /// `namespace/name` of a ModelRoute.
    Route,
    /// `namespace/name` of a ModelServer.
    Server,
    /// A model name that engines are sent.
    UpstreamModel,
}

/// Where problems were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemSource {
    /// Routes and ModelServers.
    Documents,
    /// Kthena's router configuration.
    RouterConfiguration,
}

/// All metrics of the process. Share it in an `Arc`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: RequestSeries,
    servers: ServerSeries,
    endpoints: EndpointSeries,
    knowledge: KnowledgeSeries,
    push: PushSeries,
    filter_failures: Family<FilterLabels, Counter>,
    config_problems: Family<SeverityLabels, Gauge>,
    /// Errors and warnings by [`ProblemSource`]; locked when one is loaded, never by a request.
    problems: Mutex<[(usize, usize); 2]>,
    kthena: Option<KthenaSeries>,
    active_requests: Gauge,
    /// Tokens and the keys that check them.
    pub(crate) auth: AuthSeries,
    /// Certificates of listeners.
    pub(crate) certificates: CertificateSeries,
    /// Generation of the snapshot in force.
    pub config_generation: Gauge,
    /// Configuration edits refused.
    pub config_rejects: Counter,
    /// Retries not made because the budget was used up.
    pub retry_budget_exhausted: Counter,
    /// Bytes of request bodies held now.
    pub body_budget_bytes: Gauge,
    /// For [`super::AccessLog::start_counting`].
    pub access_log_dropped: Counter,
}

impl Metrics {
    /// Registers everything. `started` is when the process began.
    pub fn new(build: BuildInfo<'_>, started: SystemTime) -> Self {
        Self::with_max_handles(build, started, MAX_HANDLES)
    }

    fn with_max_handles(build: BuildInfo<'_>, started: SystemTime, max_handles: usize) -> Self {
        let mut registry = Registry::default();
        register_process(&mut registry, build, started);
        let metrics = Self {
            requests: RequestSeries::register(&mut registry, max_handles),
            servers: ServerSeries::register(&mut registry, max_handles),
            registry: Registry::default(),
            endpoints: EndpointSeries::default(),
            knowledge: KnowledgeSeries::default(),
            push: PushSeries::default(),
            filter_failures: Family::default(),
            config_problems: Family::default(),
            problems: Mutex::default(),
            kthena: None,
            active_requests: Gauge::default(),
            auth: AuthSeries::default(),
            certificates: CertificateSeries::default(),
            config_generation: Gauge::default(),
            config_rejects: Counter::default(),
            retry_budget_exhausted: Counter::default(),
            body_budget_bytes: Gauge::default(),
            access_log_dropped: Counter::default(),
        };
        metrics.register_gateway(registry.sub_registry_with_prefix("sluice"));
        metrics.set_config_problems(ProblemSource::Documents, 0, 0);
        Self {
            registry,
            ..metrics
        }
    }

    /// The same with Kthena's families beside ours.
    pub fn with_kthena(mut self) -> Self {
        let series = KthenaSeries::register(
            &mut self.registry,
            MAX_HANDLES,
            &self.active_requests,
            &self.knowledge,
        );
        self.kthena = Some(series);
        self
    }

    /// Kthena's families, if they are exported.
    pub fn kthena(&self) -> Option<&KthenaSeries> {
        self.kthena.as_ref()
    }

    fn register_gateway(&self, sluice: &mut Registry) {
        sluice.register(
            "filter_failures",
            "Filters that failed",
            self.filter_failures.clone(),
        );
        sluice.register(
            "config_problems",
            "Problems of the last load",
            self.config_problems.clone(),
        );
        sluice.register(
            "active_requests",
            "Requests being served now",
            self.active_requests.clone(),
        );
        sluice.register(
            "config_generation",
            "Configuration in force",
            self.config_generation.clone(),
        );
        sluice.register(
            "config_rejects",
            "Configuration edits refused",
            self.config_rejects.clone(),
        );
        sluice.register(
            "retry_budget_exhausted",
            "Retries not made because the budget was used up",
            self.retry_budget_exhausted.clone(),
        );
        sluice.register_with_unit(
            "body_budget",
            "Request bodies held now",
            Unit::Bytes,
            self.body_budget_bytes.clone(),
        );
        sluice.register(
            "access_log_dropped",
            "Access log lines lost: queue full or output failing",
            self.access_log_dropped.clone(),
        );
        self.auth.register(sluice);
        self.certificates.register(sluice);
        sluice.register_collector(Box::new(self.endpoints.clone()));
        sluice.register_collector(Box::new(self.knowledge.clone()));
        sluice.register_collector(Box::new(self.push.clone()));
    }

    /// A page of everything, and its `Content-Type`: with Kthena's families in the format that Kthena writes.
    pub fn page(&self) -> (&'static str, String) {
        let page = self.encode();
        match &self.kthena {
            None => (OPEN_METRICS, page),
            Some(_) => (classic::CONTENT_TYPE, classic::classic(&page)),
        }
    }

    /// OpenMetrics text of everything.
    pub fn encode(&self) -> String {
        let mut text = String::with_capacity(16 << 10);
        text::encode(&mut text, &self.registry).expect("writing to a string cannot fail");
        text
    }

    /// Resolved metrics of a (route, server, model). Names must be configured ones; `None` where the request never
    /// got that far. A model that no route names is [`UNKNOWN`].
    pub fn handles(
        &self,
        route: Option<&str>,
        server: Option<&str>,
        model: Option<&str>,
    ) -> Arc<RequestMetrics> {
        self.requests.handles(
            route.unwrap_or(NONE),
            server.unwrap_or(NONE),
            model.unwrap_or(NONE),
        )
    }

    /// Resolved metrics of a configured ModelServer (`namespace/name`).
    pub fn server(&self, server: &str) -> Arc<ServerMetrics> {
        self.servers.handles(server)
    }

    /// The pools whose endpoints and caches are shown from now on; call it after a configuration change. What is shown
    /// of them is gathered when it is asked for.
    pub fn set_pools(&self, pools: Vec<ShownPool>) {
        let pools = Arc::new(pools);
        self.endpoints.set(Arc::clone(&pools));
        self.knowledge.set(pools);
    }

    /// Shows the memory of all indexes. To be called once.
    pub fn set_index_budget(&self, budget: &Arc<IndexBudget>) {
        self.knowledge.set_budget(budget);
    }

    /// Shows what becomes of prompts to tokenise. To be called once.
    pub fn set_token_pool(&self, tokens: &Arc<TokenPool>) {
        self.knowledge.set_tokens(tokens);
    }

    /// What is counted of the push stream; shown once it was asked for.
    pub fn push(&self) -> Arc<PushMetrics> {
        self.push.metrics()
    }

    /// Everything a finished request adds. Gaps are not among it: see [`RequestMetrics::observe_gap`].
    pub fn record(&self, record: &RequestRecord) {
        let model = record
            .model
            .as_deref()
            .map(|model| if record.known_model { model } else { UNKNOWN });
        self.handles(record.route.as_deref(), record.server.as_deref(), model)
            .record(record);
    }

    /// One more request until the guard drops.
    pub fn active_request(&self) -> GaugeGuard {
        GaugeGuard::new(&self.active_requests)
    }

    /// Counts a failure of a configured filter.
    pub fn filter_failure(&self, filter: &str) {
        self.filter_failures
            .child(&FilterLabels {
                filter: Name(Arc::from(filter)),
            })
            .inc();
    }

    /// Problems of the last load of one source.
    pub fn set_config_problems(&self, source: ProblemSource, errors: usize, warnings: usize) {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        problems[source as usize] = (errors, warnings);
        let errors = problems.iter().map(|(errors, _)| errors).sum::<usize>();
        let warnings = problems.iter().map(|(_, warnings)| warnings).sum::<usize>();
        for (severity, count) in [("error", errors), ("warning", warnings)] {
            let gauge = self.config_problems.child(&SeverityLabels { severity });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Drops the series of names that `known` denies; call it after a configuration change. Requests still on their
    /// way with an old name update series that nobody sees any more.
    pub fn retain(&self, known: impl Fn(NameKind, &str) -> bool) {
        let keep = |kind, name: &str| name == NONE || name == UNKNOWN || known(kind, name);
        self.requests.retain(
            |model| keep(NameKind::Model, model),
            |route| keep(NameKind::Route, route),
            |server| keep(NameKind::Server, server),
        );
        self.servers.retain(|server| keep(NameKind::Server, server));
        if let Some(kthena) = &self.kthena {
            kthena.retain(
                |model| keep(NameKind::Model, model),
                |route| keep(NameKind::Route, route),
                |server| keep(NameKind::Server, server),
                |model| keep(NameKind::UpstreamModel, model),
            );
        }
    }
}

/// Counts one up while it lives.
#[derive(Debug)]
pub struct GaugeGuard(Gauge);

impl GaugeGuard {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn register_process(registry: &mut Registry, build: BuildInfo<'_>, started: SystemTime) {
    let labels = BuildLabels {
        version: Name(Arc::from(build.version)),
        revision: Name(Arc::from(build.revision)),
    };
    registry.sub_registry_with_prefix("sluice").register(
        "build",
        "What was built",
        Info::new(labels),
    );
    let start_time = Gauge::<f64, AtomicU64>::default();
    let since_epoch = started
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    start_time.set(since_epoch.as_secs_f64());
    registry.register_with_unit(
        "process_start_time",
        "Start of the process since the Unix epoch",
        Unit::Seconds,
        start_time,
    );
}
