//! The way through the process: cluster, index, state and statuses.

use std::sync::Arc;

use sluice_config::push::ResourceType;
use tokio::sync::watch;

use super::Common;
use super::tasks::Tasks;
use crate::events::Events;
use crate::flags::ClusterFlags;
use crate::index::{DocumentKey, Facts};
use crate::push::Push;
use crate::push::acks::Acks;
use crate::replicas::Book;
use crate::state::{Change, PushState};
use crate::status::{
    Acknowledged, Acknowledgements, Board, StatusMetrics, StatusWriter, WriteGate,
};
use crate::watch::{Follower, Outlet, Progress, SecretReach, WatchMetrics, WatchSettings};

/// What is seen of it from outside.
pub(super) struct Following {
    pub(super) progress: watch::Receiver<Progress>,
    pub(super) watches: WatchMetrics,
    pub(super) statuses: StatusMetrics,
    pub(super) replicas: Arc<Book>,
}

impl Following {
    /// Starts following: what comes of it goes to gateways from every replica, and into statuses and events from the
    /// leader.
    pub(super) fn start(
        common: &Common<'_>,
        state: &Arc<PushState>,
        push: &Push,
        replicas: Arc<Book>,
        tasks: &mut Tasks,
    ) -> Self {
        let (watches, statuses) = (WatchMetrics::default(), StatusMetrics::default());
        let board = Arc::new(Board::default());
        let gate = gate(common, replicas.clone());
        let (events, sender) =
            Events::channel(common.client.clone(), gate.clone(), common.pod.clone());
        let writer = StatusWriter::new(
            common.client.clone(),
            OfAllReplicas {
                own: push.acks().clone(),
                others: replicas.clone(),
            },
            gate,
            board.clone(),
            events,
            statuses.clone(),
        );
        let outlet = ToStateAndBoard {
            state: state.clone(),
            board,
        };
        let (follower, progress) = Follower::new(common.client.clone(), outlet, watches.clone());
        let settings = settings(&common.flags.cluster, &common.namespace);
        tasks.spawn("following", follower.run(settings));
        tasks.spawn("statuses", writer.run());
        tasks.spawn("events", sender.run());
        Self {
            progress,
            watches,
            statuses,
            replicas,
        }
    }
}

fn gate(common: &Common<'_>, replicas: Arc<Book>) -> WriteGate {
    let leadership = common.leadership.clone();
    let changes = leadership.watch();
    let stopped = common.stopped.clone();
    // From the signal on nothing is written, so that nothing is under way when the lease goes to someone else. A new
    // leader first hears the other replicas: or it would write of its own gateways alone, and again a moment later.
    let ask = move || leadership.is_leader() && !*stopped.borrow() && replicas.is_settled();
    WriteGate::new(ask, changes)
}

fn settings(flags: &ClusterFlags, own_namespace: &str) -> WatchSettings {
    let shared = |names: &[String]| names.iter().map(|name| Arc::from(name.as_str())).collect();
    let secrets = if flags.secret_namespaces.iter().any(|name| name == "*") {
        SecretReach::AsDocuments
    } else {
        SecretReach::Only(shared(&flags.secret_namespaces))
    };
    WatchSettings {
        namespaces: shared(&flags.namespaces),
        secrets,
        own_namespace: Some(own_namespace.into()),
    }
}

/// Where the index's output goes.
struct ToStateAndBoard {
    state: Arc<PushState>,
    board: Arc<Board>,
}

impl Outlet for ToStateAndBoard {
    fn change(&mut self, change: Change) {
        self.state.apply(change);
    }

    fn facts(&mut self, facts: Vec<(DocumentKey, Option<Arc<Facts>>)>) {
        self.board.post(facts);
    }

    fn synced(&mut self) {
        self.state.mark_synced();
    }
}

/// What gateways say, here and at the other replicas, in the words of statuses.
struct OfAllReplicas {
    own: Arc<Acks>,
    others: Arc<Book>,
}

impl Acknowledgements for OfAllReplicas {
    fn programmed(&self, kind: ResourceType, name: &str, version: &str) -> Acknowledged {
        let mut all = self.others.programmed(kind, name, version);
        all.programmed
            .add(&self.own.programmed(kind, name, version));
        all
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.own.changed()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::flags::Flags;

    fn of(arguments: &[&str]) -> WatchSettings {
        let all = ["sluice-control"].iter().chain(arguments);
        settings(&Flags::parse_from(all).run.cluster, "sluice")
    }

    #[test]
    fn secrets_are_read_only_where_that_is_asked_for() {
        assert_eq!(of(&[]).secrets, SecretReach::Only(vec![]));
        let some = of(&["--secret-namespaces=a,b"]).secrets;
        assert_eq!(some, SecretReach::Only(vec!["a".into(), "b".into()]));
        let all = of(&["--namespaces=a", "--secret-namespaces=*"]);
        assert_eq!(all.secrets, SecretReach::AsDocuments);
        assert_eq!(all.namespaces, [Arc::from("a")]);
    }
}
