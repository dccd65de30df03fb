//! Tests of running a chain, with scripted filters.

use std::collections::BTreeMap;
use std::sync::Mutex;

use http::StatusCode;
use serde_json::{Value, json};
use sluice_config::bootstrap::FilterConfig;

use super::super::testing::{Log, body, chain, info, now, probe, registry, request, response};
use super::super::{Candidate, End, FailureObserver, TargetView};
use super::*;

mod failures;
mod routes;
mod waits;

/// A stream on a chain of these filters.
fn stream(log: &Log, filters: &[FilterConfig]) -> Stream {
    Stream::new(&chain(log, filters), info())
}

/// The status and code of a reply.
fn reply(flow: Flow) -> (u16, String) {
    match flow {
        Flow::Reply(reply) => (reply.status.as_u16(), code(reply.body)),
        Flow::Next => panic!("expected a reply"),
    }
}

fn code(body: ReplyBody) -> String {
    match body {
        ReplyBody::Error { code, .. } => code.into_owned(),
        ReplyBody::Bytes(bytes) => panic!("expected an error object, got {bytes:?}"),
    }
}

fn completed() -> Outcome {
    Outcome {
        end: End::Completed,
        ..Outcome::default()
    }
}

fn assert_send<T: Send>(value: T) -> T {
    value
}

#[tokio::test]
async fn request_hooks_run_in_order_and_response_hooks_in_reverse() {
    let log = Log::default();
    let all = json!({
        "head": "next", "body": "next", "candidates": "next", "attempt": "next", "response": "next",
        "chunk": "pass",
    });
    let mut stream = stream(&log, &[probe("a", all.clone()), probe("b", all)]);
    let (mut head, bytes) = (request(), Bytes::from_static(b"{}"));
    let flow = assert_send(stream.request_head(&mut head)).await;
    assert_eq!(flow, Flow::Next);
    let flow = assert_send(stream.request_body(&mut head, &body(&bytes))).await;
    assert_eq!(flow, Flow::Next);
    assert_eq!(
        log.take(),
        [
            "a open",
            "a head",
            "b open",
            "b head",
            "a body {}",
            "b body {}"
        ]
    );

    assert_eq!(
        stream.candidates(&head, &mut Candidates::default()),
        Flow::Next
    );
    assert_eq!(stream.attempt(&mut head, "e:1"), Flow::Next);
    assert_eq!(
        log.take(),
        [
            "a candidates",
            "b candidates",
            "a attempt e:1",
            "b attempt e:1"
        ]
    );

    let flow = assert_send(stream.response_head(&mut response())).await;
    assert_eq!(flow, ResponseFlow::Next);
    let mut chunk = Bytes::from_static(b"x");
    assert_eq!(stream.response_chunk(&mut chunk, true), ChunkStep::Pass);
    stream.done(&completed());
    assert_eq!(
        log.take(),
        [
            "b response 200",
            "a response 200",
            "b chunk x.",
            "a chunk x.",
            "b done Completed",
            "a done Completed",
        ]
    );
}

#[test]
fn a_filter_is_not_called_in_hooks_it_does_not_name() {
    let log = Log::default();
    let mut stream = stream(&log, &[probe("a", json!({}))]);
    let (mut head, bytes) = (request(), Bytes::new());
    assert_eq!(now(stream.request_head(&mut head)), Flow::Next);
    assert_eq!(
        now(stream.request_body(&mut head, &body(&bytes))),
        Flow::Next
    );
    assert_eq!(
        now(stream.response_head(&mut response())),
        ResponseFlow::Next
    );
    assert_eq!(log.take(), ["a open"]);
}

#[test]
fn an_uninterested_filter_is_never_called_and_never_done() {
    let log = Log::default();
    let script = json!({"uninterested": true, "head": "next", "response": "next"});
    let mut stream = stream(&log, &[probe("a", script)]);
    assert_eq!(now(stream.request_head(&mut request())), Flow::Next);
    assert_eq!(
        now(stream.response_head(&mut response())),
        ResponseFlow::Next
    );
    assert!(!stream.wants(Hooks::RESPONSE_HEAD));
    stream.done(&completed());
    assert!(log.take().is_empty());
}

#[test]
fn a_reply_to_the_head_passes_only_filters_entered() {
    let log = Log::default();
    let mut stream = stream(
        &log,
        &[
            probe("a", json!({"response": "next"})),
            probe("b", json!({"head": "reply", "response": "next"})),
            probe("c", json!({"head": "next", "response": "next"})),
        ],
    );
    let Flow::Reply(reply) = now(stream.request_head(&mut request())) else {
        panic!("expected a reply");
    };
    let (mut head, _) = reply.into_parts();
    assert_eq!(now(stream.response_head(&mut head)), ResponseFlow::Next);
    stream.done(&completed());
    assert_eq!(
        log.take(),
        [
            "a open",
            "b open",
            "b head",
            "b response 418",
            "a response 418",
            "b done Completed",
            "a done Completed",
        ]
    );
}

#[test]
fn a_reply_to_the_body_ends_the_request_phase() {
    let log = Log::default();
    let mut stream = stream(
        &log,
        &[
            probe("a", json!({"body": "reply"})),
            probe("b", json!({"body": "next", "response": "next"})),
        ],
    );
    let (mut head, bytes) = (request(), Bytes::new());
    assert_eq!(now(stream.request_head(&mut head)), Flow::Next);
    let flow = now(stream.request_body(&mut head, &body(&bytes)));
    assert_eq!(reply(flow), (418, "probe".into()));
    assert_eq!(log.take(), ["a open", "b open", "a body "]);
    // It was entered with the head, so the reply passes it.
    assert_eq!(
        now(stream.response_head(&mut response())),
        ResponseFlow::Next
    );
    assert_eq!(log.take(), ["b response 200"]);
}

#[test]
fn a_reply_to_the_response_head_replaces_it_for_the_filters_before() {
    let log = Log::default();
    let mut stream = stream(
        &log,
        &[
            probe("a", json!({"response": "next"})),
            probe("b", json!({"response": "reply"})),
            probe("c", json!({"response": "next"})),
        ],
    );
    assert_eq!(now(stream.request_head(&mut request())), Flow::Next);
    log.take();
    let mut head = response();
    let ResponseFlow::Replace(body) = now(stream.response_head(&mut head)) else {
        panic!("expected a replacement");
    };
    assert_eq!(head.status, StatusCode::IM_A_TEAPOT);
    assert_eq!(code(body), "probe");
    assert_eq!(
        log.take(),
        ["c response 200", "b response 200", "a response 418"]
    );
}

#[test]
fn stop_keeps_the_head_from_later_filters_until_the_body() {
    let log = Log::default();
    let mut stream = stream(
        &log,
        &[
            probe("a", json!({"head": "stop", "body": "next"})),
            probe("b", json!({"head": "next", "body": "next"})),
            probe("c", json!({"head": "next"})),
        ],
    );
    let (mut head, bytes) = (request(), Bytes::from_static(b"{}"));
    assert_eq!(now(stream.request_head(&mut head)), Flow::Next);
    assert_eq!(log.take(), ["a open", "a head"]);
    assert_eq!(
        now(stream.request_body(&mut head, &body(&bytes))),
        Flow::Next
    );
    assert_eq!(
        log.take(),
        [
            "a body {}",
            "b open",
            "b head",
            "b body {}",
            "c open",
            "c head"
        ]
    );
}

#[test]
fn a_filter_kept_from_the_head_is_not_entered_by_a_reply_before_the_body() {
    let log = Log::default();
    let stopping = json!({"head": "stop", "response": "next"});
    let mut stream = stream(
        &log,
        &[
            probe("a", stopping),
            probe("b", json!({"response": "next"})),
        ],
    );
    assert_eq!(now(stream.request_head(&mut request())), Flow::Next);
    assert_eq!(
        now(stream.response_head(&mut response())),
        ResponseFlow::Next
    );
    drop(stream);
    assert_eq!(
        log.take(),
        ["a open", "a head", "a response 200", "a done Aborted"]
    );
}

#[test]
fn stop_in_the_body_or_response_hook_leaves_out_the_rest_of_that_hook() {
    let log = Log::default();
    let both = |answer| json!({"body": answer, "response": answer});
    let mut stream = stream(&log, &[probe("a", both("stop")), probe("b", both("stop"))]);
    let (mut head, bytes) = (request(), Bytes::new());
    assert_eq!(now(stream.request_head(&mut head)), Flow::Next);
    assert_eq!(
        now(stream.request_body(&mut head, &body(&bytes))),
        Flow::Next
    );
    assert_eq!(
        now(stream.response_head(&mut response())),
        ResponseFlow::Next
    );
    assert_eq!(
        log.take(),
        ["a open", "b open", "a body ", "b response 200"]
    );
}

#[test]
fn later_filters_see_a_replaced_body_and_the_driver_takes_the_last() {
    let log = Log::default();
    let replacing = json!({"body": "replace"});
    let mut stream = stream(
        &log,
        &[probe("a", replacing.clone()), probe("b", replacing)],
    );
    let (mut head, bytes) = (request(), Bytes::from_static(b"x"));
    assert_eq!(now(stream.request_head(&mut head)), Flow::Next);
    assert_eq!(
        now(stream.request_body(&mut head, &body(&bytes))),
        Flow::Next
    );
    assert_eq!(log.take()[2..], ["a body x", "b body x+a"]);
    let edits = stream.take_edits();
    assert_eq!(edits.body.as_deref(), Some(b"x+a+b".as_slice()));
    assert_eq!(stream.take_edits(), Edits::default());
}

#[test]
fn candidates_may_be_removed_and_a_target_pinned() {
    let log = Log::default();
    let mut stream = stream(
        &log,
        &[
            probe("a", json!({"candidates": "remove"})),
            probe("b", json!({"candidates": "pin"})),
        ],
    );
    let head = &mut request();
    assert_eq!(now(stream.request_head(head)), Flow::Next);
    assert!(stream.wants(Hooks::CANDIDATES));
    assert!(!stream.wants(Hooks::ATTEMPT));
    let targets = ["stable", "canary"].map(|server| TargetView {
        server: server.into(),
        weight: 1,
    });
    let endpoint = Candidate::new(0, "e:1".into(), Arc::default());
    let mut candidates = Candidates::new(targets.to_vec(), vec![endpoint]);
    assert_eq!(stream.candidates(head, &mut candidates), Flow::Next);
    assert_eq!(candidates.endpoints[0].reason, Some("probe"));
    assert_eq!(candidates.chosen(), Some((1, "probe")));
}

#[test]
fn attempt_edits_stay_with_their_try() {
    let mut stream = stream(&Log::default(), &[probe("a", json!({"attempt": "next"}))]);
    let mut head = request();
    assert_eq!(now(stream.request_head(&mut head)), Flow::Next);
    for endpoint in ["e:1", "e:2"] {
        let mut attempt = head.clone();
        assert_eq!(stream.attempt(&mut attempt, endpoint), Flow::Next);
        assert_eq!(attempt.headers["x-endpoint"], endpoint);
    }
    assert!(head.headers.is_empty());
}

#[test]
fn held_chunks_come_out_together_and_at_the_end() {
    let log = Log::default();
    let mut stream = stream(
        &log,
        &[
            probe("a", json!({"chunk": "upper"})),
            probe("b", json!({"chunk": "lines"})),
        ],
    );
    assert_eq!(now(stream.request_head(&mut request())), Flow::Next);
    let mut feed = |text: &'static str, last| {
        let mut chunk = Bytes::from_static(text.as_bytes());
        let step = stream.response_chunk(&mut chunk, last);
        (step, String::from_utf8(chunk.to_vec()).unwrap())
    };
    assert_eq!(feed("ab", false), (ChunkStep::Hold, String::new()));
    assert_eq!(feed("c\n", false), (ChunkStep::Pass, "ABC\n".into()));
    assert_eq!(feed("de", false), (ChunkStep::Hold, String::new()));
    assert_eq!(feed("", true), (ChunkStep::Pass, "DE".into()));
    assert_eq!(
        log.take()[2..],
        [
            "b chunk ab",
            "b chunk abc\n",
            "a chunk abc\n",
            "b chunk de",
            "b chunk de.",
            "a chunk de."
        ]
    );
}

#[test]
fn an_abort_stops_the_chunk_at_once() {
    let log = Log::default();
    let mut stream = stream(
        &log,
        &[
            probe("a", json!({"chunk": "pass"})),
            probe("b", json!({"chunk": "abort"})),
        ],
    );
    assert_eq!(now(stream.request_head(&mut request())), Flow::Next);
    let mut chunk = Bytes::from_static(b"x");
    assert_eq!(stream.response_chunk(&mut chunk, false), ChunkStep::Abort);
    assert_eq!(log.take()[2..], ["b chunk x"]);
}

#[test]
fn done_is_called_once_and_a_drop_without_it_counts_as_aborted() {
    let log = Log::default();
    let filters = [probe("a", json!({}))];
    let mut told = stream(&log, &filters);
    assert_eq!(now(told.request_head(&mut request())), Flow::Next);
    told.done(&completed());
    told.done(&completed());
    drop(told);
    assert_eq!(log.take(), ["a open", "a done Completed"]);

    let mut dropped = stream(&log, &filters);
    assert_eq!(now(dropped.request_head(&mut request())), Flow::Next);
    drop(dropped);
    assert_eq!(log.take(), ["a open", "a done Aborted"]);
}

#[test]
fn an_empty_chain_lets_everything_pass() {
    let mut stream = Stream::new(&Chain::empty(), info());
    let (mut head, bytes) = (request(), Bytes::new());
    assert_eq!(now(stream.request_head(&mut head)), Flow::Next);
    assert_eq!(
        now(stream.request_body(&mut head, &body(&bytes))),
        Flow::Next
    );
    assert_eq!(
        stream.candidates(&head, &mut Candidates::default()),
        Flow::Next
    );
    assert_eq!(stream.attempt(&mut head, "e:1"), Flow::Next);
    assert_eq!(
        now(stream.response_head(&mut response())),
        ResponseFlow::Next
    );
    let mut chunk = Bytes::from_static(b"x");
    assert_eq!(stream.response_chunk(&mut chunk, false), ChunkStep::Pass);
    assert_eq!(chunk, "x");
    assert_eq!(stream.slots.capacity(), 0);
}
