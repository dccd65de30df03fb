//! Steps through a JSON document value by value. Grammar only: which fields matter is decided by its users.

use std::borrow::Cow;
use std::ops::Range;

use super::error::ScanError;
use super::facts::JsonKind;
use super::finder::{container_end, string_end};

/// A place in a body. Every step either moves past what it read or fails.
pub(in crate::openai) struct Cursor<'a> {
    body: &'a [u8],
    at: usize,
    /// Containers open around the place, for the depth limit.
    depth: usize,
}

/// A string in the body.
#[derive(Debug, Clone)]
pub(in crate::openai) struct Text {
    /// What stands between the quotes.
    pub(in crate::openai) inner: Range<usize>,
    /// Whether a backslash stands in it.
    pub(in crate::openai) escaped: bool,
}

impl Text {
    /// The string with its quotes.
    pub(in crate::openai) fn span(&self) -> Range<usize> {
        self.inner.start - 1..self.inner.end + 1
    }
}

impl<'a> Cursor<'a> {
    pub(in crate::openai) fn new(body: &'a [u8]) -> Self {
        Self {
            body,
            at: 0,
            depth: 0,
        }
    }

    /// Where the cursor stands.
    pub(in crate::openai) fn at(&self) -> usize {
        self.at
    }

    /// The bytes of a span.
    pub(in crate::openai) fn bytes(&self, span: &Range<usize>) -> &'a [u8] {
        &self.body[span.clone()]
    }

    /// The string, unescaped; none if an escape in it is not a character.
    pub(in crate::openai) fn decode(&self, text: &Text) -> Option<Cow<'a, str>> {
        if text.escaped {
            let decoded = serde_json::from_slice(self.bytes(&text.span()));
            return decoded.ok().map(Cow::Owned);
        }
        let plain = std::str::from_utf8(self.bytes(&text.inner));
        plain.ok().map(Cow::Borrowed)
    }

    /// A key, unescaped; empty if an escape in it is not a character.
    pub(in crate::openai) fn name(&self, key: &Text) -> Cow<'a, [u8]> {
        if !key.escaped {
            return Cow::Borrowed(self.bytes(&key.inner));
        }
        let decoded = self.decode(key).unwrap_or_default();
        Cow::Owned(decoded.into_owned().into_bytes())
    }

    /// Skips white space and tells the next byte, if any.
    pub(in crate::openai) fn peek(&mut self) -> Option<u8> {
        while let Some(&byte) = self.body.get(self.at) {
            if !matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
                return Some(byte);
            }
            self.at += 1;
        }
        None
    }

    /// The type of the value that comes next.
    pub(in crate::openai) fn kind(&mut self) -> Result<JsonKind, ScanError> {
        match self.peek() {
            Some(b'"') => Ok(JsonKind::String),
            Some(b'{') => Ok(JsonKind::Object),
            Some(b'[') => Ok(JsonKind::Array),
            Some(b't' | b'f') => Ok(JsonKind::Boolean),
            Some(b'n') => Ok(JsonKind::Null),
            // `N` and `I`: NaN and Infinity, which Python's parser takes. The engine judges them.
            Some(b'-' | b'0'..=b'9' | b'N' | b'I') => Ok(JsonKind::Number),
            found => Err(self.unexpected(found, "a value")),
        }
    }

    /// Reads the string that comes next.
    pub(in crate::openai) fn string(&mut self) -> Result<Text, ScanError> {
        self.expect(b'"', "a string")?;
        let start = self.at;
        let end = string_end(self.body, start)?;
        self.at = end.quote + 1;
        Ok(Text {
            inner: start..end.quote,
            escaped: end.escaped,
        })
    }

    /// Skips the value that comes next and tells where it stood.
    pub(in crate::openai) fn skip(&mut self) -> Result<Range<usize>, ScanError> {
        match self.kind()? {
            JsonKind::String => Ok(self.string()?.span()),
            JsonKind::Array | JsonKind::Object => {
                let start = self.at;
                self.at = container_end(self.body, start, self.depth)?;
                Ok(start..self.at)
            }
            JsonKind::Null | JsonKind::Boolean | JsonKind::Number => Ok(self.scalar()),
        }
    }

    /// Skips a literal or number. Its first byte was looked at by [`Cursor::kind`].
    fn scalar(&mut self) -> Range<usize> {
        let rest = &self.body[self.at..];
        let length = rest
            .iter()
            .position(|byte| !matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'+' | b'-' | b'.'))
            .unwrap_or(rest.len());
        let start = self.at;
        self.at += length;
        start..self.at
    }

    /// Walks the object that comes next. `member` is called with each key, the cursor before the value, and must
    /// read or skip the value. Returns the whole object's span and whether it has members.
    pub(in crate::openai) fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, Text) -> Result<(), ScanError>,
    ) -> Result<(Range<usize>, bool), ScanError> {
        self.expect(b'{', "an object")?;
        let start = self.at - 1;
        self.depth += 1;
        let mut any = false;
        if self.peek() == Some(b'}') {
            self.at += 1;
        } else {
            any = true;
            loop {
                let key = self.string()?;
                self.expect(b':', "`:`")?;
                member(self, key)?;
                if self.next_or_end(b'}', "`,` or `}`")? {
                    break;
                }
            }
        }
        self.depth -= 1;
        Ok((start..self.at, any))
    }

    /// Walks the array that comes next. `element` is called with the cursor before each and must read or skip it.
    pub(in crate::openai) fn array(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<(), ScanError>,
    ) -> Result<Range<usize>, ScanError> {
        self.expect(b'[', "an array")?;
        let start = self.at - 1;
        self.depth += 1;
        if self.peek() == Some(b']') {
            self.at += 1;
        } else {
            loop {
                element(self)?;
                if self.next_or_end(b']', "`,` or `]`")? {
                    break;
                }
            }
        }
        self.depth -= 1;
        Ok(start..self.at)
    }

    /// Steps over a comma (false) or the end of a container (true).
    fn next_or_end(&mut self, end: u8, expected: &'static str) -> Result<bool, ScanError> {
        match self.peek() {
            Some(b',') => self.at += 1,
            Some(byte) if byte == end => {
                self.at += 1;
                return Ok(true);
            }
            found => return Err(self.unexpected(found, expected)),
        }
        Ok(false)
    }

    /// Steps over one byte that must come next.
    fn expect(&mut self, byte: u8, expected: &'static str) -> Result<(), ScanError> {
        match self.peek() {
            Some(found) if found == byte => {
                self.at += 1;
                Ok(())
            }
            found => Err(self.unexpected(found, expected)),
        }
    }

    /// The error for a byte, or the body's end, that does not fit at the cursor.
    pub(in crate::openai) fn unexpected(
        &self,
        found: Option<u8>,
        expected: &'static str,
    ) -> ScanError {
        let at = self.at;
        match found {
            None => ScanError::Truncated { at },
            Some(_) => ScanError::Syntax { at, expected },
        }
    }
}
