//! How the push stream stands, for `/debug/config`, metrics and the log. Names and versions only: no Secret's value
//! comes here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use sluice_config::Problem;
use sluice_config::bootstrap::PushConfig;
use sluice_config::push::BatchMessage;

use super::InForce;
use super::connect::Target;
use super::stream::SessionEnd;
use crate::telemetry::metrics::PushMetrics;

/// The same failure is said again after this.
const REMIND: Duration = Duration::from_secs(60);

/// See the module.
pub struct PushStatus {
    addresses: Vec<String>,
    node: String,
    namespaces: Vec<String>,
    state_file: Option<String>,
    metrics: Arc<PushMetrics>,
    /// Held to note a change or to show it, never over an await.
    shown: Mutex<Shown>,
}

#[derive(Default)]
struct Shown {
    /// Address, and since when.
    connected: Option<(String, SystemTime)>,
    from_disk: bool,
    end: BatchMessage,
    last_batch: Option<SystemTime>,
    failure: Option<Failure>,
    in_force: Option<InForce>,
}

struct Failure {
    text: String,
    at: SystemTime,
    logged: SystemTime,
}

impl PushStatus {
    pub(super) fn new(config: &PushConfig, node: &str, metrics: Arc<PushMetrics>) -> Self {
        let state_file = config.state_file.as_ref();
        Self {
            addresses: config.addresses.clone(),
            node: node.to_owned(),
            namespaces: config.namespaces.clone(),
            state_file: state_file.map(|file| file.display().to_string()),
            metrics,
            shown: Mutex::default(),
        }
    }

    /// Pushed state is in force, from disk.
    pub(super) fn restored(&self, in_force: &InForce) {
        self.count(in_force);
        let mut shown = self.lock();
        shown.from_disk = true;
        shown.in_force = Some(in_force.clone());
    }

    /// A batch is in force.
    pub(super) fn applied(
        &self,
        target: &Target,
        end: &BatchMessage,
        in_force: &InForce,
        now: SystemTime,
    ) {
        self.count(in_force);
        self.metrics.batches.inc();
        self.metrics.connected.set(1);
        self.metrics
            .generation
            .set(i64::try_from(end.generation).unwrap_or(i64::MAX));
        if end.changed_at > 0 {
            let changed = UNIX_EPOCH + Duration::from_micros(end.changed_at);
            // Clocks may differ by more than a batch takes.
            self.metrics
                .observe_lag(now.duration_since(changed).unwrap_or_default());
        }
        let mut shown = self.lock();
        if shown.connected.is_none() {
            shown.connected = Some((target.to_string(), now));
        }
        shown.from_disk = false;
        shown.end = end.clone();
        shown.last_batch = Some(now);
        shown.failure = None;
        shown.in_force = Some(in_force.clone());
    }

    /// A stream has ended, or there was none.
    pub(super) fn disconnected(&self, target: &Target, end: &SessionEnd) {
        self.metrics.connected.set(0);
        let now = SystemTime::now();
        let text = format!("{target}: {}", end.cause);
        let mut shown = self.lock();
        let was = shown.connected.take();
        let last = shown.failure.as_ref().filter(|last| last.text == text);
        let logged = last.map(|last| last.logged);
        let due = logged.is_none_or(|at| now.duration_since(at).is_ok_and(|since| since >= REMIND));
        shown.failure = Some(Failure {
            text,
            at: now,
            logged: logged.filter(|_| !due).unwrap_or(now),
        });
        drop(shown);
        let (address, reason) = (target.to_string(), end.cause.to_string());
        match (was.is_some(), due) {
            (true, _) => tracing::warn!(
                address,
                reason,
                "the push stream has ended: serving on with what is in force"
            ),
            (false, true) => tracing::warn!(address, reason, "the control loop cannot be followed"),
            (false, false) => tracing::debug!(address, reason, "still not followed"),
        }
    }

    fn count(&self, in_force: &InForce) {
        self.metrics
            .rejected
            .set(i64::try_from(resources(&in_force.refused)).unwrap_or(i64::MAX));
        self.metrics.set_resources(&in_force.resources);
    }

    /// For `/debug/config`.
    pub fn show(&self) -> Value {
        let shown = self.lock();
        let Shown {
            connected,
            from_disk,
            end,
            last_batch,
            failure,
            in_force,
        } = &*shown;
        let mut value = json!({
            "addresses": self.addresses,
            "node": self.node,
            "namespaces": self.namespaces,
            "stateFile": self.state_file,
            "connected": connected.is_some(),
            "address": connected.as_ref().map(|(address, _)| address),
            "connectedSince": connected.as_ref().map(|(_, since)| seconds(*since)),
            "fromDisk": from_disk,
            "control": end.control,
            "generation": end.generation,
            "lastBatch": last_batch.map(seconds),
            "lastFailure": failure.as_ref().map(|failure| &failure.text),
            "lastFailureAt": failure.as_ref().map(|failure| seconds(failure.at)),
        });
        if let Some(in_force) = in_force {
            let snapshot = &in_force.snapshot;
            let secrets = snapshot.secrets.iter();
            let secrets =
                secrets.map(|(name, secret)| json!({"name": name, "version": secret.version}));
            let missing = in_force.wanted_secrets.iter();
            let missing = missing.filter(|name| !snapshot.secrets.contains_key(*name));
            let peers = snapshot.peers.iter();
            let peers = peers.map(|(name, peer)| {
                json!({"name": name, "host": peer.host, "zone": peer.zone, "ready": peer.ready})
            });
            value["resources"] = in_force
                .resources
                .iter()
                .map(|(kind, count)| (kind.name().to_owned(), json!(count)))
                .collect();
            value["refused"] = json!(in_force.refused);
            value["secrets"] = secrets.collect();
            value["missingSecrets"] = json!(missing.collect::<Vec<_>>());
            value["peers"] = peers.collect();
        }
        value
    }

    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Unix time.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Different resources among problems that stand together.
fn resources(problems: &[Problem]) -> usize {
    problems
        .chunk_by(|one, other| one.document == other.document)
        .count()
}
