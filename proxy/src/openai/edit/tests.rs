//! Edited bodies differ from the original in the edited fields only, as serde_json reads them.

use serde_json::{Value, json};

use super::super::scan::random::document;
use super::super::scan::scan;
use super::*;

fn facts(body: &Bytes) -> Facts {
    scan(body).expect("the body is JSON")
}

fn with_usage(body: &'static str) -> String {
    let body = Bytes::from_static(body.as_bytes());
    let mut edits = Edits::new();
    edits.include_usage(&facts(&body));
    String::from_utf8(edits.apply(&body).to_vec()).expect("edits keep UTF-8")
}

#[test]
fn an_unedited_body_is_the_same_memory() {
    let body = Bytes::from_static(br#"{"model":"a","stream_options":{"include_usage":true}}"#);
    let mut edits = Edits::new();
    edits.rename_model(&facts(&body), "a");
    assert!(!edits.include_usage(&facts(&body)));
    assert!(edits.is_empty());
    assert_eq!(edits.apply(&body).as_ptr(), body.as_ptr());
    assert_eq!(edits.pieces(&body)[0].as_ptr(), body.as_ptr());
}

#[test]
fn usage_is_asked_for_whatever_stream_options_was() {
    assert_eq!(
        with_usage("{ }"),
        r#"{ "stream_options":{"include_usage":true}}"#
    );
    assert_eq!(
        with_usage(r#"{"a":1}"#),
        r#"{"a":1,"stream_options":{"include_usage":true}}"#
    );
    for old in ["{}", "{ }", "null", "7", "[1]"] {
        let body = format!(r#"{{"stream_options":{old},"a":1}}"#);
        assert_eq!(
            with_usage(body.leak()),
            r#"{"stream_options":{"include_usage":true},"a":1}"#
        );
    }
    for old in ["false", "null", "\"x\""] {
        let body = format!(r#"{{"stream_options":{{"include_usage":{old}}}}}"#);
        assert_eq!(
            with_usage(body.leak()),
            r#"{"stream_options":{"include_usage":true}}"#
        );
    }
    assert_eq!(
        with_usage(r#"{"stream_options":{"z":1}}"#),
        r#"{"stream_options":{"include_usage":true,"z":1}}"#
    );
}

#[test]
fn a_later_edit_takes_the_place_of_one_it_overlaps() {
    let body = Bytes::from_static(br#"{"model":"a","stream":true}"#);
    let facts = facts(&body);
    let mut edits = Edits::new();
    edits.set(&facts, Key::Stream, "null");
    edits.rename_model(&facts, "b\"");
    edits.set(&facts, Key::Stream, "false");
    edits.set(&facts, Key::MaxTokens, "2");
    edits.set(&facts, Key::MaxTokens, "1");
    let edited = edits.apply(&body);
    assert_eq!(
        &edited[..],
        br#"{"model":"b\"","stream":false,"max_tokens":1}"#
    );
    assert_eq!(edits.length(&body), edited.len());
}

#[test]
fn untouched_parts_are_not_copied() {
    let body = Bytes::from(format!(
        r#"{{"model":"a","prompt":"{}"}}"#,
        "x".repeat(1000)
    ));
    let mut edits = Edits::new();
    edits.rename_model(&facts(&body), "b");
    let pieces = edits.pieces(&body);
    assert_eq!(pieces.len(), 3);
    assert_eq!(pieces[2].as_ptr(), body[12..].as_ptr());
}

#[test]
fn random_documents_change_only_where_edited() {
    for seed in 0..10_000 {
        let body = Bytes::from(document(seed));
        let facts = facts(&body);
        let mut expected: Value = serde_json::from_slice(&body).expect("the writer writes JSON");
        let mut edits = Edits::new();
        if seed % 3 != 0 {
            edits.rename_model(&facts, "new \"name\"");
            expected["model"] = json!("new \"name\"");
        }
        if seed % 3 != 1 {
            edits.include_usage(&facts);
            if !expected["stream_options"].is_object() {
                expected["stream_options"] = json!({});
            }
            expected["stream_options"]["include_usage"] = json!(true);
        }
        if seed % 2 == 0 {
            edits.set(&facts, Key::MaxTokens, "1");
            expected["max_tokens"] = json!(1);
        }
        let edited = edits.apply(&body);
        let read: Value = serde_json::from_slice(&edited).expect("edits keep JSON valid");
        assert_eq!(read, expected, "{body:?}");
        assert_eq!(edits.pieces(&body).concat(), edited);
        assert!(scan(&edited).expect("edited bodies scan").members.len() >= facts.members.len());
    }
}
