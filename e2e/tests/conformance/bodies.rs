//! Request bodies arrive byte for byte, whatever their size and framing, over every pair of protocols.

use bytes::Bytes;
use futures::stream;
use serde_json::Value;

use crate::bed::{Bed, CHAT, LANES, body_of, sha256};

const SIZES: [usize; 5] = [1 << 10, 64 << 10, 70_000, 1 << 20, 16 << 20];

async fn echo(request: reqwest::RequestBuilder) -> Value {
    let answer = request.header("x-echo", "sha256").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.json().await.unwrap()
}

#[tokio::test]
async fn bodies_with_a_length_arrive_unchanged() {
    for (client, upstream) in LANES {
        let bed = Bed::start(client, upstream).await;
        for size in SIZES {
            let body = body_of(size);
            let seen = echo(bed.post(CHAT).body(body.clone())).await;
            assert_eq!(seen["bytes"], size, "{client:?} to {upstream:?}");
            assert_eq!(
                seen["sha256"],
                sha256(&body),
                "{client:?} to {upstream:?} {size}"
            );
            assert_eq!(seen["headers"]["content-length"], size.to_string());
        }
        bed.gateway.settled().await;
    }
}

#[tokio::test]
async fn bodies_without_a_length_arrive_unchanged() {
    for (client, upstream) in LANES {
        let bed = Bed::start(client, upstream).await;
        for size in SIZES {
            let body = Bytes::from(body_of(size));
            // Pieces of an odd size, so that no border falls together with a buffer's.
            let pieces: Vec<_> = body
                .chunks(65_521)
                .map(|piece| Ok::<_, std::io::Error>(body.slice_ref(piece)))
                .collect();
            let streamed = reqwest::Body::wrap_stream(stream::iter(pieces));
            let seen = echo(bed.post(CHAT).body(streamed)).await;
            assert_eq!(seen["bytes"], size, "{client:?} to {upstream:?}");
            assert_eq!(
                seen["sha256"],
                sha256(&body),
                "{client:?} to {upstream:?} {size}"
            );
            assert_eq!(seen["headers"]["content-length"], size.to_string());
            assert!(seen["headers"].get("transfer-encoding").is_none());
        }
        bed.gateway.settled().await;
    }
}

#[tokio::test]
async fn answers_of_every_size_arrive_unchanged() {
    for (client, upstream) in LANES {
        let bed = Bed::start(client, upstream).await;
        for size in SIZES {
            let body = body_of(size);
            let answer = bed.post(CHAT).header("x-echo", "body").body(body.clone());
            let answer = answer.send().await.unwrap();
            assert_eq!(answer.headers()["content-type"], "application/json");
            let received = answer.bytes().await.unwrap();
            assert_eq!(
                sha256(&received),
                sha256(&body),
                "{client:?} to {upstream:?} {size}"
            );
        }
        bed.gateway.settled().await;
    }
}

#[tokio::test]
async fn an_empty_body_is_refused_and_the_connection_serves_on() {
    let bed = Bed::h1().await;
    for framing in [
        "content-length: 0\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "\r\n",
    ] {
        let mut raw = bed.raw().await;
        for _ in 0..2 {
            raw.send(format!("POST {CHAT} HTTP/1.1\r\nhost: a\r\n{framing}"))
                .await
                .unwrap();
            let answer = raw.answer().await.expect("an answer");
            assert_eq!(answer.status, 400, "{framing:?}");
            assert_eq!(answer.json()["error"]["code"], "invalid_body");
        }
    }
    bed.is_well().await;
}

#[tokio::test]
async fn chunks_of_one_byte_with_extensions_and_trailers_are_one_body() {
    let bed = Bed::h1().await;
    let body = body_of(200);
    let mut request = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: a\r\nx-echo: sha256\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    .into_bytes();
    for byte in &body {
        request.extend_from_slice(b"1;note=\"x\"\r\n");
        request.push(*byte);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\nx-trailer: secret\r\n\r\n");
    let mut raw = bed.raw().await;
    for _ in 0..2 {
        raw.send(&request).await.unwrap();
        let seen = raw.answer().await.expect("an answer").json();
        assert_eq!(seen["sha256"], sha256(&body));
        assert!(seen["headers"].get("x-trailer").is_none());
    }
    bed.is_well().await;
}

#[tokio::test]
async fn a_client_that_expects_continue_gets_it_before_it_sends() {
    let bed = Bed::h1().await;
    let body = body_of(1 << 20);
    let mut raw = bed.raw().await;
    for round in 0..2 {
        let head = format!(
            "POST {CHAT} HTTP/1.1\r\nhost: a\r\nx-echo: sha256\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        raw.send(head).await.unwrap();
        assert_eq!(
            raw.answer()
                .await
                .unwrap_or_else(|| panic!("an interim answer to {round}"))
                .status,
            100
        );
        raw.send(&body).await.unwrap();
        let answer = raw.answer().await.expect("an answer");
        assert_eq!(
            (answer.status, answer.json()["sha256"].clone()),
            (200, sha256(&body).into())
        );
        assert!(answer.json()["headers"].get("expect").is_none());
    }
    bed.is_well().await;
}

#[tokio::test]
async fn a_client_that_expects_continue_is_refused_before_it_sends() {
    let bed = Bed::h1().await;
    let mut raw = bed.raw().await;
    raw.send(format!(
        "POST {CHAT} HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 99999999\r\n\r\n"
    ))
    .await
    .unwrap();
    let answer = raw.answer().await.expect("an answer");
    assert_eq!(answer.status, 413);
    assert_eq!(answer.header("connection").as_deref(), Some("close"));
    assert!(raw.rest().await.is_empty());
    bed.is_well().await;
}

#[tokio::test]
async fn a_client_that_sends_everything_before_it_reads_still_reads_the_413() {
    let bed = Bed::h1().await;
    for framing in ["content-length: 18874368", "transfer-encoding: chunked"] {
        let mut raw = bed.raw().await;
        let head = format!("POST {CHAT} HTTP/1.1\r\nhost: a\r\n{framing}\r\n\r\n");
        raw.send(head).await.unwrap();
        let piece = vec![b'x'; 1 << 20];
        for _ in 0..18 {
            if framing.ends_with("chunked") {
                raw.send("100000\r\n").await.unwrap();
            }
            raw.send(&piece).await.expect("the gateway reads on");
            if framing.ends_with("chunked") {
                raw.send("\r\n").await.unwrap();
            }
        }
        let answer = raw.answer().await.expect("an answer");
        assert_eq!(
            (answer.status, answer.json()["error"]["code"].as_str()),
            (413, Some("body_too_large"))
        );
        assert_eq!(answer.header("connection").as_deref(), Some("close"));
    }
    bed.is_well().await;
}
