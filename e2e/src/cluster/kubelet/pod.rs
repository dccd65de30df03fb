//! One pod on this node, from the moment it is bound until it is gone.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::board::{Board, State};
use super::container::{Restart, Runner, Stop, to_end};
use super::environment::Facts;
use super::network::PodNetwork;
use super::node::NodeContext;
use super::objects::Objects;
use super::status::is_sidecar;
use super::volumes::Volumes;
use super::writer::StatusWriter;

const DEFAULT_GRACE_SECONDS: i64 = 30;
const RETRY: Duration = Duration::from_millis(200);

/// What everyone who works for a pod shares.
pub(super) struct PodContext {
    pub(super) node: Arc<NodeContext>,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) facts: Facts,
    pub(super) network: Option<PodNetwork>,
    pub(super) objects: Objects,
    /// Logs, volumes and sandboxes.
    pub(super) folder: PathBuf,
    /// The pod as last seen.
    pub(super) object: watch::Receiver<Arc<Pod>>,
    pub(super) board: Board,
    pub(super) start: Timestamp,
    volumes: OnceLock<Volumes>,
}

/// What is to become of a pod, as the API server says.
#[derive(Clone, Debug)]
pub(super) enum Wanted {
    Run,
    /// To end within this grace from when it was said.
    End(Instant),
    /// It is gone already: end at once and tell nobody.
    Gone,
}

impl PodContext {
    pub(super) fn new(
        node: Arc<NodeContext>,
        facts: Facts,
        network: Option<PodNetwork>,
        object: watch::Receiver<Arc<Pod>>,
    ) -> Self {
        let pod = object.borrow().clone();
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let (name, uid) = (text(&pod.metadata.name), text(&pod.metadata.uid));
        let namespace = text(&pod.metadata.namespace);
        let short = uid.split('-').next().unwrap_or_default();
        let folder = node
            .folder
            .join("pods")
            .join(format!("{namespace}_{name}_{short}"));
        let names = containers(&pod).map(|container| container.name.clone());
        Self {
            objects: Objects {
                client: node.client.clone(),
                namespace,
            },
            board: Board::new(names),
            start: Timestamp::now(),
            volumes: OnceLock::new(),
            node,
            name,
            uid,
            facts,
            network,
            folder,
            object,
        }
    }

    pub(super) fn volumes(&self) -> anyhow::Result<&Volumes> {
        self.volumes.get().context("volumes are not ready")
    }

    /// Where a container's output goes; all its runs, one after the other.
    pub(super) fn log(&self, container: &str) -> PathBuf {
        self.folder.join(format!("{container}.log"))
    }

    pub(super) fn grace_seconds(&self) -> i64 {
        let pod = self.object.borrow();
        let spec = pod.spec.as_ref();
        let seconds = spec.and_then(|spec| spec.termination_grace_period_seconds);
        seconds.unwrap_or(DEFAULT_GRACE_SECONDS)
    }

    pub(super) fn api(&self) -> Api<Pod> {
        Api::namespaced(self.node.client.clone(), &self.objects.namespace)
    }

    /// Lives the pod's life.
    pub(super) async fn run(self: Arc<Self>, mut wanted: watch::Receiver<Wanted>) {
        let writer = StatusWriter::start(self.clone());
        let (main, stop_main) = watch::channel(None);
        let (sidecars, stop_sidecars) = watch::channel(None);
        let mut life = tokio::spawn(self.clone().live(stop_main, stop_sidecars, sidecars));
        // Dropped with this task, which ends the containers: they are children of it.
        let _aborts = AbortOnDrop(life.abort_handle());
        let mut finished = false;
        let gone = loop {
            let ends = match &*wanted.borrow_and_update() {
                Wanted::Run => None,
                Wanted::End(until) => Some(*until),
                Wanted::Gone => Some(Instant::now()),
            };
            if let Some(until) = ends {
                main.send_replace(Some(until));
                if finished {
                    break matches!(*wanted.borrow(), Wanted::Gone);
                }
            }
            tokio::select! {
                _ = &mut life, if !finished => finished = true,
                changed = wanted.changed() => if changed.is_err() { return },
            }
        };
        if let Some(network) = &self.network {
            network.remove().await;
        }
        if !gone {
            writer.finish().await;
            self.delete().await;
        }
        // What a failed test may want to read stays: logs.
        for container in containers(&self.object.borrow()) {
            std::fs::remove_dir_all(self.folder.join(&container.name)).ok();
        }
    }

    /// Volumes, init containers, containers; returns when all have ended for good.
    async fn live(self: Arc<Self>, mut stop: Stop, stop_sidecars: Stop, end: EndSidecars) {
        let pod = self.object.borrow().clone();
        let Some(spec) = &pod.spec else { return };
        let policy = Restart::of(spec.restart_policy.as_deref());
        if !self.prepare(&mut stop).await {
            return;
        }
        let mut sidecars = JoinSet::new();
        let mut initialized = true;
        for init in spec.init_containers.iter().flatten() {
            if stop.borrow().is_some() || !initialized {
                break;
            }
            if is_sidecar(init) {
                let runner = self.runner(init, Restart::Always);
                sidecars.spawn(runner.run(stop_sidecars.clone()));
                tokio::select! {
                    () = self.board.until(&init.name, |view| view.started) => {}
                    () = to_end(&mut stop) => {}
                }
            } else {
                // An init container that has succeeded is through, whatever the policy.
                let policy = match policy {
                    Restart::Never => Restart::Never,
                    _ => Restart::OnFailure,
                };
                self.runner(init, policy).run(stop.clone()).await;
                let view = self.board.view(&init.name);
                initialized = matches!(view.state, State::Terminated(end) if end.code == 0);
            }
        }
        if initialized && stop.borrow().is_none() {
            let mut main = JoinSet::new();
            for container in &spec.containers {
                main.spawn(self.runner(container, policy).run(stop.clone()));
            }
            main.join_all().await;
        }
        // Sidecars end after the others, in the time that is left.
        let until = stop.borrow().unwrap_or_else(Instant::now);
        let grace = Duration::from_secs(self.grace_seconds().unsigned_abs());
        let until = if stop.borrow().is_some() {
            until
        } else {
            until + grace
        };
        end.send_replace(Some(until));
        sidecars.join_all().await;
    }

    /// Its network and its volumes; false when the pod is to end before they were there.
    async fn prepare(&self, stop: &mut Stop) -> bool {
        loop {
            match self.try_prepare().await {
                Ok(()) => return true,
                Err(error) => {
                    let message = format!("{error:#}");
                    tracing::debug!(pod = %self.name, %message, "not ready for containers");
                    for container in containers(&self.object.borrow()) {
                        self.board.update(&container.name, |view| {
                            view.state = State::Waiting {
                                reason: "ContainerCreating",
                                message: message.clone(),
                            };
                        });
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                () = to_end(stop) => return false,
            }
        }
    }

    async fn try_prepare(&self) -> anyhow::Result<()> {
        if let Some(network) = &self.network
            && !network.file().exists()
        {
            network.make().await.context("network")?;
        }
        let folder = self.folder.join("volumes");
        let volumes = Volumes::prepare(&folder, &self.objects, &self.object, &self.facts);
        self.volumes.set(volumes.await?).ok();
        Ok(())
    }

    fn runner(self: &Arc<Self>, container: &Container, restart: Restart) -> Runner {
        Runner {
            pod: self.clone(),
            container: container.clone(),
            restart,
        }
    }

    /// The last word: nothing of the pod runs any more.
    async fn delete(&self) {
        let parameters = DeleteParams::default()
            .grace_period(0)
            .preconditions(Preconditions {
                uid: Some(self.uid.clone()),
                resource_version: None,
            });
        loop {
            match self.api().delete(&self.name, &parameters).await {
                Ok(_) => return,
                // Gone, or another pod of this name.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return,
                Err(error) => {
                    tracing::debug!(pod = %self.name, %error, "cannot be deleted yet");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

type EndSidecars = watch::Sender<Option<Instant>>;

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// All containers of a pod, init containers first.
pub(super) fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec.iter();
    spec.flat_map(|spec| {
        let inits = spec.init_containers.iter().flatten();
        inits.chain(&spec.containers)
    })
}
