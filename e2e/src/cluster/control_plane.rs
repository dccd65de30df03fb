//! The real control plane as child processes: etcd, API server, scheduler and controller manager.
//!
//! It starts what `make e2e-cluster` built and knows nothing of nodes, pods or Sluice. The API server alone can be
//! killed, frozen and started again on the same data and the same port.

mod flags;

use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use kube::Client;
use rustix::process::Signal;
use serde_json::Value;
use tokio::process::Command;
use tokio::sync::Mutex;

use super::client::{Access, Credential};
use super::keys::{Authority, TokenKeys};
use super::process::Process;
use flags::Ports;

/// Longest wait for a start: the machine may be compiling beside us.
const START_LIMIT: Duration = Duration::from_secs(90);

/// Controllers that run: those that our tests meet. All of them would take four seconds more to start.
const CONTROLLERS: [&str; 16] = [
    "namespace-controller",
    "garbage-collector-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "root-ca-certificate-publisher-controller",
    "endpointslice-controller",
    "deployment-controller",
    "replicaset-controller",
    "statefulset-controller",
    "job-controller",
    "node-lifecycle-controller",
    "taint-eviction-controller",
    "pod-garbage-collector-controller",
    "disruption-controller",
    "horizontal-pod-autoscaler-controller",
    "podgroup-protection-controller",
];

/// What differs from the usual control plane.
#[derive(Clone, Debug, Default)]
pub struct ControlPlaneOptions {
    /// More flags of the API server.
    pub api_server: Vec<String>,
    /// More flags of the scheduler.
    pub scheduler: Vec<String>,
    /// More flags of the controller manager.
    pub controller_manager: Vec<String>,
    /// Records requests by this policy (`audit.k8s.io/v1`, kind Policy, as YAML).
    pub audit_policy: Option<String>,
}

/// A running control plane; dropping it kills it.
pub struct ControlPlane {
    folder: PathBuf,
    program: PathBuf,
    authority: Authority,
    access: Access,
    admin: Credential,
    ports: Ports,
    options: ControlPlaneOptions,
    processes: Mutex<Processes>,
}

#[derive(Default)]
struct Processes {
    etcd: Option<Process>,
    api_server: Option<Process>,
    scheduler: Option<Process>,
    controller_manager: Option<Process>,
}

impl ControlPlane {
    /// Starts etcd and the API server below `folder`, and waits until the latter is ready. Objects that the
    /// controllers should know from the first moment (custom resource definitions) go in now; then
    /// [`Self::start_controllers`].
    ///
    /// # Errors
    /// When something does not start; its last words are in the message.
    pub async fn start(folder: &Path, options: ControlPlaneOptions) -> anyhow::Result<Self> {
        let ports = Ports::free();
        let authority = Authority::new("sluice-e2e")?;
        let access = Access {
            server: format!("https://127.0.0.1:{}", ports.api_server),
            authority: authority.certificate().to_owned(),
        };
        let admin = Credential::Certificate(authority.client("admin", Some("system:masters"))?);
        let plane = Self {
            folder: folder.to_owned(),
            program: program()?,
            authority,
            access,
            admin,
            ports,
            options,
            processes: Mutex::default(),
        };
        plane.write_files()?;
        let etcd = plane.spawn("etcd", flags::etcd(folder, &plane.ports))?;
        plane.processes.lock().await.etcd = Some(etcd);
        plane.start_api_server().await?;
        Ok(plane)
    }

    /// Starts the scheduler and the controller manager. They are usable when they act; no need to wait here.
    ///
    /// # Errors
    /// When a program cannot be started.
    pub async fn start_controllers(&self) -> anyhow::Result<()> {
        let scheduler = self.user_file("system:kube-scheduler")?;
        let manager = self.user_file("system:kube-controller-manager")?;
        let controllers = CONTROLLERS.join(",");
        let mut processes = self.processes.lock().await;
        let own = flags::scheduler(&scheduler, &self.ports);
        let more = self.options.scheduler.clone();
        processes.scheduler = Some(self.spawn("scheduler", own.chain(more))?);
        let own = flags::controller_manager(&self.folder, &manager, &self.ports, &controllers);
        let more = self.options.controller_manager.clone();
        processes.controller_manager = Some(self.spawn("controller-manager", own.chain(more))?);
        Ok(())
    }

    /// Starts the API server, on the same port and data as before, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready; its last words are in the message.
    pub async fn start_api_server(&self) -> anyhow::Result<()> {
        let own = flags::api_server(&self.folder, &self.ports);
        let audit = self.options.audit_policy.iter();
        let audit = audit.flat_map(|_| flags::audit(&self.folder));
        let more = self.options.api_server.clone();
        let server = self.spawn("apiserver", own.chain(audit).chain(more))?;
        self.processes.lock().await.api_server = Some(server);
        self.ready().await
    }

    /// Kills the API server, as a crash would. Everything else lives on.
    pub async fn kill_api_server(&self) {
        if let Some(mut server) = self.processes.lock().await.api_server.take() {
            server.kill().await;
        }
    }

    /// Stops the API server in its tracks: connections stay open and nothing is answered.
    pub async fn freeze_api_server(&self) {
        self.signal_api_server(Signal::STOP).await;
    }

    /// Lets a frozen API server go on.
    pub async fn thaw_api_server(&self) {
        self.signal_api_server(Signal::CONT).await;
    }

    async fn signal_api_server(&self, signal: Signal) {
        if let Some(server) = &self.processes.lock().await.api_server {
            server.handle().signal(signal);
        }
    }

    /// How clients find the API server.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Signs certificates that the API server trusts.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// A client that may do everything. It lives on the runtime that makes it.
    ///
    /// # Errors
    /// When the client cannot be built.
    pub async fn admin(&self) -> anyhow::Result<Client> {
        self.access.client(&self.admin).await
    }

    /// The administrator's kubeconfig file, for people.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("admin.kubeconfig")
    }

    /// The port of the API server on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.ports.api_server
    }

    /// The address of the Service `kubernetes`.
    pub fn service(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.ports.first_service(), 443)
    }

    /// Every request that the API server has recorded so far, if `audit_policy` is set.
    ///
    /// # Errors
    /// When there is no record, or it is not one.
    pub fn audit(&self) -> anyhow::Result<Vec<Value>> {
        let text = std::fs::read_to_string(self.folder.join(flags::AUDIT_LOG));
        let text = text.context("no audit log: set audit_policy")?;
        // The server may be in the middle of its last line.
        let lines = text
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'));
        let events = lines.map(serde_json::from_str);
        events.collect::<Result<_, _>>().context("not an audit log")
    }

    fn write_files(&self) -> anyhow::Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        let server = self.authority.server(&[
            "127.0.0.1",
            &self.ports.first_service().to_string(),
            "localhost",
            "kubernetes.default.svc",
        ])?;
        let write = |name: &str, text: &str| {
            std::fs::write(self.folder.join(name), text)
                .with_context(|| format!("cannot write {name}"))
        };
        write(flags::AUTHORITY, self.authority.certificate())?;
        write(flags::SERVER_CERTIFICATE, &server.certificate)?;
        write(flags::SERVER_KEY, &server.key)?;
        let tokens = TokenKeys::new()?;
        write(flags::TOKEN_KEY, &tokens.private)?;
        write(flags::TOKEN_PUBLIC_KEY, &tokens.public)?;
        if let Some(policy) = &self.options.audit_policy {
            write(flags::AUDIT_POLICY, policy)?;
        }
        self.access
            .write_kubeconfig(&self.admin, &self.kubeconfig())?;
        Ok(())
    }

    fn user_file(&self, user: &str) -> anyhow::Result<PathBuf> {
        let credential = Credential::Certificate(self.authority.client(user, None)?);
        let file = self.folder.join(user.replace(':', "-") + ".kubeconfig");
        self.access.write_kubeconfig(&credential, &file)
    }

    fn spawn(&self, name: &str, flags: impl Iterator<Item = String>) -> anyhow::Result<Process> {
        let mut command = Command::new(&self.program);
        command.arg(name).args(flags);
        Process::start(
            name,
            &mut command,
            &self.folder.join(name).with_extension("log"),
        )
    }

    /// Polls `/readyz`, and sees early when a process has ended.
    async fn ready(&self) -> anyhow::Result<()> {
        let client = self.admin().await?;
        let deadline = tokio::time::Instant::now() + START_LIMIT;
        loop {
            let request = http::Request::get("/readyz").body(Vec::new())?;
            let asked = tokio::time::timeout(Duration::from_secs(2), client.request_text(request));
            if matches!(asked.await, Ok(Ok(_))) {
                return Ok(());
            }
            let mut processes = self.processes.lock().await;
            let Processes {
                etcd, api_server, ..
            } = &mut *processes;
            for process in [etcd, api_server].into_iter().flatten() {
                if let Some(status) = process.status() {
                    anyhow::bail!("ended with {status}: {}", process.last_words());
                }
                if tokio::time::Instant::now() > deadline {
                    anyhow::bail!("not ready after {START_LIMIT:?}: {}", process.last_words());
                }
            }
            drop(processes);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// The program that `fetch-cluster.sh` built.
fn program() -> anyhow::Result<PathBuf> {
    let program = std::env::var_os("SLUICE_KUBE")
        .context("SLUICE_KUBE does not name a control plane: run `make e2e-cluster`")?;
    let program = PathBuf::from(program);
    anyhow::ensure!(
        program.exists(),
        "{} is missing: run `make e2e-cluster`",
        program.display()
    );
    Ok(program)
}
