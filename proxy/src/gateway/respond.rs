//! Answers that the gateway itself gives: errors, filters' replies, its own small APIs.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use serde_json::Value;

use super::request::Request;
use super::{Halt, body};
use crate::auth;
use crate::error::{self, RequestError};
use crate::filters::{End, LocalReply, ReplyBody, ResponseFlow};
use crate::forward::exchange::{ClientError, Downstream};
use crate::http::{ResponseHead, hygiene, identity};
use crate::telemetry::RecordError;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// An unread body up to this size is read before the answer, so that the connection can serve on.
const SMALL_BODY: usize = 64 << 10;

/// A JSON answer.
pub(super) fn json(value: &Value) -> LocalReply {
    let mut reply = LocalReply::empty(StatusCode::OK);
    reply.headers.insert(header::CONTENT_TYPE, JSON);
    reply.body = ReplyBody::Bytes(value.to_string().into());
    reply
}

/// The answer to `OPTIONS`.
pub(super) fn options(allow: &'static str) -> LocalReply {
    let mut reply = LocalReply::empty(StatusCode::NO_CONTENT);
    reply
        .headers
        .insert(header::ALLOW, HeaderValue::from_static(allow));
    reply
}

/// Ends a request whose normal way ended before an answer was begun.
pub(super) async fn halted<D: Downstream>(client: &mut D, request: &mut Request, halt: Halt) {
    let reply = match halt {
        Halt::ClientGone => {
            request.end = End::ClientGone;
            return;
        }
        Halt::Reply(reply) => *reply,
        Halt::Error(error) => {
            request.note(&error);
            if error.closes_connection() {
                client.close_after_response();
            }
            error_reply(&error)
        }
    };
    request.end = End::Replied;
    if send(client, request, reply).await.is_err() {
        request.end = End::ClientGone;
    }
}

fn error_reply(error: &RequestError) -> LocalReply {
    let mut reply = LocalReply::empty(error.status());
    reply.headers.insert(header::CONTENT_TYPE, JSON);
    if let Some(seconds) = error.retry_after() {
        reply
            .headers
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let RequestError::MethodNotAllowed { allow, .. } = error {
        reply
            .headers
            .insert(header::ALLOW, HeaderValue::from_static(allow));
    }
    if let RequestError::Token(error) = error {
        reply
            .headers
            .insert(header::WWW_AUTHENTICATE, auth::challenge(error));
    }
    reply.body = ReplyBody::Bytes(error.body().into());
    reply
}

async fn send<D: Downstream>(
    client: &mut D,
    request: &mut Request,
    reply: LocalReply,
) -> Result<(), ClientError> {
    let unread = !request.body_read && has_body(&request.head.headers);
    let waits = hygiene::expects_continue(&request.head.headers);
    let small =
        hygiene::content_length(&request.head.headers).is_some_and(|length| length <= SMALL_BODY);
    if unread && small && !waits {
        const PATIENCE: Duration = Duration::from_secs(1);
        tokio::time::timeout(PATIENCE, body::discard(client))
            .await
            .ok();
    }
    let (mut head, mut content) = reply.into_parts();
    if let ResponseFlow::Replace(other) = request.filters.response_head(&mut head).await {
        content = other;
    }
    let bytes = finish_head(request, &mut head, content);
    request.record.status = head.status.as_u16();
    request.record.response_bytes = bytes.len() as u64;
    client.start(head).await?;
    if !bytes.is_empty() && request.head.method != Method::HEAD {
        client.write(bytes).await?;
    }
    if unread && !small && !waits {
        body::discard(client).await;
    }
    client.finish().await
}

/// Turns a reply's body into bytes and gives the head what follows from them.
pub(super) fn finish_head(
    request: &mut Request,
    head: &mut ResponseHead,
    content: ReplyBody,
) -> Bytes {
    let bytes = match content {
        ReplyBody::Bytes(bytes) => bytes,
        ReplyBody::Error { code, message } => {
            let kind = if head.status.is_server_error() {
                "server_error"
            } else {
                "invalid_request_error"
            };
            head.headers.insert(header::CONTENT_TYPE, JSON);
            let bytes = error::error_object(&message, kind, &code, None);
            request
                .record
                .error
                .get_or_insert_with(|| RecordError::new("filter", message));
            request.record.error_origin.get_or_insert("gateway");
            bytes.into()
        }
    };
    if head.status != StatusCode::NO_CONTENT && head.status != StatusCode::NOT_MODIFIED {
        head.headers
            .insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    }
    head.headers
        .insert(identity::REQUEST_ID, request.id.clone());
    bytes
}

fn has_body(headers: &HeaderMap) -> bool {
    // The framing field itself is gone from the head by now; a missing length on a POST means chunked.
    hygiene::content_length(headers) != Some(0)
}
