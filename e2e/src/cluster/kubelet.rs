//! A kubelet whose containers are processes of this machine.
//!
//! Pods that the scheduler binds to its node become real processes with real addresses, probes, volumes, grace and
//! restarts, and their statuses go back as a real kubelet's would; it even has a real kubelet's rights
//! (`system:node:NAME`), and no more. Not there: logs and exec for kubectl, HTTPS and gRPC probes, resource limits,
//! persistent volumes, ephemeral containers.

mod action;
mod board;
mod container;
mod environment;
mod images;
mod launch;
mod network;
mod node;
mod objects;
mod pod;
mod probes;
mod sandbox;
mod status;
mod volumes;
mod writer;

use std::collections::HashMap;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use rustix::process::Signal;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::process::ProcessHandle;
use super::services::Hosts;
use super::wait::{Look, eventually};
use environment::Facts;
use network::PodNetwork;
use node::NodeContext;
use pod::{PodContext, Wanted};

pub use board::ProbeKind;
pub use images::{Image, Images, built};
pub use node::NodeOptions;

/// A running kubelet; dropping it kills its pods' processes, and the cluster sees a node fall silent.
pub struct Kubelet {
    node: Arc<NodeContext>,
    pods: Arc<Pods>,
    _tasks: JoinSet<()>,
}

/// What a kubelet needs besides its node.
pub(super) struct KubeletOptions {
    /// A client with the rights of `system:node:NAME`.
    pub(super) client: Client,
    /// Where logs and volumes go.
    pub(super) folder: PathBuf,
    /// What images are.
    pub(super) images: Images,
    /// Where pods find the API server.
    pub(super) api_server: SocketAddrV4,
    /// The same as a Service, for pods with a network of their own.
    pub(super) api_service: SocketAddrV4,
    /// `/etc/hosts` of pods.
    pub(super) hosts: Arc<Hosts>,
}

impl Kubelet {
    /// Registers the node and begins to run its pods.
    ///
    /// # Errors
    /// When the node cannot be registered.
    pub(super) async fn start(node: &NodeOptions, options: KubeletOptions) -> anyhow::Result<Self> {
        let context = Arc::new(NodeContext::new(
            node.name.clone(),
            options.client,
            options.folder,
            options.images,
            [options.api_server, options.api_service],
            options.hosts,
        ));
        context.register(node).await?;
        let pods = Arc::new(Pods::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(context.clone().beat());
        tasks.spawn(follow(context.clone(), pods.clone()));
        Ok(Self {
            node: context,
            pods,
            _tasks: tasks,
        })
    }

    /// Name of its node.
    pub fn node(&self) -> &str {
        &self.node.name
    }

    /// Stops or resumes the heartbeat: without one the node is taken for lost after a while.
    pub fn set_heartbeat(&self, beating: bool) {
        self.node.beating.store(beating, Ordering::Relaxed);
    }

    /// The pod with this UID, if it is here.
    pub fn pod(&self, uid: &str) -> Option<RunningPod> {
        let pods = self.pods.lock();
        let entry = pods.get(uid)?;
        Some(RunningPod(entry.context.clone()))
    }
}

/// A pod's processes, for those who disturb them. A cheap handle.
#[derive(Clone)]
pub struct RunningPod(Arc<PodContext>);

impl RunningPod {
    /// Stops a container in its tracks: its connections stay open and nothing is answered.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn freeze(&self, container: &str) -> anyhow::Result<()> {
        let process = self.signal(container, Signal::STOP)?;
        eventually(&format!("container {container} stands still"), || async {
            Ok(Look::when(process.stands_still(), "it runs"))
        })
        .await
    }

    /// Lets a frozen container go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn thaw(&self, container: &str) -> anyhow::Result<()> {
        self.signal(container, Signal::CONT)?;
        Ok(())
    }

    /// Kills a container, as a crash does.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&self, container: &str) -> anyhow::Result<()> {
        self.signal(container, Signal::KILL)?;
        Ok(())
    }

    /// Number of a container's process.
    pub fn process(&self, container: &str) -> Option<i32> {
        let process = self.0.board.view(container).process;
        process.map(|process| process.id())
    }

    /// Makes a probe fail whatever the container answers, or ends that.
    pub fn fail_probe(&self, container: &str, kind: ProbeKind, fail: bool) {
        self.0.board.fail_probe(container, kind, fail);
    }

    /// Pulls the cable of a pod that has a network of its own, or puts it back: nobody reaches it, and it reaches nobody.
    ///
    /// # Errors
    /// When it has none.
    pub async fn connect(&self, connected: bool) -> anyhow::Result<()> {
        let network = self.0.network.as_ref();
        let network = network.context("this pod has no network of its own")?;
        network.connect(connected).await
    }

    /// Where one of its volumes is on this machine.
    pub fn volume(&self, name: &str) -> PathBuf {
        self.0.folder.join("volumes").join(name)
    }

    /// What a container has written so far, over all its runs.
    pub fn log(&self, container: &str) -> String {
        let bytes = std::fs::read(self.0.log(container)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn signal(&self, container: &str, signal: Signal) -> anyhow::Result<ProcessHandle> {
        let process = self.0.board.view(container).process;
        let process = process.with_context(|| format!("container {container} does not run"))?;
        process.signal_group(signal);
        Ok(process)
    }
}

/// The pods of a node, by UID: a name may come again.
#[derive(Default)]
struct Pods(Mutex<HashMap<String, Entry>>);

struct Entry {
    context: Arc<PodContext>,
    object: watch::Sender<Arc<Pod>>,
    wanted: watch::Sender<Wanted>,
}

impl Pods {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Follows the pods bound to the node, for ever.
async fn follow(node: Arc<NodeContext>, pods: Arc<Pods>) {
    let api: Api<Pod> = Api::all(node.client.clone());
    let config = watcher::Config::default().fields(&format!("spec.nodeName={}", node.name));
    let mut events = watcher(api, config).default_backoff().boxed();
    let mut lives = JoinSet::new();
    let mut listed = Vec::new();
    loop {
        while lives.try_join_next().is_some() {}
        match events.try_next().await {
            Ok(Some(watcher::Event::Init)) => listed.clear(),
            Ok(Some(watcher::Event::InitApply(pod))) => {
                listed.extend(pod.metadata.uid.clone());
                see(&node, &pods, pod, &mut lives);
            }
            Ok(Some(watcher::Event::InitDone)) => {
                for (uid, entry) in pods.lock().iter() {
                    if !listed.contains(uid) {
                        entry.wanted.send_replace(Wanted::Gone);
                    }
                }
            }
            Ok(Some(watcher::Event::Apply(pod))) => see(&node, &pods, pod, &mut lives),
            Ok(Some(watcher::Event::Delete(pod))) => {
                let uid = pod.metadata.uid.unwrap_or_default();
                if let Some(entry) = pods.lock().get(&uid) {
                    entry.wanted.send_replace(Wanted::Gone);
                }
            }
            Ok(None) => return,
            Err(error) => tracing::debug!(node = %node.name, %error, "watch of pods"),
        }
    }
}

/// Takes note of a pod as it is now; begins to run it when it is new.
fn see(node: &Arc<NodeContext>, pods: &Arc<Pods>, pod: Pod, lives: &mut JoinSet<()>) {
    let Some(uid) = pod.metadata.uid.clone() else {
        return;
    };
    let wanted = wanted(&pod);
    let mut table = pods.lock();
    if let Some(entry) = table.get(&uid) {
        entry.object.send_replace(Arc::new(pod));
        entry
            .wanted
            .send_if_modified(|before| sooner(before, wanted));
        return;
    }
    let ended = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    if matches!(ended, Some("Succeeded" | "Failed")) && pod.metadata.deletion_timestamp.is_none() {
        return;
    }
    let Some(ip) = node.take_address() else {
        tracing::error!(node = %node.name, "no address left for a pod");
        return;
    };
    let network = wants_network(node, &pod).then(|| PodNetwork::of(ip));
    let facts = Facts {
        ip: network.as_ref().map_or(ip, PodNetwork::address),
        node: node.name.clone(),
        node_ip: node.ip(),
    };
    let (object, seen) = watch::channel(Arc::new(pod));
    let (sender, receiver) = watch::channel(wanted);
    let context = Arc::new(PodContext::new(node.clone(), facts, network, seen));
    tracing::debug!(pod = %context.name, %ip, "pod begins");
    let entry = Entry {
        context: context.clone(),
        object,
        wanted: sender,
    };
    table.insert(uid.clone(), entry);
    let (node, pods) = (node.clone(), pods.clone());
    lives.spawn(async move {
        context.run(receiver).await;
        node.give_back(ip);
        pods.lock().remove(&uid);
    });
}

fn wants_network(node: &NodeContext, pod: &Pod) -> bool {
    let mut images = pod::containers(pod).filter_map(|container| container.image.as_deref());
    images.any(|image| {
        node.images
            .find(image)
            .is_some_and(|(_, image)| image.own_network)
    })
}

fn wanted(pod: &Pod) -> Wanted {
    let metadata = &pod.metadata;
    if metadata.deletion_timestamp.is_none() {
        return Wanted::Run;
    }
    let seconds = metadata.deletion_grace_period_seconds.unwrap_or(0);
    Wanted::End(Instant::now() + Duration::from_secs(seconds.unsigned_abs()))
}

/// Grace may be shortened, never prolonged, and nothing comes back to life.
fn sooner(before: &mut Wanted, now: Wanted) -> bool {
    let change = match (&before, &now) {
        (Wanted::Run, Wanted::End(_)) => true,
        (Wanted::End(old), Wanted::End(new)) => new < old,
        _ => false,
    };
    if change {
        *before = now;
    }
    change
}
