//! Errors as vLLM words them: `{"error":{"message","type","param","code"}}` with an integer code.

use serde_json::json;

use crate::engine::model::SubmitError;
use crate::engine::reply::Reply;

/// An error answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) status: u16,
    pub(crate) kind: &'static str,
    pub(crate) param: Option<String>,
    pub(crate) message: String,
}

impl ApiError {
    fn new(
        status: u16,
        kind: &'static str,
        param: Option<&str>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            status,
            kind,
            param: param.map(str::to_owned),
            message: message.into(),
        }
    }

    pub(crate) fn unknown_model(name: &str, known: &[String]) -> Self {
        let message = format!(
            "The model `{name}` does not exist. Valid aliases: {}.",
            known.join(", ")
        );
        Self::new(404, "NotFoundError", Some("model"), message)
    }

    pub(crate) fn bad_request(param: Option<&str>, message: impl Into<String>) -> Self {
        Self::new(400, "BadRequestError", param, message)
    }

    pub(crate) fn prompt_too_long(prompt: usize, limit: usize) -> Self {
        Self::bad_request(
            Some("input_tokens"),
            format!(
                "This model's maximum context length is {limit} tokens. However, your prompt contains at least \
                 {prompt} input tokens. Please reduce the length of the input prompt."
            ),
        )
    }

    pub(crate) fn total_too_long(prompt: usize, output: usize, limit: usize) -> Self {
        Self::bad_request(
            Some("input_tokens"),
            format!(
                "This model's maximum context length is {limit} tokens. However, you requested {output} output \
                 tokens and your prompt contains at least {prompt} input tokens, for a total of at least {} tokens. \
                 Please reduce the length of the input prompt or the number of requested output tokens.",
                prompt + output
            ),
        )
    }

    pub(crate) fn output_too_long(output: u64, limit: usize) -> Self {
        Self::bad_request(
            Some("max_tokens"),
            format!(
                "max_tokens={output} cannot be greater than max_model_len={limit}. Please request fewer output tokens."
            ),
        )
    }

    pub(crate) fn json(error: &serde_json::Error) -> Self {
        if error.is_data() {
            let message = format!(
                "1 validation error:\n  {{'type': 'value_error', 'loc': ('body',), 'msg': '{error}'}}"
            );
            return Self::new(400, "Bad Request", Some("body"), message);
        }
        let place = error.column();
        let message = format!(
            "1 validation error:\n  {{'type': 'json_invalid', 'loc': ('body', {place}), 'msg': 'JSON decode error', \
             'input': {{}}, 'ctx': {{'error': '{error}'}}}}"
        );
        Self::new(400, "Bad Request", Some(&format!("body.{place}")), message)
    }

    pub(crate) fn missing(field: &str) -> Self {
        let message = format!(
            "1 validation error:\n  {{'type': 'missing', 'loc': ('body', '{field}'), 'msg': 'Field required'}}"
        );
        Self::new(400, "Bad Request", Some(&format!("body.{field}")), message)
    }

    pub(crate) fn media_type() -> Self {
        let message =
            "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed";
        Self::new(400, "Bad Request", None, message)
    }

    pub(crate) fn lora(status: u16, message: impl Into<String>) -> Self {
        let kind = if status == 404 {
            "NotFoundError"
        } else {
            "InvalidUserInput"
        };
        Self::new(status, kind, None, message)
    }

    pub(crate) fn injected(status: u16) -> Self {
        let kind = match status {
            429 => "RateLimitError",
            503 => "ServiceUnavailableError",
            500.. => "InternalServerError",
            _ => "InjectedError",
        };
        Self::new(
            status,
            kind,
            None,
            format!("injected fault: status {status}"),
        )
    }

    pub(crate) fn reply(&self) -> Reply {
        let mut reply = Reply::json(
            self.status,
            &json!({"error": {
                "message": self.message, "type": self.kind, "param": self.param, "code": self.status,
            }}),
        );
        if matches!(self.status, 429 | 503) {
            reply.headers.push(("retry-after", "1".to_owned()));
        }
        reply
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        Self::bad_request(Some("input_tokens"), error.to_string())
    }
}
