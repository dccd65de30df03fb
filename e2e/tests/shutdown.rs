//! Shutdown: nothing that was begun is cut, and the process is gone right after the last byte.

#![allow(
    clippy::print_stderr,
    reason = "measured values are for whoever runs the test"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_e2e::engine::{EngineOptions, EngineServer};
use sluice_e2e::harness::client::{ask, chat, http1, http2, post, read};
use sluice_e2e::harness::{
    Gateway, GatewayBuilder, PATIENCE, model_route, model_server, wait_until,
};
use tokio::task::{JoinHandle, JoinSet};

/// A delay or timeout, in milliseconds, that nothing may wait for: far longer than [`PATIENCE`], to be told from it.
const LONG: u64 = 60_000;

fn engine(interval: u64) -> EngineServer {
    let mut options = EngineOptions::instant("sim");
    options.event_interval = Some(Duration::from_millis(interval));
    EngineServer::start(options).expect("an engine starts")
}

fn builder(engine: &EngineServer, delay: u64, timeout: u64) -> GatewayBuilder {
    let routes =
        model_server("sim", &[engine.addr()], "") + &model_route("sim", "sim", &[("sim", 1)]);
    Gateway::builder(routes).with(|bootstrap| {
        bootstrap.drain.delay = Duration::from_millis(delay).into();
        bootstrap.drain.timeout = Duration::from_millis(timeout).into();
    })
}

/// As SIGTERM; resolves to the moment when the server had ended.
fn terminate(gateway: &Arc<Gateway>) -> JoinHandle<Instant> {
    let gateway = Arc::clone(gateway);
    tokio::task::spawn_blocking(move || {
        gateway.running.terminate();
        Instant::now()
    })
}

async fn is_draining(gateway: &Gateway) {
    wait_until("the gateway is draining", || async {
        gateway.running.gateway.drain.is_draining()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_streams_finish_and_the_server_ends_right_after() {
    const STREAMS: usize = 200;
    let engine = engine(100);
    let gateway = Arc::new(builder(&engine, 0, LONG).start().await);
    let mut streams = JoinSet::new();
    for number in 0..STREAMS {
        let url = gateway.url("");
        streams.spawn(async move {
            let client = if number.is_multiple_of(2) {
                http1()
            } else {
                http2()
            };
            let body = chat("sim", &format!("prompt {number}"), 25, true);
            ask(&client, &url, "x", None, &body).await
        });
    }
    // Not those in flight: on a busy machine the first may end before the last begins.
    wait_until("all streams have begun", || async {
        engine.requests().received == STREAMS as u64
    })
    .await;
    let ended = terminate(&gateway);
    let answers = streams.join_all().await;
    let ended = ended.await.unwrap();
    for answer in &answers {
        assert!(answer.complete);
        assert_eq!(answer.events().len(), 1 + 25 + 1, "role, tokens, [DONE]");
        assert_eq!(answer.events().last().unwrap().data, "[DONE]");
    }
    let last = answers.iter().map(|answer| answer.ended).max().unwrap();
    let after = ended.saturating_duration_since(last);
    eprintln!("the server had ended {after:?} after the last byte");
    assert!(after < PATIENCE, "{after:?}");
    assert_eq!(engine.cancelled(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_end_together_on_one_http2_connection_lose_no_byte() {
    const STREAMS: usize = 20;
    for _ in 0..10 {
        let engine = engine(20);
        let gateway = Arc::new(builder(&engine, 0, LONG).start().await);
        let client = http2();
        let mut streams = JoinSet::new();
        for _ in 0..STREAMS {
            let (client, url) = (client.clone(), gateway.url(""));
            streams.spawn(async move {
                ask(&client, &url, "x", None, &chat("sim", "hello", 10, true)).await
            });
        }
        wait_until("all streams have begun", || async {
            engine.requests().received == STREAMS as u64
        })
        .await;
        let ended = terminate(&gateway);
        for answer in streams.join_all().await {
            assert!(answer.complete, "{}", answer.text());
            assert_eq!(answer.events().last().unwrap().data, "[DONE]");
        }
        ended.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_draining_probes_fail_and_requests_are_still_served() {
    let engine = engine(1);
    let gateway = Arc::new(builder(&engine, LONG, LONG).start().await);
    let client = http1();
    let ready = || async {
        let answer = client.get(gateway.metrics_url("/readyz")).send().await;
        answer.expect("the metrics listener answers").status()
    };
    let body = chat("sim", "hello", 3, false);
    let kept = ask(&client, &gateway.url(""), "before", None, &body).await;
    assert_eq!(kept.headers["connection"], "keep-alive");
    assert_eq!(ready().await, 200);
    let ended = terminate(&gateway);
    is_draining(&gateway).await;
    assert_eq!(ready().await, 503);
    let live = client.get(gateway.metrics_url("/healthz")).send().await;
    assert_eq!(live.unwrap().status(), 200, "alive, only not ready");
    for (new, client) in [("kept", client.clone()), ("new", http1())] {
        for stream in [false, true] {
            let body = chat("sim", "hello", 3, stream);
            let answer = ask(&client, &gateway.url(""), new, None, &body).await;
            assert_eq!((answer.status, answer.complete), (200, true), "{new}");
            assert_eq!(answer.headers["connection"], "close", "{new}");
        }
    }
    let answer = ask(&http2(), &gateway.url(""), "h2", None, &body).await;
    assert_eq!((answer.status, answer.complete), (200, true));
    // The delay is as long as all of this may take, and nobody waits for its end.
    gateway.running.kill();
    ended.await.unwrap();
    let refused = post(&http1(), &gateway.url(""), "after", None, &body).await;
    assert!(refused.is_err(), "the listener is closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_server_ends_right_after_the_delay() {
    let engine = engine(1);
    for delay in [0, 500] {
        let gateway = Arc::new(builder(&engine, delay, LONG).start().await);
        // A kept connection is not a request.
        let client = http1();
        let body = chat("sim", "hello", 1, false);
        ask(&client, &gateway.url(""), "x", None, &body).await;
        let started = Instant::now();
        let took = terminate(&gateway).await.unwrap() - started;
        eprintln!("idle, delay {delay} ms: ended after {took:?}");
        assert!(took >= Duration::from_millis(delay), "{took:?}");
        assert!(took < PATIENCE, "{took:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_drain_timeout_cuts_what_is_left() {
    let engine = engine(50);
    let gateway = Arc::new(builder(&engine, 0, 500).start().await);
    let body = chat("sim", "hello", 100_000, true);
    let stream = post(&http1(), &gateway.url(""), "long", None, &body).await;
    let started = Instant::now();
    let ended = terminate(&gateway);
    let answer = read(stream.unwrap()).await;
    assert!(!answer.complete, "cut, and seen as cut");
    let took = ended.await.unwrap() - started;
    assert!(took >= Duration::from_millis(500), "{took:?}");
    assert!(took < PATIENCE, "{took:?}");
    wait_until("the engine's request is cancelled", || async {
        engine.in_flight() == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_at_once() {
    let engine = engine(50);
    for delay in [0, LONG] {
        let gateway = Arc::new(builder(&engine, delay, LONG).start().await);
        let body = chat("sim", "hello", 100_000, true);
        let stream = post(&http1(), &gateway.url(""), "long", None, &body).await;
        let ended = terminate(&gateway);
        is_draining(&gateway).await;
        let started = Instant::now();
        gateway.running.kill();
        let took = ended.await.unwrap() - started;
        assert!(took < PATIENCE, "{took:?}");
        assert!(!read(stream.unwrap()).await.complete);
    }
}
