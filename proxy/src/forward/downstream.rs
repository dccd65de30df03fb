//! [`Downstream`] on Pingora's server sessions: HTTP/1.1 and HTTP/2.
//!
//! Also reads the request's head and refuses what HTTP does not allow, since that needs the session's raw bytes.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Version, header};
use pingora_core::protocols::http::ServerSession;
use pingora_core::{Error as PingoraError, ErrorType};
use pingora_http::ResponseHeader;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::exchange::{ClientError, Downstream};
use crate::error::RequestError;
use crate::http::{RequestHead, ResponseHead, hygiene};

/// Time limits of the client's side.
#[derive(Debug, Clone, Copy)]
pub struct ClientTimeouts {
    /// An idle connection is closed after this; whole seconds.
    pub idle: Duration,
    /// Longest silence while a request arrives.
    pub read: Duration,
    /// Longest time one write may block.
    pub write: Duration,
}

/// A client's request on a Pingora session.
pub struct PingoraDownstream {
    session: ServerSession,
    version: Version,
    head_only: bool,
    /// The head was understood, so that the session knows where the body ends.
    parsed: bool,
    closing: bool,
    done: bool,
}

/// What arrived on a connection.
pub enum Arrival {
    /// A request with a usable head.
    Request(RequestHead),
    /// A request that must be refused; its head as far as it could be read.
    Refused(RequestError, Option<RequestHead>),
    /// The client closed between requests.
    Closed,
}

impl PingoraDownstream {
    /// Wraps a fresh session.
    pub fn new(mut session: ServerSession, timeouts: ClientTimeouts) -> Self {
        session.set_keepalive(Some(timeouts.idle.as_secs().max(1)));
        session.set_read_timeout(Some(timeouts.read));
        session.set_write_timeout(Some(timeouts.write));
        // A client may send its next request before it has seen the end of our answer. Pingora keeps
        // those bytes for the next session only with this switch.
        session.set_pipelining_enabled(true);
        Self {
            session,
            version: Version::HTTP_11,
            head_only: false,
            parsed: false,
            closing: false,
            done: false,
        }
    }

    /// Reads the request's head and checks what HTTP asks of it.
    pub async fn read_head(&mut self, limits: &hygiene::HeadLimits) -> Arrival {
        match self.session.read_request().await {
            Ok(true) => {}
            Ok(false) => return Arrival::Closed,
            Err(error) => return refuse_unparsed(&error),
        }
        self.parsed = true;
        let request = self.session.req_header();
        let head = RequestHead {
            method: request.method.clone(),
            uri: request.uri.clone(),
            version: request.version,
            headers: request.headers.clone(),
        };
        self.version = head.version;
        self.head_only = head.method == http::Method::HEAD;
        // Pingora has dropped the content-length of a request that also has a transfer-encoding: only the raw
        // head still shows it.
        let raw = self
            .session
            .as_http1()
            .map(|session| session.get_headers_raw_bytes());
        match hygiene::check(&head, raw.as_deref(), limits) {
            Ok(()) => Arrival::Request(head),
            Err(error) => Arrival::Refused(error, Some(head)),
        }
    }

    /// May the connection serve another request? Hands the session back for that.
    pub fn into_session(self) -> ServerSession {
        self.session
    }

    /// Did the exchange end in order?
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Is the connection to be closed while the client may still be sending? Then hand it to [`Self::linger`].
    pub fn must_linger(&mut self) -> bool {
        self.closing
            && match &mut self.session {
                ServerSession::H1(session) => !self.parsed || !session.is_body_done(),
                _ => false,
            }
    }

    /// Says that nothing more follows, and reads on for a moment: a connection closed on unread bytes is reset,
    /// and the answer with it.
    pub async fn linger(self) {
        const MOST_BYTES: usize = 16 << 20;
        const MOST_TIME: Duration = Duration::from_secs(1);
        let ServerSession::H1(session) = self.session else {
            return;
        };
        let mut stream = session.into_inner();
        let reading = async {
            let mut left = MOST_BYTES;
            let mut buffer = vec![0; 16 << 10];
            if stream.shutdown().await.is_err() {
                return;
            }
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                match left.checked_sub(count) {
                    Some(rest) => left = rest,
                    None => return,
                }
            }
        };
        // Out of patience: the client has had its chance.
        tokio::time::timeout(MOST_TIME, reading).await.ok();
    }
}

fn refuse_unparsed(error: &PingoraError) -> Arrival {
    let parser = error.root_cause().downcast_ref::<httparse::Error>();
    match error.etype() {
        ErrorType::InvalidHTTPHeader if parser == Some(&httparse::Error::TooManyHeaders) => {
            Arrival::Refused(
                RequestError::HeadTooLarge("more than 256 header fields".into()),
                None,
            )
        }
        ErrorType::InvalidHTTPHeader if error.to_string().contains("header larger than") => {
            Arrival::Refused(RequestError::HeadTooLarge("larger than 1 MiB".into()), None)
        }
        ErrorType::InvalidHTTPHeader => {
            let cause = parser.map_or_else(|| "invalid header".to_owned(), ToString::to_string);
            Arrival::Refused(RequestError::MalformedHead(cause), None)
        }
        ErrorType::ReadTimedout => {
            Arrival::Refused(RequestError::ClientTooSlow(Duration::ZERO), None)
        }
        _ => Arrival::Closed,
    }
}

fn client_error(error: &PingoraError) -> ClientError {
    match error.etype() {
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => ClientError::TooSlow,
        ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError => {
            ClientError::Gone
        }
        _ => ClientError::Malformed(error.to_string()),
    }
}

impl Downstream for PingoraDownstream {
    fn client(&self) -> Option<IpAddr> {
        self.session
            .client_addr()?
            .as_inet()
            .map(std::net::SocketAddr::ip)
    }

    async fn read_body(&mut self) -> Result<Option<Bytes>, ClientError> {
        if !self.parsed {
            // The session would panic: without a head it does not know of a body.
            return Ok(None);
        }
        self.session
            .read_request_body()
            .await
            .map_err(|error| client_error(&error))
    }

    async fn send_continue(&mut self) -> Result<(), ClientError> {
        // An interim answer comes before the body by its nature: no reason to close the connection afterwards.
        self.session
            .set_close_on_response_before_downstream_finish(false);
        let sent = self.session.write_continue_response().await;
        self.session
            .set_close_on_response_before_downstream_finish(true);
        sent.map_err(|error| client_error(&error))
    }

    async fn gone(&mut self) {
        while self.session.read_body_or_idle(true).await.is_ok() {}
    }

    async fn start(&mut self, head: ResponseHead) -> Result<(), ClientError> {
        let mut header = ResponseHeader::build_no_case(head.status, Some(head.headers.len() + 3))
            .map_err(|error| ClientError::Malformed(error.to_string()))?;
        let sized = head.headers.contains_key(header::CONTENT_LENGTH)
            || head.status == http::StatusCode::NO_CONTENT
            || head.status == http::StatusCode::NOT_MODIFIED;
        for (name, value) in &head.headers {
            header
                .append_header(name.clone(), value.clone())
                .map_err(|error| ClientError::Malformed(error.to_string()))?;
        }
        header.set_version(self.version);
        if !sized && self.version == Version::HTTP_11 {
            header
                .insert_header(header::TRANSFER_ENCODING, "chunked")
                .map_err(|error| ClientError::Malformed(error.to_string()))?;
        }
        self.session
            .write_response_header(Box::new(header))
            .await
            .map_err(|error| client_error(&error))
    }

    async fn write(&mut self, chunk: Bytes) -> Result<(), ClientError> {
        if self.head_only {
            return Ok(());
        }
        self.session
            .write_response_body(chunk, false)
            .await
            .map_err(|error| client_error(&error))
    }

    async fn finish(&mut self) -> Result<(), ClientError> {
        self.session
            .write_response_body(Bytes::new(), true)
            .await
            .map_err(|error| client_error(&error))?;
        self.done = true;
        Ok(())
    }

    async fn abort(&mut self) {
        self.done = false;
        self.session.set_keepalive(None);
        self.session.shutdown().await;
    }

    fn close_after_response(&mut self) {
        self.closing = true;
        self.session.set_keepalive(None);
    }
}
