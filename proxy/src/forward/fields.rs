//! HTTP/1.1 header fields from a parsed buffer, for requests and responses alike: values become slices of the buffer,
//! not copies.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use thiserror::Error;

/// Which field is wrong.
#[derive(Debug, Error)]
pub(super) enum FieldError {
    /// Not a token.
    #[error("a header name is invalid")]
    Name,
    /// A byte that no value may hold.
    #[error("the value of {0} is invalid")]
    Value(HeaderName),
}

/// Names, and where their values stand in the buffer that was parsed.
pub(super) struct Places(Vec<(HeaderName, usize, usize)>);

impl Places {
    /// Of fields that httparse found in `buffer`.
    pub(super) fn of(
        fields: &[httparse::Header<'_>],
        buffer: *const u8,
    ) -> Result<Self, FieldError> {
        let place = |field: &httparse::Header<'_>| {
            let name =
                HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| FieldError::Name)?;
            let start = (field.value.as_ptr() as usize).wrapping_sub(buffer as usize);
            Ok((name, start, field.value.len()))
        };
        Ok(Self(fields.iter().map(place).collect::<Result<_, _>>()?))
    }

    /// The fields, once the head has been taken off the buffer as `raw`.
    pub(super) fn slice(self, raw: &Bytes) -> Result<HeaderMap, FieldError> {
        let mut headers = HeaderMap::with_capacity(self.0.len() + 4);
        for (name, start, length) in self.0 {
            let value = if length == 0 {
                Bytes::new()
            } else {
                raw.slice(start..start + length)
            };
            match HeaderValue::from_maybe_shared(value) {
                Ok(value) => headers.append(name, value),
                Err(_) => return Err(FieldError::Value(name)),
            };
        }
        Ok(headers)
    }
}

/// Why a content-length cannot be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LengthError {
    /// Two that differ.
    Differing,
    /// Not a number of at most 18 digits.
    NotANumber,
}

/// `content-length`, strictly: RFC 9110, 8.6, and nothing but digits.
pub(super) fn content_length(headers: &HeaderMap) -> Result<Option<u64>, LengthError> {
    let mut lengths = headers
        .get_all(header::CONTENT_LENGTH)
        .iter()
        .map(HeaderValue::as_bytes);
    let Some(first) = lengths.next() else {
        return Ok(None);
    };
    if lengths.any(|other| other != first) {
        return Err(LengthError::Differing);
    }
    if first.is_empty() || first.len() > 18 || !first.iter().all(u8::is_ascii_digit) {
        return Err(LengthError::NotANumber);
    }
    let add = |sum, digit: &u8| sum * 10 + u64::from(digit - b'0');
    Ok(Some(first.iter().fold(0, add)))
}
