//! `/v1/messages`, Anthropic's surface, as far as a gateway looks at it: text only.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::chat::{ChatMessage, prompt};
use super::job::Ask;
use super::{ApiError, ApiKind, Delta, Job, prompts_of, read};
use crate::engine::reply::{Incoming, Reply};
use crate::engine::shared::Shared;
use crate::engine::stream::{EventStream, Format};

#[derive(Debug, Deserialize)]
struct MessagesRequest {
    model: Option<String>,
    messages: Option<Vec<ChatMessage>>,
    system: Option<Value>,
    max_tokens: Option<u64>,
    stop_sequences: Option<Vec<String>>,
    stream: Option<bool>,
}

pub(super) async fn reply(
    shared: &Arc<Shared>,
    incoming: &Incoming,
    usage: bool,
) -> Result<Reply, ApiError> {
    let request: MessagesRequest = read(incoming)?;
    let mut messages = request
        .messages
        .ok_or_else(|| ApiError::missing("messages"))?;
    if let Some(content) = request.system {
        messages.insert(
            0,
            ChatMessage {
                role: "system".to_owned(),
                content,
            },
        );
    }
    let ask = Ask {
        model: request.model,
        prompts: prompts_of(shared, incoming, ApiKind::Messages, || {
            Ok(vec![prompt(&messages, None)])
        })
        .await?,
        choices: 1,
        max_tokens: request.max_tokens,
        stop: request.stop_sequences.unwrap_or_default(),
        stream: request.stream.unwrap_or(false),
        include_usage: usage,
        ..Ask::default()
    };
    let mut job = Job::start(shared, incoming, ask, "msg_")?;
    if job.ask.stream {
        return Ok(Reply::events(EventStream::new(
            job,
            Box::new(MessageEvents::default()),
        )));
    }
    let deltas = job.finish().await;
    let text: String = deltas.iter().map(|delta| delta.text.as_str()).collect();
    let last = deltas.last();
    let mut body = message(&job, json!([{"type": "text", "text": text}]));
    body["stop_reason"] = json!(last.map(stop_reason));
    body["stop_sequence"] = json!(last.and_then(|delta| delta.stop.clone()));
    if usage {
        body["usage"] = counts(&job);
    }
    Ok(Reply::json(200, &body))
}

fn message(job: &Job, content: Value) -> Value {
    json!({
        "id": job.id, "type": "message", "role": "assistant", "content": content, "model": job.model,
        "stop_reason": null, "stop_sequence": null,
    })
}

fn counts(job: &Job) -> Value {
    let usage = job.usage();
    json!({
        "input_tokens": usage.prompt - usage.cached, "output_tokens": usage.completion,
        "cache_creation_input_tokens": 0, "cache_read_input_tokens": usage.cached,
    })
}

fn stop_reason(delta: &Delta) -> &'static str {
    if delta.stop.is_some() {
        "stop_sequence"
    } else {
        "max_tokens"
    }
}

#[derive(Debug, Default)]
struct MessageEvents {
    last: Option<Delta>,
}

fn event(out: &mut dyn FnMut(Bytes), data: &Value) {
    let name = data["type"].as_str().unwrap_or_default();
    out(format!("event: {name}\ndata: {data}\n\n").into());
}

impl Format for MessageEvents {
    fn open(&mut self, job: &Job, out: &mut dyn FnMut(Bytes)) {
        let mut start = message(job, json!([]));
        if job.ask.include_usage {
            start["usage"] = counts(job);
            start["usage"]["output_tokens"] = json!(0);
        }
        event(out, &json!({"type": "message_start", "message": start}));
        let block = json!({"type": "text", "text": ""});
        event(
            out,
            &json!({"type": "content_block_start", "index": 0, "content_block": block}),
        );
    }

    fn delta(&mut self, _job: &Job, delta: &Delta, out: &mut dyn FnMut(Bytes)) {
        let text = json!({"type": "text_delta", "text": delta.text});
        event(
            out,
            &json!({"type": "content_block_delta", "index": 0, "delta": text}),
        );
        self.last = Some(delta.clone());
    }

    fn close(&mut self, job: &Job, out: &mut dyn FnMut(Bytes)) {
        event(out, &json!({"type": "content_block_stop", "index": 0}));
        let last = self.last.as_ref();
        let stop = last.and_then(|delta| delta.stop.clone());
        let mut end = json!({
            "type": "message_delta",
            "delta": {"stop_reason": last.map(stop_reason), "stop_sequence": stop},
        });
        if job.ask.include_usage {
            end["usage"] = counts(job);
        }
        event(out, &end);
        event(out, &json!({"type": "message_stop"}));
    }
}
