//! Reads a streamed chat answer: server-sent events in, text and completeness out. Not HTTP, and no clock.

use std::borrow::Cow;

use serde::Deserialize;
use sluice_e2e::engine::tokens;

/// Longest line of a stream; a longer one is an answer gone wrong.
const MAX_LINE_BYTES: usize = 1 << 20;

/// What has arrived of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Its text.
    pub text: String,
    /// A chunk gave a reason to finish.
    pub finished: bool,
    /// `[DONE]` arrived.
    pub done: bool,
    /// An event that is no chunk of a chat.
    pub garbage: bool,
    /// Beginning of a line whose end has not arrived.
    line: Vec<u8>,
}

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow)]
    choices: Vec<Choice<'a>>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow, default)]
    delta: Delta<'a>,
    #[serde(borrow)]
    finish_reason: Option<Cow<'a, str>>,
}

#[derive(Default, Deserialize)]
struct Delta<'a> {
    #[serde(borrow)]
    content: Option<Cow<'a, str>>,
}

impl Answer {
    /// Takes the next bytes of the stream.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            let (line, rest) = bytes.split_at(end);
            bytes = &rest[1..];
            if self.line.is_empty() {
                self.take(line);
            } else {
                let mut whole = std::mem::take(&mut self.line);
                whole.extend_from_slice(line);
                self.take(&whole);
            }
        }
        self.line.extend_from_slice(bytes);
        if self.line.len() > MAX_LINE_BYTES {
            self.line.clear();
            self.garbage = true;
        }
    }

    /// Tokens so far.
    pub fn tokens(&self) -> u32 {
        self.text.len().div_ceil(tokens::BYTES) as u32
    }

    /// Whether it is whole and has that many tokens.
    pub fn complete(&self, tokens: u32) -> bool {
        self.done && self.finished && !self.garbage && self.tokens() == tokens
    }

    fn take(&mut self, line: &[u8]) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        // Comments, empty lines and other fields carry no text.
        let Some(data) = line.strip_prefix(b"data:") else {
            return;
        };
        let data = data.trim_ascii();
        if data == b"[DONE]" {
            self.done = true;
            return;
        }
        let Ok(chunk) = serde_json::from_slice::<Chunk<'_>>(data) else {
            self.garbage = true;
            return;
        };
        for choice in chunk.choices {
            self.text
                .push_str(&choice.delta.content.unwrap_or_default());
            self.finished |= choice.finish_reason.is_some();
        }
    }
}
