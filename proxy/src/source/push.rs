//! Follows a control loop: connects to one of its addresses, takes batches from the stream, and keeps the last good
//! state on disk. In a thread of its own, so that no request waits for it nor it for requests.
//!
//! Not for what the protocol's messages mean to the stream ([`client`]), nor to the configuration (`sluice-config`).

mod backoff;
pub mod client;
mod connect;
mod flags;
mod keeper;
pub mod state_file;
mod status;
mod stream;

use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use anyhow::Context;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use sluice_config::bootstrap::{ControlAddress, PushConfig};
use sluice_config::push::{Batch, Refusal, ResourceType};
use sluice_config::{Problem, Snapshot};
use tokio::sync::watch;

use self::backoff::Backoff;
use self::client::NodeParams;
pub use self::client::{Client, Known};
use self::connect::Credentials;
pub use self::flags::PushFlags;
use self::keeper::Keeper;
pub use self::status::PushStatus;
use self::stream::Session;
use super::apply::{Applier, Feed, Inputs};
use crate::telemetry::metrics::PushMetrics;

/// What is in force after a change, as far as it is shown.
#[derive(Debug, Clone)]
pub(super) struct InForce {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) refused: Vec<Problem>,
    pub(super) wanted_secrets: Arc<BTreeSet<String>>,
    /// Pushed resources, by type.
    pub(super) resources: Vec<(ResourceType, usize)>,
}

/// Follows a control loop until dropped; then the last good state is on disk.
pub(super) struct Follower {
    status: Arc<PushStatus>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread works with.
struct Loop {
    addresses: Vec<ControlAddress>,
    credentials: Credentials,
    node: NodeParams,
    input: Inputs,
    keeper: Option<Keeper>,
    status: Arc<PushStatus>,
    metrics: Arc<PushMetrics>,
}

impl Follower {
    /// Puts the last good state from disk into force, if there is one, and follows from there.
    pub(super) fn start(config: &PushConfig, mut applier: Applier) -> anyhow::Result<(Self, Feed)> {
        let addresses = addresses(config)?;
        let node = NodeParams {
            id: config.node.clone().unwrap_or_else(node_name),
            namespaces: config.namespaces.clone(),
        };
        let metrics = applier.push_metrics();
        let status = Arc::new(PushStatus::new(config, &node.id, Arc::clone(&metrics)));
        let keeper = match &config.state_file {
            Some(file) => Some(restore(file, config, &mut applier, &status)?),
            None => None,
        };
        let feed = applier.start().context("no thread for the configuration")?;
        let follow = Loop {
            addresses,
            credentials: Credentials::of(config),
            node,
            input: feed.input(),
            keeper,
            status: Arc::clone(&status),
            metrics,
        };
        let (stop, stopped) = watch::channel(false);
        let thread = thread::Builder::new()
            .name("sluice-push".into())
            .spawn(move || follow.run_thread(stopped))
            .context("no thread for the push stream")?;
        let follower = Self {
            status,
            stop,
            thread: Some(thread),
        };
        Ok((follower, feed))
    }

    pub(super) fn status(&self) -> &Arc<PushStatus> {
        &self.status
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn addresses(config: &PushConfig) -> anyhow::Result<Vec<ControlAddress>> {
    anyhow::ensure!(
        !config.addresses.is_empty(),
        "source.push.addresses: there is no address of a control loop; give --control"
    );
    let addresses = config.addresses.iter();
    let parse = |url: &String| {
        ControlAddress::parse(url)
            .map_err(|reason| anyhow::anyhow!("source.push.addresses: {url:?} {reason}"))
    };
    addresses.map(parse).collect()
}

/// `namespace/pod` where Kubernetes tells, else the host's name.
fn node_name() -> String {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    match (variable("POD_NAMESPACE"), variable("POD_NAME")) {
        (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
        _ => std::fs::read_to_string("/proc/sys/kernel/hostname")
            .map_or_else(|_| "sluice-proxy".to_owned(), |name| name.trim().to_owned()),
    }
}

/// Serves what the file holds, and keeps it from then on.
fn restore(
    file: &Path,
    config: &PushConfig,
    applier: &mut Applier,
    status: &PushStatus,
) -> anyhow::Result<Keeper> {
    let keeper = Keeper::start(file.to_owned(), config.namespaces.clone())
        .context("no thread to keep the last good state")?;
    let path = file.display();
    match state_file::load(file, &config.namespaces) {
        Ok(None) => tracing::info!(%path, "there is no last good state on disk yet"),
        Ok(Some((header, upserts))) => {
            let batch = Batch {
                upserts,
                removals: Vec::new(),
            };
            let applied = applier.batch(batch);
            let refused = refused(&applied.refusals);
            tracing::info!(
                %path,
                control = header.control,
                generation = header.generation,
                resources = applied.batch.upserts.len() - refused.len(),
                refused = refused.len(),
                "the last good state is in force, from disk"
            );
            status.restored(&applied.in_force);
            keeper.restored(applied.batch, &refused);
        }
        Err(error) => tracing::error!(%path, %error, "the last good state on disk is ignored"),
    }
    Ok(keeper)
}

/// Items of a batch that were refused.
fn refused(refusals: &[Refusal]) -> HashSet<usize> {
    refusals.iter().map(|refusal| refusal.item).collect()
}

impl Loop {
    fn run_thread(self, stopped: watch::Receiver<bool>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        match runtime {
            Ok(runtime) => {
                runtime.block_on(self.run(stopped));
                // A look-up of a name may still hang.
                runtime.shutdown_background();
            }
            Err(error) => {
                tracing::error!(%error, "the push stream cannot be followed");
            }
        }
    }

    /// Until told to stop.
    async fn run(self, mut stopped: watch::Receiver<bool>) {
        tokio::select! {
            () = self.follow() => {}
            _ = stopped.wait_for(|stop| *stop) => {}
        }
    }

    async fn follow(&self) {
        let mut random = SmallRng::from_rng(&mut rand::rng());
        let mut backoff = Backoff::default();
        let mut first = true;
        loop {
            for target in connect::targets(&self.addresses, &mut random).await {
                if !std::mem::take(&mut first) {
                    self.metrics.reconnects.inc();
                }
                let session = Session::new(self, &target);
                let ended = session.run().await;
                if ended.is_over() {
                    return;
                }
                self.status.disconnected(&target, &ended);
                if ended.lasted() {
                    backoff.reset();
                    // Names are looked up anew, and after a pause: all other gateways have lost it, too.
                    break;
                }
            }
            tokio::time::sleep(backoff.next(&mut random)).await;
        }
    }
}
