//! Canaries: shares are as the weights say, and a change of weights is in force at once, without a lost request.

#![allow(
    clippy::print_stderr,
    reason = "measured values are for whoever runs the test"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use sluice_e2e::engine::{EngineOptions, EngineServer};
use sluice_e2e::harness::client::{ask, chat, http1};
use sluice_e2e::harness::{Gateway, model_route, model_server, wait_until};
use tokio::task::JoinSet;

struct Setting {
    stable: EngineServer,
    canary: EngineServer,
}

impl Setting {
    fn new() -> Self {
        let engine = || EngineServer::start(EngineOptions::instant("sim")).expect("it starts");
        Self {
            stable: engine(),
            canary: engine(),
        }
    }

    fn routes(&self, stable: u32, canary: u32) -> String {
        model_server("stable", &[self.stable.addr()], "")
            + &model_server("canary", &[self.canary.addr()], "")
            + &model_route("sim", "sim", &[("stable", stable), ("canary", canary)])
    }

    fn received(&self) -> (u64, u64) {
        let of = |engine: &EngineServer| engine.requests().received;
        (of(&self.stable), of(&self.canary))
    }
}

/// Clients that ask on and on until told to stop; returns how many answers each got, all of them 200.
fn load(gateway: &Gateway, clients: usize, stop: &Arc<AtomicBool>) -> JoinSet<u64> {
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        let (url, stop) = (gateway.url(""), Arc::clone(stop));
        tasks.spawn(async move {
            let (client, body) = (http1(), chat("sim", "hello", 1, false));
            let mut answers = 0;
            while !stop.load(Ordering::Relaxed) {
                let answer = ask(&client, &url, "x", None, &body).await;
                assert_eq!((answer.status, answer.complete), (200, true));
                answers += 1;
            }
            answers
        });
    }
    tasks
}

async fn join(tasks: JoinSet<u64>) -> u64 {
    tasks.join_all().await.into_iter().sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_requests_divide_as_the_weights_say() {
    const REQUESTS: u64 = 10_000;
    let setting = Setting::new();
    let gateway = Gateway::builder(setting.routes(90, 10)).start().await;
    let mut tasks = JoinSet::new();
    for _ in 0..16 {
        let url = gateway.url("");
        tasks.spawn(async move {
            let (client, body) = (http1(), chat("sim", "hello", 1, false));
            for _ in 0..REQUESTS / 16 {
                let answer = ask(&client, &url, "x", None, &body).await;
                assert_eq!(answer.status, 200);
            }
        });
    }
    tasks.join_all().await;
    let (stable, canary) = setting.received();
    assert_eq!(stable + canary, REQUESTS);
    let share = 100.0 * canary as f64 / REQUESTS as f64;
    eprintln!("canary share {share:.2} %");
    // 1.5 points are five standard deviations.
    assert!((8.5..=11.5).contains(&share), "{share}");
    gateway.settled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_weights_come_into_force_and_lose_no_request() {
    let setting = Setting::new();
    let gateway = Gateway::builder(setting.routes(100, 0)).start().await;
    let stop = Arc::new(AtomicBool::new(false));
    let clients = load(&gateway, 8, &stop);
    wait_until("traffic flows", || async { setting.received().0 > 50 }).await;
    assert_eq!(setting.received().1, 0, "weight 0 takes nothing");

    let edited = Instant::now();
    gateway.replace_routes(&setting.routes(50, 50)).await;
    eprintln!("edit in force after {:?}", edited.elapsed());
    wait_until("the canary gets traffic", || async {
        setting.received().1 > 50
    })
    .await;

    gateway.replace_routes(&setting.routes(0, 100)).await;
    // Whatever was routed before the change ends soon.
    wait_until("the stable engine is left alone", || async {
        let before = setting.received();
        wait_until("the canary serves on", || async {
            setting.received().1 > before.1 + 20
        })
        .await;
        setting.received().0 == before.0
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    let answers = join(clients).await;
    let (stable, canary) = setting.received();
    assert_eq!(stable + canary, answers);
    gateway.settled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_edit_changes_nothing() {
    let setting = Setting::new();
    let gateway = Gateway::builder(setting.routes(100, 0)).start().await;
    let stop = Arc::new(AtomicBool::new(false));
    let clients = load(&gateway, 4, &stop);
    let generation = gateway.generation();
    let broken = [
        "kind: [".to_owned(),
        setting
            .routes(0, 100)
            .replace("weight: 100", "weight: many"),
        setting.routes(0, 100).replace("targetModels", "targets"),
    ];
    for (number, text) in broken.iter().enumerate() {
        let before = setting.received();
        std::fs::write(gateway.routes_file(), text).unwrap();
        wait_until(&format!("broken edit {number} is noticed"), || async {
            let problems = gateway.running.source.problems();
            problems.iter().any(|problem| problem.is_error())
        })
        .await;
        wait_until("traffic goes on", || async {
            setting.received().0 > before.0 + 20
        })
        .await;
        assert_eq!(gateway.generation(), generation, "edit {number}");
        assert_eq!(setting.received().1, 0, "edit {number}");
        // Back to the good state, so that the next edit's problems are its own.
        std::fs::write(gateway.routes_file(), setting.routes(100, 0)).unwrap();
        wait_until("the problems are gone", || async {
            gateway.running.source.problems().is_empty()
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    assert!(join(clients).await > 60);
}
