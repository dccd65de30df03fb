//! Finds `model` and `stream` among the parts of a `multipart/form-data` body (RFC 7578): audio and image calls.
//!
//! Reads part heads and short fields, steps over files. What parsers could read differently is refused: a field
//! twice, a name given twice. Values are not JSON: spans are raw, to be replaced through [`Edits`].

mod parameters;
#[cfg(test)]
mod tests;

use std::ops::Range;

use memchr::memmem;

use self::parameters::parameter;
use super::edit::Edits;
use super::scan::StringField;

/// Most parts of a form.
pub const MAX_PARTS: usize = 1024;
/// Longest head of a part, in bytes.
const MAX_HEAD_BYTES: usize = 8 * 1024;
/// Longest value of a field we read, in bytes.
const MAX_VALUE_BYTES: usize = 4 * 1024;

/// What a form says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormFacts {
    /// The model's name and where it stands, raw.
    pub model: StringField,
    /// Whether the form asks for a stream: `true` or `1`.
    pub stream: bool,
    /// Value of `stream`.
    pub stream_span: Option<Range<usize>>,
    /// The delimiter lines' text with its leading dashes.
    delimiter: String,
}

/// A form that names no model we can read. `at` is a byte offset into the body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MultipartError {
    /// No usable boundary in the content type (RFC 2046, 5.1.1: 1 to 70 characters).
    #[error("content-type has no valid multipart boundary: let the HTTP library set it")]
    NoBoundary,
    /// The form does not follow its boundary to the closing one.
    #[error("the form is malformed at byte {at}: expected {expected}")]
    Malformed {
        /// Where.
        at: usize,
        /// What should stand there.
        expected: &'static str,
    },
    /// More parts than any call needs.
    #[error("the form has more than {limit} parts: send fewer")]
    TooManyParts {
        /// Parts allowed.
        limit: usize,
    },
    /// A field we act on stands twice.
    #[error("the form field `{field}` stands twice, again at byte {at}: send it once")]
    Duplicate {
        /// The field.
        field: &'static str,
        /// The second value.
        at: usize,
    },
    /// A field we act on is not short UTF-8 text.
    #[error("the form field `{field}` at byte {at} is not short UTF-8 text")]
    BadValue {
        /// The field.
        field: &'static str,
        /// The value.
        at: usize,
    },
    /// No part is called `model`, or it is empty.
    #[error("the form has no `model` field: add one that names the model")]
    NoModel,
    /// The new model name holds the form's delimiter.
    #[error("the model name holds the form's boundary: it cannot be written into this form")]
    NameHoldsBoundary,
}

impl FormFacts {
    /// Puts another model name where the old one stands.
    ///
    /// # Errors
    /// [`MultipartError::NameHoldsBoundary`] if the name would end its part early.
    pub fn rename_model(&self, edits: &mut Edits, new: &str) -> Result<(), MultipartError> {
        if new.contains(&self.delimiter) {
            return Err(MultipartError::NameHoldsBoundary);
        }
        if new != self.model.value {
            edits.replace(self.model.span.clone(), new.to_owned());
        }
        Ok(())
    }
}

/// Reads a form.
///
/// # Errors
/// [`MultipartError`]: no boundary, a form that breaks off, a field twice, or no model.
pub fn scan_form(content_type: &str, body: &[u8]) -> Result<FormFacts, MultipartError> {
    let delimiter = format!("--{}", boundary(content_type)?);
    let line = format!("\r\n{delimiter}");
    let find = memmem::Finder::new(line.as_bytes());
    let mut at = if body.starts_with(delimiter.as_bytes()) {
        delimiter.len()
    } else {
        let expected = "the boundary of the content-type";
        let malformed = MultipartError::Malformed { at: 0, expected };
        find.find(body).ok_or(malformed)? + line.len()
    };
    let mut model: Option<StringField> = None;
    let mut stream: Option<StringField> = None;
    for _ in 0..MAX_PARTS {
        let Some(start) = after_delimiter(body, at)? else {
            return Ok(FormFacts {
                model: model
                    .filter(|field| !field.value.trim().is_empty())
                    .ok_or(MultipartError::NoModel)?,
                stream: stream.as_ref().is_some_and(|field| is_true(&field.value)),
                stream_span: stream.map(|field| field.span),
                delimiter,
            });
        };
        let (name, content) = head(body, start)?;
        // An empty part's content is the line break of the delimiter itself.
        let from = content.saturating_sub(2);
        let malformed = MultipartError::Malformed {
            at: body.len(),
            expected: "a closing boundary",
        };
        let end = from + find.find(&body[from..]).ok_or(malformed)?;
        at = end + line.len();
        let span = content.min(end)..end;
        match name.as_deref() {
            Some("model") => put("model", &mut model, body, span)?,
            Some("stream") => put("stream", &mut stream, body, span)?,
            _ => {}
        }
    }
    Err(MultipartError::TooManyParts { limit: MAX_PARTS })
}

/// As form parsers read booleans.
fn is_true(value: &str) -> bool {
    value == "1" || value.eq_ignore_ascii_case("true")
}

/// The boundary a content type names.
fn boundary(content_type: &str) -> Result<String, MultipartError> {
    let (kind, rest) = content_type.split_once(';').unwrap_or((content_type, ""));
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return Err(MultipartError::NoBoundary);
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&byte);
    match parameter(rest, "boundary") {
        Ok(Some(value))
            if (1..=70).contains(&value.len())
                && value.bytes().all(allowed)
                && !value.ends_with(' ') =>
        {
            Ok(value)
        }
        _ => Err(MultipartError::NoBoundary),
    }
}

/// Where the part after a delimiter starts; none after the closing delimiter.
fn after_delimiter(body: &[u8], at: usize) -> Result<Option<usize>, MultipartError> {
    let rest = &body[at..];
    if rest.starts_with(b"--") {
        return Ok(None);
    }
    let padding = rest
        .iter()
        .take_while(|byte| matches!(byte, b' ' | b'\t'))
        .count();
    if rest[padding..].starts_with(b"\r\n") {
        return Ok(Some(at + padding + 2));
    }
    Err(MultipartError::Malformed {
        at: at + padding,
        expected: "a line break or `--` after the boundary",
    })
}

/// The name of the field whose head starts at `start` (none for files), and where its content starts.
fn head(body: &[u8], start: usize) -> Result<(Option<String>, usize), MultipartError> {
    let limit = body.len().min(start + MAX_HEAD_BYTES);
    let window = &body[start..limit];
    let malformed = |expected| MultipartError::Malformed {
        at: start,
        expected,
    };
    if window.starts_with(b"\r\n") {
        return Ok((None, start + 2));
    }
    let length = memmem::find(window, b"\r\n\r\n")
        .ok_or_else(|| malformed("a part head that ends in an empty line"))?;
    let content = start + length + 4;
    let Ok(head) = std::str::from_utf8(&window[..length]) else {
        return Err(malformed("a part head in UTF-8"));
    };
    let mut dispositions = head.split("\r\n").filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        let disposition = name.trim().eq_ignore_ascii_case("content-disposition");
        disposition.then_some(value)
    });
    let Some(disposition) = dispositions.next() else {
        return Ok((None, content));
    };
    let twice = |_| malformed("each parameter of content-disposition once");
    if dispositions.next().is_some() {
        return Err(malformed("one content-disposition"));
    }
    let rest = disposition.split_once(';').map_or("", |(_, rest)| rest);
    let name = parameter(rest, "name").map_err(twice)?;
    let file = parameter(rest, "filename").map_err(twice)?;
    Ok((name.filter(|_| file.is_none()), content))
}

/// Keeps a field's value, which may come only once.
fn put(
    field: &'static str,
    place: &mut Option<StringField>,
    body: &[u8],
    span: Range<usize>,
) -> Result<(), MultipartError> {
    let at = span.start;
    if place.is_some() {
        return Err(MultipartError::Duplicate { field, at });
    }
    let bad = MultipartError::BadValue { field, at };
    if span.len() > MAX_VALUE_BYTES {
        return Err(bad);
    }
    let value = std::str::from_utf8(&body[span.clone()]).map_err(|_| bad)?;
    let value = value.to_owned();
    *place = Some(StringField { value, span });
    Ok(())
}
