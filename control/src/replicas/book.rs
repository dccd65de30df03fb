//! What is known of each replica, and what all of them together say to a document.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sluice_config::push::ResourceType;
use tokio::sync::watch;

use crate::push::acks::Acks;
use crate::push::summary::{Summary, SummaryMessage};
use crate::status::Acknowledged;

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
    replicas: Mutex<Replicas>,
}

#[derive(Debug, Default)]
struct Replicas {
    by_address: BTreeMap<SocketAddr, Replica>,
    /// Names whose addresses cannot be looked up: somebody may be there.
    unresolved: usize,
}

#[derive(Debug, Default)]
struct Replica {
    /// Which process it is, once it has spoken.
    instance: Option<u64>,
    name: String,
    /// The last whole one. None: what its gateways have is not known.
    summary: Option<Summary>,
    /// The first of a stream, while it comes.
    coming: Option<Summary>,
    is_self: bool,
    /// Something has come of an attempt.
    answered: bool,
    failing_since: Option<Instant>,
    /// It has been said that it is lost.
    is_lost: bool,
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
    pub fn programmed(&self, kind: ResourceType, name: &str, version: &str) -> Acknowledged {
        let replicas = self.lock();
        let mut all = Acknowledged {
            unreachable: replicas.unknown(),
            ..Acknowledged::default()
        };
        for summary in replicas.others().filter_map(|other| other.summary.as_ref()) {
            all.programmed.add(&summary.programmed(kind, name, version));
        }
        all
    }

    /// Replicas that are listened to, and those whose gateways are not known.
    pub fn counts(&self) -> [(&'static str, usize); 2] {
        let replicas = self.lock();
        let followed = replicas.others().filter(|other| other.is_followed());
        [
            ("followed", followed.count()),
            ("unreachable", replicas.unknown()),
        ]
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
        *self.lock() = Replicas::default();
    }

    /// Others are gone; but one that speaks is not, whatever names say: it may not be ready, and still have gateways.
    pub(super) fn keep(&self, is_named: impl Fn(&SocketAddr) -> bool) {
        let mut replicas = self.lock();
        let before = replicas.by_address.len();
        replicas
            .by_address
            .retain(|address, replica| is_named(address) || replica.is_followed());
        let changed = replicas.by_address.len() < before;
        drop(replicas);
        if changed {
            self.acks.announce();
        }
    }

    /// Of so many names no address is known now.
    pub(super) fn set_unresolved(&self, names: usize) {
        let before = std::mem::replace(&mut self.lock().unresolved, names);
        if before != names {
            self.acks.announce();
        }
    }

    pub(super) fn add(&self, address: SocketAddr) {
        self.lock().by_address.entry(address).or_default();
    }

    /// Is it one of those that are listened to?
    pub(super) fn has(&self, address: &SocketAddr) -> bool {
        self.lock().by_address.contains_key(address)
    }

    /// Has everybody said something, or been found unable to?
    pub(super) fn all_have_answered(&self) -> bool {
        let replicas = self.lock();
        let mut all = replicas.by_address.values();
        replicas.unresolved == 0 && all.len() > 0 && all.all(|replica| replica.answered)
    }

    /// A stream has begun: a whole summary comes.
    pub(super) fn begin(&self, address: SocketAddr) {
        if let Some(replica) = self.lock().by_address.get_mut(&address) {
            replica.coming = Some(Summary::default());
        }
    }

    /// A part has come. False when it is this process that speaks: it knows what it says.
    pub(super) fn take(&self, address: SocketAddr, message: SummaryMessage) -> bool {
        let is_other = message.instance != self.instance;
        if let Some(replica) = self.lock().by_address.get_mut(&address) {
            if is_other {
                replica.take(message, address);
            } else {
                *replica = Replica::this_process();
            }
        }
        self.acks.announce();
        is_other
    }

    /// An attempt has failed, or a stream has ended.
    pub(super) fn failed(&self, address: SocketAddr, words: &str, now: Instant) {
        let mut replicas = self.lock();
        let changed = replicas
            .by_address
            .get_mut(&address)
            .is_some_and(|replica| replica.failed(address, words, now));
        drop(replicas);
        if changed {
            self.acks.announce();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Replicas> {
        self.replicas.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Replicas {
    /// Each but this process, once: one that has several addresses speaks from all of them.
    fn others(&self) -> impl Iterator<Item = &Replica> {
        let mut seen = HashSet::new();
        let others = self.by_address.values().filter(|replica| !replica.is_self);
        others.filter(move |other| other.instance.is_none_or(|instance| seen.insert(instance)))
    }

    /// How many there are, or may be, whose gateways are not known.
    fn unknown(&self) -> usize {
        let silent = self.others().filter(|other| other.summary.is_none());
        silent.count() + self.unresolved
    }
}

impl Replica {
    fn this_process() -> Self {
        Self {
            is_self: true,
            answered: true,
            ..Self::default()
        }
    }

    /// Its gateways are known, and what changes of them will be told.
    fn is_followed(&self) -> bool {
        self.is_self || (self.summary.is_some() && self.failing_since.is_none())
    }

    fn take(&mut self, message: SummaryMessage, address: SocketAddr) {
        self.is_self = false;
        self.instance = Some(message.instance);
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
        self.is_lost = false;
    }

    /// True when its gateways count otherwise from now on.
    fn failed(&mut self, address: SocketAddr, words: &str, now: Instant) -> bool {
        let since = *self.failing_since.get_or_insert(now);
        let first_answer = !std::mem::replace(&mut self.answered, true);
        if self.is_self || self.is_lost || now.duration_since(since) < GRACE {
            return first_answer;
        }
        tracing::warn!(
            %address,
            replica = self.name,
            words,
            "another replica cannot be reached: what its gateways have acknowledged is not known"
        );
        self.is_lost = true;
        self.summary = None;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::acks::{Finding, Programmed};
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
        let mut programmed = Programmed {
            connected: 2,
            acknowledged: 1,
            ..Programmed::default()
        };
        programmed.refuse([&Finding {
            path: String::new(),
            message: "no".into(),
            remedy: String::new(),
        }]);
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

    /// Connected, acknowledged, refusing, unreachable.
    fn counted(book: &Book) -> (usize, usize, usize, usize) {
        let all = book.programmed(ResourceType::ModelRoute, "a/r", "1");
        let Programmed {
            connected,
            acknowledged,
            refusing,
            ..
        } = all.programmed;
        (connected, acknowledged, refusing, all.unreachable)
    }

    #[test]
    fn all_others_are_summed_and_this_process_is_not_counted_twice() {
        let book = book();
        hear(&book, 1, THERE);
        hear(&book, 2, THERE + 1);
        hear(&book, 3, HERE);
        assert_eq!(counted(&book), (4, 2, 2, 0));
        assert_eq!(book.counts(), [("followed", 2), ("unreachable", 0)]);
        hear(&book, 4, THERE);
        assert_eq!(counted(&book), (4, 2, 2, 0), "of two addresses");
        book.keep(|known| *known != address(2));
        assert_eq!(counted(&book), (4, 2, 2, 0), "it still speaks");
        book.failed(address(2), "gone", Instant::now());
        book.keep(|known| *known != address(2));
        assert_eq!(counted(&book), (2, 1, 1, 0));
        book.forget();
        assert_eq!(counted(&book), (0, 0, 0, 0));
    }

    #[test]
    fn who_has_not_been_heard_may_have_gateways() {
        let book = book();
        book.add(address(1));
        assert_eq!(counted(&book), (0, 0, 0, 1));
        book.failed(address(1), "refused", Instant::now());
        assert_eq!(counted(&book), (0, 0, 0, 1));
        book.set_unresolved(1);
        assert_eq!(counted(&book), (0, 0, 0, 2));
        book.set_unresolved(0);
        hear(&book, 1, THERE);
        assert_eq!(counted(&book), (2, 1, 1, 0));
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
        book.set_unresolved(1);
        assert!(!book.all_have_answered());
    }
}
