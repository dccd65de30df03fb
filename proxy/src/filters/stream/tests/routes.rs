//! Switching to a route's chain.

use super::*;

/// A chain and the one a route makes of it.
fn route(log: &Log, filters: &[FilterConfig], overrides: Value) -> (Arc<Chain>, Arc<Chain>) {
    let base = chain(log, filters);
    let overrides: BTreeMap<_, _> = serde_json::from_value(overrides).unwrap();
    let route = base.with_overrides(&overrides).unwrap();
    (base, route)
}

fn heads(names: &[&str]) -> Vec<FilterConfig> {
    let script = json!({"head": "next", "response": "next"});
    names
        .iter()
        .map(|name| probe(name, script.clone()))
        .collect()
}

#[test]
fn entering_the_same_chain_changes_nothing() {
    let log = Log::default();
    let base = chain(&log, &heads(&["a"]));
    let mut stream = Stream::new(&base, info());
    assert_eq!(now(stream.request_head(&mut request())), Flow::Next);
    log.take();
    assert_eq!(now(stream.enter_route(&base, &mut request())), Flow::Next);
    assert!(log.take().is_empty());
}

#[test]
fn a_route_ends_disabled_filters_and_keeps_the_others() {
    let log = Log::default();
    let (base, route) = route(&log, &heads(&["a", "b"]), json!({"a": {"disabled": true}}));
    let mut stream = Stream::new(&base, info());
    assert_eq!(now(stream.request_head(&mut request())), Flow::Next);
    log.take();
    assert_eq!(now(stream.enter_route(&route, &mut request())), Flow::Next);
    assert_eq!(log.take(), ["a done Aborted"]);
    assert_eq!(
        now(stream.response_head(&mut response())),
        ResponseFlow::Next
    );
    stream.done(&completed());
    assert_eq!(log.take(), ["b response 200", "b done Completed"]);
}

#[test]
fn a_route_reopens_replaced_filters_and_shows_them_the_head() {
    let log = Log::default();
    let replaced = json!({"a": {"config": {"label": "a2", "head": "next", "response": "next"}}});
    let (base, route) = route(&log, &heads(&["a", "b"]), replaced);
    let mut stream = Stream::new(&base, info());
    assert_eq!(now(stream.request_head(&mut request())), Flow::Next);
    log.take();
    assert_eq!(now(stream.enter_route(&route, &mut request())), Flow::Next);
    assert_eq!(log.take(), ["a done Aborted", "a2 open", "a2 head"]);
    assert_eq!(
        now(stream.response_head(&mut response())),
        ResponseFlow::Next
    );
    assert_eq!(log.take(), ["b response 200", "a2 response 200"]);
}

#[test]
fn a_route_switches_a_disabled_filter_on_in_its_place() {
    let log = Log::default();
    let mut filters = heads(&["a", "b", "c"]);
    filters[1].disabled = true;
    let enabled = json!({"b": {"config": {"label": "b", "head": "next", "response": "next"}}});
    let (base, route) = route(&log, &filters, enabled);
    let mut stream = Stream::new(&base, info());
    assert_eq!(now(stream.request_head(&mut request())), Flow::Next);
    assert_eq!(log.take(), ["a open", "a head", "c open", "c head"]);
    assert_eq!(now(stream.enter_route(&route, &mut request())), Flow::Next);
    assert_eq!(
        now(stream.response_head(&mut response())),
        ResponseFlow::Next
    );
    assert_eq!(
        log.take(),
        [
            "b open",
            "b head",
            "c response 200",
            "b response 200",
            "a response 200"
        ]
    );
}

#[test]
fn a_reopened_filter_may_reply() {
    let log = Log::default();
    let replying = json!({"a": {"config": {"label": "a2", "head": "reply"}}});
    let (base, route) = route(&log, &heads(&["a"]), replying);
    let mut stream = Stream::new(&base, info());
    assert_eq!(now(stream.request_head(&mut request())), Flow::Next);
    let flow = now(stream.enter_route(&route, &mut request()));
    assert_eq!(reply(flow), (418, "probe".into()));
}

#[test]
fn filters_kept_from_the_head_open_from_the_route_with_the_body() {
    let log = Log::default();
    let filters = [
        probe("a", json!({"head": "stop"})),
        probe("b", json!({"head": "next"})),
        probe("c", json!({"head": "next"})),
    ];
    let changes = json!({
        "a": {"disabled": true},
        "b": {"config": {"label": "b2", "head": "next"}},
    });
    let (base, route) = route(&log, &filters, changes);
    let mut stream = Stream::new(&base, info());
    let (mut head, bytes) = (request(), Bytes::new());
    assert_eq!(now(stream.request_head(&mut head)), Flow::Next);
    assert_eq!(now(stream.enter_route(&route, &mut head)), Flow::Next);
    assert_eq!(log.take(), ["a open", "a head", "a done Aborted"]);
    assert_eq!(
        now(stream.request_body(&mut head, &body(&bytes))),
        Flow::Next
    );
    assert_eq!(log.take(), ["b2 open", "b2 head", "c open", "c head"]);
}

#[test]
fn chains_of_different_length_do_not_mix() {
    let log = Log::default();
    let long = chain(&log, &heads(&["a", "b"]));
    let short = chain(&log, &heads(&["c"]));
    let mut stream = Stream::new(&long, info());
    assert_eq!(now(stream.request_head(&mut request())), Flow::Next);
    log.take();
    assert_eq!(now(stream.enter_route(&short, &mut request())), Flow::Next);
    assert_eq!(
        log.take(),
        ["a done Aborted", "b done Aborted", "c open", "c head"]
    );
    assert_eq!(now(stream.enter_route(&long, &mut request())), Flow::Next);
    assert_eq!(
        log.take(),
        ["c done Aborted", "a open", "a head", "b open", "b head"]
    );
}
