//! One pass over a request body: which model, whether to stream, how much output, and where the prompt stands.
//!
//! Finds, does not validate: brackets must match and strings close, but numbers and literals are the engine's to
//! judge, and fields we do not know pass unseen. What two parsers could read differently is refused: two fields
//! of one name among those we act on, bytes after the object, text that is not UTF-8. Decides nothing.

pub(super) mod cursor;
mod error;
mod facts;
pub(super) mod finder;
mod key;
mod masks;
mod prompt;
#[cfg(test)]
pub(super) mod random;
#[cfg(test)]
mod tests;

use std::ops::Range;

use self::cursor::{Cursor, Text};
pub use self::error::ScanError;
pub use self::facts::{
    Facts, JsonKind, MAX_PROMPT_SPANS, MaxTokens, Member, ModelField, PromptKind, PromptSpan,
    StreamOptions, StringField,
};
pub use self::finder::MAX_DEPTH;
pub use self::key::Key;

/// Reads a whole JSON request body.
///
/// # Errors
/// [`ScanError`] if the body is not one JSON object in UTF-8, is nested deeper than [`MAX_DEPTH`], or names a
/// field we act on twice. A missing or unusable `model` is no error here, see [`ModelField`].
pub fn scan(body: &[u8]) -> Result<Facts, ScanError> {
    check_utf8(body)?;
    let mut cursor = Cursor::new(body);
    let found = cursor.kind()?;
    if found != JsonKind::Object {
        let at = cursor.at();
        return Err(ScanError::NotObject { found, at });
    }
    let mut pass = Pass::default();
    let (span, any) = cursor.object(|cursor, key| pass.member(cursor, &key))?;
    if cursor.peek().is_some() {
        return Err(ScanError::Trailing { at: cursor.at() });
    }
    let mut facts = pass.facts;
    facts.object_start = span.start + 1;
    facts.object_end = span.end - 1;
    facts.is_empty_object = !any;
    Ok(facts)
}

fn check_utf8(body: &[u8]) -> Result<(), ScanError> {
    if simdutf8::basic::from_utf8(body).is_ok() {
        return Ok(());
    }
    match std::str::from_utf8(body) {
        Ok(_) => Ok(()),
        Err(error) => Err(ScanError::NotUtf8 {
            at: error.valid_up_to(),
        }),
    }
}

/// The state of one pass.
#[derive(Default)]
struct Pass {
    facts: Facts,
    /// Fields met, one bit each.
    seen: u64,
    /// Rank of the session hint held, 0 for none.
    session_rank: u8,
    /// Whether the user came from `user` itself.
    named_user: bool,
}

impl Pass {
    /// Reads one top-level member, the cursor before its value.
    fn member(&mut self, cursor: &mut Cursor<'_>, name: &Text) -> Result<(), ScanError> {
        let Some(key) = key_of(cursor, name) else {
            return cursor.skip().map(drop);
        };
        let start = name.inner.start - 1;
        let bit = 1_u64 << key as u32;
        if self.seen & bit != 0 {
            let field = key.name();
            return Err(ScanError::DuplicateKey { field, at: start });
        }
        self.seen |= bit;
        let span = self.value(cursor, key)?;
        self.facts.members.push(Member { key, start, span });
        Ok(())
    }

    /// Reads the value of a field we know.
    fn value(&mut self, cursor: &mut Cursor<'_>, key: Key) -> Result<Range<usize>, ScanError> {
        let facts = &mut self.facts;
        match key {
            Key::Model => self.model(cursor),
            Key::Stream => {
                let span = cursor.skip()?;
                facts.stream = cursor.bytes(&span) == b"true";
                facts.stream_span = Some(span.clone());
                Ok(span)
            }
            Key::StreamOptions => stream_options(cursor, facts),
            Key::MaxTokens | Key::MaxCompletionTokens | Key::MaxOutputTokens => {
                self.max_tokens(cursor, key)
            }
            Key::N => {
                let span = cursor.skip()?;
                facts.n = whole_number(cursor.bytes(&span));
                Ok(span)
            }
            Key::Messages => match cursor.kind()? {
                JsonKind::Array => prompt::field(cursor, facts, PromptKind::Content),
                _ => cursor.skip(),
            },
            Key::Prompt => prompt::field(cursor, facts, PromptKind::Prompt),
            Key::Input => prompt::field(cursor, facts, PromptKind::Input),
            Key::System => prompt::field(cursor, facts, PromptKind::System),
            Key::Instructions => prompt::field(cursor, facts, PromptKind::Instructions),
            Key::Query | Key::Text1 => prompt::field(cursor, facts, PromptKind::Query),
            Key::Documents | Key::Text2 => prompt::field(cursor, facts, PromptKind::Document),
            Key::Tools => {
                let span = cursor.skip()?;
                facts.tools = Some(span.clone());
                Ok(span)
            }
            Key::Metadata => self.metadata(cursor),
            _ => self.hint(cursor, key),
        }
    }

    fn model(&mut self, cursor: &mut Cursor<'_>) -> Result<Range<usize>, ScanError> {
        let found = cursor.kind()?;
        if found != JsonKind::String {
            self.facts.model = ModelField::WrongType { found };
            return cursor.skip();
        }
        let text = cursor.string()?;
        let span = text.span();
        let value = cursor.decode(&text).ok_or(ScanError::BadEscape {
            field: Key::Model.name(),
            at: span.start,
        })?;
        self.facts.model = if value.trim().is_empty() {
            ModelField::Empty
        } else {
            ModelField::Present(StringField {
                value: value.into_owned(),
                span: span.clone(),
            })
        };
        Ok(span)
    }

    fn max_tokens(&mut self, cursor: &mut Cursor<'_>, key: Key) -> Result<Range<usize>, ScanError> {
        let rank = |key| match key {
            Key::MaxCompletionTokens => 0,
            Key::MaxTokens => 1,
            _ => 2,
        };
        let span = cursor.skip()?;
        let held = self.facts.max_tokens.as_ref();
        if let Some(value) = whole_number(cursor.bytes(&span))
            && held.is_none_or(|held| rank(key) < rank(held.key))
        {
            let span = span.clone();
            self.facts.max_tokens = Some(MaxTokens { key, value, span });
        }
        Ok(span)
    }

    /// Reads a field that holds a hint as a string, or steps over it.
    fn hint(&mut self, cursor: &mut Cursor<'_>, key: Key) -> Result<Range<usize>, ScanError> {
        if cursor.kind()? != JsonKind::String {
            return cursor.skip();
        }
        let text = cursor.string()?;
        match key {
            Key::User => self.user(cursor, &text, true),
            Key::CacheSalt => self.facts.cache_salt = hint_value(cursor, &text),
            Key::SessionId => self.session(cursor, &text, 5),
            Key::PromptCacheKey => self.session(cursor, &text, 3),
            Key::Conversation => self.session(cursor, &text, 2),
            Key::PreviousResponseId => self.session(cursor, &text, 1),
            _ => {}
        }
        Ok(text.span())
    }

    fn metadata(&mut self, cursor: &mut Cursor<'_>) -> Result<Range<usize>, ScanError> {
        if cursor.kind()? != JsonKind::Object {
            return cursor.skip();
        }
        let (span, _) = cursor.object(|cursor, key| {
            let name = cursor.decode(&key).unwrap_or_default();
            if !matches!(&*name, "session_id" | "user_id") || cursor.kind()? != JsonKind::String {
                return cursor.skip().map(drop);
            }
            let text = cursor.string()?;
            match &*name {
                "session_id" => self.session(cursor, &text, 4),
                _ => self.user(cursor, &text, false),
            }
            Ok(())
        })?;
        Ok(span)
    }

    fn user(&mut self, cursor: &Cursor<'_>, text: &Text, named: bool) {
        if self.named_user {
            return;
        }
        if let Some(value) = hint_value(cursor, text) {
            self.facts.user = Some(value);
            self.named_user = named;
        }
    }

    /// Keeps the session hint of the highest rank; of two keys in `metadata` the last, as JSON parsers do.
    fn session(&mut self, cursor: &Cursor<'_>, text: &Text, rank: u8) {
        if rank < self.session_rank {
            return;
        }
        if let Some(value) = hint_value(cursor, text) {
            self.facts.session = Some(value);
            self.session_rank = rank;
        }
    }
}

/// The field a key names, escapes in the key resolved: `"mod\u0065l"` is `model`.
fn key_of(cursor: &Cursor<'_>, name: &Text) -> Option<Key> {
    Key::from_name(&cursor.name(name))
}

/// A hint's value; none if it is empty or cannot be decoded.
fn hint_value(cursor: &Cursor<'_>, text: &Text) -> Option<String> {
    let value = cursor.decode(text)?;
    (!value.is_empty()).then(|| value.into_owned())
}

/// A number without sign, fraction and exponent.
fn whole_number(bytes: &[u8]) -> Option<u64> {
    if !bytes.first()?.is_ascii_digit() {
        return None;
    }
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

fn stream_options(cursor: &mut Cursor<'_>, facts: &mut Facts) -> Result<Range<usize>, ScanError> {
    if cursor.kind()? != JsonKind::Object {
        return cursor.skip();
    }
    let mut include_usage_span = None;
    let mut continuous_usage_stats = false;
    let (span, any) = cursor.object(|cursor, key| {
        let name = cursor.decode(&key).unwrap_or_default();
        let value = cursor.skip()?;
        match &*name {
            "include_usage" if include_usage_span.is_some() => {
                return Err(ScanError::DuplicateKey {
                    field: "stream_options.include_usage",
                    at: key.inner.start - 1,
                });
            }
            "include_usage" => include_usage_span = Some(value),
            "continuous_usage_stats" => continuous_usage_stats = cursor.bytes(&value) == b"true",
            _ => {}
        }
        Ok(())
    })?;
    let include_usage = include_usage_span
        .as_ref()
        .and_then(|span| match cursor.bytes(span) {
            b"true" => Some(true),
            b"false" => Some(false),
            _ => None,
        });
    facts.stream_options = Some(StreamOptions {
        span: span.clone(),
        include_usage,
        include_usage_span,
        empty: !any,
        continuous_usage_stats,
    });
    Ok(span)
}
