//! Pods that go: no request fails, no stream is cut, and nothing is left open to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sluice_config::push::ResourceType;
use sluice_e2e::harness::client::{ask, chat, http1, http2, post, read};
use sluice_e2e::harness::control::Pushed;
use sluice_e2e::harness::pushed::{Pod, route, server};
use sluice_e2e::harness::wait_until;
use tokio::task::JoinSet;

use crate::bed::{Bed, engine};

/// Streams and short answers from several clients until told to stop; gives how many there were.
struct Load {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    clients: JoinSet<()>,
}

impl Load {
    fn start(bed: &Bed) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answers = Arc::<AtomicU64>::default();
        let mut clients = JoinSet::new();
        for number in 0_u32..8 {
            let (url, stop, answers) = (bed.gateway.url(""), stop.clone(), answers.clone());
            clients.spawn(async move {
                let client = if number.is_multiple_of(2) {
                    http1()
                } else {
                    http2()
                };
                while !stop.load(Ordering::Relaxed) {
                    let streamed = number < 4;
                    let body = chat("sim", "hello", 8, streamed);
                    let answer = ask(&client, &url, "x", None, &body).await;
                    assert_eq!((answer.status, answer.complete), (200, true));
                    if streamed {
                        assert_eq!(answer.events().last().unwrap().data, "[DONE]");
                    }
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Self {
            stop,
            answers,
            clients,
        }
    }

    /// Waits for so many more answers.
    async fn more(&self, count: u64) {
        let before = self.answers.load(Ordering::Relaxed);
        wait_until("requests are answered", || async {
            self.answers.load(Ordering::Relaxed) >= before + count
        })
        .await;
    }

    async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.join_all().await;
        self.answers.load(Ordering::Relaxed)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_are_replaced_one_by_one_under_load_lose_nothing() {
    let paced = |options: &mut sluice_e2e::engine::EngineOptions| {
        options.event_interval = Some(Duration::from_millis(5));
    };
    let mut bed = Bed::new().await;
    let mut engines = vec![
        ("p0".to_owned(), engine(paced)),
        ("p1".to_owned(), engine(paced)),
    ];
    let pod = |name: &str, engine: &sluice_e2e::engine::EngineServer| {
        Pod::new(name, engine.addr(), &["pool"])
    };
    let mut first = vec![server("pool"), route("sim", "sim", &[("pool", 1)])];
    first.extend(
        engines
            .iter()
            .map(|(name, engine)| pod(name, engine).upsert()),
    );
    bed.push(first).await;
    let load = Load::start(&bed);
    load.more(50).await;
    for number in 2..8 {
        // As a rolling update: a new pod is ready, an old one is told to go, and is gone when it is idle.
        let name = format!("p{number}");
        let fresh = engine(paced);
        bed.push([pod(&name, &fresh).upsert()]).await;
        engines.push((name, fresh));
        let (name, old) = engines.remove(0);
        let old_pod = pod(&name, &old);
        bed.push([old_pod.clone().draining().upsert()]).await;
        let gateway = &bed.gateway;
        let reserved = || {
            let serving = gateway.running.gateway.serving.load();
            let members = serving.pools[0].members.iter();
            let address = old.addr().to_string();
            let mut members = members.filter(|member| *member.endpoint.address == *address);
            members.next().unwrap().endpoint.load.load().in_flight
        };
        // What was routed before the change may still arrive.
        wait_until("the draining pod is left alone", || async {
            let received = old.requests().received;
            load.more(20).await;
            old.requests().received == received
        })
        .await;
        wait_until("the draining pod is idle", || async { reserved() == 0 }).await;
        bed.push_batch(Pushed::removal(ResourceType::Endpoint, old_pod.name()))
            .await;
        assert_eq!(old.cancelled(), 0);
        drop(old);
        load.more(20).await;
    }
    let answers = load.stop().await;
    assert!(answers > 300, "{answers}");
    bed.gateway.settled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_at_a_pod_that_drains_and_leaves_runs_to_its_end() {
    let engine = engine(|_| {});
    engine.hold_streams(true);
    let mut bed = Bed::new().await;
    let pod = Pod::new("a", engine.addr(), &["pool"]);
    bed.push([
        server("pool"),
        route("sim", "sim", &[("pool", 1)]),
        pod.upsert(),
    ])
    .await;
    let body = chat("sim", "hello", 30, true);
    let stream = post(&bed.client, &bed.gateway.url(""), "x", None, &body)
        .await
        .unwrap();
    bed.push([pod.clone().draining().upsert()]).await;
    bed.push_batch(Pushed::removal(ResourceType::Endpoint, pod.name()))
        .await;
    assert_eq!(
        bed.ask("sim").await.status,
        503,
        "nobody is left for new ones"
    );
    assert_eq!(engine.in_flight(), 1, "the stream runs on");
    engine.hold_streams(false);
    let answer = read(stream).await;
    assert!(answer.complete);
    assert_eq!(answer.events().last().unwrap().data, "[DONE]");
    assert_eq!(engine.cancelled(), 0);
    bed.gateway.settled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_all_are_draining_they_serve_on() {
    let engine = engine(|_| {});
    let mut bed = Bed::new().await;
    let pod = Pod::new("a", engine.addr(), &["pool"]).draining();
    bed.push([
        server("pool"),
        route("sim", "sim", &[("pool", 1)]),
        pod.upsert(),
    ])
    .await;
    for _ in 0..5 {
        assert_eq!(bed.ask("sim").await.status, 200);
    }
    assert_eq!(engine.requests().received, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_to_a_pod_that_is_gone_are_closed() {
    let (stays, goes) = (engine(|_| {}), engine(|_| {}));
    let mut bed = Bed::with("", |bootstrap| {
        // Only the removal closes them.
        bootstrap.upstream.idle_timeout = Duration::from_secs(600).into();
    })
    .await;
    let pod = Pod::new("b", goes.addr(), &["pool"]);
    bed.push([
        server("pool"),
        route("sim", "sim", &[("pool", 1)]),
        Pod::new("a", stays.addr(), &["pool"]).upsert(),
        pod.upsert(),
    ])
    .await;
    // Held by what still runs under the old configuration.
    let held = bed.gateway.running.gateway.serving.load();
    let idle = |member: usize| {
        held.pools[0].members[member]
            .endpoint
            .link
            .idle_connections()
    };
    assert_eq!(
        *held.pools[0].members[1].endpoint.address,
        *goes.addr().to_string()
    );
    wait_until("a connection to each is kept", || async {
        bed.ask("sim").await.status == 200 && idle(0) > 0 && idle(1) > 0
    })
    .await;
    bed.push_batch(Pushed::removal(ResourceType::Endpoint, pod.name()))
        .await;
    wait_until("nothing is kept", || async { idle(1) == 0 }).await;
    assert!(idle(0) > 0);
}
