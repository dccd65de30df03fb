//! The seam between the gateway and the wire: a client's request as [`Downstream`], one attempt at an engine as
//! [`Upstream`].
//!
//! Everything above speaks only these two traits and `http` types, so that the wire engine can be replaced
//! without touching routing, retries or streaming. Both implementations answer to the same black-box tests
//! (`e2e/tests/conformance.rs`).

use std::future::Future;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;

use crate::error::RequestError;
use crate::http::{RequestHead, ResponseHead};

/// Time limits of the client's side.
#[derive(Debug, Clone, Copy)]
pub struct ClientTimeouts {
    /// A connection without a request is closed after this.
    pub idle: Duration,
    /// Longest time for a head, and longest silence within a body.
    pub read: Duration,
    /// Longest time one write may block.
    pub write: Duration,
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

/// What can go wrong on the client's side.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The client closed, reset, or half-closed the connection.
    #[error("the client has gone")]
    Gone,
    /// The client sent nothing, or took nothing, for too long.
    #[error("the client is too slow")]
    TooSlow,
    /// The body's framing is broken.
    #[error("{0}")]
    Malformed(String),
}

/// One client request: its body in, one response out.
pub trait Downstream: Send {
    /// The client's address.
    fn client(&self) -> Option<IpAddr>;

    /// The next piece of the request's body, `None` at its end.
    fn read_body(&mut self) -> impl Future<Output = Result<Option<Bytes>, ClientError>> + Send;

    /// The body's length is known and there is room for it: it may come as one piece, read into place. Without
    /// this a body is read in small pieces, whatever length it claims.
    fn gather_body(&mut self) {}

    /// Tell a client that waits for `100 Continue` to send its body.
    fn send_continue(&mut self) -> impl Future<Output = Result<(), ClientError>> + Send;

    /// Resolves when the client has gone. Call it only after the body was read whole, and never after the
    /// response is complete: the client's next request may already be on its way.
    fn gone(&mut self) -> impl Future<Output = ()> + Send;

    /// Send the response's head. Framing is the wire's business: a `content-length` in the head is a promise
    /// about the bytes that follow, without it the length is open.
    fn start(&mut self, head: ResponseHead)
    -> impl Future<Output = Result<(), ClientError>> + Send;

    /// Send a piece of the response's body in one write, at once.
    fn write(&mut self, chunk: Bytes) -> impl Future<Output = Result<(), ClientError>> + Send;

    /// End the response as complete.
    fn finish(&mut self) -> impl Future<Output = Result<(), ClientError>> + Send;

    /// The response cannot be completed: make sure that the client sees it as broken.
    fn abort(&mut self) -> impl Future<Output = ()> + Send;

    /// The connection must not serve another request.
    fn close_after_response(&mut self);
}

/// What can go wrong on the engine's side of one attempt.
#[derive(Debug, Error)]
pub enum EngineError {
    /// No connection: the request has not reached the engine.
    #[error("connect: {0}")]
    Connect(String),
    /// A kept connection turned out closed before any byte of an answer.
    #[error("kept connection was closed: {0}")]
    Stale(String),
    /// The connection broke.
    #[error("connection lost: {0}")]
    Lost(String),
    /// What came is not HTTP.
    #[error("invalid response: {0}")]
    Invalid(String),
    /// The request cannot be put as the engine's protocol wants it: nothing was sent.
    #[error("the request cannot be sent: {0}")]
    Request(String),
}

/// The answer to one attempt.
pub trait Upstream: Send {
    /// The response's head, hop-by-hop fields removed; 1xx are skipped.
    fn head(&mut self) -> impl Future<Output = Result<ResponseHead, EngineError>> + Send;

    /// What has arrived of the body, joined, `None` at its end. May be dropped while it waits.
    fn chunk(&mut self) -> impl Future<Output = Result<Option<Bytes>, EngineError>> + Send;
}
