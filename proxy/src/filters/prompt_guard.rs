//! `promptGuard`: bounds what one request may ask of an engine, by prompt size and tokens to generate.
//!
//! Not for budgets over time (that is rate limiting), nor for what a prompt says.

use std::sync::Arc;

use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use super::{
    BodyView, FilterError, Hooks, LocalReply, Plugin, Step, StreamFilter, StreamView, config,
};
use crate::http::RequestHead;

/// The configuration's `type`.
pub(super) const KIND: &str = "promptGuard";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PromptGuardConfig {
    /// Most bytes of prompt text; above it 413.
    max_prompt_bytes: Option<usize>,
    /// Most tokens to generate.
    max_tokens: Option<u64>,
    /// What happens to a request for more.
    #[serde(default)]
    mode: Mode,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    /// 400. A request that sets no limit of its own passes: the engine's default holds.
    #[default]
    Reject,
    /// The limit is lowered; a request that sets none gets it.
    Clamp,
}

/// A checked [`PromptGuardConfig`]; also the stream filter, as it has no state.
#[derive(Debug, Clone, Copy)]
struct PromptGuard {
    max_prompt_bytes: Option<usize>,
    max_tokens: Option<u64>,
    mode: Mode,
}

/// Builds the plugin, or says which field is wrong.
pub(super) fn build(value: &Value) -> Result<Arc<dyn Plugin>, String> {
    let parsed: PromptGuardConfig = config::parse(value)?;
    if parsed.max_prompt_bytes.is_none() && parsed.max_tokens.is_none() {
        return Err("nothing to do: give `maxPromptBytes` or `maxTokens`".into());
    }
    if parsed.max_prompt_bytes == Some(0) {
        return Err("maxPromptBytes: 0 would refuse every prompt, give at least 1".into());
    }
    if parsed.max_tokens == Some(0) {
        return Err("maxTokens: 0 would let no engine answer, give at least 1".into());
    }
    Ok(Arc::new(PromptGuard {
        max_prompt_bytes: parsed.max_prompt_bytes,
        max_tokens: parsed.max_tokens,
        mode: parsed.mode,
    }))
}

impl Plugin for PromptGuard {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn hooks(&self) -> Hooks {
        Hooks::REQUEST_BODY
    }

    fn open(&self, _head: &RequestHead) -> Option<Box<dyn StreamFilter>> {
        Some(Box::new(*self))
    }
}

impl StreamFilter for PromptGuard {
    fn on_request_body(
        &mut self,
        cx: &mut StreamView<'_>,
        _head: &mut RequestHead,
        body: &BodyView<'_>,
    ) -> Result<Step, FilterError> {
        if let Some(limit) = self.max_prompt_bytes
            && body.prompt_bytes > limit
        {
            return Ok(Step::Reply(prompt_too_long(limit, body.prompt_bytes)));
        }
        let Some(limit) = self.max_tokens else {
            return Ok(Step::Next);
        };
        match (self.mode, body.max_tokens) {
            (Mode::Reject, Some(asked)) if asked > limit => {
                Ok(Step::Reply(too_many_tokens(limit, asked)))
            }
            (Mode::Clamp, asked) if asked.is_none_or(|asked| asked > limit) => {
                cx.clamp_max_tokens(limit);
                Ok(Step::Next)
            }
            _ => Ok(Step::Next),
        }
    }
}

fn prompt_too_long(limit: usize, size: usize) -> LocalReply {
    LocalReply::error(
        StatusCode::PAYLOAD_TOO_LARGE,
        "prompt_too_long",
        format!("the prompt has {size} bytes, at most {limit} are allowed here"),
    )
}

fn too_many_tokens(limit: u64, asked: u64) -> LocalReply {
    LocalReply::error(
        StatusCode::BAD_REQUEST,
        "max_tokens_too_high",
        format!("max_tokens is {asked}, at most {limit} is allowed here"),
    )
}

#[cfg(test)]
mod tests;
