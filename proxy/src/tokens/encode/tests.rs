//! Cut against whole, over tokenizers of several families and random texts.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const BYTE_LEVEL: &[u8] = include_bytes!("../../../tests/fixtures/tokenizers/byte-level.json");
const METASPACE: &[u8] = include_bytes!("../../../tests/fixtures/tokenizers/metaspace.json");

fn encoder(json: &[u8]) -> Encoder {
    Encoder::new(json, 7).unwrap()
}

/// The tokenizer with one key of its definition changed.
fn changed(json: &[u8], key: &str, value: Value) -> Encoder {
    let mut definition: Value = serde_json::from_slice(json).unwrap();
    definition[key] = value;
    encoder(&serde_json::to_vec(&definition).unwrap())
}

/// Families: where texts of each are cut is part of the promise.
fn families() -> Vec<(&'static str, Encoder, Cutting)> {
    let space = |scheme: &str| json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": true});
    let legacy = json!({"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    ]});
    let mut sentence_piece: Value = serde_json::from_slice(METASPACE).unwrap();
    sentence_piece["normalizer"] = legacy;
    sentence_piece["pre_tokenizer"] = Value::Null;
    let sentence_piece = serde_json::to_vec(&sentence_piece).unwrap();
    let gpt2 = |prefix: bool| json!({"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": true, "use_regex": true});
    vec![
        ("Qwen", encoder(BYTE_LEVEL), Cutting::Words),
        (
            "GPT-2",
            changed(BYTE_LEVEL, "pre_tokenizer", gpt2(false)),
            Cutting::Words,
        ),
        (
            "GPT-2 with a prefix space",
            changed(BYTE_LEVEL, "pre_tokenizer", gpt2(true)),
            Cutting::SpecialTokens,
        ),
        ("Mistral v3", encoder(METASPACE), Cutting::SpecialTokens),
        (
            "always a space",
            changed(METASPACE, "pre_tokenizer", space("always")),
            Cutting::SpecialTokens,
        ),
        (
            "never a space",
            changed(METASPACE, "pre_tokenizer", space("never")),
            Cutting::SpecialTokens,
        ),
        ("Llama 2", encoder(&sentence_piece), Cutting::SpecialTokens),
    ]
}

#[test]
fn every_family_is_cut_as_finely_as_is_right() {
    for (name, encoder, cutting) in families() {
        assert_eq!(encoder.cutting(), cutting, "{name}");
    }
}

#[test]
fn tokens_that_strip_spaces_do_not_spoil_the_cuts() {
    let mut definition: Value = serde_json::from_slice(METASPACE).unwrap();
    definition["added_tokens"][3]["lstrip"] = json!(true);
    definition["added_tokens"][4]["rstrip"] = json!(true);
    let encoder = encoder(&serde_json::to_vec(&definition).unwrap());
    assert_eq!(encoder.cutting(), Cutting::SpecialTokens);
    let memo = Memo::new(1 << 20);
    for text in [
        "a  [INST] b [/INST]  <s> c</s>  [INST]",
        "[/INST]  [INST]  <s>  [INST] x",
    ] {
        assert_eq!(
            encoder.encode(&memo, text, false).unwrap(),
            encoder.whole(text, false).unwrap()
        );
    }
}

#[test]
fn the_next_turn_of_a_session_encodes_only_its_new_text() {
    let encoder = encoder(BYTE_LEVEL);
    let memo = Memo::new(1 << 20);
    let mut session = "<|im_start|>user\nHello there<|im_end|>\n".to_owned();
    for turn in 0..20 {
        session.push_str(&format!("<|im_start|>assistant\nanswer {turn}<|im_end|>\n<|im_start|>user\nquestion {turn}<|im_end|>\n"));
        let (_, missed) = memo.hits_and_misses();
        assert_eq!(
            encoder.encode(&memo, &session, false).unwrap(),
            encoder.whole(&session, false).unwrap()
        );
        let fresh = memo.hits_and_misses().1 - missed;
        assert!(turn == 0 || fresh == 2, "turn {turn} encoded {fresh} parts");
    }
}

#[test]
fn a_growing_plain_text_encodes_only_its_end() {
    let encoder = encoder(BYTE_LEVEL);
    let memo = Memo::new(4 << 20);
    let text = "some words that go on, 12 of them\n".repeat(500);
    encoder.encode(&memo, &text, false).unwrap();
    let (_, missed) = memo.hits_and_misses();
    let grown = format!("{text}and then some");
    assert_eq!(
        encoder.encode(&memo, &grown, false).unwrap(),
        encoder.whole(&grown, false).unwrap()
    );
    assert_eq!(memo.hits_and_misses().1 - missed, 1);
}

#[test]
fn memos_are_not_mixed_up_between_tokenizers() {
    let memo = Memo::new(1 << 20);
    let (one, two) = (
        Encoder::new(BYTE_LEVEL, 16).unwrap(),
        Encoder::new(METASPACE, 32).unwrap(),
    );
    for encoder in [&one, &two] {
        assert_eq!(
            encoder.encode(&memo, "Hello there", false).unwrap(),
            encoder.whole("Hello there", false).unwrap()
        );
    }
}

#[test]
fn what_is_no_tokenizer_is_an_error() {
    for json in ["", "{}", "[]", "{\"model\": {\"type\": \"Magic\"}}"] {
        assert!(
            matches!(
                Encoder::new(json.as_bytes(), 0),
                Err(EncodeError::Definition(_))
            ),
            "{json}"
        );
    }
}

fn fragment() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[a-zA-Z]{1,8}( [a-z]{1,6}){0,4}",
        2 => "[ \\t\\r\\n]{1,4}",
        1 => "\\PC{1,6}",
        1 => "[0-9.,'!]{1,6}",
        3 => prop::sample::select(vec![
            "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<think>", "<s>", "</s>", "[INST]", "[/INST]", "<unk>",
            "<|im_", "[IN", "e\u{301}",
        ]).prop_map(str::to_owned),
        1 => Just("long words of text ".repeat(130)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn cut_texts_have_the_ids_of_whole_ones(texts in prop::collection::vec(prop::collection::vec(fragment(), 0..12), 1..4), special: bool) {
        static FAMILIES: std::sync::LazyLock<Vec<(&'static str, Encoder, Cutting)>> = std::sync::LazyLock::new(families);
        for (name, encoder, _) in FAMILIES.iter() {
            let memo = Memo::new(1 << 20);
            for text in &texts {
                let text = text.concat();
                prop_assert_eq!(
                    encoder.encode(&memo, &text, special).unwrap(),
                    encoder.whole(&text, special).unwrap(),
                    "{}: {:?}", name, text
                );
            }
        }
    }
}
