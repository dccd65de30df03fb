//! What of a request body becomes the prompt, by the rules of vLLM's servers, so that our ids are the engine's.
//!
//! Every API but completions and embeddings is brought to chat messages first, then to the form that templates
//! see. What we do not know for sure has no ids, with a [`Reason`] for a metric: wrong ids would be worse than
//! none, and a client never sees an error from here.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::template::ContentFormat;

mod chat;
mod conversation;
mod messages;
mod responses;

#[cfg(test)]
mod tests;

/// The API a request speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiKind {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    Completions,
    /// `/v1/embeddings`.
    Embeddings,
    /// `/v1/responses`.
    Responses,
    /// `/v1/messages`, Anthropic's.
    Messages,
}

/// What is to be tokenised.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    /// The client sent ids.
    Ids(Arc<[u32]>),
    /// Plain text.
    Text {
        /// The text.
        text: String,
        /// Whether the tokenizer puts its own tokens around it.
        add_special_tokens: bool,
    },
    /// A conversation for the chat template.
    Chat(Chat),
}

/// A conversation as its template sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Chat {
    /// `messages`, `tools`, `documents`, `add_generation_prompt` and the template's own parameters.
    pub context: Map<String, Value>,
    /// Whether the request offers tools: it chooses the template where a model has two.
    pub with_tools: bool,
    /// The prompt ends inside the last message.
    pub continue_final_message: bool,
    /// Whether the tokenizer puts its own tokens around the rendered text; templates mostly write them.
    pub add_special_tokens: bool,
}

/// Why a request has no ids. A closed set: the label of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The body is not what the API wants; the engine will say so.
    Malformed,
    /// Images, audio, video, embeddings: they take positions of the prompt that only the engine knows.
    Multimodal,
    /// More than one prompt in one request.
    SeveralPrompts,
    /// The conversation goes on from one that the server keeps.
    ServerState,
    /// A field that changes the prompt in a way we do not follow.
    Unsupported,
    /// The model has no chat template.
    NoTemplate,
    /// The template raised an exception on this conversation.
    TemplateRefused,
    /// The template failed or exceeded its limits.
    TemplateFailed,
    /// The tokenizer refused the text.
    Encode,
    /// The library panicked on the text.
    Panicked,
    /// Too many prompts wait already.
    QueueFull,
}

impl Reason {
    /// Every reason, for metrics that show all from the start.
    pub const ALL: [Self; 11] = [
        Self::Malformed,
        Self::Multimodal,
        Self::SeveralPrompts,
        Self::ServerState,
        Self::Unsupported,
        Self::NoTemplate,
        Self::TemplateRefused,
        Self::TemplateFailed,
        Self::Encode,
        Self::Panicked,
        Self::QueueFull,
    ];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Multimodal => "multimodal",
            Self::SeveralPrompts => "several_prompts",
            Self::ServerState => "server_state",
            Self::Unsupported => "unsupported",
            Self::NoTemplate => "no_template",
            Self::TemplateRefused => "template_refused",
            Self::TemplateFailed => "template_failed",
            Self::Encode => "encode",
            Self::Panicked => "panicked",
            Self::QueueFull => "queue_full",
        }
    }
}

type Body = Map<String, Value>;

/// The prompt of `body`. `format` tells the form of content that the template for a request with or without
/// tools wants, nothing when there is no template.
///
/// # Errors
/// The reason why there is none.
pub fn prompt(
    kind: ApiKind,
    body: &[u8],
    format: impl Fn(bool) -> Option<ContentFormat>,
) -> Result<Prompt, Reason> {
    let body: Body = serde_json::from_slice(body).map_err(|_| Reason::Malformed)?;
    if body
        .get("truncate_prompt_tokens")
        .is_some_and(|value| !value.is_null())
    {
        return Err(Reason::Unsupported);
    }
    match kind {
        ApiKind::Completions => plain(body, "prompt"),
        ApiKind::Embeddings => plain(body, "input"),
        ApiKind::Chat => chat::prompt(body, format),
        ApiKind::Responses => chat::prompt(responses::as_chat(body)?, format),
        ApiKind::Messages => chat::prompt(messages::as_chat(body)?, format),
    }
}

/// Completions and embeddings: a text, ids, or a list with one of either.
fn plain(mut body: Body, field: &str) -> Result<Prompt, Reason> {
    if body
        .get("prompt_embeds")
        .is_some_and(|value| !value.is_null())
    {
        return Err(Reason::Multimodal);
    }
    let add_special_tokens = flag(&body, "add_special_tokens", true)?;
    let mut prompt = match body.remove(field) {
        None if body.contains_key("messages") => return Err(Reason::Unsupported),
        prompt => prompt.unwrap_or(Value::Null),
    };
    if let Value::Array(items) = &mut prompt
        && matches!(items.first(), Some(Value::String(_) | Value::Array(_)))
    {
        if items.len() > 1 {
            return Err(Reason::SeveralPrompts);
        }
        prompt = items.remove(0);
    }
    match prompt {
        Value::String(text) => Ok(Prompt::Text {
            text,
            add_special_tokens,
        }),
        Value::Array(ids) => {
            let id = |value: &Value| u32::try_from(value.as_u64()?).ok();
            let ids: Option<Arc<[u32]>> = ids.iter().map(id).collect();
            ids.filter(|ids| !ids.is_empty())
                .map(Prompt::Ids)
                .ok_or(Reason::Malformed)
        }
        _ => Err(Reason::Malformed),
    }
}

/// A boolean field; `null` is as good as absent.
fn flag(body: &Body, name: &str, default: bool) -> Result<bool, Reason> {
    match body.get(name) {
        None | Some(Value::Null) => Ok(default),
        Some(Value::Bool(value)) => Ok(*value),
        Some(_) => Err(Reason::Malformed),
    }
}

/// A map of one entry after the other, in order.
fn map<const N: usize>(entries: [(&str, Value); N]) -> Body {
    entries
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}
