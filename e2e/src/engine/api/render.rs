//! `/v1/chat/completions/render`: the very tokens a chat request would be computed for.
//!
//! vLLM answers it with `--enable-scale-out` only; the simulator always does.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::chat::{ChatMessage, prompt};
use super::{ApiError, ApiKind, prompts_of, read};
use crate::engine::reply::{Incoming, Reply};
use crate::engine::shared::Shared;

#[derive(Debug, Deserialize)]
struct RenderRequest {
    model: Option<String>,
    messages: Option<Vec<ChatMessage>>,
    tools: Option<Value>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    #[serde(default)]
    stream: bool,
    cache_salt: Option<String>,
}

pub(super) async fn chat(shared: &Arc<Shared>, incoming: &Incoming) -> Result<Reply, ApiError> {
    let request: RenderRequest = read(incoming)?;
    let messages = request
        .messages
        .ok_or_else(|| ApiError::missing("messages"))?;
    let own = || Ok(vec![prompt(&messages, request.tools.as_ref())]);
    let tokens = prompts_of(shared, incoming, ApiKind::Chat, own).await?;
    let body = json!({
        "request_id": format!("chatcmpl-{}", shared.new_id()),
        "token_ids": tokens.concat(),
        "features": null,
        "sampling_params": {"max_tokens": request.max_completion_tokens.or(request.max_tokens)},
        "model": request.model.or_else(|| shared.options.models.first().cloned()),
        "stream": request.stream,
        "cache_salt": request.cache_salt,
        "kv_transfer_params": null,
    });
    Ok(Reply::json(200, &body))
}
