//! Tests of the `promptGuard` filter.

use bytes::Bytes;
use serde_json::json;

use super::super::testing::{body, builtin, info, now, refusal, request};
use super::super::{Edits, Flow, ReplyBody, Stream};
use super::*;

/// What becomes of a request with a prompt of 10 bytes that asks for `max_tokens`.
fn guard(config: Value, max_tokens: Option<u64>) -> (Flow, Edits) {
    let mut stream = Stream::new(&builtin("promptGuard", config), info());
    let (mut head, bytes) = (request(), Bytes::from_static(b"{}"));
    assert_eq!(now(stream.request_head(&mut head)), Flow::Next);
    let view = BodyView {
        max_tokens,
        ..body(&bytes)
    };
    let flow = now(stream.request_body(&mut head, &view));
    (flow, stream.take_edits())
}

fn passes(config: Value, max_tokens: Option<u64>) {
    let got = guard(config, max_tokens);
    assert_eq!(got, (Flow::Next, Edits::default()));
}

fn error(config: Value, max_tokens: Option<u64>) -> (u16, String, String) {
    let (Flow::Reply(reply), _) = guard(config, max_tokens) else {
        panic!("expected a reply");
    };
    let ReplyBody::Error { code, message } = reply.body else {
        panic!("expected an error object");
    };
    (reply.status.as_u16(), code.into_owned(), message)
}

#[test]
fn a_prompt_over_the_limit_is_refused_with_limit_and_size() {
    passes(json!({"maxPromptBytes": 10}), None);
    let (status, code, message) = error(json!({"maxPromptBytes": 9}), None);
    assert_eq!((status, code.as_str()), (413, "prompt_too_long"));
    assert_eq!(
        message,
        "the prompt has 10 bytes, at most 9 are allowed here"
    );
}

#[test]
fn more_tokens_than_allowed_are_refused_by_default() {
    let config = json!({"maxTokens": 100});
    passes(config.clone(), Some(100));
    passes(config.clone(), None);
    let (status, code, message) = error(config, Some(101));
    assert_eq!((status, code.as_str()), (400, "max_tokens_too_high"));
    assert_eq!(message, "max_tokens is 101, at most 100 is allowed here");
}

#[test]
fn clamp_lowers_a_higher_limit_and_adds_a_missing_one() {
    let config = json!({"maxTokens": 100, "mode": "clamp"});
    passes(config.clone(), Some(100));
    for asked in [Some(101), None] {
        let (flow, edits) = guard(config.clone(), asked);
        assert_eq!(flow, Flow::Next);
        assert_eq!(edits.max_tokens, Some(100));
        assert_eq!(edits.body, None);
    }
}

#[test]
fn the_lowest_of_several_clamps_holds() {
    let mut edits = Edits::default();
    let mut extensions = http::Extensions::new();
    let mut cx = StreamView {
        extensions: &mut extensions,
        random: 0,
        edits: &mut edits,
    };
    for limit in [100, 50, 80] {
        cx.clamp_max_tokens(limit);
    }
    assert_eq!(edits.max_tokens, Some(50));
}

#[test]
fn useless_and_unknown_settings_are_refused() {
    let refusal = |config| refusal(KIND, config);
    assert!(refusal(json!({})).starts_with("nothing to do"));
    assert!(refusal(json!({"maxPromptBytes": 0})).starts_with("maxPromptBytes: 0"));
    assert!(refusal(json!({"maxTokens": 0})).starts_with("maxTokens: 0"));
    let error = refusal(json!({"maxTokens": 1, "mode": "cut"}));
    assert!(error.contains("`cut`"), "{error}");
    let error = refusal(json!({"maxToken": 1}));
    assert!(error.contains("`maxToken`"), "{error}");
}
