//! The API: which path answers how. HTTP itself, faults of the connection and the clock are not here.

mod chat;
mod completions;
mod echo;
mod embeddings;
mod error;
mod job;
mod messages;
mod models;
mod render;
mod responses;
mod sim;
mod tokenize;

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::json;
use sluice_proxy::tokens::ApiKind;

pub(crate) use error::ApiError;
pub(crate) use job::{Delta, Job, Usage};

use super::fault::Fault;
use super::kv::KvHandle;
use super::reply::{Incoming, Reply};
use super::shared::Shared;

/// Answers one request.
pub(crate) async fn handle(
    shared: &Arc<Shared>,
    incoming: &Incoming,
    fault: Option<Fault>,
) -> Reply {
    let usage = !matches!(fault, Some(Fault::NoUsage));
    let mut reply = match (fault, incoming.header("x-echo")) {
        (Some(Fault::Status(status)), _) => ApiError::injected(status).reply(),
        (_, Some(kind)) if incoming.method == "POST" => echo::reply(kind, incoming),
        _ => route(shared, incoming, usage)
            .await
            .unwrap_or_else(|error| error.reply()),
    };
    if let Some(id) = incoming.header("x-request-id") {
        reply.headers.push(("x-request-id", id.to_owned()));
    }
    reply
}

async fn route(shared: &Arc<Shared>, incoming: &Incoming, usage: bool) -> Result<Reply, ApiError> {
    match (incoming.method.as_str(), incoming.path()) {
        ("POST", "/v1/chat/completions") => chat::reply(shared, incoming, usage).await,
        ("POST", "/v1/completions") => completions::reply(shared, incoming, usage).await,
        ("POST", "/v1/embeddings") => embeddings::reply(shared, incoming, usage).await,
        ("POST", "/v1/responses") => responses::reply(shared, incoming, usage).await,
        ("POST", "/v1/messages") => messages::reply(shared, incoming, usage).await,
        ("GET", "/v1/models") => Ok(models::list(shared)),
        ("POST", "/v1/load_lora_adapter") => models::load_lora(shared, incoming),
        ("POST", "/v1/unload_lora_adapter") => models::unload_lora(shared, incoming),
        ("POST", "/tokenize") => tokenize::tokenize(shared, incoming).await,
        ("POST", "/detokenize") => tokenize::detokenize(incoming),
        ("POST", "/v1/chat/completions/render") => render::chat(shared, incoming).await,
        ("GET", "/kv_event_sources") => Ok(Reply::json(
            200,
            &shared
                .kv
                .as_ref()
                .map_or_else(|| json!({}), KvHandle::sources),
        )),
        ("GET", "/health" | "/ping") => Ok(Reply::full(200, "text/plain; charset=utf-8", "")),
        ("GET", "/version") => Ok(Reply::json(
            200,
            &json!({"version": env!("CARGO_PKG_VERSION")}),
        )),
        ("GET", "/metrics") => Ok(Reply::full(
            200,
            "text/plain; version=1.0.0; charset=utf-8",
            super::metrics::render(shared),
        )),
        ("POST", "/reset_prefix_cache") => Ok(Reply::json(
            200,
            &json!({"success": shared.driver.reset_prefix_cache()}),
        )),
        ("POST", "/sim/fault") => sim::fault(shared, incoming).await,
        ("POST", "/sim/kv") => sim::kv(shared, incoming),
        ("GET", "/sim/requests") => Ok(sim::requests(shared)),
        (_, path) => Ok(no_route(path)),
    }
}

const PATHS: [&str; 20] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/messages",
    "/v1/models",
    "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter",
    "/tokenize",
    "/detokenize",
    "/health",
    "/ping",
    "/version",
    "/metrics",
    "/v1/chat/completions/render",
    "/reset_prefix_cache",
    "/kv_event_sources",
    "/sim/fault",
    "/sim/kv",
    "/sim/requests",
];

/// FastAPI's answers, which are no OpenAI error objects.
fn no_route(path: &str) -> Reply {
    match PATHS.contains(&path) {
        true => Reply::json(405, &json!({"detail": "Method Not Allowed"})),
        false => Reply::json(404, &json!({"detail": "Not Found"})),
    }
}

/// Reads a JSON body; a missing content type is let pass, a wrong one is not.
fn read<T: DeserializeOwned>(incoming: &Incoming) -> Result<T, ApiError> {
    let kind = incoming
        .header("content-type")
        .unwrap_or("application/json");
    if !kind
        .trim_start()
        .to_ascii_lowercase()
        .starts_with("application/json")
    {
        return Err(ApiError::media_type());
    }
    serde_json::from_slice(&incoming.body).map_err(|error| ApiError::json(&error))
}

/// The prompts of a body: one by the model's tokenizer if there is one, else `own`, by the simulator's rule.
async fn prompts_of(
    shared: &Shared,
    incoming: &Incoming,
    kind: ApiKind,
    own: impl FnOnce() -> Result<Vec<Vec<u32>>, ApiError>,
) -> Result<Vec<Vec<u32>>, ApiError> {
    let Some(tokenizing) = &shared.tokenizing else {
        return own();
    };
    let ids = tokenizing.ids(kind, &incoming.body).await;
    ids.map(|ids| vec![ids]).map_err(|reason| {
        let message = format!("the prompt cannot be tokenised: {}", reason.as_str());
        ApiError::bad_request(None, message)
    })
}

/// `usage` of the OpenAI surfaces, with vLLM's order of fields.
pub(crate) fn usage_json(usage: Usage) -> String {
    format!(
        "{{\"prompt_tokens\":{},\"total_tokens\":{},\"completion_tokens\":{},\
         \"prompt_tokens_details\":{{\"cached_tokens\":{}}}}}",
        usage.prompt,
        usage.prompt + usage.completion,
        usage.completion,
        usage.cached
    )
}

/// A JSON string, quotes included.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A JSON string or `null`.
pub(crate) fn quoted_or_null(text: Option<&str>) -> String {
    text.map_or_else(|| "null".to_owned(), quoted)
}
