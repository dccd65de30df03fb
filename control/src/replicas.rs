//! The other replicas of the control loop, as the leader sees them: it listens to each, and so knows what all gateways
//! have acknowledged, not its own alone.
//!
//! Each replica tells on its push port (`push::summary`), by the same authentication as gateways. They are found by
//! name: the headless Service has the address of each, this process's own among them, which is told by its instance.
//! Nothing here is needed to serve: without it statuses say less.

mod book;
mod connect;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sluice_config::bootstrap::ControlAddress;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

pub use self::book::Book;
use self::connect::{Caller, Ended, Found};
use crate::certificates::Trust;
use crate::leader::Leadership;

/// Between two look-ups of the replicas' addresses, and after one that has failed: mostly no replica is ready yet.
const LOOK_UP: Duration = Duration::from_secs(5);
const LOOK_UP_AGAIN: Duration = Duration::from_secs(1);

/// How long that may last before it is said.
const UNRESOLVED_GRACE: Duration = Duration::from_secs(30);

/// How long a new leader waits for the others before it writes what it knows.
const SETTLE: Duration = Duration::from_secs(3);

/// Pause before the first new attempt, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(5)];

/// Where they are, and how this process shows that it is one of them.
#[derive(Debug, Clone)]
pub struct ReplicasParams {
    /// Addresses of push ports; a name may stand for several. None: there are no others.
    pub addresses: Vec<ControlAddress>,
    /// A service-account token for audience `sluice-control`, read anew for every connection.
    pub token_file: Option<PathBuf>,
    /// Who signs their certificates.
    pub trust: watch::Receiver<Option<Trust>>,
}

/// Listens for as long as it runs and this process leads.
pub struct Replicas {
    params: ReplicasParams,
    leadership: Leadership,
    book: Arc<Book>,
}

impl Replicas {
    /// Writes into `book` what it hears.
    pub fn new(params: ReplicasParams, leadership: Leadership, book: Arc<Book>) -> Self {
        Self {
            params,
            leadership,
            book,
        }
    }

    /// Runs until dropped.
    pub async fn run(self) {
        if self.params.addresses.is_empty() {
            self.book.settle();
            return std::future::pending().await;
        }
        let mut leadership = self.leadership.clone();
        loop {
            if *self.leadership.watch().borrow() {
                tokio::select! {
                    () = self.listen() => {}
                    () = leadership.changed() => {}
                }
            } else {
                self.book.forget();
                leadership.changed().await;
            }
        }
    }

    /// To everybody whose address is known.
    async fn listen(&self) {
        let mut listeners = Listeners {
            caller: Arc::new(Caller::new(&self.params)),
            book: Arc::clone(&self.book),
            tasks: JoinSet::new(),
            by_address: HashMap::new(),
            unresolved: None,
        };
        let mut changed = self.book.changed();
        let settle_at = Instant::now() + SETTLE;
        let mut look_up_at = Instant::now();
        loop {
            if Instant::now() >= look_up_at {
                let found = connect::look_up(&self.params.addresses).await;
                let failed = !found.unresolved.is_empty();
                let pause = if failed { LOOK_UP_AGAIN } else { LOOK_UP };
                look_up_at = Instant::now() + pause;
                listeners.follow(found);
            }
            changed.borrow_and_update();
            if self.book.all_have_answered() || Instant::now() >= settle_at {
                self.book.settle();
            }
            let is_settled = self.book.is_settled();
            tokio::select! {
                _ = changed.changed(), if !is_settled => {}
                () = sleep_until(look_up_at) => {}
                () = sleep_until(settle_at), if !is_settled => {}
            }
        }
    }
}

/// A task for each address; they end with this.
struct Listeners {
    caller: Arc<Caller>,
    book: Arc<Book>,
    tasks: JoinSet<()>,
    by_address: HashMap<SocketAddr, AbortHandle>,
    /// Since when names cannot be looked up, and whether that has been said.
    unresolved: Option<(Instant, bool)>,
}

impl Listeners {
    /// These are all there are now, unless a name could not be looked up: then those known by it may well be there.
    fn follow(&mut self, found: Found) {
        self.book.set_unresolved(found.unresolved.len());
        self.tell_unresolved(&found.unresolved);
        if found.unresolved.is_empty() {
            self.book
                .keep(|address| found.addresses.contains_key(address));
        }
        self.by_address.retain(|address, listener| {
            let stays = self.book.has(address);
            if !stays {
                listener.abort();
            }
            stays
        });
        // Those that were aborted, or have found themselves at the other end.
        while self.tasks.try_join_next().is_some() {}
        for (address, control) in found.addresses {
            if let Entry::Vacant(vacant) = self.by_address.entry(address) {
                self.book.add(address);
                let (caller, book) = (Arc::clone(&self.caller), Arc::clone(&self.book));
                vacant.insert(self.tasks.spawn(listen_to(caller, control, address, book)));
            }
        }
    }

    /// Says once what has been unknown for too long.
    fn tell_unresolved(&mut self, unresolved: &[(String, String)]) {
        let Some((host, error)) = unresolved.first() else {
            self.unresolved = None;
            return;
        };
        let (since, told) = self.unresolved.get_or_insert((Instant::now(), false));
        if !*told && since.elapsed() >= UNRESOLVED_GRACE {
            *told = true;
            tracing::warn!(
                host,
                error,
                "other replicas cannot be looked up: what their gateways have acknowledged is not known"
            );
        }
    }
}

/// To one address, over and over; unless it is this process that answers.
async fn listen_to(
    caller: Arc<Caller>,
    control: ControlAddress,
    address: SocketAddr,
    book: Arc<Book>,
) {
    let [first, longest] = PAUSES;
    let mut pause = first;
    loop {
        let ended = caller.listen(&control, address, &book).await;
        let words = match ended {
            Ended::OwnAddress => return,
            Ended::Unheard(words) => words,
            Ended::Heard(words) => {
                pause = first;
                words
            }
        };
        book.failed(address, &words, Instant::now().into_std());
        sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
        pause = (pause * 2).min(longest);
    }
}
