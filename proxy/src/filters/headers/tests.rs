//! Tests of the `headers` filter.

use serde_json::json;

use super::super::testing::{builtin, info, now, refusal, request, response};
use super::super::{Flow, ResponseFlow, Stream};
use super::*;

#[test]
fn requests_and_responses_are_edited_in_the_order_remove_set_add() {
    let edit = json!({
        "remove": ["x-secret", "x-add"],
        "set": {"X-Set": "new"},
        "add": {"x-add": "second", "x-set": "more"},
    });
    let chain = builtin("headers", json!({"request": edit, "response": edit}));
    let mut stream = Stream::new(&chain, info());
    let (mut head, mut answer) = (request(), response());
    for headers in [&mut head.headers, &mut answer.headers] {
        headers.insert("x-secret", HeaderValue::from_static("s"));
        headers.insert("x-set", HeaderValue::from_static("old"));
        headers.insert("x-add", HeaderValue::from_static("first"));
    }
    assert_eq!(now(stream.request_head(&mut head)), Flow::Next);
    assert_eq!(now(stream.response_head(&mut answer)), ResponseFlow::Next);
    for headers in [head.headers, answer.headers] {
        let all = |name| headers.get_all(name).iter().collect::<Vec<_>>();
        assert!(!headers.contains_key("x-secret"));
        assert_eq!(all("x-set"), ["new", "more"]);
        assert_eq!(all("x-add"), ["second"]);
    }
}

#[test]
fn add_keeps_what_is_there() {
    let chain = builtin("headers", json!({"request": {"add": {"x-a": "2"}}}));
    let mut head = request();
    head.headers.insert("x-a", HeaderValue::from_static("1"));
    let mut stream = Stream::new(&chain, info());
    assert_eq!(now(stream.request_head(&mut head)), Flow::Next);
    let all: Vec<_> = head.headers.get_all("x-a").iter().collect();
    assert_eq!(all, ["1", "2"]);
}

#[test]
fn a_side_without_edits_is_no_hook() {
    let hooks = |config| build(&config).unwrap().hooks();
    let edit = json!({"remove": ["x-a"]});
    assert_eq!(hooks(json!({"request": edit})), Hooks::REQUEST_HEAD);
    assert_eq!(hooks(json!({"response": edit})), Hooks::RESPONSE_HEAD);
}

#[test]
fn fields_the_gateway_writes_are_refused_in_every_list() {
    for name in RESERVED {
        for (list, edit) in [
            ("add", json!({"add": {name.as_str(): "x"}})),
            ("set", json!({"set": {name.as_str(): "x"}})),
            ("remove", json!({"remove": [name.as_str()]})),
        ] {
            let error = refusal("headers", json!({"response": edit}));
            let expected =
                format!("response.{list}: `{name}` is written by the gateway, remove it here");
            assert_eq!(error, expected);
        }
    }
    let error = refusal("headers", json!({"request": {"set": {"Host": "x"}}}));
    assert_eq!(
        error,
        "request.set: `host` is written by the gateway, remove it here"
    );
}

#[test]
fn names_and_values_that_no_header_may_have_are_refused() {
    let error = refusal("headers", json!({"request": {"add": {"x a": "1"}}}));
    assert_eq!(error, "request.add: `x a` is not a header name");
    let error = refusal("headers", json!({"request": {"remove": [""]}}));
    assert_eq!(error, "request.remove: `` is not a header name");
    let split = json!({"response": {"set": {"x-a": "1\r\nx-b: 2"}}});
    assert_eq!(
        refusal("headers", split),
        "response.set.x-a: the value has characters no header may have"
    );
}

#[test]
fn unknown_fields_and_empty_configurations_are_refused() {
    let error = refusal("headers", json!({"request": {"append": {}}}));
    assert!(
        error.starts_with("request.append: unknown field"),
        "{error}"
    );
    assert!(refusal("headers", json!({})).starts_with("nothing to do"));
    assert!(refusal("headers", Value::Null).starts_with("nothing to do"));
}
