//! Finds the token usage an engine reports, in streams and in whole JSON answers, without parsing the answer.
//!
//! Looks for the key `"usage"` and reads the object behind it. In generated text the quotes of such a key stand
//! escaped, so text cannot pose as usage; an object without token counts (a tool's schema, say) is passed over.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde::Deserialize;

use crate::openai::scan::ScanError;
use crate::openai::scan::finder::container_end;

const KEY: &[u8] = b"\"usage\"";
static FIND_KEY: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(KEY));
static FIND_TOKENS: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"_tokens\""));

/// Longest usage object waited for across chunks, in bytes. They are a few hundred bytes long.
const MAX_OBJECT_BYTES: usize = 8 * 1024;
/// Bytes of a chunk joined to what is held at one time.
const JOIN_BYTES: usize = 1024;

/// Token counts as the engine reported them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Tokens of the prompt, cached ones included.
    pub prompt_tokens: u64,
    /// Tokens generated.
    pub completion_tokens: u64,
    /// Prompt tokens served from a prefix cache, if the engine tells.
    pub cached_tokens: Option<u64>,
    /// Generated tokens spent on reasoning, if the engine tells.
    pub reasoning_tokens: Option<u64>,
}

/// Finds usage in a response fed chunk by chunk.
///
/// Reported more than once (`continuous_usage_stats`), the last report counts; reports are never summed. Fields
/// that only the first report has stay (Anthropic tells the input in `message_start`, the output in
/// `message_delta`).
#[derive(Debug, Clone, Default)]
pub struct UsageScan {
    /// Bytes from a key, or the start of one, whose object is not complete yet.
    held: Vec<u8>,
    first: Vec<u8>,
    last: Vec<u8>,
}

impl UsageScan {
    /// Nothing seen.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes of the response.
    pub fn push(&mut self, chunk: &[u8]) {
        let mut rest = chunk;
        while !self.held.is_empty() && !rest.is_empty() {
            let (joined, after) = rest.split_at(rest.len().min(JOIN_BYTES));
            rest = after;
            let mut held = std::mem::take(&mut self.held);
            held.extend_from_slice(joined);
            self.search(&held);
        }
        if !rest.is_empty() {
            self.search(rest);
        }
    }

    /// What was reported so far.
    pub fn usage(&self) -> Option<Usage> {
        let mut merged = read(&self.first)?;
        if let Some(last) = read(&self.last) {
            merged.update(last);
        }
        Some(merged.usage())
    }

    /// Looks through bytes that start anywhere; holds what later bytes must complete.
    fn search(&mut self, bytes: &[u8]) {
        let mut at = 0;
        while let Some(place) = FIND_KEY.find(&bytes[at..]) {
            let key = at + place;
            at = key + KEY.len();
            match object_end(bytes, at) {
                Object::Whole { start, end } => {
                    self.keep(&bytes[start..end]);
                    at = end;
                }
                Object::Unfinished if bytes.len() - key < MAX_OBJECT_BYTES => {
                    self.held = bytes[key..].to_vec();
                    return;
                }
                Object::Unfinished | Object::None => {}
            }
        }
        let tail = &bytes[at.max(bytes.len().saturating_sub(KEY.len() - 1))..];
        if let Some(start) = (0..tail.len()).find(|start| KEY.starts_with(&tail[*start..])) {
            self.held = tail[start..].to_vec();
        }
    }

    fn keep(&mut self, object: &[u8]) {
        if FIND_TOKENS.find(object).is_none() {
            return;
        }
        let place = if self.first.is_empty() {
            &mut self.first
        } else {
            &mut self.last
        };
        place.clear();
        place.extend_from_slice(object);
    }
}

/// What stands behind a key.
enum Object {
    Whole { start: usize, end: usize },
    Unfinished,
    None,
}

fn object_end(bytes: &[u8], after_key: usize) -> Object {
    let mut colon = false;
    for at in after_key..bytes.len() {
        match bytes[at] {
            b' ' | b'\t' | b'\r' | b'\n' => {}
            b':' if !colon => colon = true,
            b'{' if colon => {
                return match container_end(bytes, at, 0) {
                    Ok(end) => Object::Whole { start: at, end },
                    Err(ScanError::Truncated { .. }) => Object::Unfinished,
                    Err(_) => Object::None,
                };
            }
            _ => return Object::None,
        }
    }
    Object::Unfinished
}

/// The usage object of any of the APIs: OpenAI chat and completions, Responses, Anthropic messages.
#[derive(Deserialize, Default)]
struct Report {
    #[serde(alias = "input_tokens")]
    prompt_tokens: Option<u64>,
    #[serde(alias = "output_tokens")]
    completion_tokens: Option<u64>,
    #[serde(alias = "input_tokens_details")]
    prompt_tokens_details: Option<Details>,
    #[serde(alias = "output_tokens_details")]
    completion_tokens_details: Option<Details>,
    cache_read_input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
}

#[derive(Deserialize, Default, Clone, Copy)]
struct Details {
    cached_tokens: Option<u64>,
    reasoning_tokens: Option<u64>,
}

/// Reads a kept object; none if there is none or it has no counts we know.
fn read(object: &[u8]) -> Option<Report> {
    let report: Report = serde_json::from_slice(object).ok()?;
    (report.prompt_tokens.is_some() || report.completion_tokens.is_some()).then_some(report)
}

impl Report {
    fn update(&mut self, last: Self) {
        self.prompt_tokens = last.prompt_tokens.or(self.prompt_tokens);
        self.completion_tokens = last.completion_tokens.or(self.completion_tokens);
        self.prompt_tokens_details = last.prompt_tokens_details.or(self.prompt_tokens_details);
        self.completion_tokens_details = last
            .completion_tokens_details
            .or(self.completion_tokens_details);
        self.cache_read_input_tokens = last
            .cache_read_input_tokens
            .or(self.cache_read_input_tokens);
        self.cache_creation_input_tokens = last
            .cache_creation_input_tokens
            .or(self.cache_creation_input_tokens);
    }

    fn usage(&self) -> Usage {
        // Anthropic counts the cached part of the prompt beside `input_tokens`, OpenAI within.
        let beside = self
            .cache_read_input_tokens
            .unwrap_or(0)
            .saturating_add(self.cache_creation_input_tokens.unwrap_or(0));
        let cached = self
            .prompt_tokens_details
            .and_then(|details| details.cached_tokens);
        Usage {
            prompt_tokens: self.prompt_tokens.unwrap_or(0).saturating_add(beside),
            completion_tokens: self.completion_tokens.unwrap_or(0),
            cached_tokens: cached.or(self.cache_read_input_tokens),
            reasoning_tokens: self
                .completion_tokens_details
                .and_then(|details| details.reasoning_tokens),
        }
    }
}
