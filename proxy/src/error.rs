//! Every way a request can fail in the gateway, and what follows from it: status, OpenAI error object, metric
//! reason. One place, so that a client, a dashboard and a log tell the same story.
//!
//! Not for what engines answer: their 4xx and 5xx bodies pass through unchanged.

use http::StatusCode;
use serde_json::json;
use thiserror::Error;

use crate::auth::TokenError;
use crate::openai::multipart::MultipartError;
use crate::openai::scan::ScanError;

/// Why the gateway itself answers a request.
#[derive(Debug, Error)]
pub enum RequestError {
    /// The request head breaks HTTP.
    #[error("malformed request: {0}")]
    MalformedHead(String),
    /// The request head is larger than the limits.
    #[error("request header too large: {0}")]
    HeadTooLarge(String),
    /// Its token is missing or not accepted.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Tokens are asked for, and there is nothing to check them with.
    #[error(
        "tokens cannot be checked: the keys of their issuer have not come yet; try again shortly"
    )]
    AuthUnavailable,
    /// The body broke off, or its framing is wrong.
    #[error("request body could not be read: {0}")]
    MalformedBody(String),
    /// The client stopped sending.
    #[error("the request was not received in time: no data for {0:?}")]
    ClientTooSlow(std::time::Duration),
    /// The body is larger than `limits.bodyBytes`.
    #[error("request body is larger than the limit of {limit} bytes")]
    BodyTooLarge {
        /// `limits.bodyBytes`.
        limit: usize,
    },
    /// All requests together hold `limits.bodyBudgetBytes`.
    #[error("the gateway holds as many request bytes as it may; try again shortly")]
    BodyBudget,
    /// The body is no JSON object, or a field of it is wrong.
    #[error(transparent)]
    Body(#[from] ScanError),
    /// The multipart body is broken.
    #[error(transparent)]
    Multipart(#[from] MultipartError),
    /// Neither JSON nor multipart.
    #[error(
        "content-type `{0}` is not supported: send application/json, or multipart/form-data where the API takes files"
    )]
    ContentType(String),
    /// `model` is missing or unusable.
    #[error("{0}")]
    Model(String),
    /// No route for this model, or none whose rules match.
    #[error(
        "route not found: the model `{model}` does not exist or is not served for this request"
    )]
    RouteNotFound {
        /// As the client sent it.
        model: String,
    },
    /// No handler for the path.
    #[error("no such API: {method} {path}")]
    UnknownPath {
        /// Method.
        method: String,
        /// Path without query.
        path: String,
    },
    /// The path exists, the method does not.
    #[error("method {method} is not allowed here; allowed: {allow}")]
    MethodNotAllowed {
        /// Method.
        method: String,
        /// Value of the `allow` field.
        allow: &'static str,
    },
    /// Upgrades (websocket) are not served.
    #[error("protocol upgrades are not supported")]
    Upgrade,
    /// The matching rule's targets have no endpoint, or none that can serve the request.
    #[error("no endpoint is available for model `{model}`{}", because(*.reason))]
    NoEndpoint {
        /// As the client sent it.
        model: String,
        /// Why the first of those there are is none.
        reason: Option<&'static str>,
    },
    /// Targets with weight are there, but all name ModelServers that do not exist.
    #[error("the ModelServer `{server}` that the route for model `{model}` targets does not exist")]
    ServerMissing {
        /// As the client sent it.
        model: String,
        /// `namespace/name` of the first.
        server: String,
    },
    /// A target kind this build does not serve.
    #[error(
        "the route's target for model `{model}` is an external provider, which this gateway does not serve yet"
    )]
    ExternalTarget {
        /// As the client sent it.
        model: String,
    },
    /// No connection to any tried endpoint.
    #[error("no connection to the inference engine after {attempts} attempt(s): {cause}")]
    EngineUnreachable {
        /// Attempts made.
        attempts: u32,
        /// The last failure.
        cause: String,
    },
    /// The engine broke off before it answered, or answered something that is not HTTP.
    #[error("the inference engine broke off after {attempts} attempt(s): {cause}")]
    EngineBroken {
        /// Attempts made.
        attempts: u32,
        /// The last failure.
        cause: String,
    },
    /// The engine did not answer in time.
    #[error("the inference engine did not answer within {timeout:?}")]
    EngineTimeout {
        /// The limit that was hit.
        timeout: std::time::Duration,
    },
    /// A bug or a broken invariant.
    #[error("internal error: {0}")]
    Internal(String),
}

/// Facts about a [`RequestError`], all in one row.
struct Row {
    status: u16,
    kind: &'static str,
    code: &'static str,
    reason: &'static str,
}

const INVALID: &str = "invalid_request_error";
const SERVER: &str = "server_error";

fn because(reason: Option<&str>) -> String {
    reason.map_or_else(String::new, |reason| format!(": {reason}"))
}

impl RequestError {
    fn row(&self) -> Row {
        let (status, kind, code, reason) = match self {
            Self::MalformedHead(_) => (400, INVALID, "malformed_request", "malformed_request"),
            Self::HeadTooLarge(_) => (431, INVALID, "header_too_large", "header_too_large"),
            Self::MalformedBody(_) => (400, INVALID, "malformed_body", "malformed_body"),
            Self::ClientTooSlow(_) => (408, INVALID, "request_timeout", "client_timeout"),
            Self::BodyTooLarge { .. } => (413, INVALID, "body_too_large", "body_too_large"),
            Self::BodyBudget => (503, "overloaded_error", "overloaded", "body_budget"),
            Self::Body(_) | Self::Multipart(_) => (400, INVALID, "invalid_body", "invalid_body"),
            Self::ContentType(_) => (
                415,
                INVALID,
                "unsupported_content_type",
                "unsupported_content_type",
            ),
            Self::Token(_) => (401, INVALID, "invalid_token", "unauthenticated"),
            Self::AuthUnavailable => (503, SERVER, "auth_unavailable", "auth_unavailable"),
            Self::Model(_) => (400, INVALID, "invalid_model", "invalid_model"),
            Self::RouteNotFound { .. } => (404, INVALID, "model_not_found", "route_not_found"),
            Self::UnknownPath { .. } => (404, INVALID, "unknown_path", "unknown_path"),
            Self::MethodNotAllowed { .. } => {
                (405, INVALID, "method_not_allowed", "method_not_allowed")
            }
            Self::Upgrade => (400, INVALID, "upgrade_not_supported", "upgrade"),
            Self::NoEndpoint { .. } => (503, SERVER, "no_endpoint", "no_endpoint"),
            Self::ServerMissing { .. } => (503, SERVER, "no_endpoint", "server_missing"),
            Self::ExternalTarget { .. } => (501, SERVER, "not_supported", "external_target"),
            Self::EngineUnreachable { .. } => {
                (502, SERVER, "engine_unreachable", "engine_unreachable")
            }
            Self::EngineBroken { .. } => (502, SERVER, "engine_error", "engine_broken"),
            Self::EngineTimeout { .. } => (504, SERVER, "engine_timeout", "engine_timeout"),
            Self::Internal(_) => (500, SERVER, "internal_error", "internal"),
        };
        Row {
            status,
            kind,
            code,
            reason,
        }
    }

    /// HTTP status of the answer.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.row().status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Metric and log label: a closed set.
    pub fn reason(&self) -> &'static str {
        self.row().reason
    }

    /// Whose fault: `client`, `gateway` or `engine`.
    pub fn origin(&self) -> &'static str {
        match self {
            Self::EngineUnreachable { .. }
            | Self::EngineBroken { .. }
            | Self::EngineTimeout { .. } => "engine",
            _ if self.row().status < 500 => "client",
            _ => "gateway",
        }
    }

    /// The body's field at fault.
    pub fn param(&self) -> Option<&str> {
        match self {
            Self::Model(_)
            | Self::RouteNotFound { .. }
            | Self::Multipart(MultipartError::NoModel) => Some("model"),
            Self::Multipart(
                MultipartError::Duplicate { field, .. } | MultipartError::BadValue { field, .. },
            ) => Some(field),
            Self::Body(error) => error.field(),
            _ => None,
        }
    }

    /// Seconds for `retry-after`, where trying again makes sense.
    pub fn retry_after(&self) -> Option<u32> {
        let again = matches!(
            self,
            Self::BodyBudget
                | Self::NoEndpoint { .. }
                | Self::ServerMissing { .. }
                | Self::AuthUnavailable
        );
        again.then_some(1)
    }

    /// Must the client's connection be closed after the answer?
    pub fn closes_connection(&self) -> bool {
        matches!(
            self,
            Self::MalformedHead(_)
                | Self::HeadTooLarge(_)
                | Self::MalformedBody(_)
                | Self::ClientTooSlow(_)
                | Self::BodyTooLarge { .. }
                | Self::Upgrade
        )
    }

    /// The OpenAI error object.
    pub fn body(&self) -> Vec<u8> {
        let row = self.row();
        error_object(&self.to_string(), row.kind, row.code, self.param())
    }

    /// The same object as the last event of a broken SSE stream.
    pub fn sse_event(&self) -> Vec<u8> {
        let mut event = b"event: error\ndata: ".to_vec();
        event.extend_from_slice(&self.body());
        event.extend_from_slice(b"\n\n");
        event
    }
}

/// `{"error":{"message","type","param","code"}}`, as the OpenAI API writes it.
pub fn error_object(message: &str, kind: &str, code: &str, param: Option<&str>) -> Vec<u8> {
    json!({"error": {"message": message, "type": kind, "param": param, "code": code}})
        .to_string()
        .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_model_is_a_404_that_names_the_field_and_keeps_kthenas_words() {
        let error = RequestError::RouteNotFound {
            model: "m\"x".into(),
        };
        assert_eq!(error.status(), 404);
        let body: serde_json::Value = serde_json::from_slice(&error.body()).unwrap();
        assert_eq!(body["error"]["code"], "model_not_found");
        assert_eq!(body["error"]["param"], "model");
        assert!(
            body["error"]["message"]
                .as_str()
                .unwrap()
                .starts_with("route not found")
        );
    }

    #[test]
    fn an_sse_error_is_one_event() {
        let event = RequestError::EngineBroken {
            attempts: 1,
            cause: "reset".into(),
        }
        .sse_event();
        let text = String::from_utf8(event).unwrap();
        assert!(
            text.starts_with("event: error\ndata: {\"error\":"),
            "{text}"
        );
        assert!(text.ends_with("}\n\n"), "{text}");
        assert_eq!(text.matches('\n').count(), 3, "{text}");
    }
}
