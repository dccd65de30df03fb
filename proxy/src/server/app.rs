//! The gateway as a Pingora HTTP application: hands each request over the seam, and connections back for reuse.
//!
//! On pingora-core alone: the request loop of pingora-proxy cannot hold a body before it has chosen a peer, and
//! is not needed.

use std::sync::Arc;

use async_trait::async_trait;
use pingora_core::apps::{
    HttpPersistentSettings, HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp,
};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora_core::protocols::{ALPN, Stream};
use pingora_core::server::ShutdownWatch;

use crate::forward::downstream::PingoraDownstream;
use crate::gateway::Gateway;

/// HTTP/2 flow control: a prompt of this size is received without waiting for window updates.
const H2_STREAM_WINDOW: u32 = 1 << 20;
const H2_CONNECTION_WINDOW: u32 = 8 << 20;
const H2_STREAMS: u32 = 256;

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
    /// Our own signal in place of Pingora's, which comes when everything is about to be cut: HTTP/2 connections
    /// finish their streams and close, and are waited for.
    async fn process_new(
        self: &Arc<Self>,
        mut stream: Stream,
        _shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        let drain = &self.0.gateway.drain;
        let closing = self.0.closing.clone();
        let http2 = self.0.is_http2(&mut stream).await;
        let _counted = http2.then(|| drain.multiplexed());
        ServerApp::process_new(&self.0, stream, &closing).await
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

    /// Looks without taking, as Pingora itself is about to do. A connection that breaks meanwhile is neither.
    async fn is_http2(&self, stream: &mut Stream) -> bool {
        if stream.get_ssl_digest().is_some() {
            return matches!(stream.selected_alpn_proto(), Some(ALPN::H2));
        }
        let mut start = [0; PREFACE.len()];
        self.options.h2c
            && matches!(stream.try_peek(&mut start).await, Ok(true))
            && start == PREFACE
    }
}

#[async_trait]
impl HttpServerApp for GatewayApp {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        _shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let mut client = PingoraDownstream::new(session, self.gateway.client_timeouts());
        let arrival = client.read_head(&self.gateway.head_limits()).await;
        self.gateway.serve(&mut client, arrival).await;
        if !client.is_done() {
            return None;
        }
        if client.must_linger() {
            client.linger().await;
            return None;
        }
        let session = client.into_session();
        let settings = HttpPersistentSettings::for_session(&session);
        let reusable = session.finish().await.ok()??;
        Some(ReusedHttpStream::from_reusable_stream(reusable, settings))
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
