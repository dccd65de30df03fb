//! A gateway in this process, on free ports, with its routes in a file that a test may rewrite.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use sluice_config::Bootstrap;
use sluice_config::bootstrap::Listener;
use sluice_config::scheduling::{PolicyName, SchedulingConfig};
use sluice_proxy::server::Running;
use tempfile::TempDir;

use super::{free_port, wait_until};

/// Builds a [`Gateway`].
pub struct GatewayBuilder {
    bootstrap: Bootstrap,
    routes: String,
}

/// A running gateway; dropping it ends it.
pub struct Gateway {
    /// The server.
    pub running: Running,
    /// Where clients connect.
    pub address: SocketAddr,
    folder: TempDir,
    admin: SocketAddr,
    metrics: SocketAddr,
}

impl GatewayBuilder {
    /// Changes the bootstrap configuration.
    pub fn with(mut self, change: impl FnOnce(&mut Bootstrap)) -> Self {
        change(&mut self.bootstrap);
        self
    }

    /// Starts it and waits until it listens.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(self) -> Gateway {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut bootstrap = self.bootstrap;
        let routes = folder.path().join("routes.yaml");
        // Without routes there is no file: they are pushed.
        if !self.routes.is_empty() {
            std::fs::write(&routes, self.routes).expect("the route file is written");
            bootstrap.source.routes = Some(routes);
        }
        bootstrap.access_log.output = folder.path().join("access.log").display().to_string();
        let running = Running::start(bootstrap.clone()).expect("the gateway starts");
        let gateway = Gateway {
            running,
            address: bootstrap.listeners[0].address,
            admin: bootstrap.admin.address,
            metrics: bootstrap.metrics.address,
            folder,
        };
        for address in [gateway.address, gateway.admin, gateway.metrics] {
            wait_until(&format!("{address} is listening"), || async move {
                tokio::net::TcpStream::connect(address).await.is_ok()
            })
            .await;
        }
        gateway
    }
}

impl Gateway {
    /// A gateway with these routes, two threads, short drain, and everything else as by default.
    pub fn builder(routes: impl Into<String>) -> GatewayBuilder {
        GatewayBuilder {
            bootstrap: Self::bootstrap(),
            routes: routes.into(),
        }
    }

    /// The bootstrap configuration of such a gateway.
    pub fn bootstrap() -> Bootstrap {
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut bootstrap = Bootstrap {
            listeners: vec![Listener {
                address: local(free_port()),
                ..Listener::default()
            }],
            threads: Some(2),
            ..Bootstrap::default()
        };
        bootstrap.admin.address = local(free_port());
        bootstrap.metrics.address = local(free_port());
        bootstrap.drain.delay = Duration::ZERO.into();
        // Even shares whatever is learned: only tests of routing choose otherwise.
        bootstrap.scheduling = Some(SchedulingConfig {
            policy: PolicyName::LeastRequest,
            ..SchedulingConfig::default()
        });
        // Scripted engines count what they are asked.
        bootstrap.engines.metrics = false;
        bootstrap.engines.kv_events = false;
        bootstrap.source.debounce = Duration::from_millis(20).into();
        bootstrap
    }

    /// URL of a path on the clients' listener.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// URL of a path on the admin listener.
    pub fn admin_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.admin)
    }

    /// URL of a path on the metrics listener.
    pub fn metrics_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.metrics)
    }

    /// The route file.
    pub fn routes_file(&self) -> PathBuf {
        self.folder.path().join("routes.yaml")
    }

    /// Generation of the configuration in force.
    pub fn generation(&self) -> u64 {
        self.running.gateway.serving.load().snapshot.generation
    }

    /// Replaces the route file as an editor does (rename), and waits until the next generation is in force.
    pub async fn replace_routes(&self, text: &str) {
        let before = self.generation();
        let file = self.folder.path().join(".routes.new");
        std::fs::write(&file, text).expect("the new file is written");
        std::fs::rename(file, self.routes_file()).expect("the file is replaced");
        wait_until("the new routes are in force", || async {
            self.generation() > before
        })
        .await;
    }

    /// The access log so far, one value per request whose line is written whole.
    ///
    /// # Panics
    /// When a line is not JSON.
    pub fn access_log(&self) -> Vec<Value> {
        self.running
            .gateway
            .access_log
            .flush(Duration::from_secs(2));
        let text = std::fs::read_to_string(self.folder.path().join("access.log"));
        // The writer may be in the middle of its last line: only lines that have ended are read.
        text.unwrap_or_default()
            .split_inclusive('\n')
            .filter_map(|line| line.strip_suffix('\n'))
            .map(|line| serde_json::from_str(line).expect("an access-log line is JSON"))
            .collect()
    }

    /// Waits for the access-log line of a request id.
    pub async fn access_line(&self, request_id: &str) -> Value {
        let find = || {
            self.access_log()
                .into_iter()
                .find(|line| line["request_id"] == request_id)
        };
        wait_until(&format!("request {request_id} is logged"), || async {
            find().is_some()
        })
        .await;
        find().expect("found a moment ago")
    }

    /// All counters of requests in flight: the gateway's own, each endpoint's and each route's.
    pub fn in_flight(&self) -> u64 {
        let serving = self.running.gateway.serving.load();
        let endpoints: u32 = serving
            .pools
            .iter()
            .flat_map(|pool| pool.members.iter())
            .map(|member| member.endpoint.load.load().in_flight)
            .sum();
        let routes: u32 = serving.routes.iter().map(|route| route.in_flight()).sum();
        u64::from(endpoints) + u64::from(routes) + self.running.gateway.drain.active() as u64
    }

    /// Waits until nothing is in flight and all body bytes are given back.
    pub async fn settled(&self) {
        wait_until("every counter is back at zero", || async {
            self.in_flight() == 0 && self.running.gateway.bodies.used() == 0
        })
        .await;
    }

    /// Text of `/metrics`.
    ///
    /// # Panics
    /// When the metrics listener does not answer.
    pub async fn metrics(&self) -> String {
        let answer = reqwest::get(self.metrics_url("/metrics"))
            .await
            .expect("metrics answer");
        answer.text().await.expect("metrics are text")
    }
}
