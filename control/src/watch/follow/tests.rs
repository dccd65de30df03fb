use serde_json::{Value, json};
use sluice_config::push::ResourceType;

use super::*;
use crate::testing::ApiServer;

enum Told {
    Change(Change),
    Synced,
}

struct Teller(mpsc::UnboundedSender<Told>);

impl Outlet for Teller {
    fn change(&mut self, change: Change) {
        let _ = self.0.send(Told::Change(change));
    }

    fn facts(&mut self, _: Vec<(DocumentKey, Option<Arc<Facts>>)>) {}

    fn synced(&mut self) {
        let _ = self.0.send(Told::Synced);
    }
}

/// A follower of a fake cluster.
struct Bed {
    cluster: ApiServer,
    told: mpsc::UnboundedReceiver<Told>,
    progress: watch::Receiver<Progress>,
    /// What has been given out, in sum.
    resources: BTreeSet<(ResourceType, String)>,
    synced: bool,
    _task: tokio::task::JoinHandle<()>,
}

impl Bed {
    fn start(cluster: &ApiServer, settings: WatchSettings) -> Self {
        let (sender, told) = mpsc::unbounded_channel();
        let metrics = WatchMetrics::default();
        let (follower, progress) = Follower::new(cluster.client(), Teller(sender), metrics);
        Self {
            cluster: cluster.clone(),
            told,
            progress,
            resources: BTreeSet::new(),
            synced: false,
            _task: tokio::spawn(follower.run(settings)),
        }
    }

    /// The next change, as `+name` and `-name`.
    async fn change(&mut self) -> Vec<String> {
        loop {
            match self.told.recv().await.unwrap() {
                Told::Synced => self.synced = true,
                Told::Change(change) => return self.take(change),
            }
        }
    }

    fn take(&mut self, change: Change) -> Vec<String> {
        let mut lines = Vec::new();
        for (kind, name) in change.removals {
            assert!(self.resources.remove(&(kind, name.to_string())));
            lines.push(format!("-{name}"));
        }
        for resource in change.upserts {
            self.resources
                .insert((resource.kind, resource.name.to_string()));
            lines.push(format!("+{}", resource.name));
        }
        lines
    }

    async fn synced(&mut self) {
        while !self.synced {
            match self.told.recv().await.unwrap() {
                Told::Synced => self.synced = true,
                Told::Change(change) => _ = self.take(change),
            }
        }
    }

    /// Waits until the progress speaks of this.
    async fn waiting_for(&mut self, words: &str) {
        let speaks = |progress: &Progress| progress.waiting.iter().any(|line| line.contains(words));
        self.progress.wait_for(speaks).await.unwrap();
    }

    /// Waits until a request has been made whose line has all of these in it.
    async fn requested(&self, words: &[&str]) {
        let seen = |line: &String| words.iter().all(|word| line.contains(word));
        while !self.cluster.requests().iter().any(seen) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn names(&self, kind: ResourceType) -> Vec<&str> {
        let names = self.resources.iter().filter(|(other, _)| *other == kind);
        names.map(|(_, name)| name.as_str()).collect()
    }
}

fn server(namespace: &str, name: &str, labels: Value) -> Value {
    json!({
        "apiVersion": "networking.serving.volcano.sh/v1alpha1",
        "kind": "ModelServer",
        "metadata": { "name": name, "namespace": namespace },
        "spec": {
            "inferenceEngine": "vLLM",
            "workloadSelector": { "matchLabels": labels },
            "workloadPort": { "port": 8000 },
        },
    })
}

fn pod(namespace: &str, name: &str, app: &str, ready: bool) -> Value {
    json!({
        "metadata": { "name": name, "namespace": namespace, "uid": "u", "labels": { "app": app } },
        "status": {
            "phase": "Running",
            "podIP": "10.0.0.1",
            "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }],
        },
    })
}

/// A server with two pods, and pods that serve nothing.
fn cluster() -> ApiServer {
    let cluster = ApiServer::default();
    cluster.put(
        "modelservers",
        server("a", "chat", json!({ "app": "chat" })),
    );
    cluster.put("pods", pod("a", "chat-0", "chat", true));
    cluster.put("pods", pod("a", "chat-1", "chat", true));
    cluster.put("pods", pod("a", "web", "web", true));
    cluster.put("pods", pod("b", "db", "db", true));
    cluster
}

#[tokio::test(start_paused = true)]
async fn the_first_change_is_the_whole_cluster_and_comes_before_synced() {
    let mut bed = Bed::start(&cluster(), WatchSettings::default());
    assert_eq!(
        bed.change().await,
        ["+a/chat", "+a/chat-0:8000", "+a/chat-1:8000"]
    );
    assert!(!bed.synced);
    bed.synced().await;
    let progress = bed
        .progress
        .wait_for(|progress| progress.synced)
        .await
        .unwrap();
    assert_eq!(progress.to_string(), "synced");
}

#[tokio::test(start_paused = true)]
async fn nothing_goes_out_before_every_first_list_is_in() {
    let cluster = cluster();
    cluster.silence("pods", true);
    let mut bed = Bed::start(&cluster, WatchSettings::default());
    bed.waiting_for("Pod in namespace a").await;
    assert!(bed.told.try_recv().is_err());
    cluster.silence("pods", false);
    assert_eq!(bed.change().await.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_list_without_an_answer_is_begun_again() {
    let cluster = cluster();
    cluster.silence("modelroutes", true);
    let mut bed = Bed::start(&cluster, WatchSettings::default());
    bed.waiting_for("ModelRoute: no answer for 60s").await;
    cluster.silence("modelroutes", false);
    bed.synced().await;
}

#[tokio::test(start_paused = true)]
async fn pods_that_serve_nothing_are_never_asked_for() {
    let cluster = cluster();
    let mut bed = Bed::start(&cluster, WatchSettings::default());
    bed.synced().await;
    let requests = cluster.requests();
    let pods: Vec<_> = requests
        .iter()
        .filter(|line| line.contains("/pods"))
        .collect();
    for line in &pods {
        assert!(
            line.contains("/namespaces/a/pods") && line.contains("labelSelector=app%3Dchat"),
            "{line}"
        );
    }
    cluster.put("pods", pod("b", "db-1", "db", true));
    cluster.put("pods", pod("a", "web-1", "web", true));
    cluster.put("pods", pod("a", "chat-2", "chat", true));
    assert_eq!(bed.change().await, ["+a/chat-2:8000"]);
}

#[tokio::test(start_paused = true)]
async fn changes_of_pods_come_out_one_by_one() {
    let cluster = cluster();
    let mut bed = Bed::start(&cluster, WatchSettings::default());
    bed.synced().await;
    bed.requested(&["/pods", "watch="]).await;
    cluster.put("pods", pod("a", "chat-0", "chat", false));
    assert_eq!(bed.change().await, ["-a/chat-0:8000"]);
    cluster.put("pods", pod("a", "chat-0", "chat", true));
    assert_eq!(bed.change().await, ["+a/chat-0:8000"]);
    cluster.delete("pods", "a", "chat-1");
    assert_eq!(bed.change().await, ["-a/chat-1:8000"]);
}

#[tokio::test(start_paused = true)]
async fn a_selector_that_changes_brings_its_pods_in_the_same_change() {
    let cluster = cluster();
    let mut bed = Bed::start(&cluster, WatchSettings::default());
    bed.synced().await;
    bed.requested(&["/modelservers", "watch="]).await;
    cluster.put("modelservers", server("a", "chat", json!({ "app": "web" })));
    let change = bed.change().await;
    assert_eq!(
        change,
        ["-a/chat-0:8000", "-a/chat-1:8000", "+a/chat", "+a/web:8000"]
    );
}

#[tokio::test(start_paused = true)]
async fn missing_crds_are_named_and_waited_for() {
    let cluster = cluster();
    for plural in ["modelroutes", "modelservers", "externalmodelproviders"] {
        cluster.refuse(plural, Some(404));
    }
    let mut bed = Bed::start(&cluster, WatchSettings::default());
    bed.waiting_for("ModelServer: the cluster does not know ModelServer")
        .await;
    bed.waiting_for("sluice-control crds").await;
    for plural in ["modelroutes", "modelservers", "externalmodelproviders"] {
        cluster.refuse(plural, None);
    }
    bed.synced().await;
    assert_eq!(bed.names(ResourceType::Endpoint).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_expired_watch_lists_again_and_finds_what_happened_meanwhile() {
    let cluster = cluster();
    let mut bed = Bed::start(&cluster, WatchSettings::default());
    bed.synced().await;
    bed.requested(&["/pods", "watch="]).await;
    bed.requested(&["/modelservers", "watch="]).await;
    cluster.end_watches(Some(410));
    cluster.delete("pods", "a", "chat-1");
    cluster.put("pods", pod("a", "chat-2", "chat", true));
    // One change, in which nothing is missing that is still there.
    assert_eq!(bed.change().await, ["-a/chat-1:8000", "+a/chat-2:8000"]);
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_gone_changes_nothing() {
    let cluster = cluster();
    let mut bed = Bed::start(&cluster, WatchSettings::default());
    bed.synced().await;
    bed.requested(&["/pods", "watch="]).await;
    for code in [500, 429, 503] {
        cluster.refuse("*", Some(code));
        cluster.end_watches(None);
        tokio::time::sleep(Duration::from_secs(120)).await;
    }
    assert!(bed.told.try_recv().is_err());
    cluster.refuse("*", None);
    tokio::time::sleep(Duration::from_secs(60)).await;
    cluster.put("pods", pod("a", "chat-2", "chat", true));
    assert_eq!(bed.change().await, ["+a/chat-2:8000"]);
}

#[tokio::test(start_paused = true)]
async fn what_makes_things_better_only_may_be_forbidden() {
    let cluster = cluster();
    for plural in ["nodes", "namespaces"] {
        cluster.refuse(plural, Some(403));
    }
    let mut bed = Bed::start(&cluster, WatchSettings::default());
    bed.synced().await;

    let cluster = self::cluster();
    cluster.refuse("secrets", Some(403));
    let mut bed = Bed::start(&cluster, WatchSettings::default());
    bed.waiting_for("Secret: refused with 403: grant list and watch")
        .await;
}

#[tokio::test(start_paused = true)]
async fn restricted_to_namespaces_it_asks_for_nothing_beyond_them() {
    let cluster = cluster();
    cluster.put("modelservers", server("b", "db", json!({ "app": "db" })));
    let settings = WatchSettings {
        namespaces: vec!["b".into(), "c".into()],
        secrets: SecretReach::Only(vec!["c".into()]),
        own_namespace: Some("sluice".into()),
    };
    let mut bed = Bed::start(&cluster, settings);
    assert_eq!(bed.change().await, ["+b/db", "+b/db:8000"]);
    bed.synced().await;
    let requests = cluster.requests();
    let mut secrets = requests.iter().filter(|line| line.contains("/secrets"));
    assert!(secrets.all(|line| line.contains("/namespaces/c/")));
    for line in cluster.requests() {
        let inside = [
            "/namespaces/b/",
            "/namespaces/c/",
            "/namespaces/sluice/pods",
            "/nodes",
        ];
        assert!(inside.iter().any(|place| line.contains(place)), "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn where_secrets_may_not_be_read_nobody_asks_for_them() {
    let cluster = cluster();
    cluster.refuse("secrets", Some(403));
    let settings = WatchSettings {
        secrets: SecretReach::Only(Vec::new()),
        ..WatchSettings::default()
    };
    let mut bed = Bed::start(&cluster, settings);
    bed.synced().await;
    let asked = |line: &String| line.contains("/secrets");
    assert!(!cluster.requests().iter().any(asked));
}

#[tokio::test(start_paused = true)]
async fn the_last_server_of_a_namespace_takes_its_watch_along() {
    let cluster = cluster();
    let mut bed = Bed::start(&cluster, WatchSettings::default());
    bed.synced().await;
    bed.requested(&["/modelservers", "watch="]).await;
    cluster.delete("modelservers", "a", "chat");
    let change = bed.change().await;
    assert_eq!(change, ["-a/chat", "-a/chat-0:8000", "-a/chat-1:8000"]);
    // It can come back.
    cluster.put(
        "modelservers",
        server("a", "chat", json!({ "app": "chat" })),
    );
    while bed.names(ResourceType::Endpoint).len() < 2 {
        bed.change().await;
    }
}
