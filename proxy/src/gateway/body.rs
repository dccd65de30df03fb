//! The request's body: read once within the limits, then understood.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap};

use crate::error::RequestError;
use crate::forward::exchange::{ClientError, Downstream};
use crate::http::hygiene;
use crate::limits::{ByteBudget, ByteGuard};
use crate::openai::edit::Edits;
use crate::openai::multipart::{self, FormFacts};
use crate::openai::scan::{self, Facts, Key, ModelField};

use super::surface;

/// A body and what it says.
pub(super) struct Body {
    /// As received.
    pub bytes: Bytes,
    /// What it says.
    pub content: Content,
    /// The model it names.
    pub model: String,
}

/// What a body is.
pub(super) enum Content {
    /// A JSON object.
    Json(Box<Facts>),
    /// A form with files.
    Multipart(Box<FormFacts>),
}

/// Why a body could not be read: the client may simply be gone.
#[derive(Debug)]
pub(super) enum ReadError {
    /// To be answered.
    Refused(RequestError),
    /// Nobody to answer.
    Gone,
}

/// Reads the whole body. The guard holds its place in the budget.
pub(super) async fn read<D: Downstream>(
    client: &mut D,
    headers: &HeaderMap,
    limit: usize,
    budget: &Arc<ByteBudget>,
    patience: Duration,
) -> Result<(Bytes, ByteGuard), ReadError> {
    let length = hygiene::content_length(headers);
    if length.is_some_and(|length| length > limit) {
        return Err(ReadError::Refused(RequestError::BodyTooLarge { limit }));
    }
    let mut guard = budget.guard();
    if !guard.grow_to(length.unwrap_or(0)) {
        return Err(ReadError::Refused(RequestError::BodyBudget));
    }
    if length.is_some() {
        client.gather_body();
    }
    let failed = |error| match error {
        ClientError::Gone => ReadError::Gone,
        ClientError::TooSlow => ReadError::Refused(RequestError::ClientTooSlow(patience)),
        ClientError::Malformed(why) => ReadError::Refused(RequestError::MalformedBody(why)),
    };
    if hygiene::expects_continue(headers) {
        client.send_continue().await.map_err(failed)?;
    }
    let mut pieces = Pieces::new(length);
    while let Some(chunk) = client.read_body().await.map_err(failed)? {
        let total = pieces.length + chunk.len();
        if total > limit {
            return Err(ReadError::Refused(RequestError::BodyTooLarge { limit }));
        }
        if !guard.grow_to(total) {
            return Err(ReadError::Refused(RequestError::BodyBudget));
        }
        pieces.push(chunk);
    }
    Ok((pieces.join(), guard))
}

/// A body that arrives in one piece is never copied.
struct Pieces {
    expected: Option<usize>,
    length: usize,
    first: Bytes,
    joined: BytesMut,
}

impl Pieces {
    fn new(expected: Option<usize>) -> Self {
        Self {
            expected,
            length: 0,
            first: Bytes::new(),
            joined: BytesMut::new(),
        }
    }

    fn push(&mut self, chunk: Bytes) {
        self.length += chunk.len();
        if self.length == chunk.len() {
            self.first = chunk;
            return;
        }
        if self.joined.is_empty() {
            self.joined
                .reserve(self.expected.unwrap_or(0).max(2 * self.length));
            self.joined
                .extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.joined.extend_from_slice(&chunk);
    }

    fn join(self) -> Bytes {
        if self.joined.is_empty() {
            self.first
        } else {
            self.joined.freeze()
        }
    }
}

/// Reads on and throws away, so that a client that sends first and reads later gets to read our answer: a
/// connection closed on unread data is reset, and the answer with it.
pub(super) async fn discard<D: Downstream>(client: &mut D) {
    const MOST_BYTES: usize = 64 << 20;
    const MOST_TIME: Duration = Duration::from_secs(3);
    let reading = async {
        let mut left = MOST_BYTES;
        while let Ok(Some(chunk)) = client.read_body().await {
            match left.checked_sub(chunk.len()) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    // Out of patience: the client has had its chance.
    tokio::time::timeout(MOST_TIME, reading).await.ok();
}

impl Body {
    /// Understands a body by its content type.
    pub(super) fn parse(headers: &HeaderMap, bytes: Bytes) -> Result<Self, RequestError> {
        let kind = headers
            .get(header::CONTENT_TYPE)
            .map_or("", |kind| kind.to_str().unwrap_or("?"));
        let essence = kind
            .split(';')
            .next()
            .unwrap_or("")
            .trim()
            .to_ascii_lowercase();
        if essence == "multipart/form-data" {
            let form = multipart::scan_form(kind, &bytes)?;
            let model = form.model.value.clone();
            return Ok(Self {
                bytes,
                content: Content::Multipart(Box::new(form)),
                model,
            });
        }
        if !(essence.is_empty() || essence == "application/json" || essence.ends_with("+json")) {
            return Err(RequestError::ContentType(kind.to_owned()));
        }
        let facts = scan::scan(&bytes)?;
        let model = model_of(&facts)?.to_owned();
        Ok(Self {
            bytes,
            content: Content::Json(Box::new(facts)),
            model,
        })
    }

    /// What the JSON says, if it is JSON.
    pub(super) fn facts(&self) -> Option<&Facts> {
        match &self.content {
            Content::Json(facts) => Some(facts),
            Content::Multipart(_) => None,
        }
    }

    /// Does the client want an event stream?
    pub(super) fn stream(&self) -> bool {
        match &self.content {
            Content::Json(facts) => facts.stream,
            Content::Multipart(form) => form.stream,
        }
    }

    /// The body for an engine: another model name, and a usage event asked for.
    pub(super) fn edited(&self, model: Option<&str>, include_usage: bool) -> Bytes {
        let mut edits = Edits::new();
        match &self.content {
            Content::Json(facts) => {
                if let Some(model) = model {
                    edits.rename_model(facts, model);
                }
                if include_usage {
                    edits.include_usage(facts);
                }
            }
            Content::Multipart(form) => {
                if let Some(model) = model
                    && let Err(error) = form.rename_model(&mut edits, model)
                {
                    tracing::error!(%error, model, "the form keeps the client's model name");
                }
            }
        }
        edits.apply(&self.bytes)
    }

    /// The most tokens that any engine could read out of the body's output limits: which of several counts
    /// differs from API to API.
    pub(super) fn max_tokens(&self) -> Option<u64> {
        let limits = self.output_limits();
        limits.into_iter().filter_map(|(_, limit)| limit).max()
    }

    /// The body with every output limit lowered to `limit`; where it has none, one is added, if the API of this
    /// path generates text.
    pub(super) fn clamped(&self, path: &str, limit: u64) -> Bytes {
        let mut edits = Edits::new();
        let Some(facts) = self.facts() else {
            return self.bytes.clone();
        };
        let text = limit.to_string();
        let limits = self.output_limits();
        for (key, _) in limits
            .iter()
            .filter(|(_, value)| value.is_none_or(|value| value > limit))
        {
            edits.set(facts, *key, &text);
        }
        if limits.is_empty()
            && let Some(key) = surface::output_limit(path)
        {
            edits.set(facts, key, &text);
        }
        edits.apply(&self.bytes)
    }

    /// The output limits that are there; fractions are rounded up, what is no number is none.
    fn output_limits(&self) -> Vec<(Key, Option<u64>)> {
        let Some(facts) = self.facts() else {
            return Vec::new();
        };
        [
            Key::MaxTokens,
            Key::MaxCompletionTokens,
            Key::MaxOutputTokens,
        ]
        .into_iter()
        .filter_map(|key| Some((key, facts.member(key)?)))
        .map(|(key, member)| {
            let text = std::str::from_utf8(&self.bytes[member.span.clone()]).ok();
            let number = text.and_then(|text| text.parse::<f64>().ok());
            // Saturates, which is what a bound needs.
            (key, number.map(|number| number.ceil() as u64))
        })
        .collect()
    }
}

fn model_of(facts: &Facts) -> Result<&str, RequestError> {
    let wrong = |why: String| Err(RequestError::Model(why));
    match &facts.model {
        ModelField::Present(model) => Ok(&model.value),
        ModelField::Missing => wrong("`model` is missing: name the model to use".into()),
        ModelField::Empty => wrong("`model` is empty: name the model to use".into()),
        ModelField::WrongType { found } => wrong(format!(
            "`model` is a {found}: send the model's name as a string"
        )),
    }
}
