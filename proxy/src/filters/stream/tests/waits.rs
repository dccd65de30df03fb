//! Waiting and resuming.

use std::time::{Duration, Instant};

use futures::FutureExt;

use super::*;

#[tokio::test]
async fn a_filter_may_wait_and_wait_again_before_the_next_one_runs() {
    let log = Log::default();
    let waiting = json!({"head": "wait twice", "body": "wait twice", "response": "wait twice"});
    let mut stream = stream(
        &log,
        &[
            probe("a", waiting),
            probe("b", json!({"head": "next", "body": "next"})),
        ],
    );
    let (mut head, bytes) = (request(), Bytes::new());
    assert_eq!(stream.request_head(&mut head).await, Flow::Next);
    assert_eq!(
        log.take(),
        [
            "a open",
            "a head",
            "a resume head 1",
            "a resume head 2",
            "b open",
            "b head"
        ]
    );
    assert_eq!(
        stream.request_body(&mut head, &body(&bytes)).await,
        Flow::Next
    );
    assert_eq!(
        log.take(),
        ["a body ", "a resume body 1", "a resume body 2", "b body "]
    );
    assert_eq!(
        stream.response_head(&mut response()).await,
        ResponseFlow::Next
    );
    assert_eq!(
        log.take(),
        [
            "a response 200",
            "a resume response 1",
            "a resume response 2"
        ]
    );
}

#[tokio::test]
async fn a_resumed_filter_may_reply() {
    let log = Log::default();
    let mut stream = stream(
        &log,
        &[
            probe("a", json!({"head": "wait, reply"})),
            probe("b", json!({})),
        ],
    );
    let flow = stream.request_head(&mut request()).await;
    assert_eq!(reply(flow), (418, "probe".into()));
    assert_eq!(log.take(), ["a open", "a head", "a resume head 1"]);
}

#[tokio::test]
async fn a_wait_past_the_deadline_is_a_failure() {
    let log = Log::default();
    let chain = chain(&log, &[probe("a", json!({"head": "wait forever"}))]);
    let mut info = info();
    info.deadline = Instant::now() - Duration::from_millis(1);
    let mut stream = Stream::new(&chain, info);
    let flow = stream.request_head(&mut request()).await;
    assert_eq!(reply(flow), (500, "filter_error".into()));
}

#[tokio::test]
async fn a_result_of_another_type_is_a_failure() {
    let mut stream = stream(
        &Log::default(),
        &[probe("a", json!({"head": "wait wrongly"}))],
    );
    let flow = stream.request_head(&mut request()).await;
    assert_eq!(reply(flow), (500, "filter_error".into()));
}

#[tokio::test]
async fn a_stream_dropped_while_waiting_is_done_once() {
    let log = Log::default();
    let mut stream = stream(
        &log,
        &[
            probe("a", json!({"head": "wait forever"})),
            probe("b", json!({})),
        ],
    );
    let mut head = request();
    {
        let waiting = stream.request_head(&mut head);
        assert_eq!(waiting.now_or_never(), None);
    }
    assert_eq!(log.take(), ["a open", "a head"]);
    drop(stream);
    assert_eq!(log.take(), ["a done Aborted"]);
}
