//! What the connected gateways have acknowledged: the ground of `Programmed` in statuses and of `/debug/proxies`.
//!
//! A gateway that has acknowledged a generation has every resource in the version of that generation, but for those that it
//! refuses. So a number and the refusals are kept for each, never a list of all it has: memory grows with the gateways and
//! with what is wrong, not with gateways times resources.

mod programmed;
mod report;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use sluice_config::push::ResourceType;
use tokio::sync::watch;

use super::subscription::{Answered, Refusal};
use super::summary::{DOCUMENTS, DocumentSummary, Summary};
use crate::grants::Namespaces;
use crate::state::{Interests, PushState, TYPES};

pub use programmed::{Finding, Programmed};
pub use report::{ProxyReport, RejectionReport};

/// Text of refusals that is kept for one gateway. Beyond, it is known what is refused, but no longer why.
const MAX_REFUSAL_BYTES: usize = 64 * 1024;

/// Longest single text of a refusal.
const MAX_TEXT_BYTES: usize = 1024;

/// Findings that are kept about one resource.
const MAX_FINDINGS: usize = 8;

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// As it calls itself: its pod.
    pub(super) name: String,
    pub(super) address: SocketAddr,
    /// As it has proven.
    pub(super) identity: Arc<str>,
    /// Version of its program.
    pub(super) version: String,
    pub(super) namespaces: Namespaces,
}

/// All connected gateways. Shared by reference.
#[derive(Debug)]
pub struct Acks {
    state: Arc<PushState>,
    /// Held for a look at every gateway at most, never across an await.
    proxies: Mutex<Proxies>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Proxies {
    next: u64,
    by_connection: BTreeMap<u64, Proxy>,
}

/// One connection.
#[derive(Debug)]
struct Proxy {
    caller: Caller,
    connected_at: SystemTime,
    /// A newer connection of the same gateway is there: this one is dead, and nobody has noticed yet.
    superseded: bool,
    /// By the position of each type.
    subscribed: [bool; TYPES],
    subscriptions: Vec<String>,
    acknowledged: Option<u64>,
    /// Since when it owes an answer.
    waiting_since: Option<SystemTime>,
    refused: [HashMap<Arc<str>, Refused>; TYPES],
    refusal_bytes: usize,
}

/// A resource that one gateway refuses.
#[derive(Debug)]
struct Refused {
    version: Arc<str>,
    findings: Vec<Finding>,
}

/// A connection among the others; it leaves them when this is dropped.
#[derive(Debug)]
pub(super) struct ConnectedGuard {
    acks: Arc<Acks>,
    connection: u64,
}

impl Acks {
    pub(crate) fn new(state: Arc<PushState>) -> Self {
        Self {
            state,
            proxies: Mutex::default(),
            changed: watch::Sender::new(0),
        }
    }

    /// Where a resource is in force. A version that is not the newest here is in force nowhere: it is not pushed yet, or
    /// no longer.
    pub fn programmed(&self, kind: ResourceType, name: &str, version: &str) -> Programmed {
        let entry = self.state.get(kind, name);
        let since = entry
            .filter(|entry| *entry.resource.version == *version)
            .map(|entry| entry.generation);
        self.count(kind, name, since, version)
    }

    /// The same for every document in the version that is pushed here, for another replica.
    pub(super) fn summary(&self) -> Summary {
        let mut summary = Summary {
            proxies: self.lock().current().count(),
            ..Summary::default()
        };
        for kind in DOCUMENTS {
            for entry in self.state.list(kind) {
                let (name, version) = (&entry.resource.name, &entry.resource.version);
                let document = DocumentSummary {
                    version: Arc::clone(version),
                    programmed: self.count(kind, name, Some(entry.generation), version),
                };
                summary.documents.insert((kind, Arc::clone(name)), document);
            }
        }
        summary
    }

    /// What every gateway that may see it says to a version that is pushed since a generation.
    fn count(
        &self,
        kind: ResourceType,
        name: &str,
        since: Option<u64>,
        version: &str,
    ) -> Programmed {
        let namespace = name.split_once('/').map_or("", |(namespace, _)| namespace);
        let mut programmed = Programmed::default();
        let proxies = self.lock();
        for proxy in proxies
            .current()
            .filter(|proxy| proxy.counts_for(kind, namespace))
        {
            programmed.connected += 1;
            proxy.judge(kind, name, since, version, &mut programmed);
        }
        programmed
    }

    /// Changes whenever [`programmed`](Self::programmed) may answer otherwise than before.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Every connection, the oldest first.
    pub fn proxies(&self) -> Vec<ProxyReport> {
        let newest = self.state.generation();
        let proxies = self.lock();
        let connections = proxies.by_connection.values();
        connections.map(|proxy| proxy.report(newest)).collect()
    }

    /// How many connections there are.
    pub fn connected(&self) -> usize {
        self.lock().by_connection.len()
    }

    pub(super) fn connect(self: &Arc<Self>, caller: Caller) -> ConnectedGuard {
        let mut proxies = self.lock();
        let connection = proxies.next;
        proxies.next += 1;
        for other in proxies.by_connection.values_mut() {
            other.superseded |= other.caller.is_same(&caller);
        }
        proxies.by_connection.insert(connection, Proxy::new(caller));
        drop(proxies);
        self.announce();
        let acks = Arc::clone(self);
        ConnectedGuard { acks, connection }
    }

    fn lock(&self) -> MutexGuard<'_, Proxies> {
        self.proxies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes whoever asks for what is acknowledged; also when it is another replica's gateways that have.
    pub(crate) fn announce(&self) {
        self.changed.send_modify(|number| *number += 1);
    }
}

impl Proxies {
    /// One connection of each gateway.
    fn current(&self) -> impl Iterator<Item = &Proxy> {
        let all = self.by_connection.values();
        all.filter(|proxy| !proxy.superseded)
    }
}

impl ConnectedGuard {
    /// Subscriptions are these now.
    pub(super) fn subscribed(&self, interests: &Interests) {
        self.update(|proxy| {
            for (subscribed, interest) in proxy.subscribed.iter_mut().zip(interests) {
                *subscribed = interest.everything || !interest.names.is_empty();
            }
            proxy.subscriptions = report::subscriptions(interests);
        });
        self.acks.announce();
    }

    /// A batch is on its way.
    pub(super) fn sent(&self) {
        self.update(|proxy| proxy.waiting_since = Some(SystemTime::now()));
    }

    /// A newer generation holds nothing for this gateway: it has it already. Nothing that is counted changes.
    pub(super) fn skipped(&self, generation: u64) {
        self.update(|proxy| proxy.acknowledged = Some(generation));
    }

    /// The batch on its way is answered.
    pub(super) fn answered(&self, answered: &Answered) {
        self.update(|proxy| proxy.answered(answered));
        self.acks.announce();
    }

    fn update(&self, update: impl FnOnce(&mut Proxy)) {
        if let Some(proxy) = self.acks.lock().by_connection.get_mut(&self.connection) {
            update(proxy);
        }
    }
}

impl Drop for ConnectedGuard {
    fn drop(&mut self) {
        let mut proxies = self.acks.lock();
        let gone = proxies.by_connection.remove(&self.connection);
        if let Some(gone) = gone.filter(|gone| !gone.superseded) {
            // The newest of those that are left speaks for the gateway again.
            let others = proxies.by_connection.values_mut().rev();
            if let Some(left) = others
                .into_iter()
                .find(|other| other.caller.is_same(&gone.caller))
            {
                left.superseded = false;
            }
        }
        drop(proxies);
        self.acks.announce();
    }
}

impl Caller {
    /// The same gateway, which may have reconnected before the end of its old connection was noticed.
    fn is_same(&self, other: &Self) -> bool {
        self.name == other.name && self.identity == other.identity
    }
}

impl Proxy {
    fn new(caller: Caller) -> Self {
        Self {
            caller,
            connected_at: SystemTime::now(),
            superseded: false,
            subscribed: [false; TYPES],
            subscriptions: Vec::new(),
            acknowledged: None,
            waiting_since: None,
            refused: Default::default(),
            refusal_bytes: 0,
        }
    }

    fn counts_for(&self, kind: ResourceType, namespace: &str) -> bool {
        let subscribed = self
            .subscribed
            .get(kind as usize)
            .is_some_and(|&subscribed| subscribed);
        subscribed && self.caller.namespaces.allow(namespace)
    }

    fn judge(
        &self,
        kind: ResourceType,
        name: &str,
        since: Option<u64>,
        version: &str,
        programmed: &mut Programmed,
    ) {
        let refused = self
            .refused
            .get(kind as usize)
            .and_then(|refused| refused.get(name));
        if let Some(refused) = refused.filter(|refused| *refused.version == *version) {
            programmed.refuse(&refused.findings);
        } else if since.is_some_and(|since| self.acknowledged.is_some_and(|has| has >= since)) {
            programmed.acknowledged += 1;
        }
    }

    fn answered(&mut self, answered: &Answered) {
        self.acknowledged = Some(answered.generation);
        self.waiting_since = None;
        for response in &answered.responses {
            let names = response.upserts.iter().map(|entry| &entry.resource.name);
            for name in names.chain(&response.removals) {
                self.forget(response.kind, name);
            }
        }
        for refusal in &answered.refusals {
            self.refuse(refusal);
        }
    }

    fn forget(&mut self, kind: ResourceType, name: &str) {
        let refused = self
            .refused
            .get_mut(kind as usize)
            .and_then(|refused| refused.remove(name));
        for finding in refused.into_iter().flat_map(|refused| refused.findings) {
            self.refusal_bytes -= finding.bytes();
        }
    }

    fn refuse(&mut self, refusal: &Refusal) {
        let Some(refused) = self.refused.get_mut(refusal.kind as usize) else {
            return;
        };
        let refused = refused
            .entry(Arc::clone(&refusal.name))
            .or_insert_with(|| Refused {
                version: Arc::clone(&refusal.version),
                findings: Vec::new(),
            });
        if refused.findings.len() >= MAX_FINDINGS {
            return;
        }
        let mut finding = Finding::new(refusal);
        if self.refusal_bytes + finding.bytes() > MAX_REFUSAL_BYTES {
            finding = Finding::untold();
            if !refused.findings.is_empty() {
                return;
            }
        }
        self.refusal_bytes += finding.bytes();
        refused.findings.push(finding);
    }
}

impl Finding {
    fn new(refusal: &Refusal) -> Self {
        Self {
            path: shortened(&refusal.path),
            message: shortened(&refusal.message),
            remedy: shortened(&refusal.remedy),
        }
    }

    /// For what is over the limit: short, and the same for all.
    fn untold() -> Self {
        Self {
            path: String::new(),
            message: "refused; see the proxy's log".into(),
            remedy: String::new(),
        }
    }

    fn bytes(&self) -> usize {
        self.path.len() + self.message.len() + self.remedy.len()
    }
}

fn shortened(text: &str) -> String {
    let mut end = text.len().min(MAX_TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests;
