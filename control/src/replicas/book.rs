//! What is known of each replica, and what all of them together say to a document.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sluice_config::push::ResourceType;
use tokio::sync::watch;

use crate::push::acks::{Acks, Programmed};
use crate::push::summary::{Summary, SummaryMessage};

/// How long the last word of a replica counts that can no longer be reached: it may only be restarting, or the network
/// hiccup. Then its gateways are not known any more, and that is said.
const GRACE: Duration = Duration::from_secs(30);

/// Shared by reference.
#[derive(Debug)]
pub struct Book {
    /// Which of the replicas this process is.
    instance: u64,
    /// Told of every change, beside its own.
    acks: Arc<Acks>,
    /// May be gone by: either all have been heard, or a new leader has waited long enough.
    settled: AtomicBool,
    /// Held for a look at every replica at most, never across an await.
    replicas: Mutex<BTreeMap<SocketAddr, Replica>>,
}

/// What others than this process say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counted {
    /// Sums over those that are known.
    pub programmed: Programmed,
    /// Replicas whose gateways are not known.
    pub unreachable: usize,
}

#[derive(Debug, Default)]
struct Replica {
    name: String,
    /// The last whole one.
    summary: Option<Summary>,
    /// The first of a stream, while it comes.
    coming: Option<Summary>,
    is_self: bool,
    /// Something has come of an attempt.
    answered: bool,
    failing_since: Option<Instant>,
    unreachable: bool,
}

impl Book {
    /// Of a process with this instance, which announces changes in `acks`.
    pub fn new(instance: u64, acks: Arc<Acks>) -> Self {
        Self {
            instance,
            acks,
            settled: AtomicBool::new(false),
            replicas: Mutex::default(),
        }
    }

    /// May statuses be written by what is known?
    pub fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Acquire)
    }

    /// Changes with every replica, and with the gateways that are connected here.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.acks.changed()
    }

    /// What the gateways of all other replicas say to a version of a document.
    pub fn programmed(&self, kind: ResourceType, name: &str, version: &str) -> Counted {
        let mut counted = Counted::default();
        for replica in self.lock().values().filter(|replica| !replica.is_self) {
            counted.unreachable += usize::from(replica.unreachable);
            let Some(summary) = &replica.summary else {
                continue;
            };
            let theirs = summary.programmed(kind, name, version);
            counted.programmed.connected += theirs.connected;
            counted.programmed.acknowledged += theirs.acknowledged;
            counted.programmed.rejections.extend(theirs.rejections);
        }
        counted
    }

    /// Replicas that are listened to, and those that cannot be reached.
    pub fn counts(&self) -> [(&'static str, usize); 2] {
        let replicas = self.lock();
        let others = || replicas.values().filter(|replica| !replica.is_self);
        let followed = others().filter(|replica| replica.failing_since.is_none());
        let followed = followed.filter(|replica| replica.summary.is_some()).count();
        let unreachable = others().filter(|replica| replica.unreachable).count();
        [("followed", followed), ("unreachable", unreachable)]
    }

    /// Statuses may be written by what is known.
    pub(super) fn settle(&self) {
        if !self.settled.swap(true, Ordering::AcqRel) {
            self.acks.announce();
        }
    }

    /// This process does not lead any more.
    pub(super) fn forget(&self) {
        self.settled.store(false, Ordering::Release);
        self.lock().clear();
    }

    /// Others are gone.
    pub(super) fn keep(&self, stays: impl Fn(&SocketAddr) -> bool) {
        let mut replicas = self.lock();
        let before = replicas.len();
        replicas.retain(|address, _| stays(address));
        let changed = replicas.len() < before;
        drop(replicas);
        if changed {
            self.acks.announce();
        }
    }

    pub(super) fn add(&self, address: SocketAddr) {
        self.lock().entry(address).or_default();
    }

    /// Has everybody said something, or been found unable to?
    pub(super) fn all_have_answered(&self) -> bool {
        let replicas = self.lock();
        !replicas.is_empty() && replicas.values().all(|replica| replica.answered)
    }

    /// A stream has begun: a whole summary comes.
    pub(super) fn begin(&self, address: SocketAddr) {
        if let Some(replica) = self.lock().get_mut(&address) {
            replica.coming = Some(Summary::default());
        }
    }

    /// A part has come.
    pub(super) fn take(&self, address: SocketAddr, message: SummaryMessage) {
        if let Some(replica) = self.lock().get_mut(&address) {
            replica.take(message, self.instance, address);
        }
        self.acks.announce();
    }

    /// An attempt has failed, or a stream has ended.
    pub(super) fn failed(&self, address: SocketAddr, words: &str, now: Instant) {
        let mut replicas = self.lock();
        let changed = replicas
            .get_mut(&address)
            .is_some_and(|replica| replica.failed(address, words, now));
        drop(replicas);
        if changed {
            self.acks.announce();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Replica>> {
        self.replicas.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Replica {
    fn take(&mut self, message: SummaryMessage, own: u64, address: SocketAddr) {
        if message.instance == own {
            *self = Self {
                is_self: true,
                answered: true,
                ..Self::default()
            };
            return;
        }
        self.is_self = false;
        self.name.clone_from(&message.name);
        let more = message.more;
        let summary = match &mut self.coming {
            Some(coming) => coming,
            None => self.summary.get_or_insert_default(),
        };
        summary.take(message);
        if more {
            return;
        }
        if let Some(whole) = self.coming.take() {
            tracing::info!(%address, replica = self.name, proxies = whole.proxies, "listening to another replica");
            self.summary = Some(whole);
        }
        self.answered = true;
        self.failing_since = None;
        self.unreachable = false;
    }

    /// True when its gateways count otherwise from now on.
    fn failed(&mut self, address: SocketAddr, words: &str, now: Instant) -> bool {
        let since = *self.failing_since.get_or_insert(now);
        let first_answer = !std::mem::replace(&mut self.answered, true);
        if self.is_self || self.unreachable || now.duration_since(since) < GRACE {
            return first_answer;
        }
        tracing::warn!(
            %address,
            replica = self.name,
            words,
            "another replica cannot be reached: what its gateways have acknowledged is not known"
        );
        self.unreachable = true;
        self.summary = None;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::acks::ProxyRejection;
    use crate::push::summary::DocumentSummary;
    use crate::state::PushState;

    const HERE: u64 = 1;
    const THERE: u64 = 2;

    fn book() -> Book {
        let state = Arc::new(PushState::new("control-0".into()));
        Book::new(HERE, Arc::new(Acks::new(state)))
    }

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    /// One route in version 1, which one of two gateways has, and the other refuses.
    fn messages(instance: u64) -> Vec<SummaryMessage> {
        let programmed = Programmed {
            connected: 2,
            acknowledged: 1,
            rejections: vec![ProxyRejection {
                proxy: "g".into(),
                path: String::new(),
                message: "no".into(),
                remedy: String::new(),
            }],
        };
        let document = DocumentSummary {
            version: "1".into(),
            programmed,
        };
        let key = (ResourceType::ModelRoute, Arc::from("a/r"));
        let summary = Summary {
            proxies: 2,
            documents: [(key, document)].into(),
        };
        summary.since(&Summary::default(), instance, "control-1")
    }

    fn hear(book: &Book, port: u16, instance: u64) {
        book.add(address(port));
        book.begin(address(port));
        for message in messages(instance) {
            book.take(address(port), message);
        }
    }

    fn counted(book: &Book) -> (usize, usize, usize, usize) {
        let counted = book.programmed(ResourceType::ModelRoute, "a/r", "1");
        let programmed = counted.programmed;
        let rejections = programmed.rejections.len();
        let Programmed {
            connected,
            acknowledged,
            ..
        } = programmed;
        (connected, acknowledged, rejections, counted.unreachable)
    }

    #[test]
    fn all_others_are_summed_and_this_process_is_not_counted_twice() {
        let book = book();
        hear(&book, 1, THERE);
        hear(&book, 2, THERE + 1);
        hear(&book, 3, HERE);
        assert_eq!(counted(&book), (4, 2, 2, 0));
        assert_eq!(book.counts(), [("followed", 2), ("unreachable", 0)]);
        book.keep(|known| *known != address(2));
        assert_eq!(counted(&book), (2, 1, 1, 0));
        book.forget();
        assert_eq!(counted(&book), (0, 0, 0, 0));
    }

    #[test]
    fn the_last_word_of_a_lost_replica_counts_for_a_while_and_then_it_is_unreachable() {
        let book = book();
        hear(&book, 1, THERE);
        let lost = Instant::now();
        book.failed(address(1), "gone", lost);
        assert_eq!(counted(&book), (2, 1, 1, 0));
        let just_before = lost + GRACE - Duration::from_millis(1);
        book.failed(address(1), "gone", just_before);
        assert_eq!(counted(&book), (2, 1, 1, 0));
        let mut changed = book.changed();
        changed.borrow_and_update();
        book.failed(address(1), "gone", lost + GRACE);
        assert_eq!(counted(&book), (0, 0, 0, 1));
        assert!(
            changed.has_changed().unwrap(),
            "statuses are looked at anew"
        );
        hear(&book, 1, THERE);
        assert_eq!(counted(&book), (2, 1, 1, 0));
    }

    #[test]
    fn a_stream_that_begins_anew_replaces_what_was_known_when_it_is_whole() {
        let book = book();
        hear(&book, 1, THERE);
        book.begin(address(1));
        let part = |more| SummaryMessage {
            instance: THERE,
            proxies: 5,
            more,
            ..SummaryMessage::default()
        };
        book.take(address(1), part(true));
        assert_eq!(
            counted(&book),
            (2, 1, 1, 0),
            "half of it counts for nothing"
        );
        book.take(address(1), part(false));
        assert_eq!(counted(&book), (5, 0, 0, 0), "the route is not known there");
    }

    #[test]
    fn everybody_has_answered_when_nobody_is_waited_for() {
        let book = book();
        assert!(!book.all_have_answered(), "nobody was found yet");
        book.add(address(1));
        hear(&book, 2, HERE);
        assert!(!book.all_have_answered());
        book.failed(address(1), "refused", Instant::now());
        assert!(book.all_have_answered());
    }
}
