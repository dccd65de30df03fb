//! `/v1/models`, and loading and unloading of LoRA adapters at run time.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{ApiError, read};
use crate::engine::reply::{Incoming, Reply};
use crate::engine::shared::Shared;

pub(super) fn list(shared: &Shared) -> Reply {
    let card = |id: &str, parent: Option<&str>, length: Option<usize>| {
        json!({
            "id": id, "object": "model", "created": 1_700_000_000, "owned_by": "vllm", "root": id,
            "parent": parent, "max_model_len": length, "permission": [],
        })
    };
    let parent = shared.options.models.first().map(String::as_str);
    let mut data: Vec<Value> = shared
        .options
        .models
        .iter()
        .map(|name| card(name, None, Some(shared.options.max_model_len)))
        .collect();
    data.extend(shared.loras().iter().map(|name| card(name, parent, None)));
    Reply::json(200, &json!({"object": "list", "data": data}))
}

#[derive(Debug, Deserialize)]
struct LoraRequest {
    lora_name: Option<String>,
    lora_path: Option<String>,
}

const TEXT: &str = "text/plain; charset=utf-8";

/// Loads an adapter; a path that contains `missing` is not found.
pub(super) fn load_lora(shared: &Arc<Shared>, incoming: &Incoming) -> Result<Reply, ApiError> {
    let request: LoraRequest = read(incoming)?;
    let (Some(name), Some(path)) = (
        request.lora_name.filter(|name| !name.is_empty()),
        request.lora_path,
    ) else {
        return Err(ApiError::lora(
            400,
            "Both 'lora_name' and 'lora_path' must be provided.",
        ));
    };
    if path.contains("missing") {
        return Err(ApiError::lora(
            404,
            format!("Loading lora {name} failed: No adapter found for {path}"),
        ));
    }
    if shared.is_base_model(&name) || !shared.load_lora(&name) {
        return Err(ApiError::lora(
            400,
            format!("The lora adapter '{name}' has already been loaded."),
        ));
    }
    Ok(Reply::full(
        200,
        TEXT,
        format!("Success: LoRA adapter '{name}' added successfully."),
    ))
}

pub(super) fn unload_lora(shared: &Arc<Shared>, incoming: &Incoming) -> Result<Reply, ApiError> {
    let request: LoraRequest = read(incoming)?;
    let Some(name) = request.lora_name.filter(|name| !name.is_empty()) else {
        return Err(ApiError::lora(
            400,
            "'lora_name' needs to be provided to unload a LoRA adapter.",
        ));
    };
    if !shared.unload_lora(&name) {
        return Err(ApiError::lora(
            404,
            format!("The lora adapter '{name}' cannot be found."),
        ));
    }
    Ok(Reply::full(
        200,
        TEXT,
        format!("Success: LoRA adapter '{name}' removed successfully."),
    ))
}
