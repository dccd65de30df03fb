//! Answers that break on the way: what was sent stays, streams end with an error event, everything else visibly.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use sluice_e2e::engine::{EngineOptions, EngineServer};
use sluice_e2e::harness::client::{Answer, ask, chat, http1, http2, post, read, without_times};
use sluice_e2e::harness::{Gateway, model_route, model_server, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn engine(change: impl FnOnce(&mut EngineOptions)) -> EngineServer {
    let mut options = EngineOptions::instant("sim");
    change(&mut options);
    EngineServer::start(options).expect("an engine starts")
}

async fn gateway(engine: SocketAddr, policy: &str) -> Gateway {
    let routes = model_server("sim", &[engine], policy) + &model_route("sim", "sim", &[("sim", 1)]);
    Gateway::builder(routes).start().await
}

/// The last event of a broken stream, as OpenAI clients read it.
fn error_event(answer: &Answer) -> Value {
    let event = answer.events().pop().expect("at least one event");
    assert_eq!(event.name, "error", "{}", answer.text());
    let object: Value = serde_json::from_str(&event.data).expect("the error event is JSON");
    assert!(object["error"]["message"].is_string(), "{object}");
    object["error"].clone()
}

#[tokio::test]
async fn a_stream_that_breaks_keeps_what_came_and_ends_with_an_error_event() {
    let engine = engine(|_| {});
    let patient = gateway(engine.addr(), "").await;
    let impatient = gateway(engine.addr(), "trafficPolicy:\n  streamIdleTimeout: 300ms").await;
    let body = chat("sim", "hello", 10, true);
    let cases = [
        ("reset-mid-stream:5", "engine_error", "engine_broken"),
        ("close-mid-stream:5", "engine_error", "engine_broken"),
        ("hang-mid-stream:5", "engine_timeout", "engine_timeout"),
        ("hang-after-headers", "engine_timeout", "engine_timeout"),
    ];
    for (protocol, client) in [("h1", http1()), ("h2c", http2())] {
        for (fault, code, kind) in cases {
            let id = format!("{protocol}-{fault}");
            // Only what hangs needs the timeout, which on a busy machine may strike others, too.
            let gateway = match fault.starts_with("hang") {
                true => &impatient,
                false => &patient,
            };
            let whole = ask(&client, &engine.url(), &id, None, &body).await;
            let broken = ask(&client, &gateway.url(""), &id, Some(fault), &body).await;
            assert!(
                broken.complete,
                "{id}: ends in order, after the error event"
            );
            assert_eq!(error_event(&broken)["code"], code, "{id}");
            assert_eq!(error_event(&broken)["type"], "server_error", "{id}");
            let text = broken.text();
            let before = &text[..text.find("event: error").unwrap()];
            let before = without_times(before);
            assert!(
                without_times(&whole.text()).starts_with(&before),
                "{id}: {text}"
            );
            let came = if fault == "hang-after-headers" { 0 } else { 5 };
            assert_eq!(broken.events().len(), came + 1, "{id}: {text}");
            let line = gateway.access_line(&id).await;
            assert_eq!(line["error"]["type"], kind, "{line}");
            assert_eq!(line["error_origin"], "engine", "{line}");
            assert_eq!(
                line["attempts"], 1,
                "never again after the first byte: {line}"
            );
        }
    }
    patient.settled().await;
    impatient.settled().await;
}

/// An engine that answers each connection with these bytes and closes it.
async fn scripted(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("a bound address");
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = vec![0; 64 << 10];
            // The whole of a small request comes in one piece: the gateway writes it as one.
            if socket.read(&mut request).await.is_ok_and(|count| count > 0) {
                socket.write_all(answer.as_bytes()).await.ok();
                socket.shutdown().await.ok();
            }
        }
    });
    address
}

#[tokio::test]
async fn a_break_inside_an_event_still_leaves_a_readable_error_event() {
    let address = scripted(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n\
         2d\r\ndata: {\"choices\":[{\"index\":0}]}\n\ndata: {\"choi\r\n",
    )
    .await;
    let gateway = gateway(address, "").await;
    for client in [http1(), http2()] {
        let body = chat("sim", "hello", 10, true);
        let answer = ask(&client, &gateway.url(""), "inside", None, &body).await;
        assert!(answer.complete);
        assert_eq!(error_event(&answer)["code"], "engine_error");
        assert_eq!(
            answer.events()[0].data,
            "{\"choices\":[{\"index\":0}]}",
            "{}",
            answer.text()
        );
    }
}

#[tokio::test]
async fn a_stream_that_breaks_its_promised_length_ends_with_an_error_event_too() {
    let engine = engine(|_| {});
    let gateway = gateway(engine.addr(), "").await;
    let mut body = chat("sim", "hello", 10, true);
    // What the client asked for itself passes without an edit.
    body["stream_options"] = serde_json::json!({"include_usage": true});
    for client in [http1(), http2()] {
        let fault = Some("truncated-length");
        let answer = ask(&client, &gateway.url(""), "short", fault, &body).await;
        assert!(answer.complete, "{}", answer.text());
        assert_eq!(error_event(&answer)["code"], "engine_error");
    }
    gateway.settled().await;
}

#[tokio::test]
async fn a_connection_serves_on_after_a_stream_that_broke() {
    let engine = engine(|_| {});
    let gateway = gateway(engine.addr(), "").await;
    let mut socket = TcpStream::connect(gateway.address).await.unwrap();
    let body = chat("sim", "hello", 10, true).to_string();
    for number in 0..3 {
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-fault: reset-mid-stream:3\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        socket.write_all((head + &body).as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n0\r\n\r\n") {
            let count = socket.read_buf(&mut answer).await.unwrap();
            assert!(count > 0, "closed after answer {number}");
        }
        assert!(String::from_utf8_lossy(&answer).contains("event: error"));
    }
}

#[tokio::test]
async fn an_unstreamed_answer_that_breaks_is_not_seen_as_complete() {
    let engine = engine(|_| {});
    let gateway = gateway(engine.addr(), "trafficPolicy:\n  streamIdleTimeout: 300ms").await;
    let body = chat("sim", "hello", 10, false);
    for (protocol, client) in [("h1", http1()), ("h2c", http2())] {
        for fault in [
            "truncated-length",
            "reset-mid-stream:1",
            "close-mid-stream:1",
            "hang-mid-stream:1",
        ] {
            let id = format!("{protocol}-{fault}");
            // A stream error may overtake the head of an HTTP/2 answer: broken, too.
            if let Ok(response) = post(&client, &gateway.url(""), &id, Some(fault), &body).await {
                let answer = read(response).await;
                assert!(!answer.complete, "{id}: {}", answer.text());
            }
            let line = gateway.access_line(&id).await;
            assert_eq!(line["error_origin"], "engine", "{line}");
        }
    }
    gateway.settled().await;
}

#[tokio::test]
async fn the_total_timeout_ends_streams_and_waiting_alike() {
    let engine = engine(|options| options.event_interval = Some(Duration::from_millis(50)));
    // Long enough for a few tokens on a busy machine.
    let gateway = gateway(engine.addr(), "trafficPolicy:\n  totalTimeout: 2s").await;
    let body = chat("sim", "hello", 10_000, true);
    let started = Instant::now();
    let streamed = ask(&http1(), &gateway.url(""), "streamed", None, &body).await;
    assert_eq!(error_event(&streamed)["code"], "engine_timeout");
    assert!(streamed.events().len() > 2, "{}", streamed.text());
    let waiting = ask(
        &http1(),
        &gateway.url(""),
        "waiting",
        Some("hang-before-headers"),
        &body,
    )
    .await;
    assert_eq!(waiting.status, 504);
    assert_eq!(waiting.json()["error"]["code"], "engine_timeout");
    assert!(started.elapsed() > Duration::from_secs(4));
    let line = gateway.access_line("waiting").await;
    assert_eq!(
        line["attempts"], 1,
        "no attempt begins after the end: {line}"
    );
    gateway.settled().await;
}

#[tokio::test]
async fn an_engine_that_never_answers_is_a_504_after_the_retries() {
    let engine = engine(|_| {});
    let gateway = gateway(
        engine.addr(),
        "trafficPolicy:\n  timeout: 150ms\n  retry:\n    attempts: 2\n    retryInterval: 10ms",
    )
    .await;
    for (protocol, client) in [("h1", http1()), ("h2c", http2())] {
        let body = chat("sim", "hello", 1, true);
        let fault = Some("hang-before-headers");
        let answer = ask(&client, &gateway.url(""), protocol, fault, &body).await;
        assert_eq!(answer.status, 504);
        assert_eq!(answer.json()["error"]["type"], "server_error");
        let line = gateway.access_line(protocol).await;
        assert_eq!(line["attempts"], 3, "{line}");
        assert_eq!(line["error"]["type"], "engine_timeout", "{line}");
    }
    gateway.settled().await;
    wait_until("the engine knows that nobody waits", || async {
        engine.in_flight() == 0
    })
    .await;
}

#[tokio::test]
async fn what_is_not_http_and_an_early_end_are_a_502() {
    let engine = engine(|_| {});
    let gateway = gateway(engine.addr(), "").await;
    for (protocol, client) in [("h1", http1()), ("h2c", http2())] {
        for fault in ["garbage", "early-close"] {
            let id = format!("{protocol}-{fault}");
            let body = chat("sim", "hello", 1, true);
            let answer = ask(&client, &gateway.url(""), &id, Some(fault), &body).await;
            assert_eq!(answer.status, 502, "{id}");
            assert_eq!(answer.json()["error"]["code"], "engine_error", "{id}");
            let line = gateway.access_line(&id).await;
            assert_eq!(line["error_origin"], "engine", "{line}");
        }
    }
    gateway.settled().await;
}
