//! Streams as engines write them, cut at any place.

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::event::Boundaries;
use super::*;

const TOKEN: &str =
    r#"data: {"id":"c","choices":[{"index":0,"delta":{"content":"hé \"usage\" 漢"}}]}"#;
const ROLE: &str = r#"data: {"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":null}}],"usage":null}"#;
const USAGE_EVENT: &str = r#"data: {"id":"c","choices": [ ],"usage":{"prompt_tokens":9,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":8}}}"#;
const LLAMA: &str =
    r#"data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4},"timings":{"x":1}}"#;
const FINISH_WITH_USAGE: &str = r#"data: {"choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":4}}"#;
const DONE: &str = "data: [DONE]";

fn filter(filter: UsageFilter, chunks: impl IntoIterator<Item = Bytes>) -> Vec<u8> {
    let mut filter = filter;
    let mut out = Vec::new();
    for chunk in chunks {
        filter.push(chunk, &mut out);
    }
    filter.finish(&mut out);
    out.concat()
}

fn stream(events: &[&str]) -> String {
    events.iter().map(|event| format!("{event}\n\n")).collect()
}

/// A text cut at random places.
fn cut(text: &[u8], random: &mut SmallRng) -> Vec<Bytes> {
    let most = [2, 8, 80, 400][random.random_range(0..4)];
    let mut rest = Bytes::copy_from_slice(text);
    let mut chunks = Vec::new();
    while !rest.is_empty() {
        let length = random.random_range(1..=most).min(rest.len());
        chunks.push(rest.split_to(length));
    }
    chunks
}

fn usage_of(text: &str) -> Option<Usage> {
    let mut scan = UsageScan::new();
    scan.push(text.as_bytes());
    for seed in 0..20 {
        let mut split = UsageScan::new();
        for chunk in cut(text.as_bytes(), &mut SmallRng::seed_from_u64(seed)) {
            split.push(&chunk);
        }
        assert_eq!(split.usage(), scan.usage(), "{text}");
    }
    scan.usage()
}

fn usage(prompt_tokens: u64, completion_tokens: u64, cached_tokens: Option<u64>) -> Option<Usage> {
    Some(Usage {
        prompt_tokens,
        completion_tokens,
        cached_tokens,
        reasoning_tokens: None,
    })
}

#[test]
fn usage_is_found_in_each_api() {
    assert_eq!(
        usage_of(&stream(&[ROLE, TOKEN, USAGE_EVENT, DONE])),
        usage(9, 4, Some(8))
    );
    assert_eq!(
        usage_of(&stream(&[TOKEN, FINISH_WITH_USAGE])),
        usage(9, 4, None)
    );
    let responses = r#"data: {"type":"response.completed","response":{"tools":[{"usage":{"type":"object"}}],"usage":{"input_tokens":5,"input_tokens_details":{"cached_tokens":2},"output_tokens":6,"output_tokens_details":{"reasoning_tokens":1}}}}"#;
    let found = usage_of(&stream(&[responses])).expect("usage");
    assert_eq!((found.prompt_tokens, found.completion_tokens), (5, 6));
    assert_eq!(
        (found.cached_tokens, found.reasoning_tokens),
        (Some(2), Some(1))
    );
    let anthropic = [
        r#"event: message_start
data: {"message":{"usage":{"input_tokens":25,"cache_read_input_tokens":10,"cache_creation_input_tokens":1,"output_tokens":1}}}"#,
        r#"data: {"type":"message_delta","usage":{"output_tokens":15}}"#,
    ];
    assert_eq!(usage_of(&stream(&anthropic)), usage(36, 15, Some(10)));
    let whole = "{\n  \"choices\": [{\"message\": {\"content\": \"\\\"usage\\\": {\\\"prompt_tokens\\\": 1}\"}}],\n  \"usage\" : {\"prompt_tokens\": 3, \"completion_tokens\": 2, \"prompt_tokens_details\": null}\n, \"prompt_logprobs\": null}";
    assert_eq!(usage_of(whole), usage(3, 2, None));
}

#[test]
fn repeated_usage_counts_once_and_the_last_wins() {
    let event = |tokens: u32| {
        format!(
            r#"data: {{"choices":[{{}}],"usage":{{"prompt_tokens":9,"completion_tokens":{tokens}}}}}"#
        )
    };
    let events: Vec<String> = (0..50).map(event).collect();
    let events: Vec<&str> = events.iter().map(String::as_str).collect();
    assert_eq!(usage_of(&stream(&events)), usage(9, 49, None));
}

#[test]
fn what_is_no_usage_is_passed_over() {
    assert_eq!(usage_of(&stream(&[TOKEN, ROLE, DONE])), None);
    assert_eq!(
        usage_of(r#"{"usage":{"properties":{}},"a":"usage","usage":[1],"usage""#),
        None
    );
    let endless = format!("{{\"usage\":{{\"a\":\"{}", "x".repeat(100_000));
    let mut scan = UsageScan::new();
    for chunk in endless.as_bytes().chunks(7) {
        scan.push(chunk);
    }
    scan.push(br#""}, "usage":{"prompt_tokens":1,"completion_tokens":2}"#);
    assert_eq!(scan.usage(), usage(1, 2, None));
}

#[test]
fn data_events_are_counted_over_any_split() {
    let text = format!(
        ": hi\n\nevent: x\r\n{TOKEN}\r\n\r\n{TOKEN}\n\ndata: a\ndata: b\n\nid: 1\n\n{DONE}\n\n"
    );
    for seed in 0..500 {
        let mut counter = EventCounter::new();
        for chunk in cut(text.as_bytes(), &mut SmallRng::seed_from_u64(seed)) {
            counter.push(&chunk);
        }
        assert_eq!(counter.count(), 3, "{seed}");
        assert!(counter.is_done());
    }
}

#[test]
fn only_the_usage_event_is_withheld() {
    for usage_event in [USAGE_EVENT, LLAMA] {
        let with = stream(&[ROLE, TOKEN, usage_event, DONE]);
        let without = stream(&[ROLE, TOKEN, DONE]);
        let passed = filter(UsageFilter::new(), [Bytes::from(with)]);
        assert_eq!(String::from_utf8_lossy(&passed), without);
    }
    for event in [
        FINISH_WITH_USAGE,
        r#"data: {"choices":[]}"#,
        r#"data: {"choices":[],"usage":null}"#,
        r#"data: {"choices":[],"x":{"usage":{"a":1}}}"#,
        r#"data: {"choices":[],"usage":{"a":1}"#,
        "data: {\"choices\":[],\"usage\":{}}\ndata: x",
    ] {
        let text = stream(&[TOKEN, event, DONE]);
        assert_eq!(
            filter(UsageFilter::new(), [Bytes::from(text.clone())]),
            text.as_bytes()
        );
    }
}

#[test]
fn chunks_without_a_usage_event_pass_as_the_same_memory() {
    for text in [
        stream(&[TOKEN]),
        stream(&[TOKEN, TOKEN]),
        stream(&[FINISH_WITH_USAGE, ROLE]),
        stream(&[TOKEN, TOKEN])[..120].into(),
    ] {
        let chunk = Bytes::from(text);
        let mut out = Vec::new();
        UsageFilter::new().push(chunk.clone(), &mut out);
        assert_eq!(out.len(), 1);
        assert_eq!(
            (out[0].as_ptr(), out[0].len()),
            (chunk.as_ptr(), chunk.len())
        );
    }
}

#[test]
fn an_unfinished_event_passes_once_it_shows_a_choice_or_grows_too_long() {
    let mut filter = UsageFilter::new();
    let mut out = Vec::new();
    filter.push(Bytes::from_static(b"data: {\"choices\":[ "), &mut out);
    assert!(out.is_empty());
    filter.push(Bytes::from_static(b"{\"delta\""), &mut out);
    assert_eq!(out.concat(), b"data: {\"choices\":[ {\"delta\"");
    let mut filter = UsageFilter::new();
    let long = Bytes::from(format!(
        "data: {{\"choices\":[],\"a\":\"{}",
        "x".repeat(MAX_HELD_BYTES)
    ));
    out.clear();
    for byte in long.chunks(8 * 1024) {
        filter.push(Bytes::copy_from_slice(byte), &mut out);
    }
    assert_eq!(out.concat(), long);
}

#[test]
fn a_null_usage_is_cut_with_one_comma() {
    for (with, without) in [
        (
            r#"{"id":"c","choices":[{"a":1}],"usage":null}"#,
            r#"{"id":"c","choices":[{"a":1}]}"#,
        ),
        (r#"{"usage": null, "choices":[{}]}"#, r#"{ "choices":[{}]}"#),
        (
            r#"{"choices":[{"usage":null}],"usage":null,"z":1}"#,
            r#"{"choices":[{"usage":null}],"z":1}"#,
        ),
        (r#"{"usage":null}"#, "{}"),
    ] {
        let with = stream(&[&format!("data: {with}"), DONE]);
        let without = stream(&[&format!("data: {without}"), DONE]);
        for seed in 0..50 {
            let chunks = cut(with.as_bytes(), &mut SmallRng::seed_from_u64(seed));
            let passed = filter(UsageFilter::stripping_null(), chunks);
            assert_eq!(String::from_utf8_lossy(&passed), without);
        }
        assert_eq!(
            filter(UsageFilter::new(), [Bytes::from(with.clone())]),
            with.as_bytes()
        );
    }
}

/// Events with the line ends and extra lines of a wild engine, and what a filter of whole events lets through.
fn wild_stream(random: &mut SmallRng) -> (Vec<u8>, Vec<u8>) {
    let (mut all, mut passed) = (String::new(), String::new());
    let end = ["\n", "\r\n", "\r"][random.random_range(0..3)];
    for _ in 0..random.random_range(1..8) {
        let kind = random.random_range(0..9);
        let line = [
            USAGE_EVENT,
            LLAMA,
            TOKEN,
            ROLE,
            FINISH_WITH_USAGE,
            DONE,
            ": ping",
            "",
            "event: \"usage\" \"choices\":[]",
        ][kind];
        let event = format!("{line}{end}{end}");
        all.push_str(&event);
        if kind > 1 {
            passed.push_str(&event);
        }
    }
    if random.random_bool(0.3) {
        let partial = &TOKEN[..random.random_range(0..60)];
        all.push_str(partial);
        passed.push_str(partial);
    }
    (all.into_bytes(), passed.into_bytes())
}

#[test]
fn filtering_does_not_depend_on_where_chunks_are_cut() {
    for seed in 0..20_000 {
        let mut random = SmallRng::seed_from_u64(seed);
        let (all, passed) = wild_stream(&mut random);
        let chunks = cut(&all, &mut random);
        let found = filter(UsageFilter::new(), chunks);
        assert_eq!(
            String::from_utf8_lossy(&found),
            String::from_utf8_lossy(&passed),
            "{seed}: {:?}",
            String::from_utf8_lossy(&all)
        );
    }
}

#[test]
fn event_ends_are_found_over_any_split_and_line_end() {
    for (text, ends) in [
        ("a\n\nb\n\n", vec![3, 6]),
        ("a\r\n\r\nb\r\n\r\n", vec![5, 10]),
        ("a\r\rb\r\r", vec![3, 6]),
        ("a\r\n\nb\n\r\n", vec![4, 8]),
        ("\n\na\n", vec![1, 2]),
    ] {
        let mut boundaries = Boundaries::default();
        let (mut at, mut found) = (0, Vec::new());
        while let Some(length) = boundaries.next(&text.as_bytes()[at..]) {
            at += length;
            found.push(at);
        }
        assert_eq!(found, ends, "{text:?}");
        let mut bytewise = Boundaries::default();
        let split: usize = text
            .bytes()
            .filter(|byte| bytewise.next(&[*byte]).is_some())
            .count();
        assert_eq!(split, ends.len(), "{text:?}");
    }
}

#[test]
fn no_bytes_make_the_stream_readers_panic_and_none_are_lost() {
    let pieces: [&[u8]; 14] = [
        b"data:",
        b" ",
        b"{",
        b"}",
        b"\"choices\"",
        b":",
        b"[",
        b"]",
        b"\"usage\"",
        b"null",
        b"\n",
        b"\r",
        b",",
        b"\xff",
    ];
    for seed in 0..20_000 {
        let mut random = SmallRng::seed_from_u64(seed);
        let text: Vec<u8> = (0..random.random_range(0..40))
            .flat_map(|_| pieces[random.random_range(0..pieces.len())].to_vec())
            .collect();
        let chunks = cut(&text, &mut random);
        let (mut scan, mut counter) = (UsageScan::new(), EventCounter::new());
        for chunk in &chunks {
            scan.push(chunk);
            counter.push(chunk);
        }
        assert_eq!(scan.usage(), None);
        let mut filter = UsageFilter::new();
        let mut out = Vec::new();
        for chunk in chunks {
            filter.push(chunk, &mut out);
        }
        filter.finish(&mut out);
        let lost = text.len() - out.concat().len();
        assert!(lost == 0 || filter.withheld_events() > 0, "{text:?}");
        super::UsageFilter::stripping_null().push(Bytes::from(text), &mut out);
    }
}
