//! Reads one HTTP/1 request: head by httparse, body by length or chunks.

use bytes::{Buf, BytesMut};
use tokio::io::AsyncWriteExt;

use super::{Connection, Headers, read_some};
use crate::engine::reply::Incoming;

const MAX_HEADERS: usize = 256;
const MAX_HEAD: usize = 1 << 20;
const MAX_BODY: usize = 1 << 30;

/// Why there is no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadError {
    /// The client went away in the middle.
    Gone,
    /// Not HTTP/1, or beyond the limits.
    Malformed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyLength {
    Known(usize),
    Chunked,
}

/// What the request says about the answer's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Framing {
    pub(super) keep_alive: bool,
    /// Whether chunks are understood: not by HTTP/1.0.
    pub(super) chunks: bool,
    /// Whether the answer has no body, whatever its head says.
    pub(super) head_only: bool,
}

impl Framing {
    pub(super) fn closing() -> Self {
        Self {
            keep_alive: false,
            chunks: true,
            head_only: false,
        }
    }
}

/// A request without its body.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) incoming: Incoming,
    pub(super) framing: Framing,
    length: BodyLength,
    expects_continue: bool,
}

impl Connection {
    /// The next head; none when the client closed between requests.
    pub(super) async fn read_head(&mut self) -> Result<Option<Head>, ReadError> {
        loop {
            if let Some(head) = parse_head(&mut self.input)? {
                return Ok(Some(head));
            }
            if self.input.len() > MAX_HEAD {
                return Err(ReadError::Malformed);
            }
            if !read_some(&mut self.stream, &mut self.input).await {
                return Ok(None);
            }
        }
    }

    /// The request with its body.
    pub(super) async fn read_body(&mut self, head: Head) -> Result<Incoming, ReadError> {
        let mut incoming = head.incoming;
        if head.expects_continue {
            let interim = self
                .stream
                .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
                .await;
            interim.map_err(|_| ReadError::Gone)?;
        }
        match head.length {
            BodyLength::Known(0) => {}
            BodyLength::Known(length) => {
                self.input.reserve(length.saturating_sub(self.input.len()));
                self.fill(length).await?;
                incoming.body = self.input.split_to(length).freeze();
            }
            BodyLength::Chunked => incoming.body = self.read_chunks().await?.freeze(),
        }
        Ok(incoming)
    }

    /// Reads until at least `length` bytes are there.
    async fn fill(&mut self, length: usize) -> Result<(), ReadError> {
        while self.input.len() < length {
            if !read_some(&mut self.stream, &mut self.input).await {
                return Err(ReadError::Gone);
            }
        }
        Ok(())
    }

    async fn read_chunks(&mut self) -> Result<BytesMut, ReadError> {
        let mut body = BytesMut::new();
        loop {
            match httparse::parse_chunk_size(&self.input) {
                Ok(httparse::Status::Complete((skip, 0))) => {
                    self.input.advance(skip);
                    self.skip_trailers().await?;
                    return Ok(body);
                }
                Ok(httparse::Status::Complete((skip, size))) => {
                    let size = usize::try_from(size).map_err(|_| ReadError::Malformed)?;
                    if size > MAX_BODY || body.len() + size > MAX_BODY {
                        return Err(ReadError::Malformed);
                    }
                    self.input.advance(skip);
                    self.fill(size + 2).await?;
                    body.extend_from_slice(&self.input[..size]);
                    if &self.input[size..size + 2] != b"\r\n" {
                        return Err(ReadError::Malformed);
                    }
                    self.input.advance(size + 2);
                }
                Ok(httparse::Status::Partial) => self.fill(self.input.len() + 1).await?,
                Err(_) => return Err(ReadError::Malformed),
            }
        }
    }

    /// Drops the lines after the last chunk, to the empty one.
    async fn skip_trailers(&mut self) -> Result<(), ReadError> {
        loop {
            match self.input.windows(2).position(|pair| pair == b"\r\n") {
                Some(0) => {
                    self.input.advance(2);
                    return Ok(());
                }
                Some(end) => self.input.advance(end + 2),
                None if self.input.len() > MAX_HEAD => return Err(ReadError::Malformed),
                None => self.fill(self.input.len() + 1).await?,
            }
        }
    }
}

/// Takes a complete head off the input; none when more bytes are needed.
fn parse_head(input: &mut BytesMut) -> Result<Option<Head>, ReadError> {
    if input.is_empty() {
        return Ok(None);
    }
    let mut slots = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut slots);
    let length = match request.parse(input) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(ReadError::Malformed),
    };
    let (Some(method), Some(target), Some(version)) =
        (request.method, request.path, request.version)
    else {
        return Err(ReadError::Malformed);
    };
    let (method, target) = (method.to_owned(), target.to_owned());
    let start = input.as_ptr() as usize;
    let place = |part: &[u8]| (part.as_ptr() as usize - start, part.len());
    let places: Vec<_> = request
        .headers
        .iter()
        .map(|header| (place(header.name.as_bytes()), place(header.value)))
        .collect();
    let bytes = input.split_to(length).freeze();
    // An empty value may point anywhere.
    let part = |(at, length): (usize, usize)| {
        if length == 0 {
            bytes.slice(0..0)
        } else {
            bytes.slice(at..at + length)
        }
    };
    let headers: Headers = places
        .into_iter()
        .map(|(name, value)| (part(name), part(value)))
        .collect();
    let incoming = Incoming {
        method,
        target,
        headers,
        ..Incoming::default()
    };
    describe(incoming, version).map(Some)
}

fn describe(incoming: Incoming, version: u8) -> Result<Head, ReadError> {
    let connection = incoming
        .header("connection")
        .unwrap_or_default()
        .to_ascii_lowercase();
    let keep_alive = match version {
        0 => connection.contains("keep-alive"),
        _ => !connection.contains("close"),
    };
    let coding = incoming
        .header("transfer-encoding")
        .unwrap_or_default()
        .to_ascii_lowercase();
    let length = match (
        coding.contains("chunked"),
        incoming.header("content-length"),
    ) {
        (true, _) => BodyLength::Chunked,
        (false, None) => BodyLength::Known(0),
        (false, Some(text)) => match text.trim().parse() {
            Ok(length) if length <= MAX_BODY => BodyLength::Known(length),
            _ => return Err(ReadError::Malformed),
        },
    };
    let expects_continue = incoming
        .header("expect")
        .is_some_and(|value| value.eq_ignore_ascii_case("100-continue"));
    let framing = Framing {
        keep_alive,
        chunks: version > 0,
        head_only: incoming.method == "HEAD",
    };
    Ok(Head {
        incoming,
        framing,
        length,
        expects_continue,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_taken_off_the_input_and_leaves_the_body() {
        let mut input = BytesMut::from(
            "POST /a?b HTTP/1.1\r\nX-One: 1\r\nEmpty:\r\nContent-Length: 3\r\n\r\nxyz",
        );
        let head = parse_head(&mut input).unwrap().unwrap();
        assert_eq!(
            (head.incoming.method.as_str(), head.incoming.path()),
            ("POST", "/a")
        );
        assert_eq!(head.incoming.header("x-one"), Some("1"));
        assert_eq!(head.incoming.header("empty"), Some(""));
        assert_eq!(head.length, BodyLength::Known(3));
        assert!(head.framing.keep_alive);
        assert_eq!(&input[..], b"xyz");
    }

    #[test]
    fn half_a_head_waits_and_nonsense_does_not() {
        assert!(
            parse_head(&mut BytesMut::from("GET / HTTP/1.1\r\nHo"))
                .unwrap()
                .is_none()
        );
        assert_eq!(
            parse_head(&mut BytesMut::from("\x16\x03\x01\x00")).unwrap_err(),
            ReadError::Malformed
        );
        let bad = "POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n";
        assert_eq!(
            parse_head(&mut BytesMut::from(bad)).unwrap_err(),
            ReadError::Malformed
        );
    }

    #[test]
    fn old_clients_close_and_know_no_chunks() {
        let head = parse_head(&mut BytesMut::from("GET / HTTP/1.0\r\n\r\n"))
            .unwrap()
            .unwrap();
        assert_eq!(
            (head.framing.keep_alive, head.framing.chunks),
            (false, false)
        );
    }
}
