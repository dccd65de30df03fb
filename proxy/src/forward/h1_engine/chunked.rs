//! Chunked transfer coding, RFC 9112 7.1: sizes, extensions and trailers are read and dropped.

use bytes::{Buf, Bytes, BytesMut};

use super::ReadError;

/// Longest size line with its extensions.
const MAX_LINE_BYTES: usize = 4 << 10;
/// All trailers together.
const MAX_TRAILER_BYTES: usize = 16 << 10;

/// Where in the coding the reader stands.
#[derive(Debug)]
pub(in crate::forward) struct Chunked {
    state: State,
    trailer_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    /// So many bytes of the chunk are to come.
    Data(u64),
    /// The line end after a chunk.
    DataEnd,
    Trailer,
    Done,
}

impl Chunked {
    pub(in crate::forward) fn new() -> Self {
        Self {
            state: State::Size,
            trailer_bytes: 0,
        }
    }

    pub(in crate::forward) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes all that is there off the buffer and returns its content as one piece: without a copy if it is of
    /// one chunk.
    pub(in crate::forward) fn decode(&mut self, buffer: &mut BytesMut) -> Result<Bytes, ReadError> {
        let mut first = Bytes::new();
        let mut joined = BytesMut::new();
        loop {
            match self.state {
                State::Data(left) => {
                    let ready =
                        usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
                    if ready == 0 {
                        break;
                    }
                    let left = left - ready as u64;
                    self.state = if left == 0 {
                        State::DataEnd
                    } else {
                        State::Data(left)
                    };
                    let data = buffer.split_to(ready);
                    if first.is_empty() {
                        first = data.freeze();
                    } else {
                        if joined.is_empty() {
                            joined.reserve(first.len() + data.len() + buffer.len());
                            joined.extend_from_slice(&first);
                        }
                        joined.extend_from_slice(&data);
                    }
                }
                State::DataEnd => match buffer.get(..2) {
                    Some(b"\r\n") => {
                        buffer.advance(2);
                        self.state = State::Size;
                    }
                    None if buffer.is_empty() || buffer[0] == b'\r' => break,
                    _ => return Err(ReadError::Invalid("a chunk of the response does not end")),
                },
                State::Size => match line(buffer, MAX_LINE_BYTES)? {
                    Some(line) => {
                        let size = size(&line)?;
                        self.state = if size == 0 {
                            State::Trailer
                        } else {
                            State::Data(size)
                        };
                    }
                    None => break,
                },
                State::Trailer => match line(buffer, MAX_LINE_BYTES)? {
                    Some(line) if line.is_empty() => self.state = State::Done,
                    Some(line) => {
                        self.trailer_bytes += line.len();
                        if self.trailer_bytes > MAX_TRAILER_BYTES {
                            return Err(ReadError::Invalid(
                                "the response's trailers are too large",
                            ));
                        }
                    }
                    None => break,
                },
                State::Done => break,
            }
        }
        Ok(if joined.is_empty() {
            first
        } else {
            joined.freeze()
        })
    }
}

/// Takes a line off the buffer, without its end; `None` while it is not whole.
fn line(buffer: &mut BytesMut, limit: usize) -> Result<Option<BytesMut>, ReadError> {
    let Some(end) = memchr::memchr(b'\n', buffer) else {
        if buffer.len() > limit {
            return Err(ReadError::Invalid(
                "a chunk line of the response is too long",
            ));
        }
        return Ok(None);
    };
    if end == 0 || buffer[end - 1] != b'\r' {
        return Err(ReadError::Invalid(
            "a chunk line of the response has no carriage return",
        ));
    }
    let line = buffer.split_to(end - 1);
    buffer.advance(2);
    Ok(Some(line))
}

/// Hexadecimal digits, then perhaps extensions.
fn size(line: &[u8]) -> Result<u64, ReadError> {
    let digits = line
        .iter()
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count();
    let rest = line[digits..].trim_ascii_start();
    if digits == 0 || digits > 15 || !(rest.is_empty() || rest[0] == b';') {
        return Err(ReadError::Invalid(
            "a chunk size of the response is invalid",
        ));
    }
    let text = std::str::from_utf8(&line[..digits]).expect("hexadecimal digits are ASCII");
    u64::from_str_radix(text, 16).map_err(|_| ReadError::Invalid("a chunk size is invalid"))
}
