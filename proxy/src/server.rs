//! Wiring: from a bootstrap file to a running server. Everything is put together here and nowhere else.

mod app;
mod shutdown;
mod tls;
mod upkeep;

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use pingora_core::listeners::ListenerConfig;
use pingora_core::protocols::l4::stream::L4BufferSettings;
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{RunArgs, Server};
use pingora_core::services::background::background_service;
use pingora_core::services::listening::Service;
use sluice_config::Bootstrap;
use sluice_config::bootstrap::{FailPolicy, Listener};

use crate::admin::Admin;
use crate::auth::{Authenticator, Refresher};
use crate::cache::budget::IndexBudget;
use crate::drain::Drain;
use crate::filters::{Chain, FailureObserver, FilterError, Registry};
use crate::gateway::Gateway;
use crate::router_configuration::{Defaults, Written};
use crate::serving::{self, ServingStore, Warm};
use crate::source::Source;
use crate::telemetry::{AccessLog, BuildInfo, Metrics};
use app::GatewayService;
use tls::CertificateWatch;

pub use shutdown::{Stop, StopHandle};

/// A server put together, its first configuration loaded, not yet listening.
pub struct Assembly {
    /// What serves.
    pub gateway: Arc<Gateway>,
    /// Where its routes come from.
    pub source: Arc<Source>,
    defaults: Arc<Defaults>,
    server: Server,
    /// Dropped when everything has ended.
    _certificates: Vec<CertificateWatch>,
}

impl Assembly {
    /// Puts a server together and loads its routes. Problems in routes are reported and do not stop it;
    /// what is wrong in the bootstrap file does.
    pub fn new(config: Bootstrap) -> anyhow::Result<Self> {
        for listener in &config.listeners {
            check_address("listener", listener.address)?;
        }
        check_address("admin", config.admin.address)?;
        check_address("metrics", config.metrics.address)?;
        if let Some(file) = &config.upstream.ca_file {
            tls::check_authorities("upstream.caFile", file)?;
        }
        if let Some(file) = config
            .auth
            .jwt
            .as_ref()
            .and_then(|jwt| jwt.ca_file.as_ref())
        {
            tls::check_authorities("auth.jwt.caFile", file)?;
        }
        let written = Written::read(&config)?;
        let gateway = Arc::new(gateway(config, &written)?);
        let defaults = Defaults::start(written, Arc::clone(&gateway))?;
        let source = Source::start(Arc::clone(&gateway))?;
        let (server, certificates) = server(&gateway, &source, &defaults)?;
        Ok(Self {
            gateway,
            source,
            defaults,
            server,
            _certificates: certificates,
        })
    }

    /// Serves until `stop` says so; returns when everything has ended.
    pub fn run(self, stop: Stop) {
        let watch = shutdown::Watch::new(stop, Arc::clone(&self.gateway));
        self.server.run(RunArgs {
            shutdown_signal: Box::new(watch),
        });
        self.source.stop();
        self.defaults.stop();
        serving::save(&self.gateway.serving.load(), &self.gateway.config.cache);
        // The process is about to exit, whoever still holds the gateway: the last lines are written now.
        self.gateway.access_log.stop(LOG_PATIENCE);
    }
}

/// Longest wait for the last lines of the access log.
const LOG_PATIENCE: Duration = Duration::from_secs(2);

/// Pingora panics in a thread of its own when it cannot listen: try first, and say what is wrong.
fn check_address(what: &str, address: std::net::SocketAddr) -> anyhow::Result<()> {
    if address.port() == 0 {
        anyhow::bail!("{what} address {address}: port 0 is not supported, choose a port");
    }
    TcpListener::bind(address)
        .map(drop)
        .with_context(|| format!("{what} address {address}: cannot listen"))
}

fn gateway(config: Bootstrap, written: &Written) -> anyhow::Result<Gateway> {
    let build = BuildInfo {
        version: env!("CARGO_PKG_VERSION"),
        revision: option_env!("SLUICE_REVISION").unwrap_or("unknown"),
    };
    let metrics = Metrics::new(build, SystemTime::now());
    let metrics = Arc::new(match config.metrics.kthena {
        true => metrics.with_kthena(),
        false => metrics,
    });
    let observer = Arc::new(CountFailures(Arc::clone(&metrics)));
    let chain = Chain::compile_observed(
        &config.filters,
        Arc::new(Registry::builtin()),
        Some(observer),
    )
    .context("filters")?;
    let log = AccessLog::start_counting(&config.access_log, metrics.access_log_dropped.clone())
        .with_context(|| {
            format!(
                "accessLog.output: cannot open `{}`",
                config.access_log.output
            )
        })?;
    let serving = ServingStore::new(
        chain,
        Arc::clone(&metrics),
        written.scheduling(),
        IndexBudget::new(config.limits.index_bytes),
    );
    serving.warm(Warm::load(&config.cache));
    let auth = Authenticator::new(written.jwt(), Arc::clone(&metrics));
    Ok(Gateway::new(
        config,
        serving,
        metrics,
        log,
        auth,
        Arc::new(Drain::default()),
    ))
}

struct CountFailures(Arc<Metrics>);

impl FailureObserver for CountFailures {
    fn filter_failed(&self, name: &str, _error: &FilterError, _policy: FailPolicy) {
        self.0.filter_failure(name);
    }
}

fn server(
    gateway: &Arc<Gateway>,
    source: &Arc<Source>,
    defaults: &Arc<Defaults>,
) -> anyhow::Result<(Server, Vec<CertificateWatch>)> {
    let config = &gateway.config;
    let threads = config.threads();
    let conf = ServerConf {
        threads,
        work_stealing: true,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(1),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    let mut certificates = Vec::new();
    // One service for each kind of listener: HTTP/2 by prior knowledge is a property of the service.
    for h2c in [false, true] {
        let listeners: Vec<&Listener> = config
            .listeners
            .iter()
            .filter(|listener| listener.h2c == h2c)
            .collect();
        if listeners.is_empty() {
            continue;
        }
        let app = GatewayService::new(Arc::clone(gateway), h2c);
        let mut service = Service::new("gateway".to_owned(), app);
        for listener in listeners {
            let (listener, certificate) = listener_config(listener, &gateway.metrics)?;
            service.add_listener(listener);
            certificates.extend(certificate);
        }
        server.add_service(service);
    }
    for (name, address, debug) in [
        ("admin", config.admin.address, true),
        ("metrics", config.metrics.address, false),
    ] {
        let (gateway, defaults) = (Arc::clone(gateway), Arc::clone(defaults));
        let admin = Admin::new(gateway, Arc::clone(source), defaults, debug);
        let mut service = Service::new(name.to_owned(), admin);
        service.threads = Some(1);
        service.add_tcp(&address.to_string());
        server.add_service(service);
    }
    let upkeep = upkeep::Upkeep(Arc::clone(gateway));
    server.add_service(background_service("upkeep", upkeep));
    let refresher = Refresher(Arc::clone(&gateway.auth));
    server.add_service(background_service("auth", refresher));
    Ok((server, certificates))
}

/// With what keeps its certificate the newest, where it has one.
fn listener_config(
    listener: &Listener,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<(ListenerConfig, Option<CertificateWatch>)> {
    // Requests are read into place, and answers written whole. The buffers would also be 64 KiB a connection.
    let buffers = L4BufferSettings::unbuffered();
    let endpoint = ListenerConfig::tcp(listener.address.to_string()).l4_buffer(buffers);
    let Some(tls) = &listener.tls else {
        return Ok((endpoint, None));
    };
    let settings = tls::settings(listener.address, tls, Arc::clone(metrics));
    let (settings, watch) = settings.with_context(|| format!("listener {}", listener.address))?;
    Ok((endpoint.tls(settings), Some(watch)))
}

/// For tests and tools: a server on a thread of its own.
pub struct Running {
    /// What serves.
    pub gateway: Arc<Gateway>,
    /// Where its routes come from.
    pub source: Arc<Source>,
    stop: StopHandle,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Running {
    /// Starts a server; it may take a moment until it listens.
    pub fn start(config: Bootstrap) -> anyhow::Result<Self> {
        let assembly = Assembly::new(config)?;
        let (gateway, source) = (Arc::clone(&assembly.gateway), Arc::clone(&assembly.source));
        let (stop, handle) = Stop::by_handle();
        let thread = std::thread::Builder::new()
            .name("sluice-server".into())
            .spawn(move || assembly.run(stop))?;
        Ok(Self {
            gateway,
            source,
            stop: handle,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// As SIGTERM: drains, then ends. Returns when it has ended.
    pub fn terminate(&self) {
        self.stop.terminate();
        self.join();
    }

    /// Ends at once.
    pub fn kill(&self) {
        self.stop.kill();
        self.join();
    }

    fn join(&self) {
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            thread.join().ok();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}
