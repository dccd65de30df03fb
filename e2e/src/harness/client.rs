//! Clients as tests need them: bodies, answers read to their end whatever that is, event streams and metrics taken
//! apart.

use std::time::Instant;

use http::HeaderMap;
use reqwest::{Client, Response};
use serde_json::{Value, json};

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Header fields.
    pub headers: HeaderMap,
    /// The body, as far as it came.
    pub body: Vec<u8>,
    /// The body ended as its framing promised.
    pub complete: bool,
    /// When the end, or the break, was seen.
    pub ended: Instant,
}

/// One server-sent event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Value of `event`, empty when there is none.
    pub name: String,
    /// Its data lines, joined.
    pub data: String,
}

/// A client that speaks HTTP/1.1 with keep-alive.
///
/// # Panics
/// When the client cannot be built.
pub fn http1() -> Client {
    Client::builder()
        .http1_only()
        .no_proxy()
        .build()
        .expect("a client needs nothing that can be missing")
}

/// A client that speaks HTTP/2 by prior knowledge.
///
/// # Panics
/// When the client cannot be built.
pub fn http2() -> Client {
    Client::builder()
        .http2_prior_knowledge()
        .no_proxy()
        .build()
        .expect("a client needs nothing that can be missing")
}

/// A client that opens a connection for each request, so that a Service spreads them over its endpoints.
///
/// # Panics
/// When the client cannot be built.
pub fn without_reuse() -> Client {
    Client::builder()
        .no_proxy()
        .pool_max_idle_per_host(0)
        .build()
        .expect("a client needs nothing that can be missing")
}

/// A chat request with one user message.
pub fn chat(model: &str, prompt: &str, max_tokens: u32, stream: bool) -> Value {
    json!({
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "stream": stream,
    })
}

/// Posts a chat to `base` (`http://host:port`) under a request id, with a fault for the engine if any.
///
/// # Errors
/// When no response head came.
pub async fn post(
    client: &Client,
    base: &str,
    id: &str,
    fault: Option<&str>,
    body: &Value,
) -> reqwest::Result<Response> {
    let mut request = client
        .post(format!("{base}/v1/chat/completions"))
        .header("x-request-id", id)
        .json(body);
    if let Some(fault) = fault {
        request = request.header("x-fault", fault);
    }
    request.send().await
}

/// Reads a response to its end or its break.
pub async fn read(mut response: Response) -> Answer {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let mut body = Vec::new();
    let complete = loop {
        match response.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => break true,
            Err(_) => break false,
        }
    };
    Answer {
        status,
        headers,
        body,
        complete,
        ended: Instant::now(),
    }
}

/// [`post`] and [`read`].
///
/// # Panics
/// When no response head came.
pub async fn ask(
    client: &Client,
    base: &str,
    id: &str,
    fault: Option<&str>,
    body: &Value,
) -> Answer {
    let response = post(client, base, id, fault, body).await;
    read(response.expect("a response head came")).await
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as events.
    pub fn events(&self) -> Vec<Event> {
        events(&self.text())
    }
}

/// Events that an SSE client sees: an unfinished one at the end is dropped.
pub fn events(text: &str) -> Vec<Event> {
    let finished = text.rfind("\n\n").map_or(0, |end| end + 2);
    let blocks = text[..finished]
        .split("\n\n")
        .filter(|block| !block.is_empty());
    blocks
        .map(|block| {
            let values = |field: &str| -> Vec<&str> {
                block
                    .lines()
                    .filter_map(|line| line.strip_prefix(field)?.strip_prefix(": "))
                    .collect()
            };
            Event {
                name: values("event").join(""),
                data: values("data").join("\n"),
            }
        })
        .collect()
}

/// The text with every `"created":SECONDS` set to zero: an engine stamps each answer.
pub fn without_times(text: &str) -> String {
    const KEY: &str = "\"created\":";
    let mut parts = text.split(KEY);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str(KEY);
        out.push('0');
        out.push_str(part.trim_start_matches(|character: char| character.is_ascii_digit()));
    }
    out
}

/// Sum of a metric's samples whose labels contain all of `labels` (each as `name="value"`).
pub fn sample(metrics: &str, name: &str, labels: &[&str]) -> f64 {
    let lines = metrics.lines().filter(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|label| line.contains(label))
    });
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}
