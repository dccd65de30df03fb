//! Places in plain text where a tokenizer can be run on both sides apart and give the same ids.
//!
//! The place: between an ASCII letter and a space before an ASCII letter (`the| cat`). The proof, for the
//! pre-tokenisers listed here:
//!
//! - No alternative of their patterns matches a letter and then a space: those with letters are runs that end at
//!   the first character that is neither letter nor mark (or with a contraction, which is letters). So a match
//!   ends at the place, whatever came before it, and the right side is matched from there on as at its own start:
//!   none of the patterns looks behind.
//! - They look ahead only by `\s+(?!\S)`, whose look-ahead ends at the left side's last letter at the latest,
//!   which is still there. So the left side is matched as before.
//! - The model (BPE) then works on each match alone, and `NFC` composes nothing across an ASCII letter and a
//!   space.
//! - Added tokens that are left inside a text must not reach across the place: none may hold a letter followed by
//!   a space, or strip spaces.
//!
//! A pattern that is not listed gets no cuts. Cuts are found from the left, so a text that grows at its end keeps
//! those it had.

use serde_json::Value;
use tokenizers::AddedToken;

/// Bytes between two cuts: small enough that the end of a growing text is little, large enough that looking
/// up costs nothing beside encoding.
const CHUNK_BYTES: usize = 2_048;

/// Patterns for which the proof holds: Llama 3, Qwen 2 to 3, GPT-2 (spelled out), o200k (gpt-oss) and Tekken
/// (Mistral Nemo), DeepSeek V2 to V3.
const PATTERNS: [&str; 8] = [
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    r"\p{N}{1,3}",
    r"[一-龥぀-ゟ゠-ヿ]+",
];

/// Whether the proof holds for a tokenizer, by its `tokenizer.json` and the added tokens at which it is not cut.
pub(super) fn proven(tokenizer: &Value, inside: &[&AddedToken]) -> bool {
    tokenizer["model"]["type"] == "BPE"
        && tokenizer["model"]["dropout"].is_null()
        && keeps_cuts(&tokenizer["normalizer"])
        && splits_at_cuts(&tokenizer["pre_tokenizer"])
        && inside.iter().all(|token| !reaches_across(token))
}

/// Whether a normaliser works on both sides of a cut as on the whole.
fn keeps_cuts(normalizer: &Value) -> bool {
    match normalizer["type"].as_str() {
        None => normalizer.is_null(),
        Some("NFC") => true,
        Some("Sequence") => all(&normalizer["normalizers"], keeps_cuts),
        Some(_) => false,
    }
}

fn splits_at_cuts(pre_tokenizer: &Value) -> bool {
    let steps = match pre_tokenizer["type"].as_str() {
        Some("Sequence") => pre_tokenizer["pretokenizers"]
            .as_array()
            .map_or(&[][..], Vec::as_slice),
        _ => std::slice::from_ref(pre_tokenizer),
    };
    steps.iter().all(step_is_known) && steps.iter().any(step_cuts)
}

fn step_is_known(step: &Value) -> bool {
    match step["type"].as_str() {
        Some("Digits") => true,
        Some("ByteLevel") => step["add_prefix_space"] == false,
        Some("Split") => {
            step["behavior"] == "Isolated"
                && step["invert"] == false
                && step["pattern"]["Regex"]
                    .as_str()
                    .is_some_and(|regex| PATTERNS.contains(&regex))
        }
        _ => false,
    }
}

/// Whether the step separates words: only then is there a boundary at a cut.
fn step_cuts(step: &Value) -> bool {
    match step["type"].as_str() {
        // Its own pattern is GPT-2's, and the default.
        Some("ByteLevel") => step["use_regex"] != false,
        Some("Split") => step["pattern"]["Regex"]
            .as_str()
            .is_some_and(|regex| regex.ends_with(r"\s+(?!\S)|\s+")),
        _ => false,
    }
}

fn reaches_across(token: &AddedToken) -> bool {
    let bytes = token.content.as_bytes();
    let spaced = bytes
        .windows(2)
        .any(|pair| pair[0].is_ascii_alphabetic() && pair[1] == b' ');
    spaced || token.lstrip || token.rstrip || token.single_word
}

fn all(list: &Value, holds: fn(&Value) -> bool) -> bool {
    list.as_array().is_some_and(|items| items.iter().all(holds))
}

/// The text in chunks of about [`CHUNK_BYTES`]; one without places to cut comes whole.
pub(super) fn chunks(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (chunk, after) = rest.split_at(next_cut(rest));
        rest = after;
        Some(chunk)
    })
}

/// The first place past a chunk's size, or the end.
fn next_cut(text: &str) -> usize {
    let bytes = text.as_bytes();
    let from = CHUNK_BYTES.min(bytes.len());
    memchr::memchr_iter(b' ', &bytes[from..])
        .map(|at| from + at)
        .find(|&at| {
            bytes[at - 1].is_ascii_alphabetic()
                && bytes.get(at + 1).is_some_and(u8::is_ascii_alphabetic)
        })
        .unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn chunks_make_up_the_text_and_stay_when_it_grows() {
        let text = "some words, 12 more words\n".repeat(1_000);
        let whole: Vec<&str> = chunks(&text).collect();
        assert_eq!(whole.concat(), text);
        assert!(whole.len() > 10);
        let half: Vec<&str> = chunks(&text[..text.len() / 2]).collect();
        assert_eq!(half[..half.len() - 1], whole[..half.len() - 1]);
        assert_eq!(chunks("").count(), 0);
        assert_eq!(chunks(&"日本".repeat(5_000)).count(), 1);
    }

    #[test]
    fn only_known_pipelines_are_cut() {
        let with = |normalizer: Value, pre_tokenizer: Value| {
            let tokenizer = json!({"model": {"type": "BPE"}, "normalizer": normalizer, "pre_tokenizer": pre_tokenizer});
            proven(&tokenizer, &[])
        };
        let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": true});
        assert!(with(Value::Null, byte_level.clone()));
        assert!(with(json!({"type": "NFC"}), byte_level.clone()));
        assert!(with(
            Value::Null,
            json!({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true}, byte_level]})
        ));
        assert!(!with(json!({"type": "Lowercase"}), byte_level.clone()));
        assert!(!with(
            Value::Null,
            json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": false})
        ));
        assert!(!with(
            Value::Null,
            json!({"type": "ByteLevel", "add_prefix_space": true, "use_regex": true})
        ));
        assert!(!with(Value::Null, json!({"type": "Metaspace"})));
        assert!(!with(Value::Null, Value::Null));
        let split = |regex: &str| json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
        assert!(with(Value::Null, split(PATTERNS[0])));
        assert!(!with(Value::Null, split(PATTERNS[6])));
        assert!(!with(Value::Null, split(r"\s+")));
    }

    #[test]
    fn a_token_that_reaches_across_a_cut_prevents_cutting() {
        let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": true});
        let tokenizer =
            json!({"model": {"type": "BPE"}, "normalizer": null, "pre_tokenizer": byte_level});
        for (token, holds) in [("two words", false), ("word", true), ("  ", true)] {
            assert_eq!(
                proven(&tokenizer, &[&AddedToken::from(token, false)]),
                holds,
                "{token}"
            );
        }
        assert!(!proven(
            &tokenizer,
            &[&AddedToken::from("word", false).rstrip(true)]
        ));
    }
}
