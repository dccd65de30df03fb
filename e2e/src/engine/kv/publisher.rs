//! The task that numbers, keeps and sends batches, and misbehaves when told to.

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::StreamExt;
use futures::channel::mpsc as channel;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::mpsc;
use zeromq::{PubSocket, Socket, SocketEvent, SocketSend, ZmqMessage};

use super::replay::ReplaySocket;
use super::{KvCommand, KvFault, KvHandle, KvOptions, Namespaces, encode};

/// Batches that can be replayed, as vLLM's `buffer_steps`.
pub(super) const BUFFER_STEPS: usize = 10_000;
/// How often a publisher that connects tries to.
const RETRY: Duration = Duration::from_millis(50);

/// Where the publisher's socket goes.
enum Direction {
    Bind(TcpListener),
    Connect(String),
}

/// A publisher with bound ports that does not run yet.
pub(crate) struct Publisher {
    options: KvOptions,
    direction: Direction,
    replay: Option<TcpListener>,
    namespaces: Arc<Namespaces>,
    commands: mpsc::UnboundedReceiver<KvCommand>,
}

impl Publisher {
    /// Binds what is to be bound; needs no runtime.
    pub(crate) fn bind(options: &KvOptions) -> io::Result<(Self, KvHandle)> {
        let (sender, commands) = mpsc::unbounded_channel();
        let (direction, endpoint) = match options.endpoint.strip_prefix("connect:") {
            Some(endpoint) => (Direction::Connect(endpoint.to_owned()), endpoint.to_owned()),
            None => {
                let listener = listen(&options.endpoint)?;
                let endpoint = announced(&listener)?;
                (Direction::Bind(listener), endpoint)
            }
        };
        let replay = options.replay.as_deref().map(listen).transpose()?;
        let namespaces = Arc::<Namespaces>::default();
        let handle = KvHandle {
            options: options.clone(),
            endpoint,
            replay: match &replay {
                Some(listener) => Some(format!("tcp://{}", listener.local_addr()?)),
                None => None,
            },
            namespaces: namespaces.clone(),
            commands: sender,
        };
        let publisher = Self {
            options: options.clone(),
            direction,
            replay,
            namespaces,
            commands,
        };
        Ok((publisher, handle))
    }

    /// Publishes until the engine ends.
    pub(crate) async fn run(mut self) {
        let mut outlet = match Outlet::open(self.direction).await {
            Ok(outlet) => outlet,
            Err(error) => return tracing::error!(%error, "KV events cannot be published"),
        };
        let mut replay = match ReplaySocket::open(self.replay).await {
            Ok(replay) => replay,
            Err(error) => return tracing::error!(%error, "KV events cannot be replayed"),
        };
        let topic = Bytes::from(self.options.topic.clone());
        let mut log = Log::new(&self.options);
        loop {
            tokio::select! {
                command = self.commands.recv() => match command {
                    None => return,
                    Some(KvCommand::Fault(fault)) => log.misbehave(fault),
                    Some(KvCommand::Publish(events)) => {
                        let payload = encode::batch(&self.options, &self.namespaces, now(), &events);
                        if let Some(number) = log.append(payload.clone().into()) {
                            outlet.send(&topic, number, payload.into()).await;
                        }
                    }
                },
                request = replay.request() => replay.answer(request, &topic, &log.kept).await,
                () = outlet.upkeep() => {}
            }
        }
    }
}

/// Numbers and keeps batches.
struct Log {
    next: u64,
    kept: VecDeque<(u64, Bytes)>,
    drop: f64,
    silent: bool,
    random: SmallRng,
}

impl Log {
    fn new(options: &KvOptions) -> Self {
        Self {
            next: 0,
            kept: VecDeque::new(),
            drop: options.drop.clamp(0.0, 1.0),
            silent: false,
            random: SmallRng::seed_from_u64(options.hash_seed),
        }
    }

    /// The batch's number, if it is to be sent.
    fn append(&mut self, payload: Bytes) -> Option<u64> {
        let number = self.next;
        self.next += 1;
        if self.kept.len() == BUFFER_STEPS {
            self.kept.pop_front();
        }
        self.kept.push_back((number, payload));
        let dropped = self.drop > 0.0 && self.random.random_bool(self.drop);
        (!dropped && !self.silent).then_some(number)
    }

    fn misbehave(&mut self, fault: KvFault) {
        match fault {
            KvFault::Drop(share) => self.drop = share.clamp(0.0, 1.0),
            KvFault::Silence(silent) => self.silent = silent,
            KvFault::Restart => {
                self.next = 0;
                self.kept.clear();
            }
        }
    }
}

/// The PUB socket, which for a publisher that connects must find its subscriber first and again.
struct Outlet {
    socket: PubSocket,
    events: channel::Receiver<SocketEvent>,
    connects_to: Option<String>,
    connected: bool,
}

impl Outlet {
    async fn open(direction: Direction) -> zeromq::ZmqResult<Self> {
        let mut socket = PubSocket::new();
        let events = socket.monitor();
        let connects_to = match direction {
            Direction::Bind(listener) => {
                socket.bind_listener(listener).await?;
                None
            }
            Direction::Connect(endpoint) => Some(endpoint),
        };
        Ok(Self {
            socket,
            events,
            connects_to,
            connected: false,
        })
    }

    async fn send(&mut self, topic: &Bytes, number: u64, payload: Bytes) {
        let number = Bytes::copy_from_slice(&number.to_be_bytes());
        if let Ok(message) = ZmqMessage::try_from(vec![topic.clone(), number, payload]) {
            // A PUB socket loses what nobody takes.
            let _ = self.socket.send(message).await;
        }
    }

    /// Keeps the connection, where there is one to keep.
    async fn upkeep(&mut self) {
        let Some(endpoint) = &self.connects_to else {
            // Drained, since the crate tells of each peer.
            self.events.next().await;
            return;
        };
        if self.connected {
            let event = self.events.next().await;
            self.connected = !matches!(event, Some(SocketEvent::Disconnected(_)) | None);
            return;
        }
        tokio::time::sleep(RETRY).await;
        let attempt = tokio::time::timeout(RETRY, self.socket.connect(endpoint)).await;
        self.connected = matches!(attempt, Ok(Ok(())));
    }
}

fn listen(endpoint: &str) -> io::Result<TcpListener> {
    let address = endpoint
        .strip_prefix("tcp://")
        .ok_or_else(|| io::Error::other(format!("`{endpoint}` is not tcp://HOST:PORT")))?;
    TcpListener::bind(address.replacen('*', "0.0.0.0", 1))
}

/// The endpoint in a form that vLLM would bind: with `*` or `::`, also for one interface.
fn announced(listener: &TcpListener) -> io::Result<String> {
    let address = listener.local_addr()?;
    Ok(match address.ip() {
        ip if ip.is_unspecified() => format!("tcp://*:{}", address.port()),
        std::net::IpAddr::V4(ip) => format!("tcp://[::ffff:{ip}]:{}", address.port()),
        std::net::IpAddr::V6(ip) => format!("tcp://[{ip}]:{}", address.port()),
    })
}

fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}
