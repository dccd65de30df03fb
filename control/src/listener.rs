//! Listeners of ours that speak HTTP, with TLS or without: the webhook and the operations port.
//!
//! Not axum's own: handshakes and headers must not take for ever, connections are counted, and TLS settings change under
//! way. The push stream has needs of its own (`push::listener`).

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

/// Connections at a time; more are closed.
const MAX_CONNECTIONS: usize = 256;

/// For a TLS handshake, and for a request's headers.
const PATIENCE: Duration = Duration::from_secs(5);

/// Pause after the system refuses a connection (too many open files, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Between two pings on HTTP/2.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// One port.
pub struct Listener {
    socket: TcpListener,
    router: Router,
    tls: Option<Arc<ServerConfig>>,
}

impl Listener {
    /// Opens the port.
    ///
    /// # Errors
    /// When the system refuses it.
    pub async fn bind(
        address: SocketAddr,
        router: Router,
        tls: Option<Arc<ServerConfig>>,
    ) -> io::Result<Self> {
        let socket = TcpListener::bind(address).await?;
        Ok(Self {
            socket,
            router,
            tls,
        })
    }

    /// Where it is open.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until `stop` holds true; then takes no more connections, finishes the requests under way, and returns.
    pub async fn serve(self, stop: watch::Receiver<bool>) {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut stopped = stop.clone();
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                _ = stopped.wait_for(|&stop| stop) => break,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "no connection could be accepted");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(slot) = slots.clone().try_acquire_owned() else {
                tracing::debug!("connection closed: there are too many");
                continue;
            };
            let connection =
                connection(stream, self.tls.clone(), self.router.clone(), stop.clone());
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(error, "connection ended");
                }
                drop(slot);
            });
        }
        drop(self.socket);
        let all = u32::try_from(MAX_CONNECTIONS).unwrap_or(u32::MAX);
        // Each connection holds one until it is done; whoever waits for us has a deadline.
        let _ = slots.acquire_many(all).await;
    }
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

async fn connection(
    stream: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    router: Router,
    stop: watch::Receiver<bool>,
) -> Result<(), AnyError> {
    stream.set_nodelay(true)?;
    let Some(config) = tls else {
        return http(stream, router, stop).await;
    };
    let handshake = TlsAcceptor::from(config).accept(stream);
    http(timeout(PATIENCE, handshake).await??, router, stop).await
}

async fn http<I>(io: I, router: Router, mut stop: watch::Receiver<bool>) -> Result<(), AnyError>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE);
    let service = TowerToHyperService::new(router);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
    tokio::select! {
        served = connection.as_mut() => return served,
        _ = stop.wait_for(|&stop| stop) => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}
