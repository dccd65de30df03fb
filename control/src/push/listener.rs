//! The port: accepts connections, with TLS or without, and serves the push on each over HTTP/2.
//!
//! Why not tonic's server: a connection that says nothing must not last, one that no longer reads must be cut, and what the
//! transport buffers for a slow gateway must be small; tonic offers none of these.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tonic::body::Body;
use tonic::codegen::{Service, StdError};
use tracing::{debug, warn};

use super::{Peer, Push, PushLimits};

/// The present TLS settings; new connections use the newest. Client certificates are asked for, or insisted on, by its
/// verifier.
pub type TlsSettings = watch::Receiver<Arc<ServerConfig>>;

/// Connections that wait to be accepted: all gateways come at once when a control loop was away, and what the queue has
/// no room for is reset or tries again a second later. The system's own limit (`somaxconn`) stands beside it.
const BACKLOG: u32 = 4096;

/// Connections beyond the streams that are allowed, so that one too many is told so instead of hanging.
const SPARE_CONNECTIONS: usize = 64;

/// Streams on one connection. A gateway needs one.
const MAX_STREAMS: u32 = 4;

/// What one stream's requests may fill before they are read, and what the transport takes of responses ahead of a slow
/// reader: thousands of connections hold it at once.
const WINDOW_BYTES: u32 = 64 * 1024;

/// How long streams have to take their last word at shutdown.
const GRACE: Duration = Duration::from_secs(5);

/// Pause after the system refuses a connection (too many open files, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// HTTP/2, as TLS negotiates it.
const ALPN: &[u8] = b"h2";

/// Adds to each request who is at the other end.
#[derive(Debug, Clone)]
struct WithPeer {
    push: Push,
    peer: Peer,
}

/// Opens the port, with room for a storm of connections.
///
/// # Errors
/// When the system refuses it.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until the push's shutdown; then no connection is accepted, and those that are open have a few seconds to end.
pub async fn serve(listener: TcpListener, push: Push, tls: Option<TlsSettings>) {
    let connections = push.shared.limits.max_proxies + SPARE_CONNECTIONS;
    let slots = Arc::new(Semaphore::new(connections));
    let mut shutdown = push.shared.shutdown.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = shutdown.wait_for(|&down| down) => break,
        };
        match accepted {
            Ok((stream, address)) => accept(&push, &slots, tls.as_ref(), stream, address),
            Err(error) => {
                warn!(%error, "no connection could be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let all = u32::try_from(connections).unwrap_or(u32::MAX);
    // Those that are not done by then end with the process.
    let _ = timeout(GRACE, slots.acquire_many(all)).await;
}

fn accept(
    push: &Push,
    slots: &Arc<Semaphore>,
    tls: Option<&TlsSettings>,
    stream: TcpStream,
    address: SocketAddr,
) {
    let Ok(slot) = Arc::clone(slots).try_acquire_owned() else {
        debug!(%address, "connection closed: there are too many");
        return;
    };
    let tls = tls.map(|settings| Arc::clone(&settings.borrow()));
    let push = push.clone();
    tokio::spawn(async move {
        if let Err(error) = connection(push, tls, stream, address, slot).await {
            debug!(%address, error, "connection ended");
        }
    });
}

async fn connection(
    push: Push,
    tls: Option<Arc<ServerConfig>>,
    stream: TcpStream,
    address: SocketAddr,
    _slot: OwnedSemaphorePermit,
) -> Result<(), StdError> {
    // A change is a small message, and waits for nobody.
    stream.set_nodelay(true)?;
    let Some(config) = tls else {
        return http(stream, push, Peer::new(address, None)).await;
    };
    let acceptor = TlsAcceptor::from(with_alpn(config));
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake took too long");
    let limit = push.shared.limits.handshake_timeout;
    let stream = timeout(limit, acceptor.accept(stream))
        .await
        .map_err(late)??;
    let (_, session) = stream.get_ref();
    let certificate = session.peer_certificates().and_then(<[_]>::first);
    let certificate = certificate.map(|certificate| certificate.clone().into_owned());
    http(stream, push, Peer::new(address, certificate)).await
}

/// gRPC clients insist that HTTP/2 is negotiated.
fn with_alpn(config: Arc<ServerConfig>) -> Arc<ServerConfig> {
    if config
        .alpn_protocols
        .iter()
        .any(|protocol| protocol == ALPN)
    {
        return config;
    }
    let mut config = ServerConfig::clone(&config);
    config.alpn_protocols = vec![ALPN.to_vec()];
    Arc::new(config)
}

async fn http<I>(io: I, push: Push, peer: Peer) -> Result<(), StdError>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut shutdown = push.shared.shutdown.clone();
    let idle_timeout = push.shared.limits.idle_timeout;
    let link = Arc::clone(&peer.link);
    let builder = builder(&push.shared.limits);
    let service = TowerToHyperService::new(WithPeer { push, peer });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
    let mut ending = false;
    let mut was_idle = false;
    loop {
        tokio::select! {
            served = connection.as_mut() => return served,
            () = link.cut.notified() => return Ok(()),
            _ = shutdown.wait_for(|&down| down), if !ending => {
                ending = true;
                connection.as_mut().graceful_shutdown();
            }
            () = sleep(idle_timeout) => {
                let is_idle = link.streams.load(Ordering::Relaxed) == 0;
                if is_idle && was_idle {
                    return Ok(());
                }
                was_idle = is_idle;
            }
        }
    }
}

fn builder(limits: &PushLimits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new()).http2_only();
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_send_buf_size(WINDOW_BYTES as usize)
        .keep_alive_interval(limits.keep_alive_interval)
        .keep_alive_timeout(limits.keep_alive_timeout);
    builder
}

impl<B> Service<http::Request<B>> for WithPeer
where
    B: tonic::codegen::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = <Push as Service<http::Request<B>>>::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        request.extensions_mut().insert(self.peer.clone());
        self.push.call(request)
    }
}
