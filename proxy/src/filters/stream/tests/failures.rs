//! What a failing filter does to its request, by policy.

use sluice_config::bootstrap::FailPolicy;

use super::super::run::HELD_LIMIT;
use super::*;
use crate::filters::FilterError;

#[derive(Default)]
struct Observed(Mutex<Vec<String>>);

impl FailureObserver for Observed {
    fn filter_failed(&self, name: &str, error: &FilterError, policy: FailPolicy) {
        let line = format!("{name} {policy:?}: {error}");
        self.0.lock().unwrap().push(line);
    }
}

fn open(name: &str, script: Value) -> FilterConfig {
    FilterConfig {
        fail_policy: FailPolicy::Open,
        ..probe(name, script)
    }
}

#[test]
fn a_filter_failing_closed_answers_500_and_is_only_done_after_that() {
    let log = Log::default();
    let script = json!({"head": "fail", "response": "next"});
    let mut stream = stream(&log, &[probe("a", script)]);
    let flow = now(stream.request_head(&mut request()));
    assert_eq!(reply(flow), (500, "filter_error".into()));
    assert_eq!(
        now(stream.response_head(&mut response())),
        ResponseFlow::Next
    );
    drop(stream);
    assert_eq!(log.take(), ["a open", "a head", "a done Aborted"]);
}

#[test]
fn a_filter_failing_open_is_skipped_from_then_on() {
    let log = Log::default();
    let script = json!({"head": "fail", "body": "reply", "response": "reply"});
    let mut stream = stream(
        &log,
        &[open("a", script), probe("b", json!({"head": "next"}))],
    );
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
    assert!(!stream.wants(Hooks::RESPONSE_HEAD));
    drop(stream);
    assert_eq!(
        log.take(),
        [
            "a open",
            "a head",
            "b open",
            "b head",
            "b done Aborted",
            "a done Aborted"
        ]
    );
}

#[test]
fn the_policy_holds_in_every_fallible_hook() {
    let script =
        json!({"body": "fail", "candidates": "fail", "attempt": "fail", "response": "fail"});
    let run = |hook: usize, policy: fn(&str, Value) -> FilterConfig| {
        let mut stream = stream(&Log::default(), &[policy("a", script.clone())]);
        let (mut head, bytes) = (request(), Bytes::new());
        assert_eq!(now(stream.request_head(&mut head)), Flow::Next);
        match hook {
            0 => now(stream.request_body(&mut head, &body(&bytes))),
            1 => stream.candidates(&head, &mut Candidates::default()),
            2 => stream.attempt(&mut head, "e:1"),
            _ => {
                let mut head = response();
                match now(stream.response_head(&mut head)) {
                    ResponseFlow::Next => Flow::Next,
                    ResponseFlow::Replace(body) => Flow::Reply(LocalReply {
                        body,
                        ..LocalReply::empty(head.status)
                    }),
                }
            }
        }
    };
    for hook in 0..4 {
        assert_eq!(
            reply(run(hook, probe)),
            (500, "filter_error".into()),
            "hook {hook}"
        );
        assert_eq!(run(hook, open), Flow::Next, "hook {hook}");
    }
}

#[test]
fn the_client_does_not_see_the_reason_but_the_observer_does() {
    let observed = Arc::new(Observed::default());
    let filters = [probe("a", json!({"head": "fail"}))];
    let registry = registry(&Log::default());
    let chain = Chain::compile_observed(&filters, registry, Some(observed.clone())).unwrap();
    let mut stream = Stream::new(&chain, info());
    let Flow::Reply(reply) = now(stream.request_head(&mut request())) else {
        panic!("expected a reply");
    };
    let expected = LocalReply::error(
        StatusCode::INTERNAL_SERVER_ERROR,
        "filter_error",
        "filter `a` failed",
    );
    assert_eq!(reply, expected);
    assert_eq!(*observed.0.lock().unwrap(), ["a Closed: out of order"]);
}

#[test]
fn holding_back_too_much_is_a_failure() {
    let feed = |policy: fn(&str, Value) -> FilterConfig| {
        let mut stream = stream(&Log::default(), &[policy("a", json!({"chunk": "hold"}))]);
        assert_eq!(now(stream.request_head(&mut request())), Flow::Next);
        let mut chunk = Bytes::from(vec![b'x'; HELD_LIMIT]);
        assert_eq!(stream.response_chunk(&mut chunk, false), ChunkStep::Hold);
        let mut chunk = Bytes::from_static(b"y");
        let step = stream.response_chunk(&mut chunk, false);
        (step, chunk.len())
    };
    assert_eq!(feed(probe).0, ChunkStep::Abort);
    assert_eq!(feed(open), (ChunkStep::Pass, HELD_LIMIT + 1));
}
