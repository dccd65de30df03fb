//! Starts and stops an engine: its own runtime in its own thread, so that tests of any flavour can hold one, and so
//! that stopping takes everything with it as a crash would.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};

use super::connection;
use super::counters::RequestCounts;
use super::fault::{Fault, FaultRule};
use super::kv::{KvFault, KvHandle, KvOptions, Publisher};
use super::model::Gauges;
use super::options::EngineOptions;
use super::reply::Incoming;
use super::shared::{ListenCommand, Shared};
use super::tokenizer::{Tokenizing, TokenizingError};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 8192;

/// How long [`EngineServer::set_faults`] waits for the listener.
const SWITCH_DEADLINE: Duration = Duration::from_secs(5);

/// Why an engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is taken, or not ours.
    #[error("cannot listen on {addr}, is it taken?")]
    Listen {
        /// Address asked for.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The same of the sockets for KV events.
    #[error("cannot publish KV events on {endpoint}, is its port or its replay's taken?")]
    KvEvents {
        /// Endpoint asked for.
        endpoint: String,
        /// What the system said.
        source: io::Error,
    },
    /// The model's tokenizer is not there.
    #[error(transparent)]
    Tokenizer(#[from] TokenizingError),
    /// No thread or no event queue.
    #[error("cannot start the engine's runtime, is a limit of the system reached?")]
    Runtime(#[from] io::Error),
}

/// A running engine. Dropping it stops it.
pub struct EngineServer {
    addr: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl EngineServer {
    /// Starts an engine and returns when it listens. May be called from any thread, a runtime's too.
    ///
    /// # Errors
    /// When the address cannot be bound or the system gives no thread.
    pub fn start(options: EngineOptions) -> Result<Self, StartError> {
        let (commands, receiver) = mpsc::unbounded_channel();
        let runtime = runtime(options.threads)?;
        let addr = options.listen;
        let listener = {
            let _context = runtime.enter();
            listen(addr).map_err(|source| StartError::Listen { addr, source })?
        };
        let addr = listener.local_addr()?;
        let refuses = options
            .faults
            .iter()
            .any(|rule| rule.fault == Fault::Refuse);
        let (publisher, kv) = match &options.kv_events {
            Some(options) => {
                publisher(options).map(|(publisher, kv)| (Some(publisher), Some(kv)))?
            }
            None => (None, None),
        };
        let path = options.tokenizer.as_deref();
        let tokenizing = path.map(Tokenizing::load).transpose()?;
        let shared = Shared::new(options, commands, kv, tokenizing);
        let (stop, stopped) = oneshot::channel();
        let main = {
            let shared = shared.clone();
            let listener = (!refuses).then_some(listener);
            async move {
                tokio::spawn(shared.driver.clone().run());
                if let Some(publisher) = publisher {
                    tokio::spawn(publisher.run());
                }
                tokio::spawn(accept(shared, listener, addr, receiver));
                // Dropped or sent: both mean stop.
                let _ = stopped.await;
            }
        };
        let thread = std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || runtime.block_on(main))?;
        Ok(Self {
            addr,
            shared,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://ADDRESS`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Totals over the requests received.
    pub fn requests(&self) -> RequestCounts {
        self.shared.counters.counts()
    }

    /// Requests received and not ended.
    pub fn in_flight(&self) -> u64 {
        self.requests().in_flight
    }

    /// Requests that ended because the client went away.
    pub fn cancelled(&self) -> u64 {
        self.requests().cancelled
    }

    /// The counted request received last.
    pub fn last_request(&self) -> Arc<Incoming> {
        self.shared.counters.last()
    }

    /// State of the model.
    pub fn gauges(&self) -> Gauges {
        self.shared.driver.gauges()
    }

    /// Sets or ends the fault of all requests; returns when a closed listener is closed, an open one open.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.set_faults(
            fault
                .into_iter()
                .map(|fault| FaultRule {
                    fault,
                    probability: 1.0,
                })
                .collect(),
        );
    }

    /// As [`set_fault`](Self::set_fault), with probabilities.
    pub fn set_faults(&self, rules: Vec<FaultRule>) {
        let (sender, receiver) = std_mpsc::sync_channel(1);
        self.shared.set_faults(
            rules,
            Box::new(move || {
                let _ = sender.send(());
            }),
        );
        // A dropped sender means that the engine is stopping.
        let _ = receiver.recv_timeout(SWITCH_DEADLINE);
    }

    /// Holds each stream after its first piece, so that it lasts as long as a test needs it; or lets them all go on.
    pub fn hold_streams(&self, hold: bool) {
        self.shared.held.send_replace(hold);
    }

    /// Endpoint of the KV events, as `GET /kv_event_sources` says it, if they are on.
    pub fn kv_endpoint(&self) -> Option<&str> {
        self.shared.kv.as_ref().map(|kv| kv.endpoint())
    }

    /// Endpoint of their replay.
    pub fn kv_replay(&self) -> Option<&str> {
        self.shared.kv.as_ref().and_then(|kv| kv.replay())
    }

    /// Makes the publisher of KV events misbehave, from its next batch on.
    pub fn set_kv_fault(&self, fault: KvFault) {
        if let Some(kv) = &self.shared.kv {
            kv.fault(fault);
        }
    }

    /// Forgets the prefix cache, as `POST /reset_prefix_cache`; false while sequences run.
    pub fn reset_prefix_cache(&self) -> bool {
        self.shared.driver.reset_prefix_cache()
    }

    /// Stops at once, as a crash would: all connections are reset, the address is free when this returns.
    pub fn stop(mut self) {
        self.stop_now();
    }

    fn stop_now(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in there was printed by the thread already.
            let _ = thread.join();
        }
    }
}

impl Drop for EngineServer {
    fn drop(&mut self) {
        self.stop_now();
    }
}

fn publisher(options: &KvOptions) -> Result<(Publisher, KvHandle), StartError> {
    Publisher::bind(options).map_err(|source| StartError::KvEvents {
        endpoint: options.endpoint.clone(),
        source,
    })
}

fn runtime(threads: usize) -> io::Result<Runtime> {
    match threads {
        0 | 1 => Builder::new_current_thread().enable_all().build(),
        more => Builder::new_multi_thread()
            .worker_threads(more)
            .enable_all()
            .build(),
    }
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // Taking the port back after `refuse` must not wait for old connections.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// Accepts connections for ever, and closes or opens the listener on command.
async fn accept(
    shared: Arc<Shared>,
    mut listener: Option<TcpListener>,
    addr: SocketAddr,
    mut commands: mpsc::UnboundedReceiver<ListenCommand>,
) {
    loop {
        tokio::select! {
            command = commands.recv() => {
                let Some(command) = command else { return };
                if !command.listen {
                    listener = None;
                } else if listener.is_none() {
                    listener = reopen(addr).await;
                }
                (command.done)();
            }
            stream = accepted(listener.as_ref()) => {
                tokio::spawn(connection::serve(shared.clone(), stream));
            }
        }
    }
}

/// The next connection; never, without a listener.
async fn accepted(listener: Option<&TcpListener>) -> TcpStream {
    let Some(listener) = listener else {
        return std::future::pending().await;
    };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            // Out of descriptors, most likely: connections must end before it helps to try again.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Takes the address back, which another process may hold for a moment.
async fn reopen(addr: SocketAddr) -> Option<TcpListener> {
    for _ in 0..100 {
        match listen(addr) {
            Ok(listener) => return Some(listener),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    None
}
