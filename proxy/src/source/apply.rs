//! The one owner of the catalog: a thread that takes loads of files and pushed batches as they come, one after another,
//! and puts each into force.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use arc_swap::ArcSwap;
use sluice_config::push::{Batch, Refusal, ResourceType};
use sluice_config::{Catalog, FilterSet, LoadedDocuments, Problem, Update};
use tokio::sync::oneshot;

use super::push::{InForce, Known};
use super::unix_now;
use crate::filters::BuiltinFilters;
use crate::gateway::Gateway;
use crate::telemetry::metrics::{ProblemSource, PushMetrics};

/// Inputs that wait while one is put into force. There is room for all: who brings one waits until it is in force before
/// they bring the next.
const QUEUE: usize = 8;

/// Puts things into force; by itself, without a thread.
pub(super) struct Applier {
    gateway: Arc<Gateway>,
    catalog: Catalog,
    problems: Arc<ArcSwap<Vec<Problem>>>,
}

/// The thread; dropping it ends it once all inputs are dropped.
pub(super) struct Feed {
    input: Option<Inputs>,
    thread: Option<JoinHandle<()>>,
}

/// Brings inputs to the thread. Clones are cheap.
#[derive(Clone)]
pub(super) struct Inputs(SyncSender<Input>);

enum Input {
    Files(LoadedDocuments, SyncSender<()>),
    Batch(Box<Batch>, oneshot::Sender<Applied>),
    Known(oneshot::Sender<Known>),
}

/// The outcome of a batch.
pub(super) struct Applied {
    /// The batch, given back.
    pub(super) batch: Batch,
    pub(super) refusals: Vec<Refusal>,
    pub(super) in_force: InForce,
}

/// The owner of the catalog is gone: the gateway is ending.
#[derive(Debug, thiserror::Error)]
#[error("the gateway takes no configuration any more")]
pub(super) struct Ended;

impl Applier {
    pub(super) fn new(gateway: Arc<Gateway>, problems: Arc<ArcSwap<Vec<Problem>>>) -> Self {
        let config = &gateway.config;
        let set = FilterSet::new(&config.filters, Arc::new(BuiltinFilters::default()));
        let catalog = match config.source.push {
            Some(_) => Catalog::with_push(set),
            None => Catalog::new(set),
        };
        Self {
            gateway,
            catalog,
            problems,
        }
    }

    /// Goes on in a thread of its own.
    pub(super) fn start(mut self) -> io::Result<Feed> {
        let (sender, inputs) = sync_channel(QUEUE);
        let thread = thread::Builder::new()
            .name("sluice-source".into())
            .spawn(move || {
                while let Ok(input) = inputs.recv() {
                    self.take(input);
                }
            })?;
        Ok(Feed {
            input: Some(Inputs(sender)),
            thread: Some(thread),
        })
    }

    fn take(&mut self, input: Input) {
        // Who asked may have gone meanwhile: nobody is told then.
        match input {
            Input::Files(loaded, done) => {
                self.files(loaded);
                let _ = done.send(());
            }
            Input::Batch(batch, reply) => {
                let _ = reply.send(self.batch(*batch));
            }
            Input::Known(reply) => {
                let _ = reply.send(self.known());
            }
        }
    }

    fn files(&mut self, loaded: LoadedDocuments) {
        let update = self.catalog.update(loaded, unix_now());
        let push = self.gateway.config.source.push.as_ref();
        let waits = push.is_some_and(|push| push.required);
        let loaded = update.snapshot.generation > 0;
        self.put_in_force(update, true);
        if loaded && !waits {
            self.gateway.drain.set_configured();
        }
    }

    /// Puts a pushed batch into force, or the state that was kept on disk.
    pub(super) fn batch(&mut self, batch: Batch) -> Applied {
        let applied = self.catalog.push(&batch, unix_now());
        let in_force = self.in_force(&applied.update);
        self.put_in_force(applied.update, has_documents(&batch));
        self.gateway.drain.set_configured();
        Applied {
            batch,
            refusals: applied.refusals,
            in_force,
        }
    }

    fn in_force(&self, update: &Update) -> InForce {
        InForce {
            snapshot: Arc::clone(&update.snapshot),
            refused: self.catalog.refused().cloned().collect(),
            wanted_secrets: self.catalog.wanted_secrets(),
            resources: self.catalog.pushed_counts(),
        }
    }

    pub(super) fn push_metrics(&self) -> Arc<PushMetrics> {
        self.gateway.metrics.push()
    }

    fn known(&self) -> Known {
        let versions = |kind: ResourceType| self.catalog.versions(kind).collect();
        Known {
            versions: ResourceType::ALL.map(versions),
            wanted_secrets: self.catalog.wanted_secrets(),
        }
    }

    /// `loud`: worth a line in the log. Pods come and go by the thousand.
    fn put_in_force(&self, update: Update, loud: bool) {
        let gateway = &self.gateway;
        let metrics = &gateway.metrics;
        metrics.config_rejects.inc_by(update.rejected as u64);
        let before = self.problems.load_full();
        if !Arc::ptr_eq(&before, &update.problems) {
            log_new(&before, &update.problems);
            let problems = &update.problems;
            let errors = problems.iter().filter(|problem| problem.is_error()).count();
            let warnings = problems.len() - errors;
            metrics.set_config_problems(ProblemSource::Documents, errors, warnings);
            self.problems.store(update.problems);
        }
        if !update.changed {
            return;
        }
        let snapshot = update.snapshot;
        let generation = snapshot.generation;
        let (routes, servers) = (snapshot.routes.len(), snapshot.servers.len());
        gateway.serving.install(snapshot);
        metrics
            .config_generation
            .set(i64::try_from(generation).unwrap_or(i64::MAX));
        let rejected = update.rejected;
        match loud {
            true => tracing::info!(
                generation,
                routes,
                servers,
                rejected,
                "configuration in force"
            ),
            false => tracing::debug!(generation, rejected, "endpoints in force"),
        }
    }
}

fn has_documents(batch: &Batch) -> bool {
    let upserts = batch.upserts.iter().map(|upsert| upsert.kind);
    let removals = batch.removals.iter().map(|(kind, _)| *kind);
    let others = [ResourceType::Endpoint, ResourceType::Peer];
    upserts.chain(removals).any(|kind| !others.contains(&kind))
}

/// Each problem is said once, when it comes up.
fn log_new(before: &[Problem], now: &[Problem]) {
    let before: HashSet<&Problem> = before.iter().collect();
    for problem in now.iter().filter(|problem| !before.contains(problem)) {
        if problem.is_error() {
            tracing::error!(%problem, "refused");
        } else {
            tracing::warn!(%problem, "accepted with a warning");
        }
    }
}

impl Feed {
    pub(super) fn input(&self) -> Inputs {
        let input = self.input.clone();
        input.expect("it is taken by the drop only")
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.input = None;
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Inputs {
    /// Brings a load of files, from a thread that may wait, and waits until it is in force.
    pub(super) fn files(&self, loaded: LoadedDocuments) {
        let (done, wait) = sync_channel(1);
        if self.0.send(Input::Files(loaded, done)).is_ok() {
            let _ = wait.recv();
        }
    }

    /// Brings a batch, and waits until it is in force.
    pub(super) async fn batch(&self, batch: Batch) -> Result<Applied, Ended> {
        let (reply, applied) = oneshot::channel();
        let input = Input::Batch(Box::new(batch), reply);
        self.0.send(input).map_err(|_| Ended)?;
        applied.await.map_err(|_| Ended)
    }

    /// What is in force of what was pushed.
    pub(super) async fn known(&self) -> Result<Known, Ended> {
        let (reply, known) = oneshot::channel();
        self.0.send(Input::Known(reply)).map_err(|_| Ended)?;
        known.await.map_err(|_| Ended)
    }
}
