//! Configuration changes under load: running requests keep what they began with, new ones see the new state.

#![allow(
    clippy::print_stderr,
    reason = "measured values are for whoever runs the test"
)]

use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sluice_e2e::engine::{EngineOptions, EngineServer};
use sluice_e2e::harness::client::{ask, chat, http1, http2, post, read};
use sluice_e2e::harness::{Gateway, model_route, model_server, wait_until};
use tokio::task::JoinSet;

fn engine(change: impl FnOnce(&mut EngineOptions)) -> EngineServer {
    let mut options = EngineOptions::instant("sim");
    change(&mut options);
    EngineServer::start(options).expect("an engine starts")
}

fn routes(engines: &[&EngineServer]) -> String {
    let addresses: Vec<_> = engines.iter().map(|engine| engine.addr()).collect();
    model_server("sim", &addresses, "") + &model_route("sim", "sim", &[("sim", 1)])
}

/// Rewrites the route file the `way`-th way, waits until it is in force, and returns how long that took.
async fn rewrite(gateway: &Gateway, way: usize, text: &str) -> Duration {
    let before = gateway.generation();
    let file = gateway.routes_file();
    let folder = file.parent().expect("the file is in a folder");
    match way % 3 {
        0 => {
            std::fs::write(folder.join(".new"), text).expect("it is written");
            std::fs::rename(folder.join(".new"), &file).expect("it is renamed");
        }
        1 => std::fs::write(&file, text).expect("it is written"),
        // As Kubernetes mounts a ConfigMap: the name stays, what it points to changes.
        _ => {
            let target = folder.join(format!(".version-{way}"));
            std::fs::write(&target, text).expect("it is written");
            symlink(&target, folder.join(".link")).expect("it is linked");
            std::fs::rename(folder.join(".link"), &file).expect("it is renamed");
        }
    }
    let written = Instant::now();
    wait_until(&format!("rewrite {way} is in force"), || async {
        gateway.generation() > before
    })
    .await;
    written.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_rewrites_under_load_fail_no_request() {
    let (first, second) = (engine(|_| {}), engine(|_| {}));
    let gateway = Gateway::builder(routes(&[&first, &second])).start().await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for number in 0_u32..8 {
        let (url, stop) = (gateway.url(""), Arc::clone(&stop));
        clients.spawn(async move {
            let client = if number.is_multiple_of(2) {
                http1()
            } else {
                http2()
            };
            let mut answers = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                let body = chat("sim", "hello", 5, answers.is_multiple_of(2));
                let answer = ask(&client, &url, "x", None, &body).await;
                assert_eq!((answer.status, answer.complete), (200, true));
                assert!(!answer.text().contains("event: error"));
                answers += 1;
            }
            answers
        });
    }
    let mut longest = [Duration::ZERO; 3];
    for way in 0..50 {
        let engines: &[&EngineServer] = match way % 4 {
            0 => &[&first],
            1 => &[&second, &first],
            2 => &[&second],
            _ => &[&first, &second],
        };
        let took = rewrite(&gateway, way, &routes(engines)).await;
        longest[way % 3] = longest[way % 3].max(took);
    }
    // The access log is written in the same folder all the while.
    eprintln!("in force after, at most (rename, in place, symlink): {longest:?}");
    stop.store(true, Ordering::Relaxed);
    let answers: u64 = clients.join_all().await.into_iter().sum();
    let received = first.requests().received + second.requests().received;
    assert_eq!(received, answers);
    assert!(answers > 50, "{answers}: hardly any load");
    gateway.settled().await;
}

#[tokio::test]
async fn a_stream_completes_at_an_endpoint_that_was_removed_and_stays_counted() {
    let (old, new) = (engine(|_| {}), engine(|_| {}));
    old.hold_streams(true);
    let gateway = Gateway::builder(routes(&[&old])).start().await;
    let before = gateway.running.gateway.serving.load();
    let client = http1();
    let body = chat("sim", "hello", 40, true);
    let stream = post(&client, &gateway.url(""), "old", None, &body)
        .await
        .unwrap();
    let endpoint = Arc::clone(&before.pools[0].members[0].endpoint);
    assert_eq!(endpoint.load.load().in_flight, 1);

    gateway.replace_routes(&routes(&[&new])).await;
    assert_eq!(old.in_flight(), 1, "the stream runs on");
    assert_eq!(endpoint.load.load().in_flight, 1);
    // Back again: the endpoint is the same one, and remembers.
    gateway.replace_routes(&routes(&[&new, &old])).await;
    let serving = gateway.running.gateway.serving.load();
    let counts: Vec<u32> = serving.pools[0]
        .members
        .iter()
        .map(|member| member.endpoint.load.load().in_flight)
        .collect();
    assert_eq!(counts, [0, 1]);
    assert_eq!(serving.routes[0].in_flight(), 1);

    old.hold_streams(false);
    let answer = read(stream).await;
    assert!(answer.complete);
    assert_eq!(answer.events().last().unwrap().data, "[DONE]");
    assert_eq!(old.cancelled(), 0);
    gateway.settled().await;
}

#[tokio::test]
async fn a_route_that_was_removed_is_a_404_for_new_requests_only() {
    let engine = engine(|_| {});
    engine.hold_streams(true);
    let gateway = Gateway::builder(routes(&[&engine])).start().await;
    let client = http1();
    let body = chat("sim", "hello", 20, true);
    let stream = post(&client, &gateway.url(""), "old", None, &body)
        .await
        .unwrap();
    gateway
        .replace_routes(&model_server("sim", &[engine.addr()], ""))
        .await;
    let refused = ask(&client, &gateway.url(""), "new", None, &body).await;
    assert_eq!(refused.status, 404);
    assert_eq!(refused.json()["error"]["code"], "model_not_found");
    engine.hold_streams(false);
    let answer = read(stream).await;
    assert_eq!(answer.events().last().unwrap().data, "[DONE]");
    let line = gateway.access_line("old").await;
    assert_eq!(line["model_route"], "default/sim", "{line}");
    gateway.settled().await;
}
