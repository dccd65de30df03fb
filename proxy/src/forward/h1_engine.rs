//! Reading one HTTP/1.1 response from a stream: head, framing, body, and whether the connection can serve another.
//!
//! RFC 9112, sections 4 to 7. Strict where laxness lets one message be taken for two. Generic over the stream, so
//! it is tested on pipes. What one read brings is handed on at once and as one piece; nothing is waited for. Memory
//! is one buffer of the size the engine's writes need, where Pingora's client session takes 64 KiB a response.
//!
//! Not for requests, and not for HTTP/2.

mod chunked;

use bytes::{Bytes, BytesMut};
use http::header;
use http::{StatusCode, Version};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::fields::{self, FieldError, Places};
use crate::http::ResponseHead;
pub(super) use chunked::Chunked;

/// Largest head, interim ones each.
const MAX_HEAD_BYTES: usize = 64 << 10;
const MAX_FIELDS: usize = 128;
/// A read asks for this much at first, twice as much after one that got all it asked for, and half after one that
/// got little.
const FIRST_READ: usize = 4 << 10;
const SMALLEST_READ: usize = 1 << 10;
const LARGEST_READ: usize = 64 << 10;
/// More than the rest of a body is asked for, since a read that is filled to the brim leaves the runtime
/// guessing whether there is more, at the price of a system call.
const BEYOND: usize = 64;

/// Why a response cannot be read on.
#[derive(Debug, Error)]
pub(super) enum ReadError {
    /// Closed before the first byte of a head.
    #[error("closed before the response")]
    ClosedIdle,
    /// Closed in the middle.
    #[error("closed in the middle of the response")]
    Closed,
    /// The socket's error.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Not HTTP/1.1.
    #[error("{0}")]
    Invalid(&'static str),
}

/// How the body's end is told.
#[derive(Debug)]
enum Framing {
    /// So many bytes are to come.
    Length(u64),
    Chunked(Chunked),
    /// By the end of the connection.
    Close,
    Done,
}

/// A response being read.
pub(super) struct ResponseReader<S> {
    stream: S,
    buffer: BytesMut,
    framing: Framing,
    keep_alive: bool,
    read_size: usize,
}

impl<S: AsyncRead + Unpin> ResponseReader<S> {
    /// Of the next response on `stream`.
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            framing: Framing::Done,
            keep_alive: false,
            read_size: FIRST_READ,
        }
    }

    /// The head; interim responses are skipped.
    pub(super) async fn head(&mut self) -> Result<ResponseHead, ReadError> {
        loop {
            if let Some(parsed) = parse(&mut self.buffer)? {
                if parsed.head.status == StatusCode::SWITCHING_PROTOCOLS {
                    return Err(ReadError::Invalid("the engine switched protocols"));
                }
                if parsed.head.status.is_informational() {
                    continue;
                }
                self.framing = framing(&parsed)?;
                self.keep_alive = keeps_alive(&parsed) && !matches!(self.framing, Framing::Close);
                return Ok(parsed.head);
            }
            if self.buffer.len() > MAX_HEAD_BYTES {
                return Err(ReadError::Invalid("the response header is too large"));
            }
            if !self.fill().await? {
                let idle = self.buffer.is_empty();
                return Err(if idle {
                    ReadError::ClosedIdle
                } else {
                    ReadError::Closed
                });
            }
        }
    }

    /// What has arrived of the body, waiting only if that is nothing; `None` at its end. May be dropped while it
    /// waits.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, ReadError> {
        loop {
            let ready = self.take_ready()?;
            if !ready.is_empty() {
                return Ok(Some(ready));
            }
            if self.is_done() {
                return Ok(None);
            }
            if !self.fill().await? {
                if !matches!(self.framing, Framing::Close) {
                    return Err(ReadError::Closed);
                }
                self.framing = Framing::Done;
            }
        }
    }

    /// Is the whole response read?
    pub(super) fn is_done(&self) -> bool {
        matches!(self.framing, Framing::Done)
    }

    /// The stream, if it can serve another request.
    pub(super) fn into_reusable(self) -> Option<S> {
        let surplus = !self.buffer.is_empty();
        (self.keep_alive && self.is_done() && !surplus).then_some(self.stream)
    }

    /// Takes what the buffer holds of the body, as one piece.
    fn take_ready(&mut self) -> Result<Bytes, ReadError> {
        match &mut self.framing {
            Framing::Done => Ok(Bytes::new()),
            Framing::Close => Ok(self.buffer.split().freeze()),
            Framing::Length(left) => {
                let ready = usize::try_from(*left)
                    .map_or(self.buffer.len(), |left| left.min(self.buffer.len()));
                *left -= ready as u64;
                if *left == 0 {
                    self.framing = Framing::Done;
                }
                Ok(self.buffer.split_to(ready).freeze())
            }
            Framing::Chunked(chunked) => {
                let ready = chunked.decode(&mut self.buffer)?;
                if chunked.is_done() {
                    self.framing = Framing::Done;
                }
                Ok(ready)
            }
        }
    }

    /// Reads once; false at the end of the stream.
    async fn fill(&mut self) -> Result<bool, ReadError> {
        let wanted = match self.framing {
            Framing::Length(left) => usize::try_from(left)
                .map_or(LARGEST_READ, |left| left.saturating_add(BEYOND))
                .clamp(SMALLEST_READ, LARGEST_READ),
            _ => self.read_size,
        };
        // A stream of small events waits with a small buffer.
        if self.buffer.is_empty() && self.buffer.capacity() > 2 * wanted {
            self.buffer = BytesMut::new();
        }
        self.buffer.reserve(wanted);
        let room = self.buffer.capacity() - self.buffer.len();
        let read = self.stream.read_buf(&mut self.buffer).await?;
        if read == room {
            self.read_size = (2 * self.read_size).min(LARGEST_READ);
        } else if read < self.read_size / 4 {
            self.read_size = (self.read_size / 2).max(SMALLEST_READ);
        }
        Ok(read > 0)
    }
}

struct Parsed {
    version: Version,
    head: ResponseHead,
}

/// Takes a whole head off the buffer; `None` while it is not whole.
fn parse(buffer: &mut BytesMut) -> Result<Option<Parsed>, ReadError> {
    if buffer.is_empty() {
        return Ok(None);
    }
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let length = match response.parse(buffer) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(ReadError::Invalid(
                "the response has too many header fields",
            ));
        }
        Err(_) => return Err(ReadError::Invalid("the response header is not HTTP")),
    };
    let status = response
        .code
        .and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or(ReadError::Invalid("the response has no valid status"))?;
    let version = if response.version == Some(0) {
        Version::HTTP_10
    } else {
        Version::HTTP_11
    };
    let invalid = |error| match error {
        FieldError::Name => ReadError::Invalid("the response has an invalid header name"),
        FieldError::Value(_) => ReadError::Invalid("the response has an invalid header value"),
    };
    let places = Places::of(response.headers, buffer.as_ptr()).map_err(invalid)?;
    let raw = buffer.split_to(length).freeze();
    let headers = places.slice(&raw).map_err(invalid)?;
    Ok(Some(Parsed {
        version,
        head: ResponseHead { status, headers },
    }))
}

/// RFC 9112, 6.3. Only responses to requests other than HEAD and CONNECT.
fn framing(parsed: &Parsed) -> Result<Framing, ReadError> {
    let ResponseHead { status, headers } = &parsed.head;
    if matches!(*status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return Ok(Framing::Done);
    }
    if headers.contains_key(header::TRANSFER_ENCODING) {
        let last = headers
            .get_all(header::TRANSFER_ENCODING)
            .iter()
            .next_back()
            .and_then(|value| value.to_str().ok()?.rsplit(',').next());
        let chunked = last.is_some_and(|coding| coding.trim().eq_ignore_ascii_case("chunked"));
        return Ok(if chunked {
            Framing::Chunked(Chunked::new())
        } else {
            Framing::Close
        });
    }
    match fields::content_length(headers) {
        Ok(None) => Ok(Framing::Close),
        Ok(Some(0)) => Ok(Framing::Done),
        Ok(Some(length)) => Ok(Framing::Length(length)),
        Err(_) => Err(ReadError::Invalid(
            "the response's content-length is invalid",
        )),
    }
}

fn keeps_alive(parsed: &Parsed) -> bool {
    let headers = &parsed.head.headers;
    // Two framings in one message: what follows on this connection cannot be trusted.
    if headers.contains_key(header::TRANSFER_ENCODING)
        && (headers.contains_key(header::CONTENT_LENGTH) || parsed.version == Version::HTTP_10)
    {
        return false;
    }
    let says = |word: &str| {
        headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|option| option.trim().eq_ignore_ascii_case(word))
    };
    if parsed.version == Version::HTTP_10 {
        says("keep-alive")
    } else {
        !says("close")
    }
}

#[cfg(test)]
mod tests;
