//! Writes statuses: the one place of this process that changes documents, and only their status.
//!
//! By server-side apply, so that conditions of others stay theirs. Before each write the gate is asked; when it closes,
//! writes under way are dropped. Nothing here makes the index wait.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::ApiResource;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use serde_json::json;
use sluice_config::Kind;
use sluice_crds::networking::{ExternalModelProvider, GROUP, ModelRoute, ModelServer, VERSION};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, warn};

use super::board::{Board, News};
use super::desired::Desired;
use super::gate::WriteGate;
use super::pace::Pace;
use super::programmed::Acknowledgements;
use super::queue::{Outcome, Queue, Write};
use crate::FIELD_MANAGER;
use crate::events::Events;
use crate::index::{DocumentKey, Shown};

/// Writes under way at a time.
const CONCURRENT: usize = 8;
const PER_SECOND: u32 = 50;
const BURST: u32 = 100;
const DEADLINE: Duration = Duration::from_secs(15);
/// Acknowledgements come one gateway at a time: all documents are looked at once for many of them.
const GATHER: Duration = Duration::from_millis(250);
/// A gate may open and close by the clock alone.
const GATE_POLL: Duration = Duration::from_millis(500);

/// Counts of writes.
#[derive(Debug, Clone, Default)]
pub struct StatusMetrics {
    writes: Family<WriteLabels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    kind: &'static str,
    result: &'static str,
}

impl StatusMetrics {
    /// Makes them readable.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "sluice_control_status_writes",
            "Writes of a document's status, by what came of them",
            self.writes.clone(),
        );
    }

    fn count(&self, kind: Kind, outcome: Outcome) {
        let result = match outcome {
            Outcome::Written => "written",
            Outcome::Dropped => "dropped",
            Outcome::Gone => "gone",
            Outcome::Failed => "failed",
        };
        let kind = kind.name();
        self.writes
            .get_or_create(&WriteLabels { kind, result })
            .inc();
    }
}

/// Writes what the [`Board`] says, as long as the gate is open.
pub struct StatusWriter<A> {
    client: Client,
    acknowledgements: A,
    gate: WriteGate,
    board: Arc<Board>,
    events: Events,
    metrics: StatusMetrics,
    queue: Queue,
    pace: Pace,
    /// A CRD that drops statuses has been spoken of.
    told_of_drop: bool,
}

type InFlight = FuturesUnordered<BoxFuture<'static, (DocumentKey, Write, Outcome)>>;

impl<A: Acknowledgements> StatusWriter<A> {
    /// Nothing is written before [`run`](Self::run).
    pub fn new(
        client: Client,
        acknowledgements: A,
        gate: WriteGate,
        board: Arc<Board>,
        events: Events,
        metrics: StatusMetrics,
    ) -> Self {
        Self {
            client,
            acknowledgements,
            gate,
            board,
            events,
            metrics,
            queue: Queue::default(),
            pace: Pace::new(PER_SECOND, BURST),
            told_of_drop: false,
        }
    }

    /// Writes until it is dropped.
    pub async fn run(mut self) {
        let mut acknowledged = self.acknowledgements.changed();
        let mut gather: Option<Instant> = None;
        let mut in_flight = InFlight::new();
        let mut gate = self.gate.clone();
        let mut was_open = false;
        let board = self.board.clone();
        loop {
            let is_open = self.gate.is_open();
            if is_open != was_open {
                was_open = is_open;
                in_flight.clear();
                self.queue.abandon();
                self.consider_all();
            }
            if is_open {
                self.start(&mut in_flight);
            }
            let wake = self.wake(is_open, in_flight.len());
            tokio::select! {
                news = board.take() => self.learn(news),
                Ok(()) = acknowledged.changed(), if gather.is_none() => {
                    gather = Some(Instant::now() + GATHER);
                }
                () = sleep_until(gather.unwrap_or_else(Instant::now)), if gather.is_some() => {
                    gather = None;
                    self.consider_all();
                }
                () = gate.changed() => {}
                Some((key, write, outcome)) = in_flight.next() => self.finish(&key, &write, outcome),
                () = sleep_until(wake) => {}
            }
        }
    }

    /// When there is something to do without anything happening.
    fn wake(&self, is_open: bool, in_flight: usize) -> Instant {
        let poll = Instant::now() + GATE_POLL;
        match self.queue.next_due() {
            Some(due) if is_open && in_flight < CONCURRENT => due.max(self.pace.ready()).min(poll),
            _ => poll,
        }
    }

    fn learn(&mut self, news: News) {
        for (key, facts) in news {
            self.queue.learn(&key, facts);
            self.consider(&key);
        }
    }

    fn consider_all(&mut self) {
        for key in self.queue.keys() {
            self.consider(&key);
        }
    }

    fn consider(&mut self, key: &DocumentKey) {
        // A follower has nothing to plan.
        if !self.gate.is_open() {
            return;
        }
        let Some(facts) = self.queue.facts(key) else {
            return;
        };
        let (kind, name) = (key.resource_type(), key.resource_name());
        let acknowledged = self
            .acknowledgements
            .programmed(kind, &name, &facts.version);
        let desired = Desired::of(facts, &acknowledged);
        self.queue.consider(key, desired, Instant::now());
    }

    /// Starts what is due.
    fn start(&mut self, in_flight: &mut InFlight) {
        let now = Instant::now();
        while in_flight.len() < CONCURRENT && self.queue.next_due().is_some_and(|due| due <= now) {
            if !self.pace.take(now) {
                return;
            }
            let Some((key, write)) = self.queue.take(now) else {
                return;
            };
            let (client, gate) = (self.client.clone(), self.gate.clone());
            in_flight.push(Box::pin(async move {
                let outcome = apply(client, &gate, &write).await;
                (key, write, outcome)
            }));
        }
    }

    fn finish(&mut self, key: &DocumentKey, write: &Write, outcome: Outcome) {
        self.metrics.count(key.kind, outcome);
        if outcome == Outcome::Written {
            self.events.tell(&write.facts, &write.news);
        }
        if outcome == Outcome::Dropped && !std::mem::replace(&mut self.told_of_drop, true) {
            warn!(
                document = %key,
                "the cluster does not keep statuses: its CRDs are older than this program; apply those of \
                 `sluice-control crds`"
            );
        }
        self.queue.finish(key, outcome, Instant::now());
        self.consider(key);
    }
}

/// Writes one status.
async fn apply(client: Client, gate: &WriteGate, write: &Write) -> Outcome {
    let facts = &write.facts;
    let key = &facts.key;
    let now = Time(Timestamp::now());
    let status = write.desired.status(&facts.shown, &now);
    let mut metadata = json!({ "name": &*key.name });
    if !facts.uid.is_empty() {
        // Another object of the same name is not meant.
        metadata["uid"] = json!(&*facts.uid);
    }
    let body = json!({
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "kind": key.kind.name(),
        "metadata": metadata,
        "status": status,
    });
    let api: Api<DynamicObject> =
        Api::namespaced_with(client, &key.namespace, &api_resource(key.kind));
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let patch = Patch::Apply(&body);
    if !gate.is_open() {
        return Outcome::Failed;
    }
    let answer = timeout(DEADLINE, api.patch_status(&key.name, &parameters, &patch)).await;
    match answer {
        Ok(Ok(object)) => {
            debug!(document = %key, "wrote the status");
            let answered = object.data.get("status").cloned().unwrap_or_default();
            let answered: Shown = serde_json::from_value(answered).unwrap_or_default();
            match write.desired.difference(&answered) {
                None => Outcome::Written,
                Some(_) => Outcome::Dropped,
            }
        }
        Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => Outcome::Gone,
        Ok(Err(error)) => {
            warn!(document = %key, %error, "cannot write the status");
            Outcome::Failed
        }
        Err(_) => {
            warn!(document = %key, "cannot write the status: no answer for {DEADLINE:?}");
            Outcome::Failed
        }
    }
}

/// How the API calls a kind.
pub(crate) fn api_resource(kind: Kind) -> ApiResource {
    match kind {
        Kind::ModelRoute => ApiResource::erase::<ModelRoute>(&()),
        Kind::ModelServer => ApiResource::erase::<ModelServer>(&()),
        Kind::ExternalModelProvider => ApiResource::erase::<ExternalModelProvider>(&()),
    }
}

#[cfg(test)]
mod tests;
