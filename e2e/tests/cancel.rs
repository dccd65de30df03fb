//! A client that leaves: its engine is told at once, nothing is tried again, and every count goes back.

#![allow(
    clippy::print_stderr,
    reason = "measured values are for whoever runs the test"
)]

use std::time::{Duration, Instant};

use sluice_e2e::engine::{EngineOptions, EngineServer};
use sluice_e2e::harness::client::{chat, http1, http2, post};
use sluice_e2e::harness::{Gateway, model_route, model_server, wait_until};

/// Half of what a request lasts whose end nobody notices. Generous, since the machine may be busy; what was measured is
/// printed.
const LIMIT: Duration = Duration::from_secs(10);

struct Setting {
    engines: [EngineServer; 2],
    gateway: Gateway,
}

impl Setting {
    /// Two engines, so that a wrong retry would have somewhere to go.
    async fn new(http2_engine: bool) -> Self {
        let engines = [(); 2].map(|()| {
            let mut options = EngineOptions::instant("sim");
            options.event_interval = Some(Duration::from_millis(20));
            EngineServer::start(options).expect("an engine starts")
        });
        let addresses = [engines[0].addr(), engines[1].addr()];
        let port = "workloadPort:\n  port: 1\n  http2: true\n";
        let extra = if http2_engine { port } else { "" };
        let routes =
            model_server("sim", &addresses, extra) + &model_route("sim", "sim", &[("sim", 1)]);
        let gateway = Gateway::builder(routes).start().await;
        Self { engines, gateway }
    }

    fn sum(&self, of: impl Fn(&EngineServer) -> u64) -> u64 {
        self.engines.iter().map(of).sum()
    }

    /// Waits until the engine knows, and returns how long that took.
    async fn cancelled(&self, left: Instant, count: u64) -> Duration {
        wait_until("the engine's request is cancelled", || async {
            self.sum(EngineServer::cancelled) == count
        })
        .await;
        left.elapsed()
    }
}

#[derive(Clone, Copy, Debug)]
enum When {
    BeforeHeaders,
    InTheStream,
    Unstreamed,
}

/// Sends a request, leaves, and returns how long the engine took to notice.
async fn leave(setting: &Setting, client: reqwest::Client, when: When, number: u64) -> Duration {
    let (fault, stream) = match when {
        When::BeforeHeaders => (Some("hang-before-headers"), true),
        When::InTheStream => (None, true),
        // Unstreamed, the engine answers after 1000 intervals of 20 ms.
        When::Unstreamed => (None, false),
    };
    let url = setting.gateway.url("");
    let id = format!("{when:?}-{number}");
    let request = tokio::spawn({
        let id = id.clone();
        async move {
            let body = chat("sim", "hello", 1000, stream);
            let mut response = post(&client, &url, &id, fault, &body)
                .await
                .expect("a head");
            response.chunk().await.expect("a chunk");
            // To the end of the test, if nobody aborts this task.
            while response.chunk().await.expect("a chunk").is_some() {}
        }
    });
    wait_until("the request is at the engine", || async {
        setting.sum(EngineServer::in_flight) == 1
    })
    .await;
    if matches!(when, When::InTheStream) {
        // Two events or more have passed.
        wait_until("events have passed", || async {
            let metrics = setting.gateway.metrics().await;
            let name = "sluice_inter_token_seconds_count";
            sluice_e2e::harness::client::sample(&metrics, name, &[]) >= 2.0 * number as f64
        })
        .await;
    }
    let left = Instant::now();
    request.abort();
    let took = setting.cancelled(left, number).await;
    setting.gateway.settled().await;
    let line = setting.gateway.access_line(&id).await;
    assert_eq!(line["attempts"], 1, "{line}");
    assert_eq!(line["client_gone"], true, "{line}");
    took
}

async fn leaves_everywhere(http2_engine: bool) {
    let setting = Setting::new(http2_engine).await;
    let mut number = 0;
    for protocol in ["h1", "h2c"] {
        for when in [When::BeforeHeaders, When::InTheStream, When::Unstreamed] {
            number += 1;
            let client = if protocol == "h1" { http1() } else { http2() };
            let took = leave(&setting, client, when, number).await;
            eprintln!("{protocol}, engine h2 {http2_engine}, {when:?}: told after {took:?}");
            assert!(took < LIMIT, "{protocol} {when:?}: told after {took:?}");
            assert_eq!(setting.sum(|engine| engine.requests().received), number);
        }
    }
    let metrics = setting.gateway.metrics().await;
    let active = sluice_e2e::harness::client::sample(&metrics, "sluice_in_flight", &[]);
    assert_eq!(active, 0.0, "{metrics}");
}

#[tokio::test]
async fn an_engine_is_told_at_once_when_its_client_leaves() {
    leaves_everywhere(false).await;
}

#[tokio::test]
async fn an_engine_on_http2_is_told_at_once_when_its_client_leaves() {
    leaves_everywhere(true).await;
}

#[tokio::test]
async fn a_stream_on_a_shared_connection_is_cancelled_alone() {
    let setting = Setting::new(false).await;
    // Neither ends by itself before the other is cancelled.
    let hold = |on: bool| {
        setting
            .engines
            .iter()
            .for_each(|engine| engine.hold_streams(on));
    };
    hold(true);
    let client = http2();
    let body = chat("sim", "hello", 60, true);
    let url = setting.gateway.url("");
    let leaving = post(&client, &url, "leaving", None, &body).await.unwrap();
    let staying = post(&client, &url, "staying", None, &body).await.unwrap();
    drop(leaving);
    setting.cancelled(Instant::now(), 1).await;
    hold(false);
    let answer = sluice_e2e::harness::client::read(staying).await;
    assert!(answer.complete);
    assert_eq!(answer.events().last().unwrap().data, "[DONE]");
    setting.gateway.settled().await;
}
