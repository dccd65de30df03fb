//! Why a body cannot be scanned. Each is the client's mistake: a 400.

use super::facts::JsonKind;

/// A request body that is not a JSON object we can act on. `at` is a byte offset into the body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// Not UTF-8, which JSON is sent in (RFC 8259, 8.1).
    #[error("the body is not valid UTF-8 at byte {at}: send JSON as UTF-8")]
    NotUtf8 {
        /// First wrong byte.
        at: usize,
    },
    /// The body ends inside a value, or is empty.
    #[error("the JSON body ends at byte {at} before it is complete: check its length")]
    Truncated {
        /// Length of the body.
        at: usize,
    },
    /// Something stands where the grammar allows only something else.
    #[error("the body is not valid JSON at byte {at}: expected {expected}")]
    Syntax {
        /// The byte that does not fit.
        at: usize,
        /// What would have fitted.
        expected: &'static str,
    },
    /// A raw control character in a string (RFC 8259, 7).
    #[error("raw control character in a JSON string at byte {at}: escape it")]
    ControlCharacter {
        /// The control character.
        at: usize,
    },
    /// JSON, but no object.
    #[error("the body is a JSON {found}: send an object")]
    NotObject {
        /// What the body is instead.
        found: JsonKind,
        /// Where it starts.
        at: usize,
    },
    /// More bytes after the object.
    #[error("unexpected bytes after the JSON object at byte {at}: send one object only")]
    Trailing {
        /// First byte that is not white space.
        at: usize,
    },
    /// A field we act on stands twice. Parsers differ in which one they take, so that routing by one and serving
    /// by the other would be possible.
    #[error("`{field}` stands twice, again at byte {at}: send it once")]
    DuplicateKey {
        /// The field, unescaped.
        field: &'static str,
        /// Opening quote of the second key.
        at: usize,
    },
    /// Arrays and objects nested past the limit.
    #[error("the JSON at byte {at} is nested deeper than {limit} levels: flatten it")]
    TooDeep {
        /// The bracket that went too deep.
        at: usize,
        /// Levels allowed.
        limit: usize,
    },
    /// A field we must read holds a string with an escape that has no meaning: an unknown letter or half a
    /// surrogate pair.
    #[error("`{field}` at byte {at} holds an escape that is not a character: send plain text")]
    BadEscape {
        /// The field.
        field: &'static str,
        /// Opening quote of its value.
        at: usize,
    },
}

impl ScanError {
    /// The field at fault, where the fault lies in one field: the `param` of an OpenAI error object.
    pub fn field(&self) -> Option<&'static str> {
        match self {
            Self::DuplicateKey { field, .. } | Self::BadEscape { field, .. } => Some(field),
            _ => None,
        }
    }

    /// The byte offset of the fault.
    pub fn at(&self) -> usize {
        match self {
            Self::NotUtf8 { at }
            | Self::Truncated { at }
            | Self::Syntax { at, .. }
            | Self::ControlCharacter { at }
            | Self::NotObject { at, .. }
            | Self::Trailing { at }
            | Self::DuplicateKey { at, .. }
            | Self::TooDeep { at, .. }
            | Self::BadEscape { at, .. } => *at,
        }
    }
}
