//! What is known of one pod's containers, told to whoever writes the status; and the faults asked for.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;

use crate::cluster::process::ProcessHandle;

/// Where a container is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    Waiting {
        reason: &'static str,
        message: String,
    },
    Running {
        since: Timestamp,
    },
    Terminated(Termination),
}

/// How one run of a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Termination {
    /// 128 + N for signal N, as shells and container runtimes count.
    pub(super) code: i32,
    pub(super) since: Timestamp,
    pub(super) until: Timestamp,
}

/// One container as its runner sees it.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) state: State,
    pub(super) last: Option<Termination>,
    pub(super) restarts: i32,
    pub(super) started: bool,
    pub(super) ready: bool,
    /// Ended and not to be started again.
    pub(super) finished: bool,
    pub(super) process: Option<ProcessHandle>,
}

impl Default for View {
    fn default() -> Self {
        Self {
            state: State::Waiting {
                reason: "PodInitializing",
                message: String::new(),
            },
            last: None,
            restarts: 0,
            started: false,
            ready: false,
            finished: false,
            process: None,
        }
    }
}

impl View {
    /// Goes on to another state; the end of the run before is remembered once another begins.
    pub(super) fn go_on(&mut self, state: State) {
        if let (State::Terminated(last), false) =
            (&self.state, matches!(state, State::Terminated(_)))
        {
            self.last = Some(last.clone());
        }
        self.state = state;
    }
}

/// Which probe of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProbeKind {
    /// Restarts the container.
    Liveness,
    /// Takes the pod out of service.
    Readiness,
    /// Holds the other two back.
    Startup,
}

/// The shared board of one pod.
pub(super) struct Board {
    /// Std mutex: held for a few assignments, never over an await.
    views: Mutex<BTreeMap<String, View>>,
    failing: Mutex<HashSet<(String, ProbeKind)>>,
    version: watch::Sender<u64>,
}

impl Board {
    pub(super) fn new(containers: impl IntoIterator<Item = String>) -> Self {
        let views = containers.into_iter();
        let views = views.map(|name| (name, View::default())).collect();
        Self {
            views: Mutex::new(views),
            failing: Mutex::default(),
            version: watch::Sender::new(0),
        }
    }

    /// Changes the view of a container and tells it.
    pub(super) fn update(&self, container: &str, change: impl FnOnce(&mut View)) {
        if let Some(view) = self.lock().get_mut(container) {
            change(view);
        }
        self.version.send_modify(|version| *version += 1);
    }

    pub(super) fn view(&self, container: &str) -> View {
        self.lock().get(container).cloned().unwrap_or_default()
    }

    pub(super) fn views(&self) -> BTreeMap<String, View> {
        self.lock().clone()
    }

    /// Wakes at each change.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Waits until the view of a container is as wanted.
    pub(super) async fn until(&self, container: &str, condition: impl Fn(&View) -> bool) {
        let mut changes = self.changes();
        while !condition(&self.view(container)) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    pub(super) fn fail_probe(&self, container: &str, kind: ProbeKind, fail: bool) {
        let mut failing = lock(&self.failing);
        let key = (container.to_owned(), kind);
        if fail {
            failing.insert(key);
        } else {
            failing.remove(&key);
        }
    }

    pub(super) fn probe_fails(&self, container: &str, kind: ProbeKind) -> bool {
        lock(&self.failing).contains(&(container.to_owned(), kind))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, View>> {
        lock(&self.views)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
