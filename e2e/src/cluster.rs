//! A real Kubernetes control plane with nodes that run pods as local processes, for tests.
//!
//! The test run must be inside a network of its own (`make e2e-cluster` makes one): pods have addresses of
//! 10.244.0.0/16 or, in a network of their own, 10.245.0.0/16, and Services of 10.0.0.0/16. Nothing here is mocked but
//! the container runtime.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use sluice_e2e::cluster::Cluster;
//! let cluster = Cluster::start().await?;
//! let namespace = cluster.namespace("shop").await?;
//! namespace.apply("kind: ConfigMap\napiVersion: v1\nmetadata: {name: a}\n").await?;
//! # Ok(())
//! # }
//! ```

mod chart;
pub mod client;
mod control_plane;
pub mod faults;
pub mod keys;
pub mod kubelet;
mod load;
pub mod manifests;
mod namespace;
mod process;
mod program;
mod report;
mod services;
mod shared;
pub mod sluice;
mod wait;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context;
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace as NamespaceObject, ServiceAccount};
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::json;

use client::Credential;
use kubelet::{Images, Kubelet, KubeletOptions, NodeOptions, RunningPod};

use services::{Hosts, Services};

pub use control_plane::{ControlPlane, ControlPlaneOptions};
pub use load::{Load, Record, Served};
pub use namespace::{Endpoint, Namespace};
pub use process::{Process, ProcessHandle};
pub use program::Program;
pub use shared::{on_cluster, on_sluice};
pub use sluice::Sluice;
pub use wait::{Look, PATIENCE, eventually, within};

/// What a cluster is started with.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Flags and audit of the control plane.
    pub control_plane: ControlPlaneOptions,
    /// Whether `crds/yaml` is applied, before the controllers start: the garbage collector learns of kinds that come
    /// later only after up to half a minute.
    pub crds: bool,
    /// The nodes, each with a kubelet.
    pub nodes: Vec<NodeOptions>,
    /// What images are; those of this build where none.
    pub images: Option<Images>,
}

impl Default for ClusterOptions {
    /// Two nodes in two zones.
    fn default() -> Self {
        Self {
            control_plane: ControlPlaneOptions::default(),
            crds: true,
            nodes: vec![
                NodeOptions::in_zone("node-a", "zone-a"),
                NodeOptions::in_zone("node-b", "zone-b"),
            ],
            images: None,
        }
    }
}

/// A running cluster. A cheap handle; the last one that goes ends everything.
#[derive(Clone)]
pub struct Cluster(Arc<Inner>);

struct Inner {
    // Kubelets first: their pods end before the API server does.
    kubelets: Vec<Kubelet>,
    _services: Services,
    plane: ControlPlane,
    client: Client,
    folder: PathBuf,
}

impl Cluster {
    /// Starts a cluster with two nodes and our custom resource definitions.
    ///
    /// # Errors
    /// When something does not start, with its last words.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(ClusterOptions::default()).await
    }

    /// Starts a cluster.
    ///
    /// # Errors
    /// When something does not start, with its last words.
    pub async fn start_with(options: ClusterOptions) -> anyhow::Result<Self> {
        own_network()?;
        let folder = next_folder()?;
        let plane = ControlPlane::start(&folder.join("plane"), options.control_plane).await?;
        let client = plane.admin().await?;
        if options.crds {
            manifests::apply_crds(&client).await?;
        }
        plane.start_controllers().await?;
        let hosts = Arc::new(Hosts::new(folder.join("hosts")));
        let api_server = SocketAddrV4::new(Ipv4Addr::LOCALHOST, plane.port());
        let api_service = plane.service();
        let proxy = plane.authority().client("system:kube-proxy", None)?;
        let proxy = Credential::Certificate(proxy);
        let proxy = plane.access().client(&proxy).await?;
        let services = Services::start(proxy, hosts.clone(), api_server);
        let images = match options.images {
            Some(images) => images,
            None => Images::of_this_build()?,
        };
        let kubelets = options.nodes.iter().map(|node| {
            let (plane, folder) = (&plane, folder.join(&node.name));
            let (images, hosts) = (images.clone(), hosts.clone());
            async move {
                let user = format!("system:node:{}", node.name);
                let certificate = plane.authority().client(&user, Some("system:nodes"))?;
                let credential = Credential::Certificate(certificate);
                let options = KubeletOptions {
                    client: plane.access().client(&credential).await?,
                    folder,
                    images,
                    api_server,
                    api_service,
                    hosts,
                };
                Kubelet::start(node, options).await
            }
        });
        let kubelets = try_join_all(kubelets).await?;
        Ok(Self(Arc::new(Inner {
            kubelets,
            _services: services,
            plane,
            client,
            folder,
        })))
    }

    /// A namespace of this name, new and usable: its default service account is there.
    ///
    /// # Errors
    /// When it exists already.
    pub async fn namespace(&self, name: &str) -> anyhow::Result<Namespace> {
        self.namespace_with_labels(name, &[]).await
    }

    /// A new namespace with labels.
    ///
    /// # Errors
    /// As [`Self::namespace`].
    pub async fn namespace_with_labels(
        &self,
        name: &str,
        labels: &[(&str, &str)],
    ) -> anyhow::Result<Namespace> {
        let labels: serde_json::Map<_, _> = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), json!(value)))
            .collect();
        let object: NamespaceObject =
            serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}}))?;
        let namespaces: Api<NamespaceObject> = Api::all(self.client());
        namespaces
            .create(&PostParams::default(), &object)
            .await
            .with_context(|| format!("namespace {name} cannot be made"))?;
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client(), name);
        let maps: Api<ConfigMap> = Api::namespaced(self.client(), name);
        eventually(&format!("namespace {name} is usable"), || async {
            let account = accounts.get_opt("default").await?;
            let roots = maps.get_opt("kube-root-ca.crt").await?;
            let there = (account.is_some(), roots.is_some());
            Ok(Look::when(there == (true, true), there))
        })
        .await?;
        Ok(Namespace::new(self.clone(), name))
    }

    /// A client that may do everything.
    pub fn client(&self) -> Client {
        self.0.client.clone()
    }

    /// The processes of the control plane.
    pub fn plane(&self) -> &ControlPlane {
        &self.0.plane
    }

    /// The kubelet of a node.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn kubelet(&self, node: &str) -> anyhow::Result<&Kubelet> {
        let mut kubelets = self.0.kubelets.iter();
        let kubelet = kubelets.find(|kubelet| kubelet.node() == node);
        kubelet.with_context(|| format!("there is no node {node}"))
    }

    /// A client with the rights of a service account, and no more.
    ///
    /// # Errors
    /// When the service account does not exist.
    pub async fn service_account(&self, namespace: &str, name: &str) -> anyhow::Result<Client> {
        let token = client::token(&self.0.client, namespace, name, None).await?;
        let access = self.0.plane.access();
        access.client(&Credential::Token(token)).await
    }

    /// A client of a user with a certificate; in a group, if one is named.
    ///
    /// # Errors
    /// When no key can be made.
    pub async fn user(&self, name: &str, group: Option<&str>) -> anyhow::Result<Client> {
        let certificate = self.0.plane.authority().client(name, group)?;
        let access = self.0.plane.access();
        access.client(&Credential::Certificate(certificate)).await
    }

    /// Starts a program with the rights of a service account: `KUBECONFIG` names a file with its token.
    ///
    /// # Errors
    /// When the service account does not exist or the program cannot be started.
    pub async fn run_as(
        &self,
        namespace: &str,
        service_account: &str,
        program: Program,
    ) -> anyhow::Result<Process> {
        let token = client::token(&self.0.client, namespace, service_account, None).await?;
        let folder = self.0.folder.join("programs");
        let name = format!("{namespace}_{}", program.name());
        let file = folder.join(format!("{name}.kubeconfig"));
        let access = self.0.plane.access();
        access.write_kubeconfig(&Credential::Token(token), &file)?;
        program.start(&file, &folder.join(format!("{name}.log")))
    }

    /// The folder of this cluster: logs, keys, volumes.
    pub fn folder(&self) -> &Path {
        &self.0.folder
    }

    /// The pod with this UID, if a kubelet runs it.
    pub fn running(&self, uid: &str) -> Option<RunningPod> {
        self.0.kubelets.iter().find_map(|kubelet| kubelet.pod(uid))
    }
}

/// Refuses to start where pods' addresses would be someone else's.
fn own_network() -> anyhow::Result<()> {
    std::net::TcpListener::bind((Ipv4Addr::new(10, 244, 0, 1), 0)).context(
        "10.244.0.1 is not an address of this machine: cluster tests run in a network of their own, \
         which `make e2e-cluster` makes",
    )?;
    Ok(())
}

/// A new folder below the one of the test run.
fn next_folder() -> anyhow::Result<PathBuf> {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let run = std::env::var_os("SLUICE_CLUSTER_FOLDER")
        .context("SLUICE_CLUSTER_FOLDER is not set: run `make e2e-cluster`")?;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = PathBuf::from(run).join(format!("cluster-{number}"));
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}
