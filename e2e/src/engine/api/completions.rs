//! `/v1/completions`: a prompt as text or tokens, or several of either.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use super::job::Ask;
use super::{ApiError, ApiKind, Delta, Job, prompts_of, quoted, quoted_or_null, read, usage_json};
use crate::engine::reply::{Incoming, JSON, Reply};
use crate::engine::shared::Shared;
use crate::engine::stream::{EventStream, Format};
use crate::engine::tokens;

#[derive(Debug, Deserialize)]
struct CompletionRequest {
    model: Option<String>,
    prompt: Option<Value>,
    max_tokens: Option<u64>,
    n: Option<usize>,
    seed: Option<i64>,
    stop: Option<Value>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    cache_salt: Option<String>,
}

/// `stream_options`, of which both default to off.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct StreamOptions {
    #[serde(default)]
    pub(super) include_usage: bool,
    #[serde(default)]
    pub(super) continuous_usage_stats: bool,
}

/// `stop` is a string or a list of them.
pub(super) fn stops(stop: Option<&Value>) -> Vec<String> {
    match stop {
        Some(Value::String(stop)) => vec![stop.clone()],
        Some(Value::Array(stops)) => stops
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        _ => Vec::new(),
    }
}

/// Prompts from a string, a list of strings, a list of tokens or a list of such lists.
pub(super) fn prompts(value: &Value) -> Result<Vec<Vec<u32>>, ApiError> {
    let text = |text: &str| {
        let mut prompt = Vec::new();
        tokens::encode(text, &mut prompt);
        prompt
    };
    let invalid = || {
        ApiError::bad_request(
            Some("prompt"),
            "prompt must be a string, tokens, or a list of either",
        )
    };
    let ids = |list: &[Value]| -> Option<Vec<u32>> {
        list.iter()
            .map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok()))
            .collect()
    };
    let prompts = match value {
        Value::String(string) => vec![text(string)],
        Value::Array(list) => match list.first() {
            Some(Value::Number(_)) => vec![ids(list).ok_or_else(invalid)?],
            Some(Value::String(_) | Value::Array(_)) => {
                let each = list.iter().map(|item| match item {
                    Value::String(string) => Some(text(string)),
                    Value::Array(list) => ids(list),
                    _ => None,
                });
                each.collect::<Option<_>>().ok_or_else(invalid)?
            }
            _ => return Err(invalid()),
        },
        _ => return Err(invalid()),
    };
    Ok(prompts)
}

pub(super) async fn reply(
    shared: &Arc<Shared>,
    incoming: &Incoming,
    usage: bool,
) -> Result<Reply, ApiError> {
    let request: CompletionRequest = read(incoming)?;
    let options = request.stream_options.unwrap_or_default();
    let prompt = request.prompt.as_ref();
    let prompt = prompt.ok_or_else(|| ApiError::missing("prompt"))?;
    let own = || prompts(prompt);
    let ask = Ask {
        model: request.model,
        prompts: prompts_of(shared, incoming, ApiKind::Completions, own).await?,
        choices: request.n.unwrap_or(1).clamp(1, 128),
        max_tokens: request.max_tokens,
        seed: request.seed,
        stop: stops(request.stop.as_ref()),
        cache_salt: request.cache_salt,
        stream: request.stream.unwrap_or(false),
        include_usage: options.include_usage && usage,
        continuous_usage: options.include_usage && options.continuous_usage_stats && usage,
    };
    let mut job = Job::start(shared, incoming, ask, "cmpl-")?;
    if job.ask.stream {
        let format = CompletionEvents {
            prefix: format!("data: {}", head(&job)),
        };
        return Ok(Reply::events(EventStream::new(job, Box::new(format))));
    }
    let deltas = job.finish().await;
    let choices: Vec<_> = deltas.iter().map(choice).collect();
    let usage = if usage {
        format!(",\"usage\":{}", usage_json(job.usage()))
    } else {
        String::new()
    };
    let body = format!(
        "{}{}],\"service_tier\":null,\"system_fingerprint\":null{usage},\"kv_transfer_params\":null}}",
        head(&job),
        choices.join(",")
    );
    Ok(Reply::full(200, JSON, body))
}

fn head(job: &Job) -> String {
    format!(
        "{{\"id\":{},\"object\":\"text_completion\",\"created\":{},\"model\":{},\"choices\":[",
        quoted(&job.id),
        job.created,
        quoted(&job.model)
    )
}

fn choice(delta: &Delta) -> String {
    format!(
        "{{\"index\":{},\"text\":\"{}\",\"logprobs\":null,\"finish_reason\":{},\"stop_reason\":{}}}",
        delta.index,
        delta.text,
        quoted_or_null(delta.finish),
        quoted_or_null(delta.stop.as_deref())
    )
}

struct CompletionEvents {
    prefix: String,
}

impl Format for CompletionEvents {
    fn delta(&mut self, job: &Job, delta: &Delta, out: &mut dyn FnMut(Bytes)) {
        let usage = if job.ask.continuous_usage {
            usage_json(job.usage())
        } else {
            "null".to_owned()
        };
        out(format!("{}{}],\"usage\":{usage}}}\n\n", self.prefix, choice(delta)).into());
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_form_of_prompt_is_read() {
        assert_eq!(prompts(&json!("abcdefgh")).unwrap().len(), 1);
        assert_eq!(prompts(&json!(["abcd", "efgh"])).unwrap().len(), 2);
        assert_eq!(prompts(&json!([1, 2, 3])).unwrap(), [vec![1, 2, 3]]);
        assert_eq!(
            prompts(&json!([[1, 2], [3]])).unwrap(),
            [vec![1, 2], vec![3]]
        );
        assert!(prompts(&json!([1, "a"])).is_err());
        assert!(prompts(&json!({})).is_err());
        assert!(prompts(&json!([])).is_err());
    }
}
