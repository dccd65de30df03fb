//! `/v1/chat/completions`.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use super::completions::{StreamOptions, stops};
use super::job::Ask;
use super::{ApiError, ApiKind, Delta, Job, prompts_of, quoted, quoted_or_null, read, usage_json};
use crate::engine::reply::{Incoming, JSON, Reply};
use crate::engine::shared::Shared;
use crate::engine::stream::{EventStream, Format};
use crate::engine::tokens;

#[derive(Debug, Deserialize)]
struct ChatRequest {
    model: Option<String>,
    messages: Option<Vec<ChatMessage>>,
    tools: Option<Value>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    n: Option<usize>,
    seed: Option<i64>,
    stop: Option<Value>,
    #[serde(default)]
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    cache_salt: Option<String>,
}

/// A message of the chat surfaces.
#[derive(Debug, Deserialize)]
pub(super) struct ChatMessage {
    #[serde(default)]
    pub(super) role: String,
    #[serde(default)]
    pub(super) content: Value,
}

/// The prompt of a conversation, tools first.
pub(super) fn prompt(messages: &[ChatMessage], tools: Option<&Value>) -> Vec<u32> {
    let mut prompt = Vec::new();
    if let Some(tools) = tools.filter(|tools| !tools.is_null()) {
        tokens::encode_message("tools", &Value::String(tools.to_string()), &mut prompt);
    }
    for message in messages {
        tokens::encode_message(&message.role, &message.content, &mut prompt);
    }
    tokens::encode_answer_header(&mut prompt);
    prompt
}

pub(super) async fn reply(
    shared: &Arc<Shared>,
    incoming: &Incoming,
    usage: bool,
) -> Result<Reply, ApiError> {
    let request: ChatRequest = read(incoming)?;
    let messages = request
        .messages
        .as_deref()
        .ok_or_else(|| ApiError::missing("messages"))?;
    let options = request.stream_options.unwrap_or_default();
    let own = || Ok(vec![prompt(messages, request.tools.as_ref())]);
    let ask = Ask {
        model: request.model,
        prompts: prompts_of(shared, incoming, ApiKind::Chat, own).await?,
        choices: request.n.unwrap_or(1).clamp(1, 128),
        max_tokens: request.max_completion_tokens.or(request.max_tokens),
        seed: request.seed,
        stop: stops(request.stop.as_ref()),
        cache_salt: request.cache_salt,
        stream: request.stream.unwrap_or(false),
        include_usage: options.include_usage && usage,
        continuous_usage: options.include_usage && options.continuous_usage_stats && usage,
    };
    let mut job = Job::start(shared, incoming, ask, "chatcmpl-")?;
    if job.ask.stream {
        let format = ChatEvents::new(&job);
        return Ok(Reply::events(EventStream::new(job, Box::new(format))));
    }
    let deltas = job.finish().await;
    Ok(Reply::full(200, JSON, whole(&job, &deltas, usage)))
}

fn whole(job: &Job, deltas: &[Delta], usage: bool) -> String {
    let choices: Vec<_> = deltas
        .iter()
        .map(|delta| {
            format!(
                "{{\"index\":{},\"message\":{{\"role\":\"assistant\",\"content\":\"{}\",\"refusal\":null,\
                 \"annotations\":null,\"audio\":null,\"function_call\":null,\"tool_calls\":[],\
                 \"reasoning_content\":null}},\"logprobs\":null,\"finish_reason\":{},\"stop_reason\":{},\
                 \"token_ids\":null}}",
                delta.index,
                delta.text,
                quoted_or_null(delta.finish),
                quoted_or_null(delta.stop.as_deref()),
            )
        })
        .collect();
    let usage = if usage {
        format!("\"usage\":{},", usage_json(job.usage()))
    } else {
        String::new()
    };
    format!(
        "{{\"id\":{},\"object\":\"chat.completion\",\"created\":{},\"model\":{},\"choices\":[{}],\
         \"service_tier\":null,\"system_fingerprint\":null,{usage}\"prompt_logprobs\":null,\
         \"prompt_token_ids\":null,\"kv_transfer_params\":null}}",
        quoted(&job.id),
        job.created,
        quoted(&job.model),
        choices.join(","),
    )
}

struct ChatEvents {
    /// `data: {"id":...,"choices":[`
    prefix: String,
}

impl ChatEvents {
    fn new(job: &Job) -> Self {
        let prefix = format!(
            "data: {{\"id\":{},\"object\":\"chat.completion.chunk\",\"created\":{},\"model\":{},\"choices\":[",
            quoted(&job.id),
            job.created,
            quoted(&job.model)
        );
        Self { prefix }
    }

    fn event(&self, job: &Job, choice: &str, more: &str) -> Bytes {
        let mut event = String::with_capacity(self.prefix.len() + choice.len() + 64);
        event.push_str(&self.prefix);
        event.push_str(choice);
        event.push(']');
        if job.ask.continuous_usage {
            event.push_str(",\"usage\":");
            event.push_str(&usage_json(job.usage()));
        }
        event.push_str(more);
        event.push_str("}\n\n");
        event.into()
    }
}

impl Format for ChatEvents {
    fn open(&mut self, job: &Job, out: &mut dyn FnMut(Bytes)) {
        for index in 0..job.choices() {
            let choice = format!(
                "{{\"index\":{index},\"delta\":{{\"role\":\"assistant\",\"content\":\"\"}},\"logprobs\":null,\
                 \"finish_reason\":null}}"
            );
            out(self.event(job, &choice, ",\"prompt_token_ids\":null"));
        }
    }

    fn delta(&mut self, job: &Job, delta: &Delta, out: &mut dyn FnMut(Bytes)) {
        let finish = match delta.finish {
            Some(reason) => {
                format!(
                    "\"{reason}\",\"stop_reason\":{}",
                    quoted_or_null(delta.stop.as_deref())
                )
            }
            None => "null".to_owned(),
        };
        let choice = format!(
            "{{\"index\":{},\"delta\":{{\"content\":\"{}\"}},\"logprobs\":null,\"finish_reason\":{finish},\
             \"token_ids\":null}}",
            delta.index, delta.text
        );
        out(self.event(job, &choice, ""));
    }

    fn close(&mut self, job: &Job, out: &mut dyn FnMut(Bytes)) {
        if job.ask.include_usage {
            out(format!(
                "{}],\"usage\":{}}}\n\n",
                self.prefix,
                usage_json(job.usage())
            )
            .into());
        }
        out(Bytes::from_static(b"data: [DONE]\n\n"));
    }
}
