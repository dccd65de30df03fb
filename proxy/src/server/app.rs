//! The gateway as an application on Pingora's listeners: tells HTTP/1.1 from HTTP/2, and hands each request over the
//! seam.
//!
//! On pingora-core alone: the request loop of pingora-proxy cannot hold a body before it has chosen a peer, and its
//! HTTP/1.1 sessions cost more than all of the routing.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::BytesMut;
use pingora_core::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora_core::protocols::{ALPN, Stream, l4};
use pingora_core::server::ShutdownWatch;

use tokio::io::AsyncReadExt;

use crate::forward::exchange::Arrival;
use crate::forward::h1_client::H1Client;
use crate::forward::h2_client::H2Client;
use crate::gateway::Gateway;

/// HTTP/2 flow control: a prompt of this size is received without waiting for window updates.
const H2_STREAM_WINDOW: u32 = 1 << 20;
const H2_CONNECTION_WINDOW: u32 = 8 << 20;
const H2_STREAMS: u32 = 256;

/// First read of a connection that may be either.
const FIRST_READ: usize = 4 << 10;

/// How an HTTP/2 client begins where no TLS has told.
const PREFACE: [u8; 24] = *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One service of listeners: its connections.
pub(super) struct GatewayService(Arc<GatewayApp>);

/// One service of listeners: its requests.
struct GatewayApp {
    gateway: Arc<Gateway>,
    options: HttpServerOptions,
    /// Kept from the start, so that a connection made later sees a change from before as new.
    closing: ShutdownWatch,
}

impl GatewayService {
    /// `h2c`: HTTP/2 by prior knowledge is served too.
    pub(super) fn new(gateway: Arc<Gateway>, h2c: bool) -> Self {
        Self(Arc::new(GatewayApp::new(gateway, h2c)))
    }
}

#[async_trait]
impl ServerApp for GatewayService {
    async fn process_new(
        self: &Arc<Self>,
        mut stream: Stream,
        _shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        let mut received = BytesMut::new();
        match self.0.is_http2(&mut stream, &mut received).await {
            None => {}
            Some(false) => self.0.serve_http1(stream, received).await,
            Some(true) => self.0.serve_http2(stream, &received).await,
        }
        None
    }
}

impl GatewayApp {
    fn new(gateway: Arc<Gateway>, h2c: bool) -> Self {
        let mut options = HttpServerOptions::default();
        options.h2c = h2c;
        options.h2_idle_timeout = Some(gateway.config.timeouts.client_idle.into());
        let closing = gateway.drain.closing();
        Self {
            gateway,
            options,
            closing,
        }
    }

    /// By ALPN, or by how the connection begins; what was read to find out is in `received`. `None` when it
    /// ended before that.
    async fn is_http2(&self, stream: &mut Stream, received: &mut BytesMut) -> Option<bool> {
        if stream.get_ssl_digest().is_some() {
            return Some(matches!(stream.selected_alpn_proto(), Some(ALPN::H2)));
        }
        if !self.options.h2c {
            return Some(false);
        }
        let idle = self.gateway.config.timeouts.client_idle.into();
        let looking = tokio::time::timeout(idle, begins_as_http2(stream, received));
        looking.await.ok()?.ok()
    }

    async fn serve_http1(&self, stream: Stream, received: BytesMut) {
        let address = stream
            .get_socket_digest()
            .and_then(|digest| digest.peer_addr()?.as_inet().map(SocketAddr::ip));
        let gateway = &self.gateway;
        let timeouts = gateway.client_timeouts();
        let mut client = H1Client::new(stream, address, timeouts, received);
        loop {
            let arrival = client.next(&gateway.head_limits()).await;
            if matches!(arrival, Arrival::Closed) {
                return;
            }
            gateway.serve(&mut client, arrival).await;
            if !client.can_serve_on() {
                return client.close().await;
            }
        }
    }

    /// Under our own signal in place of Pingora's, which comes when everything is about to be cut: the
    /// connection finishes its streams and closes, and is waited for.
    async fn serve_http2(self: &Arc<Self>, mut stream: Stream, received: &[u8]) {
        if !received.is_empty() {
            let Ok(mut raw) = stream.into_any().downcast::<l4::stream::Stream>() else {
                return;
            };
            raw.rewind(received);
            stream = raw;
        }
        let _counted = self.gateway.drain.multiplexed();
        let closing = self.closing.clone();
        ServerApp::process_new(self, stream, &closing).await;
    }
}

/// Reads until the beginning tells, and no further than one read.
async fn begins_as_http2(stream: &mut Stream, received: &mut BytesMut) -> std::io::Result<bool> {
    loop {
        let known = received.len().min(PREFACE.len());
        if received[..known] != PREFACE[..known] {
            return Ok(false);
        }
        if known == PREFACE.len() {
            return Ok(true);
        }
        received.reserve(FIRST_READ);
        if stream.read_buf(received).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

#[async_trait]
impl HttpServerApp for GatewayApp {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        _shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let mut client = H2Client::new(session, self.gateway.client_timeouts());
        let arrival = client.read_head(&self.gateway.head_limits()).await;
        self.gateway.serve(&mut client, arrival).await;
        client.close().await;
        None
    }

    fn h2_options(&self) -> Option<H2Options> {
        let mut options = default_h2_options();
        options.initial_window_size(H2_STREAM_WINDOW);
        options.initial_connection_window_size(H2_CONNECTION_WINDOW);
        options.max_concurrent_streams(H2_STREAMS);
        let header_bytes = self.gateway.config.limits.header_bytes;
        // Above our own limit, so that we get to answer 431 ourselves.
        options.max_header_list_size(u32::try_from(2 * header_bytes).unwrap_or(u32::MAX));
        Some(options)
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }
}
