//! Every fault, seen from a raw socket.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice_e2e::engine::Fault;

use crate::client::{
    call, chat_body, data, drain, exchange, get, instant, post, read_until, send, streamed,
    wait_until,
};

/// Events in what arrived.
fn events(text: &str) -> usize {
    text.matches("data: ").count()
}

#[test]
fn a_reset_comes_after_the_events_named() {
    let engine = instant();
    let (text, end) = drain(&mut send(&engine, &streamed("reset-mid-stream:3", 10)));
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(events(&text), 3);
    assert_eq!(engine.requests().faulted, 1);
}

#[test]
fn a_closed_stream_lacks_its_last_chunk() {
    let engine = instant();
    let (text, end) = drain(&mut send(&engine, &streamed("close-mid-stream:2", 10)));
    end.unwrap();
    assert_eq!(events(&text), 2);
    assert!(text.contains("transfer-encoding: chunked") && !text.ends_with("0\r\n\r\n"));
}

#[test]
fn a_whole_answer_is_cut_in_half() {
    let engine = instant();
    let request = post(
        "/v1/chat/completions",
        &["x-fault: close-mid-stream:1"],
        &chat_body(3, false),
    );
    let (text, end) = drain(&mut send(&engine, &request));
    end.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let promised: usize = head
        .split_once("content-length: ")
        .unwrap()
        .1
        .split("\r\n")
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(body.len(), promised / 2);
}

#[test]
fn hanging_ends_when_the_client_leaves_and_counts_as_cancelled() {
    let engine = instant();
    for (fault, seen) in [
        ("hang-before-headers", ""),
        ("hang-after-headers", "transfer-encoding: chunked\r\n\r\n"),
        ("hang-mid-stream:2", "\"delta\":{\"content\":\""),
    ] {
        let before = engine.cancelled();
        let mut stream = send(&engine, &streamed(fault, 10));
        let text = read_until(&mut stream, seen);
        wait_until("one request hangs", || engine.in_flight() == 1);
        // Nothing more comes: a short wait for bytes ends without any.
        stream
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let (more, end) = drain(&mut stream);
        assert_eq!(end.unwrap_err().kind(), ErrorKind::WouldBlock, "{fault}");
        assert_eq!(
            events(&text) + events(&more),
            if fault.ends_with(":2") { 2 } else { 0 },
            "{fault}"
        );
        drop(stream);
        wait_until("the hanging request is cancelled", || {
            engine.cancelled() == before + 1
        });
        assert_eq!(engine.in_flight(), 0);
    }
}

#[test]
fn a_status_comes_with_an_error_object_and_a_time_to_retry() {
    let engine = instant();
    for (status, retry) in [(500, false), (503, true), (429, true)] {
        let text = exchange(
            &engine,
            "/v1/chat/completions",
            &[&format!("x-fault: status:{status}")],
            "{}",
        );
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        assert_eq!(head.contains("retry-after: 1"), retry);
        assert_eq!(
            serde_json::from_str::<Value>(body).unwrap()["error"]["code"],
            status
        );
    }
}

#[test]
fn garbage_and_early_closes_are_no_answers() {
    let engine = instant();
    let (text, end) = drain(&mut send(&engine, &streamed("garbage", 1)));
    end.unwrap();
    assert!(!text.is_empty() && !text.starts_with("HTTP/"));
    let (text, end) = drain(&mut send(&engine, &streamed("early-close", 1)));
    end.unwrap();
    assert_eq!(text, "");
    assert_eq!(engine.requests().faulted, 2);
}

#[test]
fn the_body_may_be_shorter_than_promised_or_end_with_the_connection() {
    let engine = instant();
    for fault in ["truncated-length", "close-delimited"] {
        let (text, end) = drain(&mut send(&engine, &streamed(fault, 2)));
        end.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(body.ends_with("data: [DONE]\n\n"), "{fault}");
        assert!(!head.contains("chunked"), "{fault}");
        match head.split_once("content-length: ") {
            Some((_, rest)) => {
                assert_eq!(fault, "truncated-length");
                let promised: usize = rest.split("\r\n").next().unwrap().parse().unwrap();
                assert!(promised > body.len());
            }
            None => assert_eq!(fault, "close-delimited"),
        }
    }
}

#[test]
fn events_may_come_in_one_write_or_in_splinters() {
    let engine = instant();
    let (text, _) = drain(&mut send(&engine, &streamed("close-delimited", 4)));
    let expected = text.split_once("\r\n\r\n").unwrap().1.to_owned();
    for fault in ["single-write", "split:7", "slow-drip:0"] {
        let mut stream = send(&engine, &streamed(fault, 4));
        let text = read_until(&mut stream, "\r\n0\r\n\r\n");
        let chunks = chunks(text.split_once("\r\n\r\n").unwrap().1);
        match fault {
            "split:7" => assert!(chunks.iter().all(|chunk| chunk.len() <= 7)),
            "slow-drip:0" => assert!(chunks.iter().all(|chunk| chunk.len() == 1)),
            _ => {}
        }
        let joined = chunks.concat();
        // Ids and times differ, their lengths do not.
        assert_eq!(joined.len(), expected.len(), "{fault}");
        assert_eq!(data(&joined).len(), 5, "{fault}");
    }
}

#[test]
fn a_single_write_arrives_whole() {
    let engine = instant();
    let mut stream = send(&engine, &streamed("single-write", 4));
    let mut buffer = vec![0; 1 << 16];
    let count = std::io::Read::read(&mut stream, &mut buffer).unwrap();
    let text = String::from_utf8_lossy(&buffer[..count]);
    assert!(
        text.starts_with("HTTP/1.1 200 OK") && text.ends_with("0\r\n\r\n"),
        "{text}"
    );
}

fn chunks(mut body: &str) -> Vec<String> {
    let mut chunks = Vec::new();
    loop {
        let (size, rest) = body.split_once("\r\n").unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return chunks;
        }
        chunks.push(rest[..size].to_owned());
        body = rest[size..].strip_prefix("\r\n").unwrap();
    }
}

#[test]
fn dripping_takes_its_time() {
    let engine = instant();
    let started = Instant::now();
    let request = post(
        "/v1/x",
        &["x-echo: body", "x-fault: slow-drip:5", "connection: close"],
        "0123456789",
    );
    let (text, _) = drain(&mut send(&engine, &request));
    assert!(text.ends_with("\r\n\r\n0123456789"));
    assert!(
        started.elapsed() >= Duration::from_millis(45),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn usage_can_be_left_out() {
    let engine = instant();
    let body = r#"{"prompt":"a","stream":true,"stream_options":{"include_usage":true}}"#;
    assert!(exchange(&engine, "/v1/completions", &[], body).contains("\"usage\":{"));
    assert!(
        !exchange(&engine, "/v1/completions", &["x-fault: no-usage"], body).contains("\"usage\":{")
    );
    assert!(
        !exchange(
            &engine,
            "/v1/completions",
            &["x-fault: no-usage"],
            r#"{"prompt":"a"}"#
        )
        .contains("usage")
    );
}

#[test]
fn keep_alive_may_be_a_lie() {
    let engine = instant();
    let request = post(
        "/v1/chat/completions",
        &["x-fault: keepalive-close"],
        &chat_body(2, false),
    );
    let (text, end) = drain(&mut send(&engine, &request));
    end.unwrap();
    assert!(!text.contains("connection: close"));
    assert_eq!(engine.requests().completed, 1);
}

#[test]
fn interim_responses_come_first() {
    let engine = instant();
    for (fault, line) in [
        ("continue-100", "HTTP/1.1 100 Continue"),
        ("continue-100:103", "HTTP/1.1 103 Early Hints"),
    ] {
        let text = exchange(
            &engine,
            "/v1/chat/completions",
            &[&format!("x-fault: {fault}")],
            &chat_body(1, false),
        );
        assert!(
            text.starts_with(&format!("{line}\r\n\r\nHTTP/1.1 200 OK\r\n")),
            "{text}"
        );
    }
}

#[test]
fn an_expected_continue_is_sent() {
    let engine = instant();
    let head = "POST /x HTTP/1.1\r\nhost: e\r\nx-echo: body\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n";
    let mut stream = send(&engine, head.as_bytes());
    read_until(&mut stream, "HTTP/1.1 100 Continue\r\n\r\n");
    std::io::Write::write_all(&mut stream, b"abc").unwrap();
    read_until(&mut stream, "\r\n\r\nabc");
}

#[test]
fn a_closed_listener_refuses_and_opens_again() {
    let engine = instant();
    let mut kept = send(&engine, &post("/sim/fault", &[], r#"{"fault":"refuse"}"#));
    read_until(&mut kept, "{\"fault\":[\"refuse\"]}");
    assert_eq!(
        TcpStream::connect(engine.addr()).unwrap_err().kind(),
        ErrorKind::ConnectionRefused
    );
    // A connection that exists is served on, which is how the switch can be turned back.
    std::io::Write::write_all(&mut kept, &post("/sim/fault", &[], r#"{"fault":null}"#)).unwrap();
    read_until(&mut kept, "{\"fault\":[]}");
    TcpStream::connect(engine.addr()).unwrap();
    engine.set_fault(Some(Fault::Refuse));
    assert_eq!(
        TcpStream::connect(engine.addr()).unwrap_err().kind(),
        ErrorKind::ConnectionRefused
    );
    engine.set_fault(None);
    TcpStream::connect(engine.addr()).unwrap();
}

#[tokio::test]
async fn a_switched_fault_strikes_posts_only_until_it_is_switched_off() {
    let engine = instant();
    engine.set_fault(Some(Fault::Status(503)));
    assert_eq!(
        call(&engine, "/v1/completions", json!({"prompt": "a"}))
            .await
            .0,
        503
    );
    assert!(get(&engine, "/v1/models").await.contains("tiny"));
    engine.set_fault(None);
    assert_eq!(
        call(&engine, "/v1/completions", json!({"prompt": "a"}))
            .await
            .0,
        200
    );
}

#[tokio::test]
async fn a_probability_strikes_about_that_share() {
    let engine = instant();
    engine.set_faults(vec!["status:500@0.5".parse().unwrap()]);
    let mut struck = 0;
    for _ in 0..100 {
        struck += usize::from(
            call(&engine, "/v1/completions", json!({"prompt": "a"}))
                .await
                .0
                == 500,
        );
    }
    // Six standard deviations; the engine's seed makes it the same every time.
    assert!((20..=80).contains(&struck), "{struck} of 100");
}

#[tokio::test]
async fn an_unknown_fault_is_an_error() {
    let engine = instant();
    assert!(
        exchange(&engine, "/v1/completions", &["x-fault: explode"], "{}")
            .starts_with("HTTP/1.1 400")
    );
    assert_eq!(
        call(&engine, "/sim/fault", json!({"fault": "explode"}))
            .await
            .0,
        400
    );
}
