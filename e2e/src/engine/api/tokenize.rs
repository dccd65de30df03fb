//! `/tokenize` and `/detokenize`.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;

use super::chat::{ChatMessage, prompt};
use super::{ApiError, ApiKind, prompts_of, read};
use crate::engine::reply::{Incoming, Reply};
use crate::engine::shared::Shared;
use crate::engine::tokens;

#[derive(Debug, Deserialize)]
struct TokenizeRequest {
    prompt: Option<String>,
    messages: Option<Vec<ChatMessage>>,
    tools: Option<serde_json::Value>,
}

pub(super) async fn tokenize(shared: &Arc<Shared>, incoming: &Incoming) -> Result<Reply, ApiError> {
    let request: TokenizeRequest = read(incoming)?;
    let (kind, own) = match (request.messages, request.prompt) {
        (Some(messages), _) => (ApiKind::Chat, prompt(&messages, request.tools.as_ref())),
        (None, Some(text)) => {
            let mut ids = Vec::new();
            tokens::encode(&text, &mut ids);
            (ApiKind::Completions, ids)
        }
        (None, None) => return Err(ApiError::missing("prompt")),
    };
    let tokens = prompts_of(shared, incoming, kind, || Ok(vec![own])).await?;
    let tokens = tokens.concat();
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
