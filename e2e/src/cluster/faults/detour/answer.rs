//! Answers of the detour's own, and bodies of those that it passes on.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};

use super::watching::Watching;

pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

pub(super) fn whole(body: Bytes) -> Body {
    Full::new(body).boxed_unsync()
}

pub(super) fn streamed(watching: Watching) -> Body {
    let chunks = futures::stream::unfold(watching, async |mut watching| {
        let chunk = watching.next().await?;
        Some((Ok(Frame::data(chunk)), watching))
    });
    StreamBody::new(chunks).boxed_unsync()
}

pub(super) fn stream(watching: Watching) -> Response<Body> {
    let mut answer = Response::new(streamed(watching));
    let json = header::HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, json);
    answer
}

pub(super) fn overrun(retry_after: Duration) -> Response<Body> {
    let message = "the server has received too many requests and has asked us to try again later";
    let mut answer = failure(429, "TooManyRequests", message);
    let seconds = retry_after.as_secs().into();
    answer.headers_mut().insert(header::RETRY_AFTER, seconds);
    answer
}

pub(super) fn gone() -> Response<Body> {
    failure(410, "Expired", GONE)
}

pub(super) fn unreachable(error: &anyhow::Error) -> Response<Body> {
    failure(503, "ServiceUnavailable", &format!("{error:#}"))
}

/// The event that tells a watch that its version is gone.
pub(super) fn gone_event() -> Bytes {
    let event = json!({"type": "ERROR", "object": status(410, "Expired", GONE)});
    format!("{event}\n").into()
}

const GONE: &str = "too old resource version: 1 (2)";

fn failure(code: u16, reason: &str, message: &str) -> Response<Body> {
    let body = status(code, reason, message).to_string();
    let mut answer = Response::new(whole(body.into()));
    *answer.status_mut() = StatusCode::from_u16(code).unwrap_or_default();
    let json = header::HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, json);
    answer
}

fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    })
}
