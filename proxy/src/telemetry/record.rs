//! The one access event of a request: filled along the way, written once at the end.
//!
//! Plain data. It never holds prompts, replies, token ids or keys; the path is without its query, because queries
//! may carry keys.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Longest path kept, in bytes.
pub const MAX_PATH_BYTES: usize = 2048;
/// Longest model name, request id or error message kept, in bytes.
pub const MAX_TEXT_BYTES: usize = 512;

/// Everything the gateway tells about one request.
#[derive(Debug, Clone)]
pub struct RequestRecord {
    /// When the request head had been read.
    pub started: SystemTime,
    /// Method.
    pub method: http::Method,
    /// Path without the query.
    pub path: String,
    /// Protocol of the client's side.
    pub protocol: http::Version,
    /// Status sent to the client; 0 when the client was gone before one was sent.
    pub status: u16,
    /// What went wrong, if anything did.
    pub error: Option<RecordError>,
    /// Who caused the error: `client`, `gateway` or `engine`.
    pub error_origin: Option<&'static str>,
    /// Model as the client asked for it.
    pub model: Option<String>,
    /// Is `model` a configured name? Only then may it become a metric label.
    pub known_model: bool,
    /// `namespace/name` of the ModelRoute.
    pub route: Option<Arc<str>>,
    /// `namespace/name` of the ModelServer.
    pub server: Option<Arc<str>>,
    /// Endpoint that really served, after retries.
    pub endpoint: Option<Arc<str>>,
    /// Endpoint of the first attempt.
    pub first_endpoint: Option<Arc<str>>,
    /// Value of `x-request-id`.
    pub request_id: String,
    /// Model name sent to the engine.
    pub upstream_model: Option<String>,
    /// Status of the engine's last answer.
    pub upstream_status: Option<u16>,
    /// Attempts made, the first included.
    pub attempts: u32,
    /// Prompt tokens.
    pub input_tokens: Option<u64>,
    /// Generated tokens.
    pub output_tokens: Option<u64>,
    /// Prompt tokens that the engine took from its cache.
    pub cached_tokens: Option<u64>,
    /// Token numbers are the gateway's estimate, not the engine's `usage`.
    pub tokens_estimated: bool,
    /// The client asked for a stream.
    pub stream: bool,
    /// Body bytes from the client.
    pub request_bytes: u64,
    /// Body bytes to the client.
    pub response_bytes: u64,
    /// From `started` to the first body byte of a streamed answer.
    pub ttft: Option<Duration>,
    /// From `started` to the end.
    pub total: Duration,
    /// From `started` to the dispatch of the first attempt.
    pub request_processing: Option<Duration>,
    /// From dispatch to the engine's last byte.
    pub upstream_processing: Option<Duration>,
    /// From the engine's last byte to the end.
    pub response_processing: Option<Duration>,
    /// Pauses between chunks after the first.
    pub gaps: GapSummary,
    /// The client went away before its answer was complete.
    pub client_gone: bool,
    /// W3C trace id.
    pub trace_id: Option<String>,
    /// Address of the client.
    pub client: Option<IpAddr>,
    /// User that the client's token names. Never the token.
    pub user: Option<String>,
}

/// An error as logs and metrics see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordError {
    /// Metric reason, from a closed set.
    pub kind: &'static str,
    /// For people. Never quotes a body.
    pub message: String,
}

/// Pauses between the chunks of a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GapSummary {
    /// How many.
    pub count: u64,
    /// Together.
    pub sum: Duration,
    /// The longest.
    pub max: Duration,
}

impl RequestRecord {
    /// A record of which nothing but the request head is known.
    pub fn new(
        started: SystemTime,
        method: http::Method,
        path: String,
        protocol: http::Version,
        request_id: String,
    ) -> Self {
        Self {
            started,
            method,
            path,
            protocol,
            status: 0,
            error: None,
            error_origin: None,
            model: None,
            known_model: false,
            route: None,
            server: None,
            endpoint: None,
            first_endpoint: None,
            request_id,
            upstream_model: None,
            upstream_status: None,
            attempts: 0,
            input_tokens: None,
            output_tokens: None,
            cached_tokens: None,
            tokens_estimated: false,
            stream: false,
            request_bytes: 0,
            response_bytes: 0,
            ttft: None,
            total: Duration::ZERO,
            request_processing: None,
            upstream_processing: None,
            response_processing: None,
            gaps: GapSummary::default(),
            client_gone: false,
            trace_id: None,
            client: None,
            user: None,
        }
    }

    /// The metric reason: the error's kind, or `ok`.
    pub fn reason(&self) -> &'static str {
        self.error.as_ref().map_or("ok", |error| error.kind)
    }

    /// Cuts texts that a client chose to a fixed size, so that a full log queue is bounded in bytes too.
    pub fn clip(&mut self) {
        clip(&mut self.path, MAX_PATH_BYTES);
        clip(&mut self.request_id, MAX_TEXT_BYTES);
        for text in [
            &mut self.model,
            &mut self.upstream_model,
            &mut self.trace_id,
            &mut self.user,
        ]
        .into_iter()
        .flatten()
        {
            clip(text, MAX_TEXT_BYTES);
        }
        if let Some(error) = &mut self.error {
            clip(&mut error.message, MAX_TEXT_BYTES);
        }
    }
}

impl RecordError {
    /// An error of a kind, with words for people.
    pub fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }
}

impl GapSummary {
    /// Counts one pause.
    pub fn add(&mut self, gap: Duration) {
        self.count += 1;
        self.sum = self.sum.saturating_add(gap);
        self.max = self.max.max(gap);
    }

    /// Mean pause; `None` when there was none.
    pub fn mean(&self) -> Option<Duration> {
        (self.count > 0)
            .then(|| Duration::from_secs_f64(self.sum.as_secs_f64() / self.count as f64))
    }
}

/// Cuts at a character boundary and gives the spare memory back.
fn clip(text: &mut String, max_bytes: usize) {
    if text.len() > max_bytes {
        text.truncate(text.floor_char_boundary(max_bytes));
        text.push('…');
        text.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_at_a_character_boundary() {
        let mut text = "é".repeat(MAX_TEXT_BYTES);
        clip(&mut text, MAX_TEXT_BYTES - 1);
        assert_eq!(text, format!("{}…", "é".repeat((MAX_TEXT_BYTES - 2) / 2)));
    }

    #[test]
    fn gaps_keep_count_sum_and_longest() {
        let mut gaps = GapSummary::default();
        assert_eq!(gaps.mean(), None);
        for millis in [10, 30, 20] {
            gaps.add(Duration::from_millis(millis));
        }
        assert_eq!((gaps.count, gaps.max), (3, Duration::from_millis(30)));
        assert_eq!(gaps.mean(), Some(Duration::from_millis(20)));
    }
}
