//! Elections in paused time, on an API server inside the process.

use std::time::Duration;

use serde_json::Value;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::testing::{ApiServer, Mode};

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/sluice/leases/sluice-control";

/// A replica on a network of its own.
struct Replica {
    network: ApiServer,
    leadership: Leadership,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Replica {
    fn start(server: &ApiServer, identity: &str) -> Self {
        let network = server.other_network();
        let (elector, leadership) = Elector::new(
            network.client(),
            "sluice",
            "sluice-control",
            identity.into(),
            Terms::default(),
        );
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(elector.run(async move {
            let _ = stopped.await;
        }));
        Self {
            network,
            leadership,
            stop: Some(stop),
            task,
        }
    }

    fn leads(&self) -> bool {
        self.leadership.is_leader()
    }

    /// Waits for the state; answers how long that took.
    async fn until(&self, leads: bool) -> Duration {
        let start = Instant::now();
        let mut state = self.leadership.watch();
        let reached = state.wait_for(|state| *state == leads);
        let reached = timeout(Duration::from_secs(60), reached).await;
        let _ = reached.expect("within a minute").unwrap();
        start.elapsed()
    }

    async fn shut_down(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        self.task.await.unwrap();
    }
}

fn holder(server: &ApiServer) -> String {
    let lease = server.object(LEASE).unwrap_or_default();
    lease["spec"]["holderIdentity"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[tokio::test(start_paused = true)]
async fn one_of_two_leads_and_the_other_follows_at_once_when_it_shuts_down() {
    let server = ApiServer::new();
    let first = Replica::start(&server, "first");
    first.until(true).await;
    let second = Replica::start(&server, "second");
    sleep(Duration::from_secs(60)).await;
    assert!(first.leads() && !second.leads());

    first.shut_down().await;
    assert_eq!(holder(&server), "");
    assert!(second.until(true).await <= Duration::from_secs(3));
    assert_eq!(server.object(LEASE).unwrap()["spec"]["leaseTransitions"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_gives_up_before_the_other_takes_over_and_stands_again() {
    let server = ApiServer::new();
    let first = Replica::start(&server, "first");
    first.until(true).await;
    let second = Replica::start(&server, "second");
    sleep(Duration::from_secs(30)).await;

    for fault in [Mode::Silent, Mode::Failing(503)] {
        first.network.set(fault);
        let cut = Instant::now();
        // Never two at a time, at any look.
        let mut gave_up = None;
        while !second.leads() {
            assert!(cut.elapsed() < Duration::from_secs(20), "nobody took over");
            if !first.leads() {
                gave_up.get_or_insert(cut.elapsed());
            }
            sleep(Duration::from_millis(10)).await;
        }
        assert!(!first.leads());
        assert!(gave_up.unwrap() <= Duration::from_secs(10), "{gave_up:?}");
        assert!(
            cut.elapsed() >= Duration::from_secs(12),
            "{:?}",
            cut.elapsed()
        );

        first.network.set(Mode::Up);
        second.network.set(Mode::Silent);
        first.until(true).await;
        assert!(!second.leads());
        second.network.set(Mode::Up);
        sleep(Duration::from_secs(30)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_mandate_ends_by_the_clock_even_if_nobody_runs() {
    let (mandate, leadership) = Mandate::new();
    assert!(!leadership.is_leader());
    assert!(mandate.grant(Instant::now() + Duration::from_secs(10)));
    assert!(leadership.is_leader());
    tokio::time::advance(Duration::from_secs(10)).await;
    assert!(*leadership.watch().borrow(), "the elector has not run");
    assert!(!leadership.is_leader());
    drop(mandate);
    assert!(!*leadership.watch().borrow());
}

#[tokio::test(start_paused = true)]
async fn a_renewal_wakes_nobody() {
    let (mandate, leadership) = Mandate::new();
    let mut seen = leadership.watch();
    let soon = Duration::from_secs(10);
    assert!(mandate.grant(Instant::now() + soon));
    assert!(seen.has_changed().unwrap());
    seen.borrow_and_update();
    assert!(!mandate.grant(Instant::now() + 2 * soon));
    assert!(!seen.has_changed().unwrap());
    assert!(mandate.withdraw());
    assert!(seen.has_changed().unwrap());
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_api_server_ends_leadership_and_its_return_brings_it_back() {
    let server = ApiServer::new();
    let only = Replica::start(&server, "only");
    only.until(true).await;
    only.network.set(Mode::Failing(500));
    assert!(only.until(false).await <= Duration::from_secs(10));
    only.network.set(Mode::Up);
    // Its own lease: no waiting for it to run out.
    assert!(only.until(true).await <= Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_renewal_whose_answer_was_lost_does_not_confuse_the_leader() {
    let server = ApiServer::new();
    let only = Replica::start(&server, "only");
    only.until(true).await;
    only.network.set(Mode::AnswersLost);
    sleep(Duration::from_secs(4)).await;
    only.network.set(Mode::Up);
    sleep(Duration::from_secs(7)).await;
    assert!(only.leads());
}

#[tokio::test(start_paused = true)]
async fn a_lease_taken_or_deleted_by_hand_is_noticed_at_the_next_renewal() {
    let server = ApiServer::new();
    let only = Replica::start(&server, "only");
    only.until(true).await;

    server.delete_at(LEASE);
    sleep(Duration::from_secs(3)).await;
    assert!(only.leads());
    assert_eq!(holder(&server), "only");

    let mut stolen: Value = server.object(LEASE).unwrap();
    stolen["spec"]["holderIdentity"] = "thief".into();
    server.put_at(LEASE, stolen);
    assert!(only.until(false).await <= Duration::from_secs(3));
    // The thief never renews.
    let waited = only.until(true).await;
    assert!(waited >= Duration::from_secs(14), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_label_on_the_lease_is_no_renewal_and_costs_no_leadership() {
    let server = ApiServer::new();
    let first = Replica::start(&server, "first");
    first.until(true).await;
    let mut lease: Value = server.object(LEASE).unwrap();
    lease["metadata"]["labels"] = serde_json::json!({ "seen": "yes" });
    server.put_at(LEASE, lease);
    sleep(Duration::from_secs(9)).await;
    assert!(first.leads());
    assert_eq!(
        server.object(LEASE).unwrap()["metadata"]["labels"]["seen"],
        "yes"
    );
}

#[test]
fn terms_that_would_allow_two_leaders_are_refused() {
    let good = Terms::default();
    assert_eq!(good.checked(), Ok(good));
    let seconds = Duration::from_secs;
    let with = |lease, renew, retry| Terms {
        lease_duration: lease,
        renew_deadline: renew,
        retry_period: retry,
    };
    let refused = [
        (
            with(Duration::from_millis(1500), seconds(1), seconds(1)),
            TermsError::LeaseDuration,
        ),
        (
            with(seconds(15), seconds(15), seconds(2)),
            TermsError::RenewDeadline,
        ),
        (
            with(seconds(15), seconds(10), seconds(6)),
            TermsError::RetryPeriod,
        ),
        (
            with(seconds(15), seconds(10), seconds(0)),
            TermsError::RetryPeriod,
        ),
    ];
    for (terms, error) in refused {
        assert_eq!(terms.checked(), Err(error));
    }
}

#[tokio::test(start_paused = true)]
async fn without_election_every_replica_leads() {
    let mut leadership = Leadership::always();
    assert!(leadership.is_leader());
    let quiet = tokio::time::timeout(Duration::from_secs(5), leadership.changed()).await;
    assert!(quiet.is_err());
}
