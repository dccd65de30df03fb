//! Kthena's words for what happens here: closed sets, nothing of a client's.

use super::super::labels::NONE;
use crate::telemetry::record::RequestRecord;

/// `backend_type` of a ModelServer.
pub(super) const MODEL_SERVER: &str = "model_server";
/// `backend_type` of a request that found no backend.
const UNRESOLVED: &str = "unresolved";
/// `path` of anything that is not listed.
const OTHER: &str = "other";
/// `error_type` of a request without error.
pub(super) const SUCCESS: &str = "successful_request";
/// `error_type` where Kthena has no other word.
const FAILED: &str = "request_failed";
/// `status_code` of a client that left before it got one.
const CLIENT_GONE: u16 = 499;

/// Paths that are label values. A request's own path is none: clients choose it.
const PATHS: [&str; 21] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/rerank",
    "/v1/score",
    "/v1/pooling",
    "/v1/classify",
    "/v1/moderations",
    "/v1/tokenize",
    "/v1/detokenize",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
    "/v1/audio/speech",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/images/variations",
    "/v1/videos",
    "/v1/load_lora_adapter",
];

/// `path`.
pub(super) fn path(path: &str) -> &'static str {
    let known = PATHS.iter().find(|known| **known == path);
    known.copied().unwrap_or(OTHER)
}

/// `backend_type` of a backend's name.
pub(super) fn backend_type(backend_name: &str) -> &'static str {
    if backend_name == NONE {
        UNRESOLVED
    } else {
        MODEL_SERVER
    }
}

/// `status_code`.
pub(super) fn status_code(record: &RequestRecord) -> u16 {
    match record.status {
        0 => CLIENT_GONE,
        status => status,
    }
}

/// `error_type`.
pub(super) fn error_type(record: &RequestRecord) -> &'static str {
    match (record.reason(), record.status) {
        ("ok", 500..) => "proxy",
        ("ok", 0 | 400..) => FAILED,
        ("ok", _) => SUCCESS,
        ("route_not_found", _) => "route_not_found",
        ("no_endpoint" | "server_missing", _) => "pod_discovery",
        ("external_target", _) => "provider_discovery",
        ("engine_unreachable" | "engine_broken" | "engine_timeout", _) => "proxy",
        _ => FAILED,
    }
}
