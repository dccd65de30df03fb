use std::collections::HashMap;
use std::sync::Mutex;

use serde_json::{Value, json};
use sluice_config::push::ResourceType;
use tokio::sync::watch;

use super::super::programmed::Acknowledged;
use super::*;
use crate::index::{Document, Index, Input, Object};
use crate::push::acks::Programmed;
use crate::testing::ApiServer;

/// What gateways say, by version.
#[derive(Clone)]
struct Says {
    good: Arc<Mutex<HashMap<String, Acknowledged>>>,
    changed: watch::Sender<u64>,
}

impl Acknowledgements for Says {
    fn programmed(&self, _: ResourceType, name: &str, _: &str) -> Acknowledged {
        self.good
            .lock()
            .unwrap()
            .get(name)
            .cloned()
            .unwrap_or_default()
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

/// A writer for a fake cluster; the test is the watch between the two.
struct Bed {
    cluster: ApiServer,
    index: Index,
    board: Arc<Board>,
    says: Says,
    leader: watch::Sender<bool>,
    _task: tokio::task::JoinHandle<()>,
}

const ROUTE: (&str, &str, &str) = ("modelroutes", "a", "chat");

impl Bed {
    fn start(is_leader: bool) -> Self {
        let cluster = ApiServer::default();
        let (leader, gate) = watch::channel(is_leader);
        let gate = WriteGate::from(gate);
        let says = Says {
            good: Arc::default(),
            changed: watch::channel(0).0,
        };
        let board = Arc::new(Board::default());
        let (events, sender) = Events::channel(cluster.client(), gate.clone(), "me".into());
        let writer = StatusWriter::new(
            cluster.client(),
            says.clone(),
            gate,
            board.clone(),
            events,
            StatusMetrics::default(),
        );
        let task = tokio::spawn(async move {
            tokio::join!(writer.run(), sender.run());
        });
        Self {
            cluster,
            index: Index::default(),
            board,
            says,
            leader,
            _task: task,
        }
    }

    fn put_route(&mut self, generation: i64) {
        let route = json!({
            "apiVersion": "networking.serving.volcano.sh/v1alpha1",
            "kind": "ModelRoute",
            "metadata": { "name": "chat", "namespace": "a", "uid": "u", "generation": generation },
            "spec": { "modelName": "chat", "rules": [] },
        });
        self.cluster.put("modelroutes", route);
        self.echo();
    }

    /// The index sees what the cluster shows.
    fn echo(&mut self) {
        let (plural, namespace, name) = ROUTE;
        let object = self.cluster.get(plural, namespace, name);
        let document = Document::of(Kind::ModelRoute, serde_json::from_value(object).unwrap());
        self.index
            .apply(Input::Applied(Object::Document(document.unwrap())));
        self.board.post(self.index.reconcile().facts);
    }

    fn acknowledge(&self, connected: usize, acknowledged: usize) {
        let programmed = Programmed {
            connected,
            acknowledged,
            ..Programmed::default()
        };
        let says = Acknowledged {
            programmed,
            unreachable: 0,
        };
        self.says.good.lock().unwrap().insert("a/chat".into(), says);
        self.says.changed.send_modify(|count| *count += 1);
    }

    /// Lets time pass.
    async fn wait(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    fn writes(&self) -> Vec<String> {
        let requests = self.cluster.requests().into_iter();
        requests
            .filter(|line| line.starts_with("PATCH") && line.contains("/status"))
            .collect()
    }

    fn events(&self) -> usize {
        let requests = self.cluster.requests();
        requests
            .iter()
            .filter(|line| line.starts_with("POST") && line.contains("/events"))
            .count()
    }

    fn condition(&self, kind: &str) -> Value {
        let (plural, namespace, name) = ROUTE;
        let object = self.cluster.get(plural, namespace, name);
        let conditions = object["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        conditions
            .into_iter()
            .find(|condition| condition["type"] == kind)
            .unwrap_or_default()
    }
}

#[tokio::test(start_paused = true)]
async fn the_leader_applies_a_status_once() {
    let mut bed = Bed::start(true);
    bed.acknowledge(2, 2);
    bed.put_route(1);
    bed.wait(1).await;
    bed.echo();
    bed.wait(600).await;
    let writes = bed.writes();
    let path = "/apis/networking.serving.volcano.sh/v1alpha1/namespaces/a/modelroutes/chat/status";
    assert_eq!(writes.len(), 1, "{writes:?}");
    assert!(writes[0].contains(path), "{}", writes[0]);
    assert!(writes[0].contains("fieldManager=sluice-control") && writes[0].contains("force=true"));
    assert_eq!(bed.condition("Programmed")["status"], "True");
    assert_eq!(bed.condition("Accepted")["observedGeneration"], 1);
    assert_eq!(bed.events(), 1, "that gateways have it");
}

#[tokio::test(start_paused = true)]
async fn a_follower_writes_nothing_until_it_leads() {
    let mut bed = Bed::start(false);
    bed.acknowledge(1, 1);
    bed.put_route(1);
    bed.wait(600).await;
    assert_eq!((bed.writes().len(), bed.events()), (0, 0));
    bed.leader.send_replace(true);
    bed.wait(1).await;
    assert_eq!(bed.writes().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_stops_writes_at_once() {
    let mut bed = Bed::start(true);
    bed.acknowledge(1, 1);
    // A write that is planned, and one that is under way without an answer.
    bed.put_route(1);
    bed.leader.send_replace(false);
    bed.wait(600).await;
    assert_eq!(bed.writes().len(), 0);
    bed.cluster.silence("modelroutes", true);
    bed.leader.send_replace(true);
    bed.wait(1).await;
    assert_eq!(bed.writes().len(), 1);
    bed.leader.send_replace(false);
    bed.wait(1).await;
    bed.cluster.silence("modelroutes", false);
    bed.wait(600).await;
    assert_eq!(bed.writes().len(), 1);
    assert_eq!(
        bed.condition("Accepted"),
        Value::Null,
        "the request was dropped"
    );
}

#[tokio::test(start_paused = true)]
async fn a_change_is_written_when_gateways_have_answered_or_after_a_moment() {
    let mut bed = Bed::start(true);
    bed.acknowledge(2, 0);
    bed.put_route(1);
    bed.wait(5).await;
    bed.echo();
    assert_eq!(bed.condition("Programmed")["reason"], "Pending");
    bed.acknowledge(2, 2);
    bed.wait(2).await;
    bed.echo();
    assert_eq!(bed.condition("Programmed")["reason"], "Programmed");
    assert_eq!(bed.writes().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_fails_is_tried_until_it_succeeds() {
    let mut bed = Bed::start(true);
    bed.acknowledge(1, 1);
    bed.cluster.refuse("modelroutes", Some(403));
    bed.put_route(1);
    bed.wait(60).await;
    let tries = bed.writes().len();
    assert!((4..=8).contains(&tries), "{tries}");
    bed.cluster.refuse("modelroutes", None);
    bed.wait(120).await;
    bed.echo();
    assert_eq!(bed.condition("Programmed")["status"], "True");
    let all = bed.writes().len();
    bed.wait(600).await;
    assert_eq!(bed.writes().len(), all);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_keeps_no_statuses_is_left_in_peace() {
    let mut bed = Bed::start(true);
    bed.cluster.drop_statuses("modelroutes");
    bed.acknowledge(1, 1);
    bed.put_route(1);
    for _ in 0..60 {
        bed.wait(60).await;
        bed.echo();
    }
    let writes = bed.writes().len();
    assert!((2..=12).contains(&writes), "{writes} in an hour");
    assert_eq!(bed.events(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_object_that_is_gone_or_another_one_is_left_alone() {
    let mut bed = Bed::start(true);
    bed.put_route(1);
    bed.cluster.delete("modelroutes", "a", "chat");
    bed.wait(50).await;
    assert_eq!(bed.writes().len(), 1);
}
