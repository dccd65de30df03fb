//! A cursor over msgpack that trusts no length: every read is checked against the bytes that are there.
//!
//! Knows msgpack, not what is in it.

use rmp::Marker;

use super::WireError;

/// One msgpack value, or the head of an array or map.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Token<'a> {
    Nil,
    Bool,
    Unsigned(u64),
    /// Below zero.
    Signed(i64),
    Float(f64),
    Text(&'a [u8]),
    Binary(&'a [u8]),
    /// So many values follow.
    Array(usize),
    /// So many pairs of values follow.
    Map(usize),
    Extension,
}

impl Token<'_> {
    fn kind(&self) -> &'static str {
        match self {
            Self::Nil => "nil",
            Self::Bool => "a boolean",
            Self::Unsigned(_) => "an unsigned integer",
            Self::Signed(_) => "a negative integer",
            Self::Float(_) => "a float",
            Self::Text(_) => "a string",
            Self::Binary(_) => "binary data",
            Self::Array(_) => "an array",
            Self::Map(_) => "a map",
            Self::Extension => "an extension",
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// A reader of the same bytes that stands elsewhere.
    pub(super) fn at(&self, position: usize) -> Self {
        Self {
            bytes: self.bytes,
            position,
        }
    }

    /// Bytes not read: a bound for how many values can follow.
    pub(super) fn left(&self) -> usize {
        self.bytes.len() - self.position
    }

    pub(super) fn truncated(&self, expected: &'static str) -> WireError {
        WireError::Truncated {
            position: self.position,
            expected,
        }
    }

    fn take(&mut self, count: usize, expected: &'static str) -> Result<&'a [u8], WireError> {
        let rest = &self.bytes[self.position..];
        let taken = rest.get(..count).ok_or(WireError::Truncated {
            position: self.bytes.len(),
            expected,
        })?;
        self.position += count;
        Ok(taken)
    }

    /// A big-endian number of `N` bytes.
    fn word<const N: usize>(&mut self, expected: &'static str) -> Result<u64, WireError> {
        let mut word = [0; 8];
        word[8 - N..].copy_from_slice(self.take(N, expected)?);
        Ok(u64::from_be_bytes(word))
    }

    /// A length of `N` bytes and as many bytes as it says.
    fn run<const N: usize>(&mut self, expected: &'static str) -> Result<&'a [u8], WireError> {
        let length = self.word::<N>(expected)? as usize;
        self.take(length, expected)
    }

    /// The next value; of an array or map only its head.
    pub(super) fn token(&mut self, expected: &'static str) -> Result<Token<'a>, WireError> {
        let marker = Marker::from_u8(self.take(1, expected)?[0]);
        Ok(match marker {
            Marker::Null => Token::Nil,
            Marker::True | Marker::False => Token::Bool,
            Marker::FixPos(value) => Token::Unsigned(value.into()),
            Marker::U8 => Token::Unsigned(self.word::<1>(expected)?),
            Marker::U16 => Token::Unsigned(self.word::<2>(expected)?),
            Marker::U32 => Token::Unsigned(self.word::<4>(expected)?),
            Marker::U64 => Token::Unsigned(self.word::<8>(expected)?),
            Marker::FixNeg(value) => signed(value.into()),
            Marker::I8 => signed((self.word::<1>(expected)? as i8).into()),
            Marker::I16 => signed((self.word::<2>(expected)? as i16).into()),
            Marker::I32 => signed((self.word::<4>(expected)? as i32).into()),
            Marker::I64 => signed(self.word::<8>(expected)? as i64),
            Marker::F32 => Token::Float(f32::from_bits(self.word::<4>(expected)? as u32).into()),
            Marker::F64 => Token::Float(f64::from_bits(self.word::<8>(expected)?)),
            Marker::FixStr(length) => Token::Text(self.take(length.into(), expected)?),
            Marker::Str8 => Token::Text(self.run::<1>(expected)?),
            Marker::Str16 => Token::Text(self.run::<2>(expected)?),
            Marker::Str32 => Token::Text(self.run::<4>(expected)?),
            Marker::Bin8 => Token::Binary(self.run::<1>(expected)?),
            Marker::Bin16 => Token::Binary(self.run::<2>(expected)?),
            Marker::Bin32 => Token::Binary(self.run::<4>(expected)?),
            Marker::FixArray(length) => Token::Array(length.into()),
            Marker::Array16 => Token::Array(self.word::<2>(expected)? as usize),
            Marker::Array32 => Token::Array(self.word::<4>(expected)? as usize),
            Marker::FixMap(length) => Token::Map(length.into()),
            Marker::Map16 => Token::Map(self.word::<2>(expected)? as usize),
            Marker::Map32 => Token::Map(self.word::<4>(expected)? as usize),
            Marker::Reserved => return Err(self.reserved(expected)),
            other => self.extension(other, expected)?,
        })
    }

    fn reserved(&self, expected: &'static str) -> WireError {
        WireError::Unexpected {
            position: self.position - 1,
            expected,
            found: "the byte 0xc1, which msgpack never uses,",
        }
    }

    /// Passes over an extension: a type byte and data.
    fn extension(
        &mut self,
        marker: Marker,
        expected: &'static str,
    ) -> Result<Token<'a>, WireError> {
        let length = match marker {
            Marker::FixExt1 => 1,
            Marker::FixExt2 => 2,
            Marker::FixExt4 => 4,
            Marker::FixExt8 => 8,
            Marker::FixExt16 => 16,
            Marker::Ext8 => self.word::<1>(expected)? as usize,
            Marker::Ext16 => self.word::<2>(expected)? as usize,
            _ => self.word::<4>(expected)? as usize,
        };
        self.take(1, expected)?;
        self.take(length, expected)?;
        Ok(Token::Extension)
    }

    /// The error for a value that began at `position`.
    pub(super) fn unexpected(
        position: usize,
        expected: &'static str,
        token: Token<'_>,
    ) -> WireError {
        WireError::Unexpected {
            position,
            expected,
            found: token.kind(),
        }
    }

    /// Passes over one value with all that it holds, and returns its bytes.
    pub(super) fn skip(&mut self) -> Result<&'a [u8], WireError> {
        let from = self.position;
        let mut values = 1u64;
        while values > 0 {
            values -= 1;
            match self.token("a value")? {
                Token::Array(length) => values += length as u64,
                Token::Map(pairs) => values += 2 * pairs as u64,
                _ => {}
            }
        }
        Ok(&self.bytes[from..self.position])
    }

    /// The head of an array.
    pub(super) fn array(&mut self, expected: &'static str) -> Result<usize, WireError> {
        let position = self.position;
        match self.token(expected)? {
            Token::Array(length) => Ok(length),
            other => Err(Self::unexpected(position, expected, other)),
        }
    }

    /// The head of an array; zero for nil.
    pub(super) fn optional_array(&mut self, expected: &'static str) -> Result<usize, WireError> {
        let position = self.position;
        match self.token(expected)? {
            Token::Array(length) => Ok(length),
            Token::Nil => Ok(0),
            other => Err(Self::unexpected(position, expected, other)),
        }
    }

    /// A number, as one of `left` values of an array.
    pub(super) fn number(
        &mut self,
        left: &mut usize,
        expected: &'static str,
    ) -> Result<f64, WireError> {
        let position = self.position;
        *left = left
            .checked_sub(1)
            .ok_or_else(|| self.truncated(expected))?;
        match self.token(expected)? {
            Token::Float(value) => Ok(value),
            Token::Unsigned(value) => Ok(value as f64),
            Token::Signed(value) => Ok(value as f64),
            other => Err(Self::unexpected(position, expected, other)),
        }
    }

    /// A number of 32 bits, or nil.
    pub(super) fn optional_u32(
        &mut self,
        expected: &'static str,
    ) -> Result<Option<u32>, WireError> {
        let position = self.position;
        match self.token(expected)? {
            Token::Nil => Ok(None),
            Token::Unsigned(value) => match u32::try_from(value) {
                Ok(value) => Ok(Some(value)),
                Err(_) => Err(too_large(position, expected)),
            },
            other => Err(Self::unexpected(position, expected, other)),
        }
    }

    /// A string of UTF-8.
    pub(super) fn text(&mut self, expected: &'static str) -> Result<&'a str, WireError> {
        let position = self.position;
        self.optional_text(expected)?
            .ok_or(Self::unexpected(position, expected, Token::Nil))
    }

    /// A string of UTF-8, or nil.
    pub(super) fn optional_text(
        &mut self,
        expected: &'static str,
    ) -> Result<Option<&'a str>, WireError> {
        let position = self.position;
        match self.token(expected)? {
            Token::Nil => Ok(None),
            Token::Text(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Ok(Some(text)),
                Err(_) => Err(WireError::Unexpected {
                    position,
                    expected,
                    found: "a string that is not UTF-8",
                }),
            },
            other => Err(Self::unexpected(position, expected, other)),
        }
    }
}

/// The error for a number past 32 bits.
pub(super) fn too_large(position: usize, expected: &'static str) -> WireError {
    WireError::Unexpected {
        position,
        expected,
        found: "a number past 32 bits",
    }
}

fn signed(value: i64) -> Token<'static> {
    match u64::try_from(value) {
        Ok(value) => Token::Unsigned(value),
        Err(_) => Token::Signed(value),
    }
}
