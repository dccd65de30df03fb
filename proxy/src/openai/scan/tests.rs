//! What the scanner finds and refuses, and that it agrees with serde_json on whatever that accepts.

use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use super::random::document;
use super::*;

fn facts(body: &str) -> Facts {
    scan(body.as_bytes()).unwrap_or_else(|error| panic!("{error}: {body}"))
}

fn parts(body: &str) -> Vec<(PromptKind, &str)> {
    facts(body)
        .prompt
        .into_iter()
        .map(|part| (part.kind, &body[part.span]))
        .collect()
}

fn error(body: &[u8]) -> ScanError {
    scan(body).expect_err("the body must be refused")
}

#[test]
fn a_chat_request_yields_model_stream_limits_and_prompt() {
    let body = r#"{"model":"llama","stream":true,"max_tokens":7,"n":2,"user":"ann","messages":[{"role":"user","content":"hi"},{"role":"user","content":[{"type":"text","text":"see"},{"type":"image_url","image_url":{"url":"x"}}]}],"tools":[{"a":1}]}"#;
    let facts = facts(body);
    assert_eq!(facts.model_name(), Some("llama"));
    let ModelField::Present(model) = &facts.model else {
        panic!("the model is there");
    };
    assert_eq!(&body[model.span.clone()], "\"llama\"");
    assert!(facts.stream);
    assert_eq!(&body[facts.stream_span.clone().unwrap()], "true");
    assert_eq!(facts.max_tokens.as_ref().unwrap().value, 7);
    assert_eq!(facts.n, Some(2));
    assert_eq!(facts.user.as_deref(), Some("ann"));
    assert_eq!(&body[facts.tools.clone().unwrap()], r#"[{"a":1}]"#);
    assert_eq!(facts.prompt_bytes, 5);
    assert_eq!(&body[facts.object_end..], "}");
    let parts = parts(body);
    assert_eq!(parts[0].0, PromptKind::Messages);
    assert!(parts[0].1.starts_with("[{") && parts[0].1.ends_with("}]"));
    assert_eq!(
        parts[1..],
        [
            (PromptKind::Role, "user"),
            (PromptKind::Content, "hi"),
            (PromptKind::Role, "user"),
            (PromptKind::Content, "see"),
            (PromptKind::Media, r#"{"url":"x"}"#),
        ]
    );
}

#[test]
fn tool_calls_and_media_are_parts_of_the_prompt_but_no_text() {
    let body = r#"{"model":"m","messages":[
        {"role":"assistant","content":null,"tool_calls":[{"id":"1"}]},
        {"role":"user","content":[{"type":"input_audio","input_audio":{"data":"x"}}]},
        {"role":"assistant","content":[{"type":"tool_use","name":"t","input":{"a":1}}]},
        {"role":"user","content":[{"type":"image","source":{"data":"y"}}]}]}"#;
    let parts: Vec<_> = parts(body)
        .into_iter()
        .filter(|part| matches!(part.0, PromptKind::Media | PromptKind::Calls))
        .collect();
    assert_eq!(
        parts,
        [
            (PromptKind::Calls, r#"[{"id":"1"}]"#),
            (PromptKind::Media, r#"{"data":"x"}"#),
            (PromptKind::Calls, r#"{"a":1}"#),
            (PromptKind::Media, r#"{"data":"y"}"#),
        ]
    );
    assert_eq!(facts(body).prompt_bytes, 0);
}

#[test]
fn prompts_of_every_api_are_found() {
    use PromptKind::*;
    assert_eq!(parts(r#"{"prompt":"a b"}"#), [(Prompt, "a b")]);
    assert_eq!(
        parts(r#"{"prompt":["a","b"]}"#),
        [(Prompt, "a"), (Prompt, "b")]
    );
    assert_eq!(parts(r#"{"prompt":[1, 2]}"#), [(Tokens, "[1, 2]")]);
    assert_eq!(
        parts(r#"{"prompt":[[1],[2,3]]}"#),
        [(Tokens, "[1]"), (Tokens, "[2,3]")]
    );
    assert_eq!(facts(r#"{"prompt":[[1],[2,3]]}"#).prompt_tokens, 3);
    assert_eq!(facts(r#"{"input":[5,6]}"#).prompt_tokens, 2);
    assert_eq!(
        parts(r#"{"instructions":"be","input":"q"}"#),
        [(Instructions, "be"), (Input, "q")]
    );
    assert_eq!(
        parts(r#"{"input":[{"role":"user","content":[{"type":"input_text","text":"q"}]}]}"#)[1..],
        [(Role, "user"), (Content, "q")]
    );
    assert_eq!(
        parts(r#"{"system":[{"type":"text","text":"s"}],"messages":[{"content":[{"type":"tool_result","content":[{"text":"r"}]}]}]}"#)
            .into_iter()
            .filter(|part| part.0.is_text())
            .collect::<Vec<_>>(),
        [(System, "s"), (Content, "r")]
    );
    assert_eq!(
        parts(r#"{"query":"q","documents":["d",{"text":"e"}]}"#),
        [(Query, "q"), (Document, "d"), (Document, "e")]
    );
    assert_eq!(
        parts(r#"{"text_1":"a","text_2":["b"]}"#),
        [(Query, "a"), (Document, "b")]
    );
}

#[test]
fn unknown_shapes_are_absent_not_errors() {
    let facts = facts(
        r#"{"model":"m","messages":5,"stream":"yes","stream_options":3,"max_tokens":1.5,"n":-1,"user":{},"prompt":null,"input":{"a":[]},"tools":0,"metadata":[]}"#,
    );
    assert!(!facts.stream && facts.stream_options.is_none() && facts.max_tokens.is_none());
    assert!(facts.prompt.is_empty() && facts.user.is_none() && facts.n.is_none());
    assert!(facts.member(Key::StreamOptions).is_some());
}

#[test]
fn an_unusable_model_says_how() {
    let model = |body: &str| facts(body).model;
    assert_eq!(model("{}"), ModelField::Missing);
    for (value, found) in [
        ("null", JsonKind::Null),
        ("7", JsonKind::Number),
        ("[]", JsonKind::Array),
    ] {
        assert_eq!(
            model(&format!(r#"{{"model":{value}}}"#)),
            ModelField::WrongType { found }
        );
    }
    assert_eq!(model(r#"{"model":""}"#), ModelField::Empty);
    assert_eq!(model(r#"{"model":" \n\u0009"}"#), ModelField::Empty);
    assert_eq!(
        error(br#"{"model":"a\ud800"}"#),
        ScanError::BadEscape {
            field: "model",
            at: 9
        }
    );
    assert_eq!(facts(r#"{"model":"a\u0000"}"#).model_name(), Some("a\0"));
}

#[test]
fn a_field_standing_twice_is_refused_escaped_or_not() {
    for body in [
        r#"{"model":"a","model":"b"}"#,
        r#"{"model":"a","mod\u0065l":"b"}"#,
        r#"{"x":{"model":1},"model":"a" ,"\u006dodel":"b"}"#,
    ] {
        assert_eq!(error(body.as_bytes()).field(), Some("model"));
    }
    let twice = br#"{"stream_options":{"include_usage":true,"include_usage":false}}"#;
    assert_eq!(error(twice).field(), Some("stream_options.include_usage"));
    facts(r#"{"x":1,"x":2,"model":"a","y":{"model":"b","model":"c"}}"#);
}

#[test]
fn hints_are_taken_by_rank_not_by_place() {
    let hint = |body: &str| facts(body).session;
    let all = r#"{"previous_response_id":"p","conversation":"c","prompt_cache_key":"k","metadata":{"session_id":"m","user_id":"u"},"session_id":"s"}"#;
    assert_eq!(hint(all).as_deref(), Some("s"));
    assert_eq!(facts(all).user.as_deref(), Some("u"));
    assert_eq!(
        hint(r#"{"session_id":"","conversation":"c"}"#).as_deref(),
        Some("c")
    );
    assert_eq!(
        facts(r#"{"user":"a","metadata":{"user_id":"u"}}"#)
            .user
            .as_deref(),
        Some("a")
    );
    assert_eq!(
        facts(r#"{"cache_salt":"t\u0031"}"#).cache_salt.as_deref(),
        Some("t1")
    );
}

#[test]
fn the_output_limit_is_the_one_engines_obey() {
    let limit = |body: &str| facts(body).max_tokens.map(|limit| (limit.key, limit.value));
    let both = r#"{"max_tokens":5,"max_completion_tokens":900}"#;
    assert_eq!(limit(both), Some((Key::MaxCompletionTokens, 900)));
    let null = r#"{"max_completion_tokens":null,"max_tokens":5}"#;
    assert_eq!(limit(null), Some((Key::MaxTokens, 5)));
}

#[test]
fn what_is_not_one_json_object_is_refused() {
    assert_eq!(error(b""), ScanError::Truncated { at: 0 });
    assert_eq!(
        error(b"[1]"),
        ScanError::NotObject {
            found: JsonKind::Array,
            at: 0
        }
    );
    assert_eq!(error(b"{} {}"), ScanError::Trailing { at: 3 });
    assert_eq!(error(b"{\"a\":\"\xff\"}"), ScanError::NotUtf8 { at: 6 });
    assert_eq!(
        error(b"{\"a\":\"\0\"}"),
        ScanError::ControlCharacter { at: 6 }
    );
    assert_eq!(
        error(b"{\"a\":[\"\n\"]}"),
        ScanError::ControlCharacter { at: 7 }
    );
    for body in [
        "{",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1",
        "{\"a\":1,",
        "{\"a\":\"x",
        "{\"a\":[1,",
        "{\"a\":\"\\\"",
    ] {
        assert!(
            matches!(error(body.as_bytes()), ScanError::Truncated { .. }),
            "{body}"
        );
    }
    for body in [
        "{a:1}",
        "{\"a\" 1}",
        "{\"a\":1,}",
        "{,}",
        "{\"a\":1 2}",
        "{\"a\":[}]}",
        "{\"a\":[\\\"]\"]}",
        "model",
        "{\"a\":}",
    ] {
        assert!(
            matches!(error(body.as_bytes()), ScanError::Syntax { .. }),
            "{body}"
        );
    }
}

#[test]
fn deep_nesting_is_refused_past_the_limit_without_recursion() {
    let nested = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
    facts(&nested(MAX_DEPTH - 1));
    assert!(matches!(
        error(nested(MAX_DEPTH).as_bytes()),
        ScanError::TooDeep { .. }
    ));
    assert!(matches!(
        error(nested(1_000_000).as_bytes()),
        ScanError::TooDeep { .. }
    ));
    let open = format!("{{\"messages\":{}", "[{\"content\":".repeat(10_000));
    assert!(matches!(error(open.as_bytes()), ScanError::TooDeep { .. }));
}

#[test]
fn string_ends_are_found_at_any_distance_and_run_of_backslashes() {
    for length in 0..200 {
        for run in 0..5 {
            let text = format!("{}{}", "x".repeat(length), "\\\\".repeat(run));
            let body = format!("{{\"a\":\"{text}\",\"b\":[\"{text}\\\"\"],\"model\":\"m\"}}");
            assert_eq!(facts(&body).model_name(), Some("m"));
        }
    }
}

#[test]
fn a_body_of_many_tiny_strings_lists_a_bounded_number() {
    let body = format!("{{\"input\":[{}\"a\"]}}", "\"a\",".repeat(20_000));
    let facts = facts(&body);
    assert!(facts.prompt_truncated);
    assert_eq!(facts.prompt.len(), MAX_PROMPT_SPANS);
    assert_eq!(facts.prompt_bytes, 20_001);
}

/// Compares with what serde_json reads.
fn agrees(body: &str) {
    let Value::Object(object) = serde_json::from_str(body).expect("the writer writes JSON") else {
        panic!("the writer writes objects");
    };
    let facts = facts(body);
    let text = |key: &str| object.get(key).and_then(Value::as_str);
    assert_eq!(
        facts.model_name(),
        text("model").filter(|name| !name.trim().is_empty()),
        "{body}"
    );
    assert_eq!(
        facts.stream,
        object.get("stream") == Some(&Value::Bool(true))
    );
    let user = |value: &Value| {
        value
            .as_str()
            .filter(|user| !user.is_empty())
            .map(String::from)
    };
    let metadata = |key: &str| {
        object
            .get("metadata")
            .and_then(|value| user(value.get(key)?))
    };
    assert_eq!(
        facts.user,
        object
            .get("user")
            .and_then(user)
            .or_else(|| metadata("user_id")),
        "{body}"
    );
    assert_eq!(facts.cache_salt, object.get("cache_salt").and_then(user));
    let session = object
        .get("session_id")
        .and_then(user)
        .or_else(|| metadata("session_id"));
    assert_eq!(
        facts.session,
        session.or_else(|| object.get("prompt_cache_key").and_then(user))
    );
    let limit = |key: &str| object.get(key).and_then(Value::as_u64);
    let limits = limit("max_completion_tokens").or_else(|| limit("max_tokens"));
    assert_eq!(facts.max_tokens.as_ref().map(|limit| limit.value), limits);
    assert_eq!(facts.n, limit("n"));
    assert_eq!(facts.is_empty_object, object.is_empty());
    let usage = object
        .get("stream_options")
        .and_then(|options| options.get("include_usage")?.as_bool());
    assert_eq!(
        facts
            .stream_options
            .as_ref()
            .and_then(|options| options.include_usage),
        usage
    );
    for member in &facts.members {
        let value: Value =
            serde_json::from_str(&body[member.span.clone()]).expect("a span is a value");
        assert_eq!(Some(&value), object.get(member.key.name()));
    }
    let known = object
        .keys()
        .filter(|key| Key::from_name(key.as_bytes()).is_some());
    assert_eq!(facts.members.len(), known.count());
    prompts_agree(body, &facts, &object);
}

/// Every text span lies between quotes and sums up to the total; contents come in order.
fn prompts_agree(body: &str, facts: &Facts, object: &serde_json::Map<String, Value>) {
    let mut total = 0;
    for part in &facts.prompt {
        if part.kind.is_text() {
            total += part.span.len();
            let quoted = &body[part.span.start - 1..part.span.end + 1];
            assert!(serde_json::from_str::<String>(quoted).is_ok(), "{quoted}");
        }
    }
    assert_eq!(total, facts.prompt_bytes);
    if let Some(text) = object.get("prompt").and_then(Value::as_str) {
        let part = facts
            .prompt
            .iter()
            .find(|part| part.kind == PromptKind::Prompt)
            .expect("a prompt");
        let quoted = &body[part.span.start - 1..part.span.end + 1];
        assert_eq!(
            serde_json::from_str::<String>(quoted).expect("a string"),
            text
        );
    }
}

#[test]
fn random_documents_scan_as_serde_json_reads_them() {
    for seed in 0..20_000 {
        agrees(&document(seed));
    }
}

#[test]
fn what_serde_json_accepts_after_random_damage_scans_too() {
    let mut accepted = 0;
    for seed in 0..20_000_u64 {
        let mut body = document(seed).into_bytes();
        let mut random = SmallRng::seed_from_u64(seed);
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..body.len());
            match random.random_range(0..4) {
                0 => body.truncate(at.max(1)),
                1 => drop(body.remove(at)),
                2 => body.insert(at, b"{}[]\",:\\ a1\n\xff\0"[random.random_range(0..14)]),
                _ => body[at] ^= 1 << random.random_range(0..8),
            }
            if body.is_empty() {
                body.push(b' ');
            }
        }
        let scanned = scan(&body);
        if matches!(serde_json::from_slice(&body), Ok(Value::Object(_))) {
            accepted += 1;
            assert!(
                matches!(scanned, Ok(_) | Err(ScanError::DuplicateKey { .. })),
                "{scanned:?}: {}",
                String::from_utf8_lossy(&body)
            );
        }
    }
    assert!(
        accepted > 1000,
        "the damage must leave some documents valid: {accepted}"
    );
}

#[test]
fn sonic_rs_reads_the_same_model() {
    use sonic_rs::JsonValueTrait;
    for seed in 0..2_000 {
        let body = document(seed);
        let theirs: sonic_rs::Value = sonic_rs::from_str(&body).expect("the writer writes JSON");
        let model = theirs
            .get("model")
            .and_then(|model| model.as_str().map(String::from));
        let model = model.filter(|name| !name.trim().is_empty());
        assert_eq!(facts(&body).model_name(), model.as_deref());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    #[test]
    fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = scan(&body);
    }

    #[test]
    fn no_near_json_makes_it_panic(body in "[\\{\\}\\[\\]\":,\\\\a1 ]{0,80}", head in 0..2_usize) {
        let _ = scan(format!("{}{body}", ["", "{\"messages\":["][head]).as_bytes());
    }
}
