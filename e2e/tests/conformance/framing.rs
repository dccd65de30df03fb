//! Answers keep their meaning whatever their framing: length, chunks, end of connection, none at all.

use sluice_e2e::harness::{Ending, Manner, RawAnswer, RawClient, ScriptedEngine};

use crate::bed::{Bed, CHAT, LANES, Wire, chat, echo_request, gateway};

async fn scripted(answer: &str, manner: Manner) -> (RawAnswer, RawClient, ScriptedEngine) {
    let engine = ScriptedEngine::start(answer, manner).await;
    let gateway = gateway(engine.addr(), Wire::H1).await;
    let mut raw = RawClient::connect(gateway.address).await;
    raw.send(echo_request("")).await.unwrap();
    let answer = raw.answer().await.expect("an answer");
    gateway.settled().await;
    // The gateway is gone when this returns; what it wrote is read already.
    (answer, raw, engine)
}

#[tokio::test]
async fn a_length_stays_a_length() {
    let engine = "HTTP/1.1 200 OK\r\ncontent-type: text/x\r\ncontent-length: 5\r\n\r\nhello";
    let (answer, ..) = scripted(engine, Manner::KeepOpen).await;
    assert_eq!(
        (answer.ending, &answer.body[..]),
        (Ending::Length, &b"hello"[..])
    );
    assert_eq!(answer.header("content-type").as_deref(), Some("text/x"));
    assert_eq!(answer.header("connection").as_deref(), Some("keep-alive"));
}

#[tokio::test]
async fn chunks_stay_chunks_without_extensions_and_trailers() {
    let engine = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;a=b\r\nhe\r\n3\r\nllo\r\n0\r\nx-t: 1\r\n\r\n";
    let (answer, ..) = scripted(engine, Manner::KeepOpen).await;
    assert_eq!(
        (answer.ending, &answer.body[..]),
        (Ending::Chunks, &b"hello"[..])
    );
}

#[tokio::test]
async fn an_answer_that_ends_with_its_connection_becomes_chunks() {
    let engine = "HTTP/1.1 200 OK\r\ncontent-type: text/x\r\n\r\nhello";
    let (answer, ..) = scripted(engine, Manner::Close).await;
    assert_eq!(
        (answer.ending, &answer.body[..]),
        (Ending::Chunks, &b"hello"[..])
    );
    assert_eq!(answer.header("connection").as_deref(), Some("keep-alive"));
    for (client, _) in LANES {
        let bed = Bed::start(client, Wire::H1).await;
        let answer = bed
            .post(CHAT)
            .header("x-fault", "close-delimited")
            .body(chat());
        let answer = answer.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert!(answer.text().await.unwrap().ends_with('}'));
        bed.gateway.settled().await;
    }
}

#[tokio::test]
async fn an_http10_engine_is_understood() {
    let engine = "HTTP/1.0 200 OK\r\ncontent-type: text/x\r\n\r\nhello";
    let (answer, ..) = scripted(engine, Manner::Close).await;
    assert_eq!(&answer.body, b"hello");
    assert!(answer.line.starts_with("HTTP/1.1 200"), "{}", answer.line);
}

#[tokio::test]
async fn answers_without_a_body_are_complete_at_once() {
    for (head, status) in [
        ("HTTP/1.1 204 No Content\r\n\r\n", 204),
        (
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n",
            304,
        ),
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 200),
    ] {
        let (answer, ..) = scripted(head, Manner::KeepOpen).await;
        assert_eq!((answer.status, answer.body.len()), (status, 0));
        assert_eq!(answer.header("transfer-encoding"), None, "{head:?}");
    }
}

#[tokio::test]
async fn interim_answers_of_the_engine_are_not_the_answer() {
    for (client, upstream) in LANES {
        let bed = Bed::start(client, upstream).await;
        for fault in ["continue-100", "continue-100:103"] {
            let answer = bed.post(CHAT).header("x-fault", fault).body(chat());
            let answer = answer.send().await.unwrap();
            assert_eq!(answer.status(), 200, "{client:?} to {upstream:?} {fault}");
            answer.bytes().await.unwrap();
        }
        bed.gateway.settled().await;
    }
}

#[tokio::test]
async fn an_http10_client_gets_bytes_until_the_end_of_the_connection() {
    let bed = Bed::h1().await;
    let body = chat().replace("\"max_tokens\"", "\"stream\":true,\"max_tokens\"");
    for fields in ["", "host: a\r\nconnection: keep-alive\r\n"] {
        let mut raw = bed.raw().await;
        raw.send(format!(
            "POST {CHAT} HTTP/1.0\r\n{fields}content-length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await
        .unwrap();
        let answer = raw.answer().await.expect("an answer");
        assert_eq!((answer.status, answer.ending), (200, Ending::Close));
        assert_eq!(answer.header("transfer-encoding"), None);
        let text = String::from_utf8(answer.body).unwrap();
        assert!(text.starts_with("data: {"), "{text}");
        assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    }
    bed.is_well().await;
}

#[tokio::test]
async fn head_has_the_fields_of_get_and_no_body() {
    let bed = Bed::h1().await;
    let mut raw = bed.raw().await;
    for _ in 0..2 {
        raw.send("HEAD /v1/models HTTP/1.1\r\nhost: a\r\n\r\n")
            .await
            .unwrap();
        let head = raw.answer_to("HEAD").await.expect("an answer");
        raw.send("GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n")
            .await
            .unwrap();
        let get = raw.answer().await.expect("an answer");
        assert_eq!((head.status, get.status), (200, 200));
        assert_eq!(
            head.header("content-length"),
            Some(get.body.len().to_string())
        );
        assert_eq!(head.header("content-type"), get.header("content-type"));
    }
    bed.is_well().await;
}

#[tokio::test]
async fn an_early_413_passes_while_the_body_is_on_its_way() {
    let refusal = r#"{"error":{"message":"too large","code":413}}"#;
    let engine = format!(
        "HTTP/1.1 413 Payload Too Large\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{refusal}",
        refusal.len()
    );
    for wire in [Wire::H1, Wire::H2] {
        let engine = ScriptedEngine::start(engine.clone(), Manner::Early).await;
        let gateway = gateway(engine.addr(), Wire::H1).await;
        let client = crate::bed::http_client(wire);
        let body = crate::bed::body_of(16 << 20);
        let answer = client
            .post(gateway.url(CHAT))
            .body(body)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 413);
        assert_eq!(answer.text().await.unwrap(), refusal);
        assert_eq!(engine.heads().len(), 1, "one attempt");
        gateway.settled().await;
    }
}
