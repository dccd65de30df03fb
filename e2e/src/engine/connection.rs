//! One TCP connection: HTTP/1.1 by hand, so that every way to break it is within reach; h2c goes to hyper.
//!
//! The socket lingers for zero seconds: whatever drops the connection resets it. Only [`Connection::close`] ends it in
//! order. Not a robust server: there are no timeouts and only generous limits.

mod read;
mod write;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::api;
use super::counters::{Outcome, RequestGuard};
use super::fault::Fault;
use super::http2;
use super::reply::{Incoming, Reply};
use super::shared::Shared;

/// How the client greets us in HTTP/2 with prior knowledge; no HTTP/1 method begins like this.
const HTTP2_PREFACE: &[u8] = b"PRI ";

/// Bytes read ahead while a request is answered; more stays in the kernel.
const READ_AHEAD: usize = 1 << 16;

/// What becomes of the connection after an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    KeepAlive,
    Close,
    Reset,
}

struct Connection {
    shared: Arc<Shared>,
    stream: TcpStream,
    /// Read and not yet consumed.
    input: BytesMut,
    /// Reused for everything written.
    output: Vec<u8>,
}

/// Serves a connection to its end.
pub(crate) async fn serve(shared: Arc<Shared>, stream: TcpStream) {
    // Both fail only on a connection that is gone already, which the first read tells.
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    let mut connection = Connection {
        shared,
        stream,
        input: BytesMut::with_capacity(4096),
        output: Vec::new(),
    };
    while connection.input.len() < HTTP2_PREFACE.len() {
        if !read_some(&mut connection.stream, &mut connection.input).await {
            return;
        }
    }
    if connection.input.starts_with(HTTP2_PREFACE) {
        http2::serve(
            connection.shared,
            connection.stream,
            connection.input.freeze(),
        )
        .await;
    } else {
        connection.run().await;
    }
}

/// Reads what there is; false at the end of the connection.
async fn read_some(stream: &mut TcpStream, input: &mut BytesMut) -> bool {
    if input.capacity() - input.len() < 1024 {
        input.reserve(4096);
    }
    matches!(stream.read_buf(input).await, Ok(count) if count > 0)
}

/// Runs `work` while watching the client; none when it went away first.
async fn attended<T>(
    stream: &mut TcpStream,
    input: &mut BytesMut,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            biased;
            value = &mut work => return Some(value),
            more = read_some(stream, input), if input.len() < READ_AHEAD => {
                if !more {
                    return None;
                }
            }
        }
    }
}

impl Connection {
    async fn run(mut self) {
        loop {
            let next = match self.read_head().await {
                Ok(Some(head)) => self.exchange(head).await,
                Ok(None) => Next::Close,
                Err(_) => self.refuse_garbage().await,
            };
            match next {
                Next::KeepAlive => {}
                Next::Close => return self.close().await,
                Next::Reset => return,
            }
        }
    }

    /// Ends the connection in order: what was written arrives, then FIN.
    async fn close(mut self) {
        let _ = SockRef::from(&self.stream).set_linger(None);
        let _ = self.stream.shutdown().await;
    }

    /// uvicorn's answer to what is not HTTP.
    async fn refuse_garbage(&mut self) -> Next {
        let reply = Reply::full(
            400,
            "text/plain; charset=utf-8",
            "Invalid HTTP request received.",
        );
        self.write_reply(reply, None, read::Framing::closing())
            .await
            .0
    }

    async fn until_gone(&mut self) {
        attended(
            &mut self.stream,
            &mut self.input,
            std::future::pending::<()>(),
        )
        .await;
    }

    /// Reads the body, answers, and says how to go on.
    async fn exchange(&mut self, head: read::Head) -> Next {
        let mut guard = counted(&self.shared, &head.incoming);
        let framing = head.framing;
        let incoming = match self.read_body(head).await {
            Ok(incoming) => Arc::new(incoming),
            Err(read::ReadError::Gone) => return Next::Reset,
            Err(read::ReadError::Malformed) => return self.refuse_garbage().await,
        };
        if guard.is_some() {
            self.shared.counters.remember(incoming.clone());
        }
        let fault = match fault_of(&self.shared, &incoming) {
            Ok(fault) => fault,
            Err(reply) => return self.write_reply(reply, None, framing).await.0,
        };
        let (next, outcome) = self.answer(&incoming, fault, framing).await;
        if let Some(guard) = &mut guard {
            guard.settle(outcome);
        }
        next
    }

    async fn answer(
        &mut self,
        incoming: &Incoming,
        fault: Option<Fault>,
        framing: read::Framing,
    ) -> (Next, Outcome) {
        match fault {
            Some(Fault::EarlyClose) => return (Next::Close, Outcome::Faulted),
            Some(Fault::HangBeforeHeaders) => {
                self.until_gone().await;
                return (Next::Reset, Outcome::Cancelled);
            }
            Some(Fault::Garbage) => {
                let _ = self
                    .stream
                    .write_all(b"\x16\x03garbage, not HTTP\r\n\x00\xff\r\n\r\n")
                    .await;
                return (Next::Close, Outcome::Faulted);
            }
            Some(Fault::Interim(code)) => {
                let line = format!("HTTP/1.1 {code} {}\r\n\r\n", write::reason(code));
                if self.stream.write_all(line.as_bytes()).await.is_err() {
                    return (Next::Reset, Outcome::Cancelled);
                }
            }
            _ => {}
        }
        let shared = self.shared.clone();
        let work = api::handle(&shared, incoming, fault);
        match attended(&mut self.stream, &mut self.input, work).await {
            Some(reply) => self.write_reply(reply, fault, framing).await,
            None => (Next::Reset, Outcome::Cancelled),
        }
    }
}

/// Counts what tests count: POST requests that are not ours.
pub(crate) fn counted(shared: &Shared, incoming: &Incoming) -> Option<RequestGuard> {
    let counts = incoming.method == "POST" && !incoming.path().starts_with("/sim/");
    counts.then(|| RequestGuard::new(shared.counters.clone()))
}

/// The fault of a request: what its header says, else what strikes all counted ones.
pub(crate) fn fault_of(shared: &Shared, incoming: &Incoming) -> Result<Option<Fault>, Reply> {
    if incoming.path().starts_with("/sim/") {
        return Ok(None);
    }
    let fault = match incoming.header("x-fault") {
        Some(text) => {
            let fault = text.parse();
            Some(fault.map_err(|error: super::fault::FaultError| {
                api::ApiError::bad_request(Some("x-fault"), error.to_string()).reply()
            })?)
        }
        None if incoming.method == "POST" => shared.draw_fault(),
        None => None,
    };
    // Refusing is the listener's business: a connection that exists is served.
    Ok(fault.filter(|fault| *fault != Fault::Refuse))
}

/// A header list from pairs, for both protocols.
pub(crate) type Headers = Vec<(Bytes, Bytes)>;
