//! The API surface: which handler a method and path belong to.

use http::Method;
use percent_encoding::percent_decode_str;

use crate::error::RequestError;
use crate::openai::scan::Key;
use crate::tokens::ApiKind;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Api {
    /// The list of routed models.
    Models,
    /// One routed model, by name.
    Model(String),
    /// Anything under `/v1/` whose body names a model.
    Inference,
    /// `OPTIONS`: the methods of the path.
    Options(&'static str),
}

const READ: &str = "GET, HEAD, OPTIONS";
const SEND: &str = "POST, OPTIONS";

/// Finds the handler.
pub(super) fn classify(method: &Method, path: &str) -> Result<Api, RequestError> {
    let (api, allow) = match path {
        "/v1/models" => (Api::Models, READ),
        _ => match path.strip_prefix("/v1/") {
            Some(rest) if rest.starts_with("models/") && rest.len() > 7 => {
                let name = percent_decode_str(&rest[7..])
                    .decode_utf8_lossy()
                    .into_owned();
                (Api::Model(name), READ)
            }
            Some(rest) if !rest.is_empty() => (Api::Inference, SEND),
            _ => {
                let (method, path) = (method.to_string(), path.to_owned());
                return Err(RequestError::UnknownPath { method, path });
            }
        },
    };
    let allowed = if allow == READ {
        method == Method::GET || method == Method::HEAD
    } else {
        method == Method::POST
    };
    if method == Method::OPTIONS {
        Ok(Api::Options(allow))
    } else if allowed {
        Ok(api)
    } else {
        Err(RequestError::MethodNotAllowed {
            method: method.to_string(),
            allow,
        })
    }
}

/// What kind of prompt the API of this path takes; `None` where prompts are not known as tokens.
pub(super) fn token_kind(path: &str) -> Option<ApiKind> {
    match path {
        "/v1/chat/completions" => Some(ApiKind::Chat),
        "/v1/completions" => Some(ApiKind::Completions),
        "/v1/embeddings" => Some(ApiKind::Embeddings),
        "/v1/responses" => Some(ApiKind::Responses),
        "/v1/messages" => Some(ApiKind::Messages),
        _ => None,
    }
}

/// Does the API of this path know `stream_options`, so that usage may be asked for in the client's name?
pub(super) fn knows_stream_options(path: &str) -> bool {
    matches!(path, "/v1/chat/completions" | "/v1/completions")
}

/// The field that limits the output of the API of this path, if it generates text.
pub(super) fn output_limit(path: &str) -> Option<Key> {
    match path {
        "/v1/chat/completions" | "/v1/completions" | "/v1/messages" => Some(Key::MaxTokens),
        "/v1/responses" => Some(Key::MaxOutputTokens),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_path_under_v1_takes_posts() {
        for path in [
            "/v1/chat/completions",
            "/v1/rerank",
            "/v1/audio/speech",
            "/v1/x/y",
        ] {
            assert_eq!(classify(&Method::POST, path).unwrap(), Api::Inference);
            assert_eq!(classify(&Method::GET, path).unwrap_err().status(), 405);
            assert_eq!(
                classify(&Method::OPTIONS, path).unwrap(),
                Api::Options(SEND)
            );
        }
    }

    #[test]
    fn models_are_read_and_their_names_may_hold_slashes() {
        assert_eq!(classify(&Method::GET, "/v1/models").unwrap(), Api::Models);
        assert_eq!(
            classify(&Method::HEAD, "/v1/models/org/name%3Av1").unwrap(),
            Api::Model("org/name:v1".into())
        );
        assert_eq!(
            classify(&Method::POST, "/v1/models").unwrap_err().status(),
            405
        );
    }

    #[test]
    fn other_paths_are_unknown() {
        for path in ["/", "/v1", "/v1/", "/v2/chat/completions", "/metrics"] {
            assert_eq!(
                classify(&Method::POST, path).unwrap_err().status(),
                404,
                "{path}"
            );
        }
    }
}
