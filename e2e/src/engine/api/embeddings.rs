//! `/v1/embeddings`: a prefill, and eight numbers from the prompt's hash.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::completions::prompts;
use super::job::Ask;
use super::{ApiError, Job, read};
use crate::engine::hash;
use crate::engine::reply::{Incoming, Reply};
use crate::engine::shared::Shared;

const DIMENSIONS: u64 = 8;

#[derive(Debug, Deserialize)]
struct EmbeddingRequest {
    model: Option<String>,
    input: Option<Value>,
}

pub(super) async fn reply(
    shared: &Arc<Shared>,
    incoming: &Incoming,
    usage: bool,
) -> Result<Reply, ApiError> {
    let request: EmbeddingRequest = read(incoming)?;
    let inputs = prompts(
        request
            .input
            .as_ref()
            .ok_or_else(|| ApiError::missing("input"))?,
    )?;
    let seed = shared.options.seed;
    let data: Vec<_> = inputs
        .iter()
        .enumerate()
        .map(|(index, input)| {
            let base = hash::chain(seed, input.iter().copied());
            let vector =
                (0..DIMENSIONS).map(|axis| (hash::mix(base, axis) % 2001) as f64 / 1000.0 - 1.0);
            json!({"index": index, "object": "embedding", "embedding": vector.collect::<Vec<_>>()})
        })
        .collect();
    let ask = Ask {
        model: request.model,
        prompts: inputs,
        choices: 1,
        max_tokens: Some(1),
        ..Ask::default()
    };
    let mut job = Job::start(shared, incoming, ask, "embd-")?;
    job.finish().await;
    let mut body = json!({
        "id": job.id, "object": "list", "created": job.created, "model": job.model, "data": data,
    });
    if usage {
        let prompt = job.usage().prompt;
        body["usage"] = json!({
            "prompt_tokens": prompt, "total_tokens": prompt, "completion_tokens": 0, "prompt_tokens_details": null,
        });
    }
    Ok(Reply::json(200, &body))
}
