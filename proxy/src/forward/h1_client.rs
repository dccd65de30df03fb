//! [`Downstream`] for HTTP/1.1: one client connection, request after request, on a raw stream.
//!
//! The client's half of the lean HTTP/1.1 engine ([`super::h1_engine`] is the engine's half): one buffer for head and body,
//! header values and bodies are slices of it, an answer of known length leaves as one write with its head. RFC 9112
//! throughout; where it lets a server choose, it refuses. Generic over the stream, so it is tested on pipes.
//!
//! Not for HTTP/2: that stays on Pingora's sessions ([`super::h2_client`]).

mod parse;

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderValue, Method, StatusCode, Version, header};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::exchange::{Arrival, ClientError, ClientTimeouts, Downstream};
use super::h1_engine::{Chunked, ReadError};
use crate::error::RequestError;
use crate::http::ResponseHead;
use crate::http::hygiene::HeadLimits;

const FIRST_READ: usize = 4 << 10;
/// Largest buffer in which a connection waits for its next request.
const LARGEST_FIRST_READ: usize = 32 << 10;
/// More than the rest of a body is asked for: see [`super::h1_engine`].
const BEYOND: usize = 64;
/// A body piece up to this size is copied behind its head or chunk size and leaves with it.
const COPY_BYTES: usize = 8 << 10;
/// A body that is not gathered is read in pieces of this size.
const PIECE: usize = 64 << 10;
/// Pipelined requests are read this far ahead while one is being served.
const AHEAD_BYTES: usize = 64 << 10;

/// A client's connection.
pub struct H1Client<S> {
    stream: S,
    address: Option<IpAddr>,
    timeouts: ClientTimeouts,
    /// Size of the next request's first read: clients send alike requests, and one that fits is one read.
    first_read: usize,
    /// Received, not yet consumed: what remains of this request, then perhaps the next.
    received: BytesMut,
    body: RequestBody,
    /// The body may be held whole.
    gather: bool,
    /// To be sent with the next write.
    unsent: BytesMut,
    answer: Answer,
    version: Version,
    head_only: bool,
    /// No further request is served on the connection.
    closing: bool,
}

/// What is to come of the request's body.
#[derive(Debug)]
enum RequestBody {
    Length(u64),
    Chunked(Chunked),
    Done,
    /// Broken: what follows cannot be told from it.
    Broken,
}

/// How far the answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    None,
    Chunked,
    /// By length, by the end of the connection, or without a body.
    Plain,
    Done,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> H1Client<S> {
    /// A fresh connection; `received` is what has been read of it already.
    pub fn new(
        stream: S,
        address: Option<IpAddr>,
        timeouts: ClientTimeouts,
        received: BytesMut,
    ) -> Self {
        Self {
            stream,
            address,
            timeouts,
            first_read: FIRST_READ,
            received,
            body: RequestBody::Done,
            gather: false,
            unsent: BytesMut::new(),
            answer: Answer::None,
            version: Version::HTTP_11,
            head_only: false,
            closing: false,
        }
    }

    /// The next request's head, checked.
    pub async fn next(&mut self, limits: &HeadLimits) -> Arrival {
        self.answer = Answer::None;
        self.gather = false;
        self.unsent.clear();
        if self.received.is_empty() {
            // Between requests nothing is held.
            self.received = BytesMut::new();
            let idle = self.timeouts.idle;
            match tokio::time::timeout(idle, self.fill(self.first_read)).await {
                Ok(Ok(true)) => {}
                _ => return Arrival::Closed,
            }
        }
        // A head must be whole in time, however it trickles in.
        let patience = self.timeouts.read;
        match tokio::time::timeout(patience, self.read_head(limits)).await {
            Ok(arrival) => arrival,
            Err(_) => {
                self.body = RequestBody::Broken;
                Arrival::Refused(RequestError::ClientTooSlow(patience), None)
            }
        }
    }

    async fn read_head(&mut self, limits: &HeadLimits) -> Arrival {
        loop {
            match parse::request(&mut self.received, limits) {
                parse::Outcome::Partial => match self.fill(FIRST_READ).await {
                    Ok(true) => {}
                    _ => return Arrival::Closed,
                },
                parse::Outcome::Request(request) => {
                    self.version = request.head.version;
                    self.head_only = request.head.method == Method::HEAD;
                    self.closing = request.close;
                    self.body = request.body;
                    return match request.refused {
                        None => Arrival::Request(request.head),
                        Some(error) => Arrival::Refused(error, Some(request.head)),
                    };
                }
                parse::Outcome::Invalid(error) => {
                    self.body = RequestBody::Broken;
                    return Arrival::Refused(error, None);
                }
            }
        }
    }

    /// Did the exchange end so that the connection can serve another?
    pub fn can_serve_on(&self) -> bool {
        self.answer == Answer::Done && !self.closing && matches!(self.body, RequestBody::Done)
    }

    /// Ends the connection. If the client may still be sending, reads on for a moment: a connection closed on
    /// unread bytes is reset, and the answer with it.
    pub async fn close(mut self) {
        const MOST_BYTES: usize = 16 << 20;
        const MOST_TIME: Duration = Duration::from_secs(1);
        let sending = !matches!(self.body, RequestBody::Done) || !self.received.is_empty();
        if self.stream.shutdown().await.is_err() || !sending || self.answer != Answer::Done {
            return;
        }
        let reading = async {
            let mut left = MOST_BYTES;
            let mut buffer = vec![0; 16 << 10];
            while let Ok(count @ 1..) = self.stream.read(&mut buffer).await {
                match left.checked_sub(count) {
                    Some(rest) => left = rest,
                    None => return,
                }
            }
        };
        // Out of patience: the client has had its chance.
        tokio::time::timeout(MOST_TIME, reading).await.ok();
    }

    /// Holds on to no buffer while the answer takes its time.
    fn let_go(&mut self) {
        if self.received.is_empty() {
            self.received = BytesMut::new();
        }
    }

    /// Reads once; false at the end of the stream.
    async fn fill(&mut self, wanted: usize) -> io::Result<bool> {
        self.received.reserve(wanted);
        Ok(self.stream.read_buf(&mut self.received).await? > 0)
    }

    /// Reads one byte, which needs no buffer while nothing comes; false at the end of the stream.
    async fn probe(&mut self) -> io::Result<bool> {
        let mut byte = [0];
        let read = self.stream.read(&mut byte).await?;
        self.received.extend_from_slice(&byte[..read]);
        Ok(read > 0)
    }

    /// Reads more of the body, which is not whole.
    async fn fill_body(&mut self, wanted: usize) -> Result<(), ClientError> {
        match tokio::time::timeout(self.timeouts.read, self.fill(wanted)).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false) | Err(_)) => {
                self.body = RequestBody::Broken;
                Err(ClientError::Gone)
            }
            Err(_) => {
                self.body = RequestBody::Broken;
                Err(ClientError::TooSlow)
            }
        }
    }

    /// Sends what is unsent, and `chunk` right behind it.
    async fn send(&mut self, chunk: Bytes) -> Result<(), ClientError> {
        if chunk.len() <= COPY_BYTES && !self.unsent.is_empty() {
            self.unsent.put_slice(&chunk);
            return self.send_gathered(Bytes::new()).await;
        }
        self.send_gathered(chunk).await
    }

    async fn send_gathered(&mut self, chunk: Bytes) -> Result<(), ClientError> {
        let mut both = Buf::chain(&mut self.unsent, chunk);
        let writing = async {
            self.stream.write_all_buf(&mut both).await?;
            self.stream.flush().await
        };
        let written = in_time(self.timeouts.write, writing).await;
        self.unsent.clear();
        written
    }
}

async fn in_time(
    limit: Duration,
    writing: impl Future<Output = io::Result<()>>,
) -> Result<(), ClientError> {
    match tokio::time::timeout(limit, writing).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(ClientError::Gone),
        Err(_) => Err(ClientError::TooSlow),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Downstream for H1Client<S> {
    fn client(&self) -> Option<IpAddr> {
        self.address
    }

    async fn read_body(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            match &mut self.body {
                RequestBody::Done => return Ok(None),
                RequestBody::Broken => return Err(ClientError::Gone),
                RequestBody::Length(left) => {
                    let length = usize::try_from(*left).unwrap_or(usize::MAX);
                    let ready = self.received.len();
                    if ready < length && ready > 0 && !self.gather {
                        *left -= ready as u64;
                        return Ok(Some(self.received.split().freeze()));
                    }
                    if ready >= length {
                        self.body = RequestBody::Done;
                        let alike = length.saturating_add(FIRST_READ);
                        self.first_read = alike.min(LARGEST_FIRST_READ);
                        let body = self.received.split_to(length).freeze();
                        self.let_go();
                        return Ok(Some(body));
                    }
                    let missing = (length - ready).saturating_add(BEYOND);
                    let wanted = if self.gather {
                        missing
                    } else {
                        missing.min(PIECE)
                    };
                    self.fill_body(wanted).await?;
                }
                RequestBody::Chunked(chunked) => match chunked.decode(&mut self.received) {
                    Ok(ready) => {
                        if chunked.is_done() {
                            self.body = RequestBody::Done;
                            self.let_go();
                        }
                        if !ready.is_empty() {
                            return Ok(Some(ready));
                        }
                        if matches!(self.body, RequestBody::Chunked(_)) {
                            self.fill_body(FIRST_READ).await?;
                        }
                    }
                    Err(ReadError::Invalid(why)) => {
                        self.body = RequestBody::Broken;
                        return Err(ClientError::Malformed(why.to_owned()));
                    }
                    Err(_) => return Err(ClientError::Gone),
                },
            }
        }
    }

    fn gather_body(&mut self) {
        self.gather = true;
    }

    async fn send_continue(&mut self) -> Result<(), ClientError> {
        // Whoever has begun to send the body does not wait.
        if self.version != Version::HTTP_11 || !self.received.is_empty() {
            return Ok(());
        }
        self.unsent.put_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        self.send(Bytes::new()).await
    }

    async fn gone(&mut self) {
        while self.received.len() < AHEAD_BYTES {
            let read = if self.received.is_empty() {
                self.probe().await
            } else {
                self.fill(FIRST_READ).await
            };
            if !matches!(read, Ok(true)) {
                self.closing = true;
                return;
            }
        }
        std::future::pending().await
    }

    async fn start(&mut self, head: ResponseHead) -> Result<(), ClientError> {
        let bodiless = matches!(
            head.status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        );
        let sized = head.headers.contains_key(header::CONTENT_LENGTH) || bodiless || self.head_only;
        let chunked = !sized && self.version == Version::HTTP_11;
        // Unread, its rest would be taken for the next request. Open-ended, the end is told by closing.
        self.closing |= !matches!(self.body, RequestBody::Done) || !(sized || chunked);
        self.answer = if chunked {
            Answer::Chunked
        } else {
            Answer::Plain
        };
        write_head(&mut self.unsent, &head, chunked, self.closing);
        // With a length the body follows at once, and both leave together.
        if sized {
            Ok(())
        } else {
            self.send(Bytes::new()).await
        }
    }

    async fn write(&mut self, chunk: Bytes) -> Result<(), ClientError> {
        if self.head_only || chunk.is_empty() {
            return Ok(());
        }
        if self.answer != Answer::Chunked {
            return self.send(chunk).await;
        }
        self.unsent
            .put_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        if chunk.len() <= COPY_BYTES {
            self.unsent.put_slice(&chunk);
            self.unsent.put_slice(b"\r\n");
            return self.send_gathered(Bytes::new()).await;
        }
        self.send_gathered(chunk).await?;
        // Left for the next write: the end of a chunk is of no use to the client before that.
        self.unsent.put_slice(b"\r\n");
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), ClientError> {
        if self.answer == Answer::Chunked {
            self.unsent.put_slice(b"0\r\n\r\n");
        }
        if !self.unsent.is_empty() {
            self.send(Bytes::new()).await?;
        }
        self.answer = Answer::Done;
        Ok(())
    }

    async fn abort(&mut self) {
        self.closing = true;
        self.unsent.clear();
        self.stream.shutdown().await.ok();
    }

    fn close_after_response(&mut self) {
        self.closing = true;
    }
}

fn write_head(out: &mut BytesMut, head: &ResponseHead, chunked: bool, closing: bool) {
    out.reserve(512);
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(head.status.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(
        head.status
            .canonical_reason()
            .unwrap_or_default()
            .as_bytes(),
    );
    out.put_slice(b"\r\n");
    for (name, value) in &head.headers {
        field(out, name.as_str(), value);
    }
    if !head.headers.contains_key(header::DATE) {
        let now = httpdate::fmt_http_date(std::time::SystemTime::now());
        out.put_slice(b"date: ");
        out.put_slice(now.as_bytes());
        out.put_slice(b"\r\n");
    }
    if chunked {
        out.put_slice(b"transfer-encoding: chunked\r\n");
    }
    out.put_slice(if closing {
        b"connection: close\r\n\r\n".as_slice()
    } else {
        b"connection: keep-alive\r\n\r\n"
    });
}

fn field(out: &mut BytesMut, name: &str, value: &HeaderValue) {
    out.put_slice(name.as_bytes());
    out.put_slice(b": ");
    out.put_slice(value.as_bytes());
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests;
