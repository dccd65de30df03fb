//! [`Upstream`] on Pingora's connections: one attempt at an engine, over HTTP/1.1, HTTP/2 by prior knowledge, and
//! both with TLS.
//!
//! Connecting, TLS and HTTP/2 are Pingora's. HTTP/1.1 is ours on its raw streams: one write for the request
//! ([`super::request`]), one small buffer for the response ([`super::h1_engine`]), kept connections per endpoint
//! ([`super::link`]).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::FutureExt;
use pingora_core::connectors::http::v2::Connector as H2Connector;
use pingora_core::connectors::{ConnectorOptions, TransportConnector};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::client::HttpSession;
use pingora_core::protocols::http::v2::client::Http2Session;
use pingora_core::upstreams::peer::HttpPeer;
use sluice_config::bootstrap::UpstreamConfig;

use super::exchange::{EngineError, Upstream};
use super::h1_engine::{ReadError, ResponseReader};
use super::link::Link;
use super::request;
use crate::http::{RequestHead, ResponseHead, hygiene};

/// Pieces of an HTTP/2 body that are ready are joined into one write up to this size.
const JOIN_BYTES: usize = 64 << 10;
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

/// One attempt: a request sent, its response to be read.
pub struct PingoraUpstream {
    session: Session,
    /// The connection had served a request before.
    reused: bool,
    /// Read already, because the engine answered before it took the whole request.
    early: Option<ResponseHead>,
    /// The request went out whole, so the connection can serve another.
    sent: bool,
}

enum Session {
    H1(ResponseReader<Stream>),
    H2(Box<H2Response>),
}

struct H2Response {
    session: Http2Session,
    /// Found while joining ready pieces, told with the next call.
    pending: Option<Result<Option<Bytes>, EngineError>>,
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
            return Box::pin(self.send_h2(link, head, body)).await;
        }
        let kept = if fresh {
            None
        } else {
            link.take(self.idle_timeout)
        };
        let reused = kept.is_some();
        let mut stream = match kept {
            Some(stream) => stream,
            None => Box::pin(self.connect(link)).await?,
        };
        let written = request::write_h1(&mut stream, link, head, body).await;
        let mut upstream = PingoraUpstream::new(Session::H1(ResponseReader::new(stream)), reused);
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

    /// Ends an exchange: its connection is kept when the response was read whole, else closed.
    pub async fn release(&self, link: &Link, upstream: PingoraUpstream) {
        match upstream.session {
            // Dropped unfinished, the connection closes at once and the engine sees it.
            Session::H1(reader) if upstream.sent => {
                if let Some(stream) = reader.into_reusable() {
                    link.keep(stream, self.max_idle, self.idle_timeout);
                }
            }
            Session::H1(_) => {}
            Session::H2(response) => {
                if let Ok(peer) = self.peer(link).await {
                    let idle_timeout = Some(self.idle_timeout);
                    self.h2
                        .release_http_session(response.session, &peer, idle_timeout);
                }
            }
        }
    }

    async fn connect(&self, link: &Link) -> Result<Stream, EngineError> {
        let peer = self.peer(link).await?;
        let stream = self.h1.new_stream(&peer).await;
        stream.map_err(|error| EngineError::Connect(cause(&error)))
    }

    /// The peer of a link. Names are looked up for each new connection, so that a changed address is found.
    async fn peer(&self, link: &Link) -> Result<HttpPeer, EngineError> {
        let address = match link.host.parse::<IpAddr>() {
            Ok(ip) => SocketAddr::new(ip, link.port),
            Err(_) => self.look_up(link).await.map_err(EngineError::Connect)?,
        };
        // An empty SNI would switch certificate checks off altogether.
        let mut peer = HttpPeer::new(address, link.tls, link.host.clone());
        let options = &mut peer.options;
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

    async fn look_up(&self, link: &Link) -> Result<SocketAddr, String> {
        let host = link.host.as_str();
        let lookup = tokio::net::lookup_host((host, link.port));
        let mut found = tokio::time::timeout(self.connect_timeout, lookup)
            .await
            .map_err(|_| format!("lookup of {host} timed out"))?
            .map_err(|error| format!("lookup of {host}: {error}"))?;
        found.next().ok_or_else(|| format!("{host} has no address"))
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
            None => self.new_h2(&peer).await?,
        };
        let head = Box::new(request::h2_head(link, head, body.len())?);
        let mut sent = session.write_request_header(head, body.is_empty());
        if sent.is_ok() && !body.is_empty() {
            sent = session.write_request_body(body.clone(), true).await;
        }
        match sent {
            Ok(()) => {
                let response = H2Response {
                    session,
                    pending: None,
                };
                Ok(PingoraUpstream::new(
                    Session::H2(Box::new(response)),
                    reused,
                ))
            }
            Err(error) if reused => Err(EngineError::Stale(cause(&error))),
            Err(error) => Err(EngineError::Lost(cause(&error))),
        }
    }

    async fn new_h2(&self, peer: &HttpPeer) -> Result<Http2Session, EngineError> {
        match self.h2.new_http_session::<HttpPeer, ()>(peer).await {
            Ok(HttpSession::H2(session)) => Ok(session),
            Ok(_) => Err(EngineError::Connect(
                "the engine does not speak HTTP/2".into(),
            )),
            Err(error) => Err(EngineError::Connect(cause(&error))),
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

impl PingoraUpstream {
    fn new(session: Session, reused: bool) -> Self {
        Self {
            session,
            reused,
            early: None,
            sent: true,
        }
    }

    /// Had the connection served a request before?
    pub fn reused(&self) -> bool {
        self.reused
    }

    fn h1_error(&self, error: &ReadError) -> EngineError {
        match error {
            ReadError::Invalid(why) => EngineError::Invalid((*why).to_owned()),
            ReadError::ClosedIdle | ReadError::Io(_) if self.reused => {
                EngineError::Stale(error.to_string())
            }
            _ => EngineError::Lost(error.to_string()),
        }
    }
}

impl Upstream for PingoraUpstream {
    async fn head(&mut self) -> Result<ResponseHead, EngineError> {
        if let Some(head) = self.early.take() {
            return Ok(head);
        }
        let read = match &mut self.session {
            Session::H1(reader) => reader.head().await,
            Session::H2(response) => return response.head(self.reused).await,
        };
        match read {
            Ok(mut head) => {
                hygiene::strip_hop_by_hop(&mut head.headers);
                Ok(head)
            }
            Err(error) => Err(self.h1_error(&error)),
        }
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, EngineError> {
        match &mut self.session {
            Session::H1(reader) => reader
                .chunk()
                .await
                .map_err(|error| EngineError::Lost(error.to_string())),
            Session::H2(response) => response.chunk().await,
        }
    }
}

impl H2Response {
    async fn head(&mut self, reused: bool) -> Result<ResponseHead, EngineError> {
        if let Err(error) = self.session.read_response_header().await {
            let cause = cause(&error);
            return Err(if reused {
                EngineError::Stale(cause)
            } else {
                EngineError::Lost(cause)
            });
        }
        let response = self.session.response_header();
        let response = response.ok_or_else(|| EngineError::Invalid("no response header".into()))?;
        let mut headers = response.headers.clone();
        hygiene::strip_hop_by_hop(&mut headers);
        Ok(ResponseHead {
            status: response.status,
            headers,
        })
    }

    /// Joins the frames that are there already, so that they leave as one write. Nothing is waited for.
    async fn chunk(&mut self) -> Result<Option<Bytes>, EngineError> {
        let told = match self.pending.take() {
            Some(told) => told,
            None => self.read().await,
        };
        let Some(first) = told? else {
            return Ok(None);
        };
        let mut joined = BytesMut::new();
        while first.len() + joined.len() < JOIN_BYTES && self.pending.is_none() {
            match self.read().now_or_never() {
                Some(Ok(Some(more))) => {
                    if joined.is_empty() {
                        joined.put_slice(&first);
                    }
                    joined.put_slice(&more);
                }
                Some(end) => self.pending = Some(end),
                None => break,
            }
        }
        Ok(Some(if joined.is_empty() {
            first
        } else {
            joined.freeze()
        }))
    }

    async fn read(&mut self) -> Result<Option<Bytes>, EngineError> {
        let read = self.session.read_response_body().await;
        read.map_err(|error| EngineError::Lost(cause(&error)))
    }
}
