//! Shutdown: ours, because Pingora's own closes the listeners at once, sleeps its whole grace period even when
//! idle, and then cuts every stream.
//!
//! On SIGTERM: not ready and `connection: close`, but still accepting for `drain.delay`, so that load balancers
//! can notice; then tell HTTP/2 clients to go elsewhere and wait for
//! open requests up to `drain.timeout`; then end. A second signal, or SIGINT, ends it
//! at once.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Mutex, watch};

use crate::gateway::Gateway;

/// How long HTTP/2 connections may take to send what is left and close: one round trip, usually; seconds where a client
/// is slow to read the end of its answer.
const LAST_BYTES: Duration = Duration::from_secs(10);

/// Where the wish to stop comes from.
pub enum Stop {
    /// SIGTERM and SIGINT of the process.
    Signals,
    /// A [`StopHandle`].
    Handle(watch::Receiver<Wish>),
}

/// What is wished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wish {
    /// Serve on.
    Serve,
    /// Drain, then end.
    Terminate,
    /// End now.
    Kill,
}

/// Stops a server from inside the process.
pub struct StopHandle(watch::Sender<Wish>);

impl Stop {
    /// A stop and its handle.
    pub fn by_handle() -> (Self, StopHandle) {
        let (sender, receiver) = watch::channel(Wish::Serve);
        (Self::Handle(receiver), StopHandle(sender))
    }
}

impl StopHandle {
    /// Drain, then end.
    pub fn terminate(&self) {
        self.0.send_if_modified(|wish| raise(wish, Wish::Terminate));
    }

    /// End now.
    pub fn kill(&self) {
        self.0.send_if_modified(|wish| raise(wish, Wish::Kill));
    }
}

fn raise(wish: &mut Wish, to: Wish) -> bool {
    let raised = *wish < to;
    *wish = (*wish).max(to);
    raised
}

/// Tells Pingora when to end.
pub(super) struct Watch {
    stop: Mutex<Stop>,
    gateway: Arc<Gateway>,
}

impl Watch {
    pub(super) fn new(stop: Stop, gateway: Arc<Gateway>) -> Self {
        Self {
            stop: Mutex::new(stop),
            gateway,
        }
    }

    async fn drain(&self) {
        let drain = &self.gateway.drain;
        let config = &self.gateway.config.drain;
        drain.begin();
        tracing::info!(delay = %config.delay, "draining: not ready, still accepting");
        tokio::time::sleep(config.delay.into()).await;
        tracing::info!(active = drain.active(), timeout = %config.timeout, "waiting for open requests");
        drain.close_connections();
        if drain.wait_idle(config.timeout.into()).await {
            // The end of an answer may still be on its way through its HTTP/2 connection.
            drain.wait_closed(LAST_BYTES).await;
            tracing::info!("all requests have ended");
        } else {
            tracing::warn!(
                active = drain.active(),
                "drain timeout: open requests are cut"
            );
        }
    }
}

#[async_trait]
impl ShutdownSignalWatch for Watch {
    async fn recv(&self) -> ShutdownSignal {
        let mut stop = self.stop.lock().await;
        match &mut *stop {
            Stop::Signals => match signals() {
                Ok((mut terminate, mut interrupt)) => {
                    tokio::select! {
                        _ = terminate.recv() => {}
                        _ = interrupt.recv() => return ShutdownSignal::FastShutdown,
                    }
                    tokio::select! {
                        () = self.drain() => {}
                        _ = terminate.recv() => {}
                        _ = interrupt.recv() => {}
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "signals cannot be received: only SIGKILL will end this process");
                    std::future::pending::<()>().await;
                }
            },
            Stop::Handle(wish) => {
                let asked = wish
                    .wait_for(|wish| *wish != Wish::Serve)
                    .await
                    .map(|wish| *wish);
                if matches!(asked, Ok(Wish::Terminate)) {
                    tokio::select! {
                        () = self.drain() => {}
                        _ = wish.wait_for(|wish| *wish == Wish::Kill) => {}
                    }
                }
            }
        }
        ShutdownSignal::FastShutdown
    }
}

fn signals() -> std::io::Result<(Signal, Signal)> {
    Ok((
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    ))
}
