//! Kubernetes Events: what became of a document, where `kubectl describe` shows it.
//!
//! Best effort: they go out in order and slowly, only from the leader, and are dropped rather than queued without end.
//! The status says the same for good. Equal ones within minutes are one event with a count.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use sluice_crds::networking::{GROUP, VERSION};
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant, sleep_until, timeout};
use tracing::debug;

use crate::index::Facts;
use crate::status::{Verdict, WriteGate};

const QUEUE: usize = 256;
const DEADLINE: Duration = Duration::from_secs(10);
/// Time between two events.
const STEP: Duration = Duration::from_millis(100);
/// The API takes no more than 1 kB.
const MAX_NOTE_BYTES: usize = 1000;

/// What reports them.
const CONTROLLER: &str = "sluice.dev/control";

/// Takes events. Clones are cheap.
#[derive(Debug, Clone)]
pub struct Events {
    queue: mpsc::Sender<(ObjectReference, Verdict)>,
}

/// Sends them on.
pub struct EventSender {
    queue: mpsc::Receiver<(ObjectReference, Verdict)>,
    recorder: Recorder,
    gate: WriteGate,
}

impl Events {
    /// Both ends; `instance` is this process's name (its pod).
    pub fn channel(client: Client, gate: WriteGate, instance: String) -> (Self, EventSender) {
        let reporter = Reporter {
            controller: CONTROLLER.into(),
            instance: Some(instance),
        };
        let (sender, receiver) = mpsc::channel(QUEUE);
        let task = EventSender {
            queue: receiver,
            recorder: Recorder::new(client, reporter),
            gate,
        };
        (Self { queue: sender }, task)
    }

    /// Tells what became of a document. Never waits.
    pub fn tell(&self, facts: &Facts, news: &[Verdict]) {
        if facts.terminating {
            // Nothing can be created in its namespace any more.
            return;
        }
        let key = &facts.key;
        for verdict in news {
            let about = ObjectReference {
                api_version: Some(format!("{GROUP}/{VERSION}")),
                kind: Some(key.kind.name().into()),
                namespace: Some(key.namespace.to_string()),
                name: Some(key.name.to_string()),
                uid: Some(facts.uid.to_string()),
                ..ObjectReference::default()
            };
            if self.queue.try_send((about, verdict.clone())).is_err() {
                debug!(document = %key, "dropped an event: too many are waiting");
            }
        }
    }
}

impl EventSender {
    /// Sends until nobody can tell anything any more.
    pub async fn run(mut self) {
        while let Some((about, verdict)) = self.queue.recv().await {
            if !self.gate.is_open() {
                continue;
            }
            let started = Instant::now();
            let event = event(&verdict);
            let sent = timeout(DEADLINE, self.recorder.publish(&event, &about)).await;
            match sent {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(%error, "cannot create an event"),
                Err(_) => debug!("cannot create an event: no answer"),
            }
            sleep_until(started + STEP).await;
        }
    }
}

fn event(verdict: &Verdict) -> Event {
    let mut note = verdict.message.clone();
    note.truncate(note.floor_char_boundary(MAX_NOTE_BYTES));
    Event {
        type_: match verdict.is_bad() {
            true => EventType::Warning,
            false => EventType::Normal,
        },
        reason: verdict.reason.name().into(),
        note: Some(note),
        action: verdict.kind.name().into(),
        secondary: None,
    }
}
