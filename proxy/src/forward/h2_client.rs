//! [`Downstream`] for HTTP/2: one stream of a client's connection, on Pingora's server session.
//!
//! Not for HTTP/1.1: see [`super::h1_client`].

use std::net::IpAddr;

use bytes::Bytes;
use http::Method;
use pingora_core::protocols::http::ServerSession;
use pingora_core::{Error as PingoraError, ErrorType};
use pingora_http::ResponseHeader;

use super::exchange::{Arrival, ClientError, ClientTimeouts, Downstream};
use crate::http::hygiene::{self, HeadLimits};
use crate::http::{RequestHead, ResponseHead};

/// A client's request on an HTTP/2 stream.
pub struct H2Client {
    session: ServerSession,
    head_only: bool,
    done: bool,
}

impl H2Client {
    /// Wraps a fresh session, which has its head already.
    pub fn new(mut session: ServerSession, timeouts: ClientTimeouts) -> Self {
        session.set_read_timeout(Some(timeouts.read));
        session.set_write_timeout(Some(timeouts.write));
        Self {
            session,
            head_only: false,
            done: false,
        }
    }

    /// The request's head, checked.
    pub async fn read_head(&mut self, limits: &HeadLimits) -> Arrival {
        if !self.session.read_request().await.unwrap_or(false) {
            return Arrival::Closed;
        }
        let request = self.session.req_header();
        let head = RequestHead {
            method: request.method.clone(),
            uri: request.uri.clone(),
            version: request.version,
            headers: request.headers.clone(),
        };
        self.head_only = head.method == Method::HEAD;
        match hygiene::check(&head, None, limits) {
            Ok(()) => Arrival::Request(head),
            Err(error) => Arrival::Refused(error, Some(head)),
        }
    }

    /// Ends the stream, if the exchange ended in order; else it is reset.
    pub async fn close(self) {
        if self.done {
            self.session.finish().await.ok();
        }
    }
}

fn client_error(error: &PingoraError) -> ClientError {
    match error.etype() {
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => ClientError::TooSlow,
        ErrorType::InvalidHTTPHeader => ClientError::Malformed(error.to_string()),
        _ => ClientError::Gone,
    }
}

fn unsendable(error: &PingoraError) -> ClientError {
    ClientError::Malformed(error.to_string())
}

impl Downstream for H2Client {
    fn client(&self) -> Option<IpAddr> {
        let address = self.session.client_addr()?;
        address.as_inet().map(std::net::SocketAddr::ip)
    }

    async fn read_body(&mut self) -> Result<Option<Bytes>, ClientError> {
        let read = self.session.read_request_body().await;
        read.map_err(|error| client_error(&error))
    }

    async fn send_continue(&mut self) -> Result<(), ClientError> {
        let sent = self.session.write_continue_response().await;
        sent.map_err(|error| client_error(&error))
    }

    async fn gone(&mut self) {
        while self.session.read_body_or_idle(true).await.is_ok() {}
    }

    async fn start(&mut self, head: ResponseHead) -> Result<(), ClientError> {
        let mut header = ResponseHeader::build_no_case(head.status, Some(head.headers.len()))
            .map_err(|error| unsendable(&error))?;
        for (name, value) in &head.headers {
            header
                .append_header(name.clone(), value.clone())
                .map_err(|error| unsendable(&error))?;
        }
        header.set_version(http::Version::HTTP_2);
        let sent = self.session.write_response_header(Box::new(header)).await;
        sent.map_err(|error| client_error(&error))
    }

    async fn write(&mut self, chunk: Bytes) -> Result<(), ClientError> {
        if self.head_only {
            return Ok(());
        }
        let sent = self.session.write_response_body(chunk, false).await;
        sent.map_err(|error| client_error(&error))
    }

    async fn finish(&mut self) -> Result<(), ClientError> {
        let sent = self.session.write_response_body(Bytes::new(), true).await;
        sent.map_err(|error| client_error(&error))?;
        self.done = true;
        Ok(())
    }

    async fn abort(&mut self) {
        self.done = false;
        self.session.shutdown().await;
    }

    /// The connection carries other streams too; it is closed by a GOAWAY when draining.
    fn close_after_response(&mut self) {}
}
