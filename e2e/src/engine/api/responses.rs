//! `/v1/responses`, whole or as named events with sequence numbers; no tools, no stored state.

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
struct ResponsesRequest {
    model: Option<String>,
    input: Option<Value>,
    instructions: Option<String>,
    max_output_tokens: Option<u64>,
    stream: Option<bool>,
}

pub(super) async fn reply(
    shared: &Arc<Shared>,
    incoming: &Incoming,
    usage: bool,
) -> Result<Reply, ApiError> {
    let request: ResponsesRequest = read(incoming)?;
    let mut messages = Vec::new();
    if let Some(text) = request.instructions {
        messages.push(ChatMessage {
            role: "system".to_owned(),
            content: text.into(),
        });
    }
    match request.input.ok_or_else(|| ApiError::missing("input"))? {
        Value::Array(items) => {
            let items: Result<Vec<ChatMessage>, _> =
                items.into_iter().map(serde_json::from_value).collect();
            messages.extend(items.map_err(|error| ApiError::json(&error))?);
        }
        content => messages.push(ChatMessage {
            role: "user".to_owned(),
            content,
        }),
    }
    let ask = Ask {
        model: request.model,
        prompts: prompts_of(shared, incoming, ApiKind::Responses, || {
            Ok(vec![prompt(&messages, None)])
        })
        .await?,
        choices: 1,
        max_tokens: request.max_output_tokens,
        stream: request.stream.unwrap_or(false),
        include_usage: usage,
        ..Ask::default()
    };
    let mut job = Job::start(shared, incoming, ask, "resp_")?;
    if job.ask.stream {
        return Ok(Reply::events(EventStream::new(
            job,
            Box::new(ResponseEvents::default()),
        )));
    }
    let deltas = job.finish().await;
    let text: String = deltas.iter().map(|delta| delta.text.as_str()).collect();
    let output = vec![item(&job, "completed", &[part(&text)])];
    Ok(Reply::json(200, &response(&job, "incomplete", &output)))
}

fn part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": null})
}

fn item(job: &Job, status: &str, content: &[Value]) -> Value {
    let id = format!("msg_{}", job.id.trim_start_matches("resp_"));
    json!({"id": id, "type": "message", "role": "assistant", "status": status, "content": content})
}

/// The response object; one that ended by length is `incomplete`.
fn response(job: &Job, status: &str, output: &[Value]) -> Value {
    let ended = status == "incomplete";
    let mut body = json!({
        "id": job.id, "object": "response", "created_at": job.created, "status": status, "model": job.model,
        "incomplete_details": if ended { json!({"reason": "max_output_tokens"}) } else { Value::Null },
        "output": output, "parallel_tool_calls": true, "tool_choice": "auto", "tools": [], "usage": null,
    });
    if ended && job.ask.include_usage {
        let usage = job.usage();
        body["usage"] = json!({
            "input_tokens": usage.prompt,
            "input_tokens_details": {"cached_tokens": usage.cached},
            "output_tokens": usage.completion,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage.prompt + usage.completion,
        });
    }
    body
}

#[derive(Debug, Default)]
struct ResponseEvents {
    sequence: u64,
    text: String,
}

impl ResponseEvents {
    fn event(&mut self, out: &mut dyn FnMut(Bytes), mut data: Value) {
        data["sequence_number"] = json!(self.sequence);
        self.sequence += 1;
        let name = data["type"].as_str().unwrap_or_default();
        out(format!("event: {name}\ndata: {data}\n\n").into());
    }

    /// An event about the only part of the only item.
    fn part_event(
        &mut self,
        job: &Job,
        out: &mut dyn FnMut(Bytes),
        kind: &str,
        field: &str,
        value: Value,
    ) {
        let id = item(job, "", &[])["id"].clone();
        let mut data = json!({"type": kind, "item_id": id, "output_index": 0, "content_index": 0});
        data[field] = value;
        self.event(out, data);
    }
}

impl Format for ResponseEvents {
    fn open(&mut self, job: &Job, out: &mut dyn FnMut(Bytes)) {
        for kind in ["response.created", "response.in_progress"] {
            self.event(
                out,
                json!({"type": kind, "response": response(job, "in_progress", &[])}),
            );
        }
        let started = item(job, "in_progress", &[]);
        self.event(
            out,
            json!({"type": "response.output_item.added", "output_index": 0, "item": started}),
        );
        self.part_event(job, out, "response.content_part.added", "part", part(""));
    }

    fn delta(&mut self, job: &Job, delta: &Delta, out: &mut dyn FnMut(Bytes)) {
        self.text.push_str(&delta.text);
        self.part_event(
            job,
            out,
            "response.output_text.delta",
            "delta",
            json!(delta.text),
        );
    }

    fn close(&mut self, job: &Job, out: &mut dyn FnMut(Bytes)) {
        let text = std::mem::take(&mut self.text);
        self.part_event(job, out, "response.output_text.done", "text", json!(text));
        self.part_event(job, out, "response.content_part.done", "part", part(&text));
        let done = item(job, "completed", &[part(&text)]);
        self.event(
            out,
            json!({"type": "response.output_item.done", "output_index": 0, "item": done}),
        );
        let done = response(job, "incomplete", &[done]);
        self.event(out, json!({"type": "response.completed", "response": done}));
    }
}
