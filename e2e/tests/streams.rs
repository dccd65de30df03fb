//! Streams through the gateway: the client sees the engine's own bytes, and the gateway knows the tokens.

use std::time::Duration;

use serde_json::{Value, json};
use sluice_e2e::engine::{EngineOptions, EngineServer};
use sluice_e2e::harness::client::{self, Answer, ask, chat, http1, http2, post, without_times};
use sluice_e2e::harness::{Gateway, PATIENCE, model_route, model_server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn engine(change: impl FnOnce(&mut EngineOptions)) -> EngineServer {
    let mut options = EngineOptions::instant("sim");
    options.max_model_len = 8 << 20;
    change(&mut options);
    EngineServer::start(options).expect("an engine starts")
}

async fn gateway(engine: &EngineServer) -> Gateway {
    let routes =
        model_server("sim", &[engine.addr()], "") + &model_route("sim", "sim", &[("sim", 100)]);
    Gateway::builder(routes).start().await
}

fn usage(mut body: Value) -> Value {
    body["stream_options"] = json!({"include_usage": true});
    body
}

/// The engine's own answer and the gateway's, to the same request.
async fn both(
    client: &reqwest::Client,
    engine: &EngineServer,
    gateway: &Gateway,
    id: &str,
    fault: Option<&str>,
    body: &Value,
) -> (Answer, Answer) {
    let direct = ask(client, &engine.url(), id, fault, body).await;
    let through = ask(client, &gateway.url(""), id, fault, body).await;
    (direct, through)
}

fn assert_same(direct: &Answer, through: &Answer, what: &str) {
    assert!(direct.complete && through.complete, "{what}: not complete");
    assert_eq!((direct.status, through.status), (200, 200), "{what}");
    assert_eq!(
        without_times(&direct.text()),
        without_times(&through.text()),
        "{what}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_the_engines_own_however_it_is_cut_and_whatever_usage_was_asked_for() {
    let engine = engine(|_| {});
    let gateway = gateway(&engine).await;
    let faults = [
        None,
        Some("split:1"),
        Some("split:7"),
        Some("split:100"),
        Some("single-write"),
        Some("continue-100"),
    ];
    for (protocol, client) in [("h1", http1()), ("h2c", http2())] {
        for (number, fault) in faults.into_iter().enumerate() {
            for ask_usage in [false, true] {
                let what = format!("{protocol}-{number}-{ask_usage}");
                let mut body = chat("sim", &"words and more words ".repeat(50), 20, true);
                if ask_usage {
                    body = usage(body);
                }
                let (direct, through) = both(&client, &engine, &gateway, &what, fault, &body).await;
                assert_same(&direct, &through, &what);
                assert_eq!(direct.text().contains("\"usage\""), ask_usage);
                assert_eq!(through.events().last().unwrap().data, "[DONE]");
                let line = gateway.access_line(&what).await;
                assert_eq!(line["output_tokens"], 20, "{what}");
                assert!(line["input_tokens"].as_u64().unwrap() > 200, "{what}");
                assert_eq!(line["tokens_estimated"], false, "{what}");
                assert_eq!(line["response_bytes"], through.body.len(), "{what}");
            }
        }
    }
    gateway.settled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_from_one_kib_to_sixteen_mib_reach_the_engine_and_stream_back() {
    let engine = engine(|_| {});
    let gateway = gateway(&engine).await;
    for (protocol, client) in [("h1", http1()), ("h2c", http2())] {
        for bytes in [1 << 10, 60 << 10, 70 << 10, 1 << 20, (16 << 20) - 512] {
            let what = format!("{protocol}-{bytes}");
            let body = chat("sim", &"x".repeat(bytes), 4, true);
            let (direct, through) = both(&client, &engine, &gateway, &what, None, &body).await;
            assert_same(&direct, &through, &what);
            let line = gateway.access_line(&what).await;
            assert!(line["request_bytes"].as_u64().unwrap() > bytes as u64);
        }
    }
    gateway.settled().await;
}

#[tokio::test]
async fn a_slow_drip_arrives_whole() {
    let engine = engine(|_| {});
    let gateway = gateway(&engine).await;
    let body = chat("sim", "hello", 1, true);
    let (direct, through) = both(
        &http1(),
        &engine,
        &gateway,
        "drip",
        Some("slow-drip:1"),
        &body,
    )
    .await;
    assert_same(&direct, &through, "slow-drip");
    let line = gateway.access_line("drip").await;
    assert_eq!(line["output_tokens"], 1);
}

#[tokio::test]
async fn an_unstreamed_answer_is_the_engines_own() {
    let engine = engine(|_| {});
    let gateway = gateway(&engine).await;
    for (protocol, client) in [("h1", http1()), ("h2c", http2())] {
        for fault in [None, Some("split:3"), Some("close-delimited")] {
            let what = format!("{protocol}-{}", fault.unwrap_or("plain"));
            let body = chat("sim", "hello there", 30, false);
            let (direct, through) = both(&client, &engine, &gateway, &what, fault, &body).await;
            assert_same(&direct, &through, &what);
            assert_eq!(gateway.access_line(&what).await["output_tokens"], 30);
        }
    }
    gateway.settled().await;
}

#[tokio::test]
async fn tokens_of_an_engine_that_tells_no_usage_are_an_estimate_that_says_so() {
    let engine = engine(|_| {});
    let gateway = gateway(&engine).await;
    let body = chat("sim", &"word".repeat(100), 12, true);
    let (direct, through) =
        both(&http1(), &engine, &gateway, "none", Some("no-usage"), &body).await;
    assert_same(&direct, &through, "no-usage");
    let line = gateway.access_line("none").await;
    assert_eq!(line["tokens_estimated"], true);
    // Twelve tokens and the event that names the role.
    assert_eq!(line["output_tokens"], 13);
    assert_eq!(line["input_tokens"], 100);
}

#[tokio::test]
async fn content_is_not_held_back_while_usage_may_still_come() {
    let engine = engine(|_| {});
    let gateway = gateway(&engine).await;
    for client in [http1(), http2()] {
        let body = chat("sim", "hello", 10, true);
        let fault = Some("hang-mid-stream:6");
        let mut response = post(&client, &gateway.url(""), "held", fault, &body)
            .await
            .unwrap();
        let mut text = String::new();
        while client::events(&text).len() < 6 {
            let chunk = tokio::time::timeout(PATIENCE, response.chunk()).await;
            let chunk = chunk.expect("all six events arrive although the engine hangs");
            text.push_str(std::str::from_utf8(&chunk.unwrap().unwrap()).unwrap());
        }
        assert!(text.ends_with("\n\n"), "not an event more: {text}");
    }
    gateway.settled().await;
}

#[tokio::test]
async fn first_token_and_pauses_are_measured() {
    const PAUSE: Duration = Duration::from_millis(40);
    let engine = engine(|options| options.event_interval = Some(PAUSE));
    let gateway = gateway(&engine).await;
    let body = chat("sim", "hello", 6, true);
    ask(&http1(), &gateway.url(""), "timed", None, &body).await;
    let line = gateway.access_line("timed").await;
    let number = |name: &str| {
        line[name]
            .as_f64()
            .unwrap_or_else(|| panic!("{name}: {line}"))
    };
    let total = number("duration_total");
    assert!(total >= 5.0 * 40.0 - 1.0, "{line}");
    assert!(number("ttft_ms") <= total, "{line}");
    assert!(number("inter_token_max_ms") >= 30.0, "{line}");
    assert!(number("inter_token_mean_ms") <= number("inter_token_max_ms"));
    let metrics = gateway.metrics().await;
    let count = |name: &str| client::sample(&metrics, name, &["model=\"sim\""]);
    assert_eq!(count("sluice_time_to_first_token_seconds_count"), 1.0);
    // Events that the machine lets through together are one pause.
    assert!(count("sluice_inter_token_seconds_count") >= 1.0);
    assert_eq!(count("sluice_tokens_total"), 6.0 + number("input_tokens"));
}

#[tokio::test]
async fn a_burst_of_events_leaves_in_few_writes() {
    const EVENTS: usize = 500;
    let engine = engine(|_| {});
    let gateway = gateway(&engine).await;
    let body = chat("sim", "hello", EVENTS as u32, true).to_string();
    let mut socket = tokio::net::TcpStream::connect(gateway.address)
        .await
        .unwrap();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-fault: single-write\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all((head + &body).as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, mut rest) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("ransfer-"), "{head}");
    let (mut chunks, mut text) = (0, String::new());
    loop {
        let (size, after) = rest.split_once("\r\n").unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            break;
        }
        chunks += 1;
        text.push_str(&after[..size]);
        rest = after[size..].strip_prefix("\r\n").unwrap();
    }
    let events = client::events(&text).len();
    assert!(events >= EVENTS, "{events} events");
    assert!(chunks * 10 < events, "{chunks} chunks for {events} events");
}
