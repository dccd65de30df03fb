//! Cancelling, counting, stopping, and many streams at once.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;
use sluice_e2e::engine::{EngineOptions, EngineServer, Profile};

use crate::client::{chat_body, drain, get, instant, post, read_until, send, slow, wait_until};

fn modelled() -> EngineServer {
    EngineServer::start(EngineOptions {
        profile: Profile::H8B,
        ..EngineOptions::default()
    })
    .unwrap()
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_generation() {
    let engine = modelled();
    for (stream, done) in [(true, 1), (false, 2)] {
        let mut client = send(
            &engine,
            &post("/v1/chat/completions", &[], &chat_body(50_000, stream)),
        );
        if stream {
            read_until(&mut client, "\"content\":\"");
        }
        wait_until("the sequence runs", || engine.gauges().running == 1);
        assert!(engine.gauges().kv_usage > 0.0);
        drop(client);
        wait_until("the request is cancelled", || engine.cancelled() == done);
        wait_until("the model is idle", || {
            engine.gauges().running == 0 && engine.gauges().kv_usage == 0.0
        });
        assert_eq!(engine.in_flight(), 0);
    }
    let metrics = get(&engine, "/metrics").await;
    assert!(metrics.contains("sluice_engine_cancelled_total 2\n"));
    assert!(metrics.contains("finished_reason=\"abort\"} 2\n"));
}

// Its own threads: the client sends the reset while the test waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_http2_stream_cancels_its_generation() {
    let engine = modelled();
    let client = reqwest::Client::builder()
        .http2_prior_knowledge()
        .build()
        .unwrap();
    let url = format!("{}/v1/chat/completions", engine.url());
    let request = client
        .post(url)
        .header("content-type", "application/json")
        .body(chat_body(50_000, true));
    let mut response = request.send().await.unwrap();
    response.chunk().await.unwrap().unwrap();
    drop(response);
    wait_until("the request is cancelled", || {
        engine.cancelled() == 1 && engine.gauges().running == 0
    });
}

#[test]
fn gauges_show_running_and_waiting() {
    let profile = Profile {
        max_sequences: 4,
        ..Profile::H8B
    };
    let engine = EngineServer::start(EngineOptions {
        profile,
        ..EngineOptions::default()
    })
    .unwrap();
    let request = post("/v1/chat/completions", &[], &chat_body(50_000, true));
    let clients: Vec<_> = (0..12).map(|_| send(&engine, &request)).collect();
    wait_until("four run and eight wait", || {
        let gauges = engine.gauges();
        (gauges.running, gauges.waiting) == (4, 8)
    });
    assert_eq!(engine.in_flight(), 12);
    drop(clients);
    wait_until("all are cancelled", || engine.cancelled() == 12);
}

#[test]
fn stopping_resets_every_connection_and_frees_the_address() {
    let engine = slow();
    let addr = engine.addr();
    let mut streaming = send(
        &engine,
        &post("/v1/chat/completions", &[], &chat_body(50_000, true)),
    );
    read_until(&mut streaming, "\"content\":\"");
    let mut idle = send(
        &engine,
        &post("/v1/chat/completions", &[], &chat_body(1, false)),
    );
    read_until(&mut idle, "\"usage\"");
    engine.stop();
    for client in [&mut streaming, &mut idle] {
        assert_eq!(
            drain(client).1.unwrap_err().kind(),
            ErrorKind::ConnectionReset
        );
    }
    assert_eq!(
        TcpStream::connect(addr).unwrap_err().kind(),
        ErrorKind::ConnectionRefused
    );
    let again = EngineServer::start(EngineOptions {
        listen: addr,
        ..EngineOptions::instant("tiny")
    })
    .unwrap();
    assert_eq!(again.addr(), addr);
}

#[tokio::test]
async fn the_last_request_is_remembered_and_admin_calls_are_not() {
    let engine = instant();
    let headers = ["x-echo: body", "X-Seen: 1", "connection: close"];
    let (_, end) = drain(&mut send(&engine, &post("/v1/x?y=1", &headers, "abc")));
    end.unwrap();
    let last = engine.last_request();
    assert_eq!(
        (last.header("x-seen"), &last.body[..], last.path()),
        (Some("1"), &b"abc"[..], "/v1/x")
    );
    let page: Value = serde_json::from_str(&get(&engine, "/sim/requests").await).unwrap();
    assert_eq!(
        (page["received"].as_u64(), page["completed"].as_u64()),
        (Some(1), Some(1))
    );
    assert_eq!(page["last"]["headers"]["x-seen"], "1");
    assert_eq!(page["last"]["target"], "/v1/x?y=1");
}

#[test]
fn a_fixed_interval_paces_the_events() {
    let engine = slow();
    let started = Instant::now();
    let mut client = send(
        &engine,
        &post("/v1/chat/completions", &[], &chat_body(6, true)),
    );
    read_until(&mut client, "[DONE]");
    // The first at once, five intervals of 20 ms between the six.
    assert!(
        started.elapsed().as_millis() >= 100,
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn tokens_are_gathered_into_events() {
    let engine = EngineServer::start(EngineOptions {
        tokens_per_event: 4,
        ..EngineOptions::instant("tiny")
    })
    .unwrap();
    let mut client = send(
        &engine,
        &post("/v1/chat/completions", &[], &chat_body(10, true)),
    );
    let text = read_until(&mut client, "[DONE]");
    // The role, 4 + 4 + 2 tokens, and the end.
    assert_eq!(text.matches("data: ").count(), 5, "{text}");
}

#[test]
fn hundreds_of_streams_run_at_once_on_several_threads() {
    let engine = EngineServer::start(EngineOptions {
        threads: 2,
        ..EngineOptions::instant("tiny")
    })
    .unwrap();
    let request = post(
        "/v1/chat/completions",
        &["connection: close"],
        &chat_body(50, true),
    );
    let mut clients: Vec<_> = (0..300).map(|_| send(&engine, &request)).collect();
    for client in &mut clients {
        let (text, end) = drain(client);
        end.unwrap();
        assert_eq!(text.matches("data: ").count(), 52);
    }
    assert_eq!(engine.requests().completed, 300);
}

#[test]
fn the_binary_says_where_it_listens() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sluice-engine"))
        .args([
            "--profile",
            "instant",
            "--model",
            "a",
            "--model",
            "b",
            "--lora",
            "c",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(child.stdout.take().unwrap()),
        &mut line,
    )
    .unwrap();
    let addr = line
        .trim()
        .strip_prefix("listening on http://")
        .unwrap()
        .to_owned();
    let mut client = TcpStream::connect(&addr).unwrap();
    client
        .set_read_timeout(Some(crate::client::DEADLINE))
        .unwrap();
    std::io::Write::write_all(&mut client, b"GET /v1/models HTTP/1.0\r\n\r\n").unwrap();
    let (text, _) = drain(&mut client);
    child.kill().unwrap();
    child.wait().unwrap();
    for name in ["\"id\":\"a\"", "\"id\":\"b\"", "\"id\":\"c\""] {
        assert!(text.contains(name), "{text}");
    }
}
