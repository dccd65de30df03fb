//! Requests that break HTTP, or that two servers could understand differently: refused in OpenAI's form where an
//! answer is possible, connection closed, nothing sent to the engine, and the gateway serves on.

use sluice_e2e::harness::RawClient;

use crate::bed::Wire;
use crate::bed::{Bed, CHAT, chat, http_client};

/// A second request behind the broken one: it must never be served.
const SMUGGLED: &str = "GET /v1/models HTTP/1.1\r\nhost: smuggled\r\n\r\n";

/// Sends it, with the smuggled request behind; asserts one answer with this status, or a close without any.
async fn refused(bed: &Bed, request: impl AsRef<[u8]>, expected: u16, code: &str) {
    let shown =
        String::from_utf8_lossy(&request.as_ref()[..request.as_ref().len().min(300)]).into_owned();
    let mut raw = bed.raw().await;
    let mut bytes = request.as_ref().to_vec();
    bytes.extend_from_slice(SMUGGLED.as_bytes());
    // The gateway may close before it has read all: its answer is what counts.
    raw.send(&bytes).await.ok();
    raw.half_close().await;
    let answer = raw
        .answer()
        .await
        .unwrap_or_else(|| panic!("no answer to {shown:?}"));
    assert_eq!(
        answer.status,
        expected,
        "{shown:?}: {}",
        String::from_utf8_lossy(&answer.body)
    );
    assert_eq!(answer.json()["error"]["code"], code, "{shown:?}");
    assert_eq!(
        answer.header("content-type").as_deref(),
        Some("application/json")
    );
    assert!(answer.header("x-request-id").is_some(), "{shown:?}");
    assert_eq!(
        answer.header("connection").as_deref(),
        Some("close"),
        "{shown:?}"
    );
    let id = answer.header("x-request-id").expect("just seen");
    let line = bed.gateway.access_line(&id).await;
    assert_eq!(line["status_code"], expected, "{shown:?} is logged: {line}");
    let rest = raw.rest().await;
    assert!(
        rest.is_empty(),
        "{shown:?} was followed by {:?}",
        String::from_utf8_lossy(&rest)
    );
}

async fn well_and_untouched(bed: &Bed) {
    assert_eq!(
        bed.engine.requests().received,
        0,
        "nothing reached the engine"
    );
    bed.is_well().await;
}

fn post(fields: &str) -> String {
    format!("POST {CHAT} HTTP/1.1\r\n{fields}\r\n")
}

#[tokio::test]
async fn ambiguous_framing_is_refused() {
    let bed = Bed::h1().await;
    let body = chat();
    let length = body.len();
    for framing in [
        format!("content-length: {length}\r\ntransfer-encoding: chunked\r\n"),
        format!("transfer-encoding: chunked\r\nContent-Length: {length}\r\n"),
        format!(
            "content-length: {length}\r\ncontent-length: {}\r\n",
            length + 1
        ),
        format!("content-length: {length}, {}\r\n", length + 1),
        format!("content-length: +{length}\r\n"),
        format!("content-length: -{length}\r\n"),
        "content-length: 0x10\r\n".to_owned(),
        "content-length: 1 2\r\n".to_owned(),
        "content-length: \r\n".to_owned(),
        "content-length: 99999999999999999999999\r\n".to_owned(),
        "transfer-encoding: chunked, identity\r\n".to_owned(),
        "transfer-encoding: gzip, chunked\r\n".to_owned(),
        "transfer-encoding: xchunked\r\n".to_owned(),
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n".to_owned(),
        "transfer-encoding:\x0bchunked\r\n".to_owned(),
        "transfer-encoding: \r\n".to_owned(),
    ] {
        refused(
            &bed,
            post(&format!("host: a\r\n{framing}")) + &body,
            400,
            "malformed_request",
        )
        .await;
    }
    well_and_untouched(&bed).await;
}

#[tokio::test]
async fn malformed_fields_are_refused() {
    let bed = Bed::h1().await;
    for fields in [
        "host: a\r\nx-a: 1\r\n folded\r\n",
        "host: a\r\nx-a: 1\r\n\tfolded\r\n",
        "host: a\r\nx-a : 1\r\n",
        "host: a\r\ncontent-length : 3\r\n",
        "host: a\r\n: empty\r\n",
        "host: a\r\nno colon\r\n",
        "host: a\r\nx-a: b\0c\r\n",
        "host: a\r\nx\0a: b\r\n",
        "host: a\r\nx-a: b\rc\r\n",
        "host: a\r\nx-a: b\nx-b: c\r\n",
        "host: a\nx-a: b\r\n",
    ] {
        refused(&bed, post(fields), 400, "malformed_request").await;
    }
    well_and_untouched(&bed).await;
}

#[tokio::test]
async fn malformed_request_lines_are_refused() {
    let bed = Bed::h1().await;
    for line in [
        "POST /v1/chat/completions HTTP/1.1\nhost: a\n\n",
        "POST /v1/chat/completions HTTP/1.1\r\nhost: a\n\n",
        "POST /v1/chat/completions HTTP/3.7\r\nhost: a\r\n\r\n",
        "PO ST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n\r\n",
        "P\0ST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n\r\n",
        "\x16\x03\x01\x02\0\x01\0\x01\x03\x03\r\n\r\n",
        "{\"model\":\"sim\"}\r\n\r\n",
    ] {
        refused(&bed, line, 400, "malformed_request").await;
    }
    well_and_untouched(&bed).await;
}

#[tokio::test]
async fn host_must_be_there_exactly_once() {
    let bed = Bed::h1().await;
    for fields in [
        "",
        "host: a\r\nhost: b\r\n",
        "host: a\r\nhost: a\r\n",
        "host: a, b\r\n",
        "host: a b\r\n",
    ] {
        refused(&bed, post(fields), 400, "malformed_request").await;
    }
    well_and_untouched(&bed).await;
}

#[tokio::test]
async fn upgrades_and_tunnels_are_refused() {
    let bed = Bed::h1().await;
    for request in [
        "GET /v1/realtime HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n",
        "CONNECT engine:8000 HTTP/1.1\r\nhost: engine:8000\r\n\r\n",
    ] {
        refused(&bed, request, 400, "upgrade_not_supported").await;
    }
    well_and_untouched(&bed).await;
}

#[tokio::test]
async fn heads_beyond_the_limits_are_431() {
    let bed = Bed::h1().await;
    let fields = |count: usize| -> String { (0..count).map(|n| format!("x-{n}: 1\r\n")).collect() };
    for request in [
        post(&format!("host: a\r\n{}", fields(140))),
        post(&format!("host: a\r\n{}", fields(300))),
        post(&format!("host: a\r\nx-a: {}\r\n", "b".repeat(100 << 10))),
        post(&format!(
            "host: a\r\n{}: {}\r\n",
            "x".repeat(60 << 10),
            "b".repeat(10 << 10)
        )),
        post(&format!("host: a\r\nx-a: {}\r\n", "b".repeat(2 << 20))),
        format!(
            "POST /v1/{} HTTP/1.1\r\nhost: a\r\nx-a: {}\r\n\r\n",
            "b".repeat(60 << 10),
            "b".repeat(10 << 10)
        ),
    ] {
        refused(&bed, request, 431, "header_too_large").await;
    }
    well_and_untouched(&bed).await;
}

#[tokio::test]
async fn a_head_beyond_the_limits_is_431_over_http2() {
    let bed = Bed::h1().await;
    let client = http_client(Wire::H2);
    let answer = client
        .post(bed.gateway.url(CHAT))
        .header("x-a", "b".repeat(100 << 10))
        .body(chat())
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 431);
    well_and_untouched(&bed).await;
}

#[tokio::test]
async fn broken_chunks_are_refused() {
    let bed = Bed::h1().await;
    let head = post("host: a\r\ntransfer-encoding: chunked\r\n");
    for chunks in [
        "zz\r\nab\r\n0\r\n\r\n",
        "-1\r\nab\r\n0\r\n\r\n",
        "+2\r\nab\r\n0\r\n\r\n",
        "0x2\r\nab\r\n0\r\n\r\n",
        "ffffffffffffffff1\r\nab\r\n0\r\n\r\n",
        "2\r\nabc\r\n0\r\n\r\n",
        "2\nab\n0\n\n",
    ] {
        refused(&bed, head.clone() + chunks, 400, "malformed_body").await;
    }
    well_and_untouched(&bed).await;
}

#[tokio::test]
async fn a_chunk_size_beyond_the_limit_is_not_waited_for() {
    let bed = Bed::h1().await;
    for size in ["7fffffffffffffff", "ffffffffffffffff", "fffffffffffffff"] {
        let mut raw = bed.raw().await;
        let head = post("host: a\r\ntransfer-encoding: chunked\r\n");
        raw.send(format!("{head}{size}\r\nab")).await.unwrap();
        raw.half_close().await;
        // Nothing can follow: an answer is welcome, a close is enough.
        if let Some(answer) = raw.answer().await {
            assert!(
                matches!(answer.status, 400 | 413),
                "{size}: {}",
                answer.status
            );
        }
    }
    well_and_untouched(&bed).await;
}

#[tokio::test]
async fn a_body_that_breaks_off_reaches_no_engine() {
    let bed = Bed::h1().await;
    for framing in ["content-length: 100\r\n", "transfer-encoding: chunked\r\n"] {
        for half_close in [true, false] {
            let mut raw = bed.raw().await;
            let start = if framing.starts_with('c') {
                chat()
            } else {
                format!("100\r\n{}", chat())
            };
            raw.send(post(&format!("host: a\r\n{framing}")) + &start)
                .await
                .unwrap();
            if half_close {
                raw.half_close().await;
                if let Some(answer) = raw.answer().await {
                    assert_eq!(answer.status, 400, "{framing}");
                }
            }
        }
    }
    well_and_untouched(&bed).await;
}

#[tokio::test]
async fn a_head_that_breaks_off_is_no_request() {
    let bed = Bed::h1().await;
    for part in [
        "",
        "P",
        "POST /v1/chat",
        "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n",
    ] {
        let mut raw = bed.raw().await;
        raw.send(part).await.unwrap();
        raw.half_close().await;
        assert!(raw.rest().await.is_empty(), "{part:?}");
    }
    well_and_untouched(&bed).await;
}

#[tokio::test]
async fn an_http10_request_with_chunks_is_refused() {
    let bed = Bed::h1().await;
    let request = format!("POST {CHAT} HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n");
    refused(&bed, request, 400, "malformed_request").await;
    well_and_untouched(&bed).await;
}

#[tokio::test]
async fn garbage_in_small_pieces_does_not_hold_the_gateway_up() {
    let bed = Bed::h1().await;
    for seed in 0..50_u32 {
        let mut raw = RawClient::connect(bed.gateway.address).await;
        let mut state = seed.wrapping_mul(2_654_435_761) | 1;
        let noise: Vec<u8> = (0..512)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                state as u8
            })
            .collect();
        for piece in noise.chunks(37) {
            if raw.send(piece).await.is_err() {
                break;
            }
        }
        raw.send("\r\n\r\n").await.ok();
        raw.half_close().await;
        raw.rest().await;
    }
    well_and_untouched(&bed).await;
}
