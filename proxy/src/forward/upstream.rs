//! [`Upstream`] on Pingora: connections to engines, kept in a small pool per endpoint, and one attempt on one of
//! them. HTTP/1.1, HTTP/2 by prior knowledge, and both with TLS.
//!
//! The request's head and body leave as one write, straight from our own header map. Responses are read by
//! Pingora's sessions. Pingora's own `Connector` pool is not used for HTTP/1.1: it spawns a task for every
//! connection given back and asks the kernel for the peer's name at every reuse.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::FutureExt;
use http::{HeaderMap, Version, header};
use pingora_core::connectors::http::v2::Connector as H2Connector;
use pingora_core::connectors::{ConnectorOptions, TransportConnector};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::client::HttpSession;
use pingora_core::protocols::http::v1::client::HttpSession as H1Session;
use pingora_core::protocols::http::v2::client::Http2Session;
use pingora_core::upstreams::peer::{HttpPeer, PeerOptions};
use pingora_http::RequestHeader;
use sluice_config::bootstrap::UpstreamConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::exchange::{EngineError, Upstream};
use crate::http::{RequestHead, ResponseHead, hygiene};

/// Body pieces that are ready are joined into one write up to this size.
const JOIN_BYTES: usize = 64 << 10;
/// A body up to this size is copied behind the head: one small copy is cheaper than a gathered write.
const COPY_BODY_BYTES: usize = 8 << 10;
/// How long an answer may take to show after sending the request has failed.
const EARLY_ANSWER: Duration = Duration::from_millis(50);
/// Streams on one HTTP/2 connection to an engine.
const H2_STREAMS: usize = 100;

/// Makes connections to engines.
pub struct Connector {
    h1: TransportConnector,
    h2: H2Connector,
    idle_timeout: Duration,
    max_idle: usize,
    connect_timeout: Duration,
    insecure: bool,
}

/// One endpoint's side of the wire: how to reach it, and its idle connections.
pub struct Link {
    host: String,
    port: u16,
    /// `host:port` for the `host` field and the HTTP/2 authority.
    authority: String,
    tls: bool,
    http2: bool,
    idle: Mutex<VecDeque<Idle>>,
}

struct Idle {
    stream: Stream,
    since: Instant,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("authority", &self.authority)
            .finish_non_exhaustive()
    }
}

impl Link {
    /// A link to `host:port`; `authority` is what the engine sees as its name.
    pub fn new(host: &str, port: u16, authority: &str, tls: bool, http2: bool) -> Self {
        Self {
            host: host.to_owned(),
            port,
            authority: authority.to_owned(),
            tls,
            http2,
            idle: Mutex::new(VecDeque::new()),
        }
    }

    /// Idle connections kept now.
    pub fn idle_connections(&self) -> usize {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// The youngest idle connection that is still open.
    fn take_idle(&self, idle_timeout: Duration) -> Option<Stream> {
        loop {
            let mut idle = self
                .idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_back()?;
            if idle.since.elapsed() >= idle_timeout {
                // All others are older still.
                self.idle
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clear();
                return None;
            }
            // A read that would wait: open and quiet. No system call unless something has arrived.
            if idle.stream.read(&mut [0]).now_or_never().is_none() {
                return Some(idle.stream);
            }
        }
    }

    fn keep(&self, stream: Stream, max_idle: usize, idle_timeout: Duration) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while idle
            .front()
            .is_some_and(|oldest| oldest.since.elapsed() >= idle_timeout)
            || idle.len() >= max_idle.max(1)
        {
            idle.pop_front();
        }
        if max_idle > 0 {
            idle.push_back(Idle {
                stream,
                since: Instant::now(),
            });
        }
    }
}

/// One attempt: a request sent, its response to be read.
pub struct PingoraUpstream {
    session: Session,
    /// The connection had served a request before.
    reused: bool,
    /// Read already, because the engine answered before it took the whole request.
    early: Option<ResponseHead>,
    /// Found while joining ready pieces, told with the next call.
    pending: Option<Result<Option<Bytes>, EngineError>>,
    ended: bool,
    /// The request went out whole, so the connection can serve another.
    sent: bool,
}

enum Session {
    H1(Box<H1Session>),
    H2(Box<Http2Session>),
}

impl Connector {
    /// `connect_timeout` covers TCP and TLS.
    pub fn new(config: &UpstreamConfig, connect_timeout: Duration) -> Self {
        let mut options = ConnectorOptions::new(config.max_idle.max(1));
        options.ca_file = config
            .ca_file
            .as_ref()
            .map(|path| path.display().to_string());
        Self {
            h1: TransportConnector::new(Some(options.clone())),
            h2: H2Connector::new(Some(options)),
            idle_timeout: config.idle_timeout.into(),
            max_idle: config.max_idle,
            connect_timeout,
            insecure: config.insecure_skip_verify,
        }
    }

    /// Sends a request on a kept connection, or (`fresh`, or none is kept) on a new one.
    pub async fn send(
        &self,
        link: &Link,
        head: &RequestHead,
        body: &Bytes,
        fresh: bool,
    ) -> Result<PingoraUpstream, EngineError> {
        if link.http2 {
            return self.send_h2(link, head, body).await;
        }
        let kept = if fresh {
            None
        } else {
            link.take_idle(self.idle_timeout)
        };
        let reused = kept.is_some();
        let mut stream = match kept {
            Some(stream) => stream,
            None => self.connect(link).await?,
        };
        let written = write_h1(&mut stream, link, head, body).await;
        let mut upstream =
            PingoraUpstream::new(Session::H1(Box::new(H1Session::new(stream))), reused);
        let Err(error) = written else {
            return Ok(upstream);
        };
        // The engine may have answered (413, say) and closed before it read everything.
        match tokio::time::timeout(EARLY_ANSWER, upstream.head()).await {
            Ok(Ok(head)) => {
                upstream.early = Some(head);
                upstream.sent = false;
                Ok(upstream)
            }
            _ if reused => Err(EngineError::Stale(error.to_string())),
            _ => Err(EngineError::Lost(format!(
                "while sending the request: {error}"
            ))),
        }
    }

    async fn connect(&self, link: &Link) -> Result<Stream, EngineError> {
        let peer = self.peer(link).await?;
        self.h1
            .new_stream(&peer)
            .await
            .map_err(|error| EngineError::Connect(cause(&error)))
    }

    /// The peer of a link. Names are looked up for each new connection, so that a changed address is found.
    async fn peer(&self, link: &Link) -> Result<HttpPeer, EngineError> {
        let address = match link.host.parse::<IpAddr>() {
            Ok(ip) => SocketAddr::new(ip, link.port),
            Err(_) => {
                let lookup = tokio::net::lookup_host((link.host.as_str(), link.port));
                tokio::time::timeout(self.connect_timeout, lookup)
                    .await
                    .map_err(|_| {
                        EngineError::Connect(format!("lookup of {} timed out", link.host))
                    })?
                    .map_err(|error| {
                        EngineError::Connect(format!("lookup of {}: {error}", link.host))
                    })?
                    .next()
                    .ok_or_else(|| EngineError::Connect(format!("{} has no address", link.host)))?
            }
        };
        // An empty SNI would switch certificate checks off altogether.
        let mut peer = HttpPeer::new(address, link.tls, link.host.clone());
        let options: &mut PeerOptions = &mut peer.options;
        options.connection_timeout = Some(self.connect_timeout);
        options.total_connection_timeout = Some(self.connect_timeout);
        options.max_h2_streams = H2_STREAMS;
        if link.http2 {
            options.set_http_version(2, 2);
        }
        if self.insecure {
            options.verify_cert = false;
            options.verify_hostname = false;
        }
        Ok(peer)
    }

    async fn send_h2(
        &self,
        link: &Link,
        head: &RequestHead,
        body: &Bytes,
    ) -> Result<PingoraUpstream, EngineError> {
        let peer = self.peer(link).await?;
        let kept = self.h2.reused_http_session(&peer).await.ok().flatten();
        let reused = kept.is_some();
        let mut session = match kept {
            Some(session) => session,
            None => match self.h2.new_http_session::<HttpPeer, ()>(&peer).await {
                Ok(HttpSession::H2(session)) => session,
                Ok(_) => {
                    return Err(EngineError::Connect(
                        "the engine does not speak HTTP/2".into(),
                    ));
                }
                Err(error) => return Err(EngineError::Connect(cause(&error))),
            },
        };
        let request = h2_head(link, head, body.len())?;
        let failed = |error: &pingora_core::Error| {
            if reused {
                EngineError::Stale(cause(error))
            } else {
                EngineError::Lost(cause(error))
            }
        };
        session
            .write_request_header(Box::new(request), body.is_empty())
            .map_err(|error| failed(&error))?;
        if !body.is_empty() {
            session
                .write_request_body(body.clone(), true)
                .await
                .map_err(|error| failed(&error))?;
        }
        Ok(PingoraUpstream::new(Session::H2(Box::new(session)), reused))
    }

    /// Ends an exchange: its connection is kept when the response was read whole, else closed.
    pub async fn release(&self, link: &Link, upstream: PingoraUpstream) {
        match upstream.session {
            Session::H1(mut session) if upstream.ended && upstream.sent => {
                session.respect_keepalive();
                if let Some(stream) = session.reuse().await {
                    link.keep(stream, self.max_idle, self.idle_timeout);
                }
            }
            // Dropped unfinished, the connection closes at once and the engine sees it.
            Session::H1(_) => {}
            Session::H2(session) => {
                if let Ok(peer) = self.peer(link).await {
                    self.h2
                        .release_http_session(*session, &peer, Some(self.idle_timeout));
                }
            }
        }
    }
}

/// The root of a Pingora error, without its decoration.
fn cause(error: &pingora_core::Error) -> String {
    match &error.cause {
        Some(cause) => cause.to_string(),
        None => error.etype().as_str().to_owned(),
    }
}

fn write_fields(buffer: &mut BytesMut, headers: &HeaderMap) {
    for (name, value) in headers {
        if *name == header::HOST || *name == header::CONTENT_LENGTH || *name == header::EXPECT {
            continue;
        }
        buffer.put_slice(name.as_str().as_bytes());
        buffer.put_slice(b": ");
        buffer.put_slice(value.as_bytes());
        buffer.put_slice(b"\r\n");
    }
}

async fn write_h1(
    stream: &mut Stream,
    link: &Link,
    head: &RequestHead,
    body: &Bytes,
) -> std::io::Result<()> {
    let inline = body.len() <= COPY_BODY_BYTES;
    let mut buffer = BytesMut::with_capacity(1024 + if inline { body.len() } else { 0 });
    buffer.put_slice(head.method.as_str().as_bytes());
    buffer.put_u8(b' ');
    let target = head
        .uri
        .path_and_query()
        .map_or("/", |target| target.as_str());
    buffer.put_slice(target.as_bytes());
    buffer.put_slice(b" HTTP/1.1\r\nhost: ");
    buffer.put_slice(link.authority.as_bytes());
    buffer.put_slice(b"\r\n");
    write_fields(&mut buffer, &head.headers);
    buffer.put_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
    if inline {
        buffer.put_slice(body);
        stream.write_all(&buffer).await?;
    } else {
        stream
            .write_all_buf(&mut Buf::chain(buffer, body.clone()))
            .await?;
    }
    stream.flush().await
}

fn h2_head(link: &Link, head: &RequestHead, length: usize) -> Result<RequestHeader, EngineError> {
    let invalid = |error: &dyn std::fmt::Display| EngineError::Invalid(format!("request: {error}"));
    let target = head
        .uri
        .path_and_query()
        .map_or("/", |target| target.as_str());
    let mut request =
        RequestHeader::build_no_case(head.method.clone(), b"/", Some(head.headers.len() + 1))
            .map_err(|error| invalid(&error))?;
    let scheme = if link.tls { "https" } else { "http" };
    let uri = format!("{scheme}://{}{target}", link.authority)
        .parse()
        .map_err(|error: http::uri::InvalidUri| invalid(&error))?;
    request.set_uri(uri);
    request.set_version(Version::HTTP_2);
    for (name, value) in &head.headers {
        if *name == header::HOST || *name == header::CONTENT_LENGTH || *name == header::EXPECT {
            continue;
        }
        request
            .append_header(name.clone(), value.clone())
            .map_err(|error| invalid(&error))?;
    }
    request
        .insert_header(header::CONTENT_LENGTH, length)
        .map_err(|error| invalid(&error))?;
    Ok(request)
}

impl PingoraUpstream {
    fn new(session: Session, reused: bool) -> Self {
        Self {
            session,
            reused,
            early: None,
            pending: None,
            ended: false,
            sent: true,
        }
    }

    /// Had the connection served a request before?
    pub fn reused(&self) -> bool {
        self.reused
    }

    async fn read(&mut self) -> Result<Option<Bytes>, EngineError> {
        let read = match &mut self.session {
            Session::H1(session) => {
                if session.is_body_done() {
                    return Ok(None);
                }
                session.read_body_bytes().await
            }
            Session::H2(session) => session.read_response_body().await,
        };
        read.map_err(|error| EngineError::Lost(cause(&error)))
    }

    async fn read_head_once(&mut self) -> Result<ResponseHead, EngineError> {
        let result = match &mut self.session {
            Session::H1(session) => session.read_response().await.map(|_| ()),
            Session::H2(session) => session.read_response_header().await,
        };
        if let Err(error) = result {
            return Err(self.head_error(&error));
        }
        let response = match &self.session {
            Session::H1(session) => session.resp_header(),
            Session::H2(session) => session.response_header(),
        };
        let response =
            response.ok_or_else(|| EngineError::Invalid("no response header".to_owned()))?;
        let mut headers = response.headers.clone();
        hygiene::strip_hop_by_hop(&mut headers);
        Ok(ResponseHead {
            status: response.status,
            headers,
        })
    }

    fn head_error(&self, error: &pingora_core::Error) -> EngineError {
        use pingora_core::ErrorType::{ConnectionClosed, InvalidHTTPHeader, ReadError};
        match error.etype() {
            InvalidHTTPHeader => EngineError::Invalid("the response header is not HTTP".into()),
            ConnectionClosed | ReadError if self.reused => EngineError::Stale(cause(error)),
            _ => EngineError::Lost(cause(error)),
        }
    }
}

impl Upstream for PingoraUpstream {
    async fn head(&mut self) -> Result<ResponseHead, EngineError> {
        if let Some(head) = self.early.take() {
            return Ok(head);
        }
        loop {
            let head = self.read_head_once().await?;
            if head.status == http::StatusCode::SWITCHING_PROTOCOLS {
                return Err(EngineError::Invalid("the engine switched protocols".into()));
            }
            if !head.status.is_informational() {
                return Ok(head);
            }
        }
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, EngineError> {
        let first = match self.pending.take() {
            Some(told) => told,
            None => self.read().await,
        };
        let first = match first {
            Ok(Some(first)) => first,
            Ok(None) => {
                self.ended = true;
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        // Join what is there already, so that one read by the client's kernel takes it all: an engine's burst
        // of events is one write, not one per event. Nothing is waited for.
        let mut joined: Option<BytesMut> = None;
        let mut length = first.len();
        while length < JOIN_BYTES && self.pending.is_none() {
            match self.read().now_or_never() {
                Some(Ok(Some(more))) => {
                    length += more.len();
                    joined
                        .get_or_insert_with(|| {
                            let mut buffer = BytesMut::with_capacity(2 * length);
                            buffer.put_slice(&first);
                            buffer
                        })
                        .put_slice(&more);
                }
                Some(end) => self.pending = Some(end),
                None => break,
            }
        }
        if matches!(self.pending, Some(Ok(None))) {
            self.ended = true;
        }
        Ok(Some(joined.map_or(first, BytesMut::freeze)))
    }

    fn is_done(&mut self) -> bool {
        self.ended
    }
}
