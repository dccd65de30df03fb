//! `/tokenize` and `/detokenize`.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;

use super::chat::{ChatMessage, prompt};
use super::{ApiError, read};
use crate::engine::reply::{Incoming, Reply};
use crate::engine::shared::Shared;
use crate::engine::tokens;

#[derive(Debug, Deserialize)]
struct TokenizeRequest {
    prompt: Option<String>,
    messages: Option<Vec<ChatMessage>>,
    tools: Option<serde_json::Value>,
}

pub(super) fn tokenize(shared: &Arc<Shared>, incoming: &Incoming) -> Result<Reply, ApiError> {
    let request: TokenizeRequest = read(incoming)?;
    let tokens = match (request.messages, request.prompt) {
        (Some(messages), _) => prompt(&messages, request.tools.as_ref()),
        (None, Some(text)) => {
            let mut ids = Vec::new();
            tokens::encode(&text, &mut ids);
            ids
        }
        (None, None) => return Err(ApiError::missing("prompt")),
    };
    let body = json!({
        "count": tokens.len(), "max_model_len": shared.options.max_model_len, "tokens": tokens, "token_strs": null,
    });
    Ok(Reply::json(200, &body))
}

#[derive(Debug, Deserialize)]
struct DetokenizeRequest {
    tokens: Option<Vec<u32>>,
}

pub(super) fn detokenize(incoming: &Incoming) -> Result<Reply, ApiError> {
    let request: DetokenizeRequest = read(incoming)?;
    let ids = request.tokens.ok_or_else(|| ApiError::missing("tokens"))?;
    Ok(Reply::json(200, &json!({"prompt": tokens::decode(&ids)})))
}
