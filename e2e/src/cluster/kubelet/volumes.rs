//! A pod's volumes as folders of this machine: emptyDir, hostPath, ConfigMap, Secret, downward API and projected ones,
//! service-account tokens among them. What has a source in the cluster follows it while the pod lives.

mod content;
mod publish;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use futures::StreamExt;
use futures::stream::{BoxStream, SelectAll};
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret, Volume, VolumeMount};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::environment::Facts;
use super::objects::Objects;
use super::sandbox::Mount;
use content::Sources;

/// The volumes of one pod; dropping it ends their updates.
pub(super) struct Volumes {
    folders: BTreeMap<String, PathBuf>,
    _updates: JoinSet<()>,
}

impl Volumes {
    /// Makes every volume, with its first content.
    ///
    /// # Errors
    /// When a volume's source is missing, or of a kind that we do not know; worth another try later.
    pub(super) async fn prepare(
        folder: &Path,
        objects: &Objects,
        pod: &watch::Receiver<Arc<Pod>>,
        facts: &Facts,
    ) -> anyhow::Result<Self> {
        let now = pod.borrow().clone();
        let volumes = now
            .spec
            .iter()
            .flat_map(|spec| spec.volumes.iter().flatten());
        let mut folders = BTreeMap::new();
        let mut updates = JoinSet::new();
        for volume in volumes {
            let folder = folder.join(&volume.name);
            let made = one(&folder, volume, objects, pod, facts, &mut updates).await;
            let made = made.with_context(|| format!("volume {}", volume.name))?;
            folders.insert(volume.name.clone(), made);
        }
        Ok(Self {
            folders,
            _updates: updates,
        })
    }

    /// Where a container wants them.
    ///
    /// # Errors
    /// When it names a volume that the pod does not have.
    pub(super) fn mounts(&self, container: &Container) -> anyhow::Result<Vec<Mount>> {
        let mounts = container.volume_mounts.iter().flatten();
        mounts.map(|mount| self.mount(mount)).collect()
    }

    fn mount(&self, mount: &VolumeMount) -> anyhow::Result<Mount> {
        let folder = self.folders.get(&mount.name);
        let folder = folder.with_context(|| format!("there is no volume {}", mount.name))?;
        let source = match &mount.sub_path {
            Some(path) if !path.is_empty() => folder.join(path),
            _ => folder.clone(),
        };
        // A part of a volume is made when it is not there, as a folder.
        if !source.exists() {
            std::fs::create_dir_all(&source)?;
        }
        Ok(Mount {
            // Links as they are now: a part of a volume does not follow its source, in a real cluster neither.
            source: source.canonicalize()?,
            target: mount.mount_path.clone(),
            read_only: mount.read_only == Some(true),
        })
    }
}

async fn one(
    folder: &Path,
    volume: &Volume,
    objects: &Objects,
    pod: &watch::Receiver<Arc<Pod>>,
    facts: &Facts,
    updates: &mut JoinSet<()>,
) -> anyhow::Result<PathBuf> {
    if let Some(host) = &volume.host_path {
        return Ok(PathBuf::from(&host.path));
    }
    std::fs::create_dir_all(folder)?;
    if volume.empty_dir.is_some() {
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777))?;
        return Ok(folder.to_owned());
    }
    let sources = Sources::of(volume).context("of a kind that this kubelet does not know")?;
    let now = pod.borrow().clone();
    let first = sources.read(objects, &now, facts).await?;
    publish::publish(folder, &first.files, first.mode)?;
    let kept = Kept {
        folder: folder.to_owned(),
        changes: changes(&sources, objects),
        sources,
        objects: objects.clone(),
        facts: facts.clone(),
        pod: pod.clone(),
    };
    updates.spawn(kept.follow(first));
    Ok(folder.to_owned())
}

/// A volume that follows its sources.
struct Kept {
    folder: PathBuf,
    sources: Sources,
    changes: SelectAll<BoxStream<'static, ()>>,
    objects: Objects,
    facts: Facts,
    pod: watch::Receiver<Arc<Pod>>,
}

impl Kept {
    async fn follow(mut self, mut last: content::Content) {
        loop {
            let renewal = last.renew_after;
            tokio::select! {
                Some(()) = self.changes.next() => {}
                Ok(()) = self.pod.changed(), if self.sources.show_the_pod() => {}
                () = async { tokio::time::sleep(renewal.unwrap_or_default()).await }, if renewal.is_some() => {}
                else => return,
            }
            let pod = self.pod.borrow().clone();
            // A source that is gone leaves the last content, as in a real cluster.
            match self.sources.read(&self.objects, &pod, &self.facts).await {
                Ok(content) => {
                    if content.files != last.files
                        && let Err(error) =
                            publish::publish(&self.folder, &content.files, content.mode)
                    {
                        tracing::warn!(%error, folder = %self.folder.display(), "volume not written");
                    }
                    last = content;
                }
                Err(error) => {
                    tracing::debug!(error = format!("{error:#}"), "volume keeps what it has");
                    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                }
            }
        }
    }
}

/// Wakes at each change of an object that the volume shows.
fn changes(sources: &Sources, objects: &Objects) -> SelectAll<BoxStream<'static, ()>> {
    let mut all = SelectAll::new();
    for name in sources.config_maps() {
        all.push(watch::<ConfigMap>(
            &objects.client,
            &objects.namespace,
            name,
        ));
    }
    for name in sources.secrets() {
        all.push(watch::<Secret>(&objects.client, &objects.namespace, name));
    }
    return all;

    fn watch<K>(client: &Client, namespace: &str, name: &str) -> BoxStream<'static, ()>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + serde::de::DeserializeOwned
            + std::fmt::Debug
            + Send
            + Sync
            + 'static,
    {
        let api: Api<K> = Api::namespaced(client.clone(), namespace);
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let events = watcher(api, config).default_backoff();
        let changes = events.filter_map(|event| async move {
            matches!(
                event,
                Ok(watcher::Event::Apply(_)
                    | watcher::Event::InitApply(_)
                    | watcher::Event::Delete(_))
            )
            .then_some(())
        });
        changes.boxed()
    }
}
