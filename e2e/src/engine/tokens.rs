//! Text to tokens and back: four bytes are one token, a text's last token is padded with zero bytes.
//!
//! Chat messages are tokenised one by one behind a header, so that a conversation's next turn begins with the very
//! tokens of this one. No vocabulary: a token's number is its bytes, little-endian.
//!
//! Precisely, for a router that must come to the same numbers without asking `/tokenize` or
//! `/v1/chat/completions/render`: a prompt is a list of *pieces* of UTF-8, each cut into tokens by itself.
//!
//! ```text
//! completion prompt   one piece, the text (tokens given as numbers stay what they are)
//! chat prompt         per message: <|im_start|>  ROLE  CONTENT...  <|im_end|>
//!                     then:        <|im_start|>  assistant
//! CONTENT             a string: one piece; null or missing: none; a list: one piece per part, its `text` or else its
//!                     whole JSON, compact; anything else: its JSON
//! tools               before all messages, as one of role `tools` whose content is their JSON, compact
//! ```
//!
//! Nothing stands between pieces, no newline and no space; compact JSON keeps the order of keys. So `user` is one
//! token (0x72657375) and `<|im_start|>` three; `hello` is `hell` and `o` with three zero bytes, two tokens. What a
//! message says beyond `role` and `content` (names, tool calls) does not count.

use serde_json::Value;

/// Bytes of text in one token.
pub const BYTES: usize = 4;

/// Appends a text's tokens.
pub fn encode(text: &str, tokens: &mut Vec<u32>) {
    tokens.extend(text.as_bytes().chunks(BYTES).map(|chunk| {
        let mut word = [0; BYTES];
        word[..chunk.len()].copy_from_slice(chunk);
        u32::from_le_bytes(word)
    }));
}

/// The text of tokens; padding is dropped, what is not UTF-8 is replaced.
pub fn decode(tokens: &[u32]) -> String {
    let bytes: Vec<u8> = tokens
        .iter()
        .flat_map(|token| token.to_le_bytes())
        .filter(|&byte| byte != 0)
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Appends one chat message; parts that are not text count by their JSON.
pub fn encode_message(role: &str, content: &Value, tokens: &mut Vec<u32>) {
    encode("<|im_start|>", tokens);
    encode(role, tokens);
    match content {
        Value::String(text) => encode(text, tokens),
        Value::Null => {}
        Value::Array(parts) => {
            for part in parts {
                match part.get("text").and_then(Value::as_str) {
                    Some(text) => encode(text, tokens),
                    None => encode(&part.to_string(), tokens),
                }
            }
        }
        other => encode(&other.to_string(), tokens),
    }
    encode("<|im_end|>", tokens);
}

/// Appends what makes the model answer.
pub fn encode_answer_header(tokens: &mut Vec<u32>) {
    encode("<|im_start|>", tokens);
    encode("assistant", tokens);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_survives_the_round_trip() {
        for text in ["", "a", "four", "hello world", "héllo"] {
            let mut tokens = Vec::new();
            encode(text, &mut tokens);
            assert_eq!(tokens.len(), text.len().div_ceil(BYTES));
            assert_eq!(decode(&tokens), text);
        }
    }

    #[test]
    fn the_next_turn_begins_with_this_turn_and_its_answer() {
        let mut first = Vec::new();
        encode_message("user", &"hey".into(), &mut first);
        encode_answer_header(&mut first);
        encode("abc def ", &mut first);
        let mut second = Vec::new();
        encode_message("user", &"hey".into(), &mut second);
        encode_message("assistant", &"abc def ".into(), &mut second);
        assert!(second.starts_with(&first));
    }
}
