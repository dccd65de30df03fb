//! One of two engines is killed under load: who had no byte yet does not notice, who had is told, and the dead
//! one is left alone.

#![allow(
    clippy::print_stderr,
    reason = "measured values are for whoever runs the test"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sluice_e2e::engine::{EngineOptions, EngineServer};
use sluice_e2e::harness::client::{Answer, chat, http1, http2, post, read, sample};
use sluice_e2e::harness::{Gateway, model_route, model_server, wait_until};
use tokio::task::JoinSet;
use tokio::time::Instant;

const CLIENTS: usize = 100;
const TOKENS: usize = 10;

fn engine() -> EngineServer {
    let mut options = EngineOptions::instant("sim");
    options.event_interval = Some(Duration::from_millis(20));
    EngineServer::start(options).expect("an engine starts")
}

#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    whole: usize,
    /// Streams that ended with an error event.
    told: usize,
    /// Answers broken off visibly.
    cut: usize,
    /// Everything that must not be.
    failed: usize,
}

impl Tally {
    fn count(&mut self, answer: Option<Answer>, stream: bool) {
        let Some(answer) = answer else {
            self.failed += 1;
            return;
        };
        let events = answer.events();
        let last = events.last().map_or("", |event| event.data.as_str());
        let told = events.last().is_some_and(|event| event.name == "error");
        match (answer.status, answer.complete, stream) {
            (200, true, false) => self.whole += 1,
            (200, true, true) if last == "[DONE]" => self.whole += 1,
            (200, true, true) if told => self.told += 1,
            // Its bytes had begun: an unstreamed answer cannot be taken back.
            (200, false, false) if !answer.body.is_empty() => self.cut += 1,
            _ => {
                eprintln!("failed: {} {}", answer.status, answer.text());
                self.failed += 1;
            }
        }
    }
}

async fn client(url: String, number: usize, stop: Arc<AtomicBool>) -> Tally {
    let client = if number % 4 < 2 { http1() } else { http2() };
    let stream = number.is_multiple_of(2);
    let body = chat("sim", &format!("prompt {number}"), TOKENS as u32, stream);
    let mut tally = Tally::default();
    while !stop.load(Ordering::Relaxed) {
        let answer = match post(&client, &url, "x", None, &body).await {
            Ok(response) => Some(read(response).await),
            Err(error) => {
                eprintln!("failed: {error:?}");
                None
            }
        };
        tally.count(answer, stream);
    }
    tally
}

/// Attempts that found the engine dead, and all attempts.
async fn attempts(gateway: &Gateway) -> (f64, f64) {
    let metrics = gateway.metrics().await;
    let of = |labels: &[&str]| sample(&metrics, "sluice_attempts_total", labels);
    (of(&["reason=\"connect\""]), of(&[]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_one_of_two_engines_under_load_fails_nobody_who_had_no_byte() {
    let (victim, survivor) = (engine(), engine());
    let routes = model_server("sim", &[victim.addr(), survivor.addr()], "")
        + &model_route("sim", "sim", &[("sim", 1)]);
    let gateway = Gateway::builder(routes).start().await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        clients.spawn(client(gateway.url(""), number, Arc::clone(&stop)));
    }
    wait_until("both engines are busy", || async {
        victim.in_flight() > 20 && victim.requests().completed > 100
    })
    .await;
    let address = victim.addr().to_string();
    // It joins the engine's thread.
    tokio::task::spawn_blocking(move || victim.stop())
        .await
        .unwrap();
    let killed = Instant::now();
    tokio::time::sleep_until(killed + Duration::from_secs(1)).await;
    let (dead_before, before) = attempts(&gateway).await;
    wait_until("a thousand attempts more", || async {
        attempts(&gateway).await.1 > before + 1000.0
    })
    .await;
    let (dead_after, after) = attempts(&gateway).await;
    let share = 100.0 * (dead_after - dead_before) / (after - before);
    stop.store(true, Ordering::Relaxed);
    let mut sum = Tally::default();
    for tally in clients.join_all().await {
        sum.whole += tally.whole;
        sum.told += tally.told;
        sum.cut += tally.cut;
        sum.failed += tally.failed;
    }
    eprintln!("{sum:?}; {share:.2} % of later attempts went to {address}");
    assert_eq!(sum.failed, 0, "{sum:?}");
    assert!(sum.told > 0, "no stream was open at the kill: {sum:?}");
    assert!(sum.told + sum.cut <= CLIENTS, "{sum:?}");
    assert!(share < 1.0, "{share} %");
    gateway.settled().await;
    let metrics = gateway.metrics().await;
    assert_eq!(sample(&metrics, "sluice_in_flight", &[]), 0.0);
    assert_eq!(sample(&metrics, "sluice_active_requests", &[]), 0.0);
}
