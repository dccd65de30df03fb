//! Connections: kept on both sides, used again in order, and never the reason for an error.

use sluice_e2e::engine::Fault;
use sluice_e2e::harness::{Manner, RawClient, ScriptedEngine, series_sum};

use crate::bed::{Bed, CHAT, LANES, Wire, chat, echo_request, gateway};

#[tokio::test]
async fn one_connection_serves_many_requests_on_both_sides() {
    let bed = Bed::h1().await;
    let mut raw = bed.raw().await;
    for number in 0..20 {
        raw.send(echo_request(&format!("x-request-id: n-{number}\r\n")))
            .await
            .unwrap();
        let answer = raw.answer().await.expect("an answer");
        assert_eq!(answer.header("x-request-id"), Some(format!("n-{number}")));
    }
    let metrics = bed.gateway.metrics().await;
    let name = "sluice_pool_connections_total";
    assert_eq!(
        series_sum(&metrics, name, &["kind=\"new\""]),
        1.0,
        "{metrics}"
    );
    assert_eq!(series_sum(&metrics, name, &["kind=\"reused\""]), 19.0);
    bed.is_well().await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let bed = Bed::h1().await;
    let one = |number: usize| echo_request(&format!("x-request-id: p-{number}\r\n"));
    let mut raw = bed.raw().await;
    let all: String = (0..5).map(one).collect();
    raw.send(all).await.unwrap();
    for number in 0..5 {
        let answer = raw.answer().await.expect("an answer");
        assert_eq!(answer.header("x-request-id"), Some(format!("p-{number}")));
        assert_eq!(answer.status, 200);
    }
    bed.is_well().await;
}

#[tokio::test]
async fn a_request_that_arrives_during_a_stream_waits_for_its_turn() {
    let bed = Bed::h1().await;
    let body = chat().replace("\"max_tokens\":4", "\"stream\":true,\"max_tokens\":50");
    let first = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: a\r\nx-fault: slow-drip:1\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let second = echo_request("x-request-id: second\r\n");
    let mut raw = bed.raw().await;
    raw.send(first).await.unwrap();
    // In two parts, one while the gateway waits for the engine, one later: neither may disturb the stream.
    let (head, rest) = second.split_at(30);
    raw.send(head).await.unwrap();
    raw.send(rest).await.unwrap();
    let stream = raw.answer().await.expect("the stream");
    assert!(stream.body.ends_with(b"data: [DONE]\n\n"));
    let answer = raw.answer().await.expect("the second answer");
    assert_eq!(answer.header("x-request-id").as_deref(), Some("second"));
    bed.is_well().await;
}

#[tokio::test]
async fn a_request_in_many_small_pieces_is_one_request() {
    let bed = Bed::h1().await;
    let mut raw = bed.raw().await;
    for byte in echo_request("x-request-id: drip\r\n").as_bytes() {
        raw.send([*byte]).await.unwrap();
    }
    assert_eq!(raw.answer().await.expect("an answer").status, 200);
    bed.is_well().await;
}

#[tokio::test]
async fn connection_close_is_honoured_and_announced() {
    let bed = Bed::h1().await;
    let mut raw = bed.raw().await;
    raw.send(echo_request("connection: close\r\n"))
        .await
        .unwrap();
    let answer = raw.answer().await.expect("an answer");
    assert_eq!(answer.header("connection").as_deref(), Some("close"));
    assert!(raw.rest().await.is_empty());
    bed.is_well().await;
}

#[tokio::test]
async fn connections_that_engines_closed_cost_no_request() {
    for client in [Wire::H1, Wire::H2] {
        let bed = Bed::start(client, Wire::H1).await;
        bed.engine.set_fault(Some(Fault::KeepaliveClose));
        for number in 0..50 {
            let answer = bed.post(CHAT).body(chat()).send().await.unwrap();
            assert_eq!(answer.status(), 200, "request {number}");
            answer.bytes().await.unwrap();
        }
        assert_eq!(bed.engine.requests().received, 50, "none was sent twice");
        bed.engine.set_fault(None);
        bed.is_well().await;
    }
}

#[tokio::test]
async fn an_engine_that_closes_in_place_of_an_answer_is_asked_once_more_at_most() {
    for (client, upstream) in LANES {
        let bed = Bed::start(client, upstream).await;
        bed.is_well().await;
        bed.engine.set_fault(Some(Fault::EarlyClose));
        let answer = bed.post(CHAT).body(chat()).send().await.unwrap();
        assert_eq!(answer.status(), 502, "{client:?} to {upstream:?}");
        let error: serde_json::Value = answer.json().await.unwrap();
        assert_eq!(error["error"]["code"], "engine_error");
        bed.engine.set_fault(None);
        bed.is_well().await;
    }
}

#[tokio::test]
async fn bytes_after_an_answer_do_not_become_the_next_answer() {
    let engine = ScriptedEngine::start(
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged",
        Manner::KeepOpen,
    )
    .await;
    let gateway = gateway(engine.addr(), Wire::H1).await;
    let mut raw = RawClient::connect(gateway.address).await;
    for _ in 0..5 {
        raw.send(echo_request("")).await.unwrap();
        assert_eq!(raw.answer().await.expect("an answer").body, b"ok");
    }
    gateway.settled().await;
}

#[tokio::test]
async fn many_streams_share_one_http2_connection() {
    let bed = Bed::start(Wire::H2, Wire::H2).await;
    let requests = (0..100).map(|number| {
        let id = format!("s-{number}");
        let request = bed
            .post(CHAT)
            .header("x-request-id", &id)
            .header("x-echo", "sha256");
        let request = request.body(chat()).send();
        async move {
            let answer = request.await.unwrap();
            assert_eq!(answer.headers()["x-request-id"], id.as_str());
            let seen: serde_json::Value = answer.json().await.unwrap();
            assert_eq!(seen["headers"]["x-request-id"], id);
        }
    });
    futures::future::join_all(requests).await;
    bed.is_well().await;
}
