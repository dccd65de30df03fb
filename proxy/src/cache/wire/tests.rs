use proptest::prelude::*;
use rmp::encode as msgpack;

use std::collections::HashMap;

use super::*;
use crate::cache::budget::IndexBudget;
use crate::cache::chain::{Chain, extra_digest, token_seed};
use crate::cache::event::{EngineHash, KvEvent, Medium, Stored};
use crate::cache::index::Index;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/vllm_kv_events");

fn frame(number: &str) -> Vec<u8> {
    std::fs::read(format!("{FIXTURES}/{number}.payload.bin")).unwrap()
}

fn events(payload: &[u8]) -> Vec<KvEvent> {
    let decoded = decode(payload).unwrap();
    assert_eq!(decoded.ignored, Ignored::default());
    decoded.batch.events
}

fn stored(payload: &[u8]) -> Stored {
    let stored = events(payload).into_iter().find_map(|event| match event {
        KvEvent::Stored(stored) => Some(stored),
        _ => None,
    });
    stored.unwrap()
}

/// Writes msgpack from JSON, since that is short to write; a string `0x...` becomes bytes.
fn packed(value: &serde_json::Value) -> Vec<u8> {
    let mut out = Vec::new();
    pack(value, &mut out);
    out
}

fn pack(value: &serde_json::Value, out: &mut Vec<u8>) {
    use serde_json::Value;
    match value {
        Value::Null => msgpack::write_nil(out).unwrap(),
        Value::Bool(bit) => msgpack::write_bool(out, *bit).unwrap(),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => drop(msgpack::write_uint(out, number).unwrap()),
            (_, Some(number)) => drop(msgpack::write_sint(out, number).unwrap()),
            _ => msgpack::write_f64(out, number.as_f64().unwrap()).unwrap(),
        },
        Value::String(text) => match text.strip_prefix("0x") {
            Some(bytes) => msgpack::write_bin(out, bytes.as_bytes()).unwrap(),
            None => msgpack::write_str(out, text).unwrap(),
        },
        Value::Array(items) => {
            msgpack::write_array_len(out, items.len() as u32).unwrap();
            items.iter().for_each(|item| pack(item, out));
        }
        Value::Object(entries) => {
            msgpack::write_map_len(out, entries.len() as u32).unwrap();
            for (key, value) in entries {
                msgpack::write_str(out, key).unwrap();
                pack(value, out);
            }
        }
    }
}

macro_rules! payload {
    ($($json:tt)+) => { packed(&serde_json::json!($($json)+)) };
}

/// The value behind `key=` in a line of the description.
fn said<'a>(line: &'a str, key: &str) -> &'a str {
    let from = line.find(&format!("{key}=")).unwrap() + key.len() + 1;
    line[from..].split(' ').next().unwrap()
}

fn counted(line: &str, kind: &str) -> usize {
    let count = line.split(&format!("'{kind}': ")).nth(1);
    count.map_or(0, |rest| {
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap()
    })
}

#[test]
fn captured_frames_say_what_their_description_says() {
    let description = std::fs::read_to_string(format!("{FIXTURES}/DESCRIPTION.txt")).unwrap();
    let mut frames = 0;
    for line in description.lines().filter(|line| {
        line.starts_with(|first: char| first.is_ascii_digit()) && line.contains("seq=")
    }) {
        let payload = frame(&line[..2]);
        assert_eq!(format!("{}B", payload.len()), said(line, "payload"));
        let decoded = decode(&payload).unwrap();
        assert_eq!(decoded.ignored, Ignored::default(), "{line}");
        assert_eq!(decoded.batch.rank, Some(0));
        assert!(decoded.batch.timestamp > 1.7e9);
        let events = decoded.batch.events;
        let of = |test: fn(&KvEvent) -> bool| events.iter().filter(|event| test(event)).count();
        assert_eq!(
            of(|e| matches!(e, KvEvent::Stored(_))),
            counted(line, "BlockStored")
        );
        assert_eq!(
            of(|e| matches!(e, KvEvent::Removed { .. })),
            counted(line, "BlockRemoved")
        );
        assert_eq!(
            of(|e| matches!(e, KvEvent::Cleared)),
            counted(line, "AllBlocksCleared")
        );
        assert_stored(line, &stored(&payload));
        frames += 1;
    }
    assert_eq!(frames, 19);
}

fn assert_stored(line: &str, stored: &Stored) {
    assert_eq!(stored.hashes.len().to_string(), said(line, "blocks"));
    assert_eq!(stored.tokens.len().to_string(), said(line, "tokens"));
    assert_eq!(stored.block_size, 32);
    assert_eq!(stored.parent.is_some(), said(line, "parent") == "set");
    assert_eq!((stored.medium, stored.group), (Medium::Device, Some(0)));
    assert!(!stored.partial_attention);
    let adapter = Some(said(line, "lora_name")).filter(|name| *name != "None");
    assert_eq!(stored.lora.as_deref(), adapter);
    let first = said(line, "extra_keys0").trim_matches(['[', ']', '\'']);
    match first {
        "None" | "lora-a" => assert!(stored.extra.is_empty(), "{line}"),
        salt => {
            assert_eq!(stored.extra[0], extra_digest(&[salt]));
            assert!(stored.extra[1..].iter().all(|&digest| digest == 0));
        }
    }
}

#[test]
fn the_annotated_capture_is_read_to_the_last_value() {
    let expected = Stored {
        hashes: vec![EngineHash(17_910_828_115_965_368_986)],
        parent: Some(EngineHash(14_437_422_248_659_829_297)),
        tokens: vec![578; 32],
        block_size: 32,
        lora: None,
        medium: Medium::Device,
        group: Some(0),
        partial_attention: false,
        extra: Vec::new(),
    };
    assert_eq!(events(&frame("08")), [KvEvent::Stored(expected)]);
}

#[test]
fn a_removal_and_the_store_it_made_room_for_keep_their_order() {
    let events = events(&frame("00"));
    let removed = KvEvent::Removed {
        hashes: vec![EngineHash(6_437_914_817_994_233_637)],
        medium: Medium::Device,
        group: Some(0),
    };
    assert_eq!(events[0], removed);
    assert!(matches!(events[7], KvEvent::Stored(_)));
}

#[test]
fn hashes_of_bytes_tell_blocks_apart_and_link_them() {
    let (first, second) = (stored(&frame("17")), stored(&frame("18")));
    let mut unique = first.hashes.clone();
    unique.sort_by_key(|hash| hash.0);
    unique.dedup();
    assert_eq!(unique.len(), 5);
    assert_eq!(second.parent, first.hashes.last().copied());
}

#[test]
fn positional_events_of_old_builds_are_read() {
    let payload = payload!([
        1.5,
        [
            [
                "BlockStored",
                [7, 8],
                6,
                [1, 2, 3, 4],
                2,
                1,
                "CPU",
                "ada",
                [["ada", "s"], null],
                1,
                "sliding_window",
                128
            ],
            ["BlockRemoved", [7], "CPU"],
            ["AllBlocksCleared"],
        ]
    ]);
    let batch = decode(&payload).unwrap().batch;
    assert_eq!((batch.timestamp, batch.rank), (1.5, None));
    let expected = Stored {
        hashes: vec![EngineHash(7), EngineHash(8)],
        parent: Some(EngineHash(6)),
        tokens: vec![1, 2, 3, 4],
        block_size: 2,
        lora: Some("ada".to_owned()),
        medium: Medium::Host,
        group: Some(1),
        partial_attention: true,
        extra: vec![extra_digest(&["s"]), 0],
    };
    assert_eq!(batch.events[0], KvEvent::Stored(expected));
    let removed = KvEvent::Removed {
        hashes: vec![EngineHash(7)],
        medium: Medium::Host,
        group: None,
    };
    assert_eq!(batch.events[1..], [removed, KvEvent::Cleared]);
}

#[test]
fn an_event_may_end_early_or_late() {
    let oldest = stored(&payload!([
        1,
        [["BlockStored", [7], null, [1, 2], 2, null]]
    ]));
    assert_eq!(
        (oldest.medium, oldest.parent, oldest.lora),
        (Medium::Device, None, None)
    );
    let later = payload!([1.5, [
        ["BlockRemoved", [7], "GPU", 0, "LOCAL", null],
        {"type": "AllBlocksCleared", "reason": {"deep": [[[]]]}},
    ], 3, "more", {}]);
    let decoded = decode(&later).unwrap();
    assert_eq!((decoded.batch.rank, decoded.ignored.fields), (Some(3), 3));
    assert_eq!(decoded.batch.events.len(), 2);
}

#[test]
fn sglang_publishes_signed_hashes_salts_and_pinned_memory() {
    let event = |parent: serde_json::Value| {
        payload!([1.5, [{
            "type": "BlockStored", "block_hashes": [-2], "parent_block_hash": parent, "token_ids": [5], "block_size": 1,
            "lora_id": null, "medium": "CPU_PINNED", "cache_salt": "s", "session_id": "x", "lora_name": null,
        }], 2])
    };
    let first = stored(&event(serde_json::Value::Null));
    assert_eq!(first.hashes, [EngineHash(u64::MAX - 1)]);
    assert_eq!(first.medium, Medium::Host);
    assert_eq!(first.extra, [extra_digest(&["s"])]);
    let next = stored(&event((-9).into()));
    assert_eq!(next.parent, Some(EngineHash(u64::MAX - 8)));
    assert!(next.extra.is_empty(), "a salt is in the first block alone");
}

#[test]
fn pairs_of_tokens_count_by_their_first() {
    let pairs = stored(&payload!([0, [
        {"type": "BlockStored", "block_hashes": [1], "token_ids": [[5, 6], [6, 7]], "block_size": 2}
    ]]));
    assert_eq!(pairs.tokens, [5, 6]);
}

#[test]
fn the_type_may_come_last_and_unknown_types_hold_anything() {
    let payload = payload!([0, [
        {"block_hashes": [1], "medium": "DISK", "type": "BlockRemoved"},
        {"type": "BlockMoved", "block_hashes": {"from": 1}},
        ["BlockMoved", "anything", [[]]],
    ]]);
    let decoded = decode(&payload).unwrap();
    assert_eq!(decoded.ignored.events, 2);
    let removed = KvEvent::Removed {
        hashes: vec![EngineHash(1)],
        medium: Medium::Storage,
        group: None,
    };
    assert_eq!(decoded.batch.events, [removed]);
}

#[test]
fn an_adapters_name_is_no_extra_key_but_a_salt_of_that_name_is() {
    let keys = |keys: serde_json::Value| {
        let payload = payload!([0, [{
            "type": "BlockStored", "block_hashes": [1], "token_ids": [], "lora_name": "a", "extra_keys": [keys],
        }]]);
        stored(&payload).extra
    };
    assert!(keys(serde_json::json!(["a"])).is_empty());
    assert_eq!(keys(serde_json::json!(["a", "a"])), [extra_digest(&["a"])]);
    let image = keys(serde_json::json!(["a", ["image", 3]]));
    assert_ne!(image, keys(serde_json::json!(["a", ["image", 4]])));
    assert_ne!(image, keys(serde_json::json!(["a", "image", 3])));
}

#[test]
fn an_adapter_without_name_does_not_pass_for_the_base_model() {
    let nameless = stored(&payload!([0, [
        {"type": "BlockStored", "block_hashes": [1], "token_ids": [], "lora_id": 2, "locality": "REMOTE"}
    ]]));
    assert_eq!(nameless.lora.as_deref(), Some("#2"));
    assert_eq!(nameless.medium, Medium::Storage);
}

#[test]
fn only_full_attention_gives_credit() {
    let partial = |kind: &str, window: serde_json::Value| {
        let payload = payload!([0, [{
            "type": "BlockStored", "block_hashes": [1], "token_ids": [],
            "kv_cache_spec_kind": kind, "kv_cache_spec_sliding_window": window,
        }]]);
        stored(&payload).partial_attention
    };
    assert!(!partial("full_attention", 4096.into()));
    assert!(!partial("mla_attention", serde_json::Value::Null));
    assert!(partial("sliding_window", 4096.into()));
    assert!(partial("something_new", serde_json::Value::Null));
}

#[test]
fn a_store_that_contradicts_itself_is_dropped_and_counted() {
    let payload = payload!([0, [
        {"type": "BlockStored", "block_hashes": [1, 2], "token_ids": [1, 2, 3], "block_size": 2},
        {"type": "BlockStored", "block_hashes": [1, 2], "token_ids": [], "extra_keys": [null]},
        {"type": "BlockStored", "block_hashes": [1, 2], "token_ids": [], "block_size": 2},
    ]]);
    let decoded = decode(&payload).unwrap();
    assert_eq!(
        (decoded.batch.events.len(), decoded.ignored.inconsistent),
        (1, 2)
    );
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let token = payload!([0, [{"type": "BlockStored", "block_hashes": [], "token_ids": [-1]}]]);
    let error = decode(&token).unwrap_err();
    let position = token.len() - 1;
    assert!(matches!(error, WireError::Unexpected { position: at, .. } if at == position));
    assert_eq!(
        error.to_string(),
        format!(
            "KV event payload has a negative integer at byte {position} where a token id of at most 32 bits, or a pair \
             of them was expected, is the engine of a newer version?"
        )
    );
    let large = payload!([0, [{"type": "BlockStored", "token_ids": [4_294_967_296u64]}]]);
    assert!(matches!(
        decode(&large),
        Err(WireError::Unexpected {
            found: "a number past 32 bits",
            ..
        })
    ));
    assert!(matches!(
        decode(&payload!({"ts": 1})),
        Err(WireError::Unexpected {
            position: 0,
            found: "a map",
            ..
        })
    ));
    assert!(matches!(
        decode(b""),
        Err(WireError::Truncated { position: 0, .. })
    ));
    assert!(matches!(
        decode(&payload!([1.0])),
        Err(WireError::Truncated { .. })
    ));
    assert!(matches!(
        decode(&payload!([1, [{"block_hashes": [1]}]])),
        Err(WireError::Truncated { .. })
    ));
}

#[test]
fn claimed_lengths_size_nothing_and_limits_hold() {
    // An array of 2^32 - 1 events, and one of as many tokens.
    assert!(matches!(
        decode(&[0x92, 0x00, 0xdd, 0xff, 0xff, 0xff, 0xff]),
        Err(WireError::TooMuch { what: "events", .. })
    ));
    let mut many = payload!([0, [["BlockStored", [], null]]]);
    let tag = many.len() - 14;
    many[tag - 1] = 0x94;
    many.extend([0xdd, 0xff, 0xff, 0xff, 0xff]);
    assert!(matches!(
        decode(&many),
        Err(WireError::TooMuch { what: "tokens", .. })
    ));
    // Arrays within arrays to the end: read without a stack.
    let deep = [vec![0x93, 0x00, 0x90, 0xc0], vec![0x91; 1 << 20]].concat();
    assert!(decode(&deep).is_ok());
    let deep = [vec![0x92, 0x00], vec![0x91; 1 << 20]].concat();
    assert!(decode(&deep).is_err());
}

proptest! {
    #[test]
    fn no_bytes_panic(payload in prop::collection::vec(any::<u8>(), 0..256)) {
        let _ = decode(&payload);
    }

    #[test]
    fn no_damage_to_a_real_frame_panics(
        number in 0usize..16,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut payload = frame(&format!("{number:02}"));
        for (place, byte) in damage {
            let place = place.index(payload.len());
            payload[place] = byte;
        }
        let _ = decode(&payload);
        let _ = decode(&payload[..cut.index(payload.len())]);
    }

    #[test]
    fn every_cut_of_a_frame_is_an_error(cut in any::<prop::sample::Index>()) {
        let payload = frame("00");
        let cut = cut.index(payload.len());
        prop_assert!(decode(&payload[..cut]).is_err(), "cut at {}", cut);
    }
}

/// A block's whole prefix: tokens, what else tells its blocks apart, and the adapter.
type Prefix = (Vec<u32>, Vec<u64>, Option<String>);

/// What a naive reader of one publisher's frames holds in the end.
#[derive(Default)]
struct Naive(HashMap<EngineHash, Prefix>);

impl Naive {
    fn apply(&mut self, event: KvEvent) {
        match event {
            KvEvent::Cleared => self.0.clear(),
            KvEvent::Removed { hashes, .. } => {
                hashes.iter().for_each(|hash| drop(self.0.remove(hash)));
            }
            KvEvent::Stored(stored) => self.store(&stored),
        }
    }

    fn store(&mut self, stored: &Stored) {
        let start = (Vec::new(), Vec::new(), stored.lora.clone());
        let parent = stored.parent.map(|parent| self.0.get(&parent).cloned());
        // A parent from before the capture began: nobody can tell what follows it.
        let Some(mut prefix) = parent.unwrap_or(Some(start)) else {
            return;
        };
        let blocks = stored.tokens.chunks(stored.block_size as usize);
        for (index, (hash, tokens)) in stored.hashes.iter().zip(blocks).enumerate() {
            prefix.0.extend(tokens);
            prefix.1.push(stored.extra.get(index).copied().unwrap_or(0));
            self.0.insert(*hash, prefix.clone());
        }
    }
}

#[test]
fn the_captured_frames_make_the_index_that_they_imply() {
    for publisher in [0..=6, 7..=12, 13..=15, 17..=19] {
        let index = Index::new(IndexBudget::new(16 << 20));
        let slot = index.attach().unwrap();
        let mut naive = Naive::default();
        for number in publisher {
            for event in events(&frame(&format!("{number:02}"))) {
                index.apply(slot, &event);
                naive.apply(event);
            }
        }
        assert!(!naive.0.is_empty());
        assert_eq!(index.stats().reported, naive.0.len());
        for (tokens, extra, lora) in naive.0.values() {
            let seed = token_seed(lora.as_deref());
            let chain = Chain::of_tokens_with(seed, tokens, 32, extra);
            assert_eq!(index.matched(&chain).blocks(slot) as usize, extra.len());
        }
    }
}
