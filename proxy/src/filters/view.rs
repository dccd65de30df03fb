//! What a filter may see and do besides the message heads: facts about the body, typed data shared along the
//! stream, edits it asks for, and how the request ended.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Extensions, StatusCode};

/// A request body and what is known about it.
#[derive(Debug, Clone, Copy)]
pub struct BodyView<'a> {
    /// The whole body; after an earlier filter replaced it, the new one.
    pub bytes: &'a Bytes,
    /// `model`. This and all below are of the body as received, also after a replacement.
    pub model: &'a str,
    /// Bytes of prompt text.
    pub prompt_bytes: usize,
    /// `max_tokens`, or what the API calls it.
    pub max_tokens: Option<u64>,
    /// Does the client want a stream of events?
    pub stream: bool,
    /// Who asks, as far as the request tells.
    pub user: Option<&'a str>,
    /// The conversation it belongs to, as far as the request tells.
    pub session: Option<&'a str>,
}

/// A filter's narrow view of its stream.
pub struct StreamView<'a> {
    /// Typed data shared by the filters of one stream.
    pub extensions: &'a mut Extensions,
    /// Uniformly random bits of this stream, the same in every hook: filters draw none of their own.
    pub random: u64,
    pub(super) edits: &'a mut Edits,
}

impl StreamView<'_> {
    /// Puts `body` in the place of the request's body. Heeded in the request hooks only.
    pub fn replace_body(&mut self, body: Bytes) {
        self.edits.body = Some(body);
    }

    /// Asks that the engine generate at most `limit` tokens: a higher `max_tokens` is lowered, a missing one is
    /// added. The lowest of several limits holds. Heeded in the request hooks only.
    pub fn clamp_max_tokens(&mut self, limit: u64) {
        let lowest = self
            .edits
            .max_tokens
            .map_or(limit, |earlier| earlier.min(limit));
        self.edits.max_tokens = Some(lowest);
    }
}

/// Edits of the request body that filters asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edits {
    /// A whole new body, of which nothing is known yet.
    pub body: Option<Bytes>,
    /// Limit for `max_tokens`, to be applied to the body that is sent.
    pub max_tokens: Option<u64>,
}

/// How a request ended.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// In what way.
    pub end: End,
    /// What the client was answered, if anything.
    pub status: Option<StatusCode>,
    /// `host:port` of the last engine tried.
    pub endpoint: Option<Arc<str>>,
    /// Attempts on engines.
    pub attempts: u32,
    /// Tokens as the engine counted them; `None` when it did not report.
    pub usage: Option<TokenUsage>,
    /// From the request's arrival to the first byte of the engine's body.
    pub first_byte: Option<Duration>,
    /// From the request's arrival to its end; `None` when the stream was dropped.
    pub total: Option<Duration>,
}

/// In what way a request ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum End {
    /// An engine's response was delivered whole.
    Completed,
    /// The gateway answered by itself.
    Replied,
    /// The client went away.
    ClientGone,
    /// The engine failed after its response had begun.
    EngineFailed,
    /// Cut or dropped for another reason.
    #[default]
    Aborted,
}

/// Token counts of one request. Inclusive: input covers cached tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TokenUsage {
    /// Prompt tokens.
    pub input: u64,
    /// Generated tokens.
    pub output: u64,
    /// Part of `input` served from a cache, when reported.
    pub cached: Option<u64>,
}
