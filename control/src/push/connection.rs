//! One gateway's stream: moves messages between the transport and the [`Subscription`], and keeps the deadlines.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use futures::Stream;
use sluice_config::push::ResourceType;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tonic::Status;
use tracing::{debug, info, warn};

use super::acks::{Caller, ConnectedGuard};
use super::inbound::Inbound;
use super::metrics::EndReason;
use super::subscription::{Answered, Received, Subscription};
use super::wire::{Request, Response};
use super::{Peer, Shared};
use crate::grants::Namespaces;

/// Responses handed to the transport before it has taken the first: it should never wait for the next one.
const QUEUE: usize = 2;

/// How long a gateway that no longer reads has to take the last word before its connection is cut.
const LAST_WORD: Duration = Duration::from_secs(5);

/// Longest name of a gateway: that of a pod, and some.
const MAX_NODE_BYTES: usize = 512;

/// Why a stream ends, in words for the gateway and for the metric.
#[derive(Debug)]
pub(super) struct End {
    pub(super) reason: EndReason,
    pub(super) status: Status,
}

/// What the transport sends: responses, then the last word.
#[derive(Debug)]
pub(super) struct Outbound {
    responses: mpsc::Receiver<Arc<Response>>,
    end: Option<oneshot::Receiver<Status>>,
}

/// Who is calling, before it has said its name.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) peer: Peer,
    pub(super) identity: Arc<str>,
    /// What it is granted.
    pub(super) namespaces: Namespaces,
    /// Counts it among the connections.
    pub(super) slot: OwnedSemaphorePermit,
}

/// The task behind one stream.
#[derive(Debug)]
struct Connection {
    shared: Arc<Shared>,
    inbound: Inbound,
    outbound: mpsc::Sender<Arc<Response>>,
    /// Held until the first batch is answered, so that only so many gateways are told everything at a time.
    first_sync: Option<OwnedSemaphorePermit>,
    /// When `first_sync` is given back whatever has come of it.
    first_sync_until: Instant,
    /// When somebody has to have done something.
    deadline: Instant,
}

/// Serves a stream in a task of its own.
pub(super) fn spawn(shared: Arc<Shared>, guest: Guest, inbound: Inbound) -> Outbound {
    let (outbound, responses) = mpsc::channel(QUEUE);
    let (last_word, end) = oneshot::channel();
    let now = Instant::now();
    let connection = Connection {
        shared,
        inbound,
        outbound,
        first_sync: None,
        first_sync_until: now,
        deadline: now,
    };
    tokio::spawn(connection.run(guest, last_word));
    Outbound {
        responses,
        end: Some(end),
    }
}

impl Stream for Outbound {
    type Item = Result<Arc<Response>, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // The last word comes at once: half of a batch is worth nothing.
        if let Some(end) = &mut self.end
            && let Poll::Ready(status) = Pin::new(end).poll(context)
        {
            self.end = None;
            self.responses.close();
            if let Ok(status) = status {
                return Poll::Ready(Some(Err(status)));
            }
        }
        self.responses
            .poll_recv(context)
            .map(|response| response.map(Ok))
    }
}

impl End {
    pub(super) fn new(reason: EndReason, status: Status) -> Self {
        Self { reason, status }
    }

    pub(super) fn shutdown() -> Self {
        let words = "this control process is shutting down; connect to another one";
        Self::new(EndReason::Shutdown, Status::unavailable(words))
    }

    fn closed() -> Self {
        Self::new(EndReason::Closed, Status::ok(""))
    }

    fn invalid(words: impl std::fmt::Display) -> Self {
        Self::new(
            EndReason::Invalid,
            Status::invalid_argument(words.to_string()),
        )
    }
}

impl Connection {
    async fn run(mut self, guest: Guest, last_word: oneshot::Sender<Status>) {
        let Guest {
            peer,
            identity,
            namespaces,
            slot,
        } = guest;
        let _stream = peer.stream();
        self.shared.metrics.connected.inc();
        let end = match self.serve(&peer, identity, namespaces).await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        self.shared.metrics.connected.dec();
        self.shared.metrics.ended(end.reason);
        drop(slot);
        let Self {
            inbound, outbound, ..
        } = self;
        drop(inbound);
        let _ = last_word.send(end.status);
        if timeout(LAST_WORD, outbound.closed()).await.is_err() {
            debug!(address = %peer.address, "cutting a connection that does not read");
            peer.cut();
        }
    }

    /// Until the end.
    async fn serve(
        &mut self,
        peer: &Peer,
        identity: Arc<str>,
        namespaces: Namespaces,
    ) -> Result<std::convert::Infallible, End> {
        self.wait_for_turn().await?;
        let first = self.first_request().await?;
        let caller = caller(&first, peer, identity, &namespaces)?;
        let limits = &self.shared.limits;
        let mut subscription = Subscription::new(
            self.shared.state.identity().to_owned(),
            caller.namespaces.clone(),
            limits.max_names,
        );
        info!(proxy = caller.name, identity = %caller.identity, address = %caller.address,
            version = caller.version, namespaces = %caller.namespaces, "proxy connected");
        let name = caller.name.clone();
        let connected = self.shared.acks.connect(caller);
        let received = self.receive(&mut subscription, first, &connected, &name);
        let end = match received {
            Ok(()) => self.follow(&mut subscription, &connected, &name).await,
            Err(end) => Err(end),
        };
        if let Err(end) = &end {
            info!(proxy = name, reason = ?end.reason, words = end.status.message(), "proxy disconnected");
        }
        end
    }

    /// Before anything is read: what a gateway says at first may be large, too.
    async fn wait_for_turn(&mut self) -> Result<(), End> {
        let mut shutdown = self.shared.shutdown.clone();
        let turn = Arc::clone(&self.shared.first_syncs).acquire_owned();
        self.first_sync = tokio::select! {
            turn = turn => turn.ok(),
            _ = shutdown.wait_for(|&down| down) => return Err(End::shutdown()),
            () = self.outbound.closed() => return Err(End::closed()),
        };
        self.first_sync_until = Instant::now() + self.shared.limits.first_sync_turn;
        Ok(())
    }

    async fn first_request(&mut self) -> Result<Request, End> {
        let mut shutdown = self.shared.shutdown.clone();
        let first = tokio::select! {
            first = timeout(self.shared.limits.opening_timeout, self.inbound.message()) => first,
            _ = shutdown.wait_for(|&down| down) => return Err(End::shutdown()),
        };
        first
            .map_err(|_| unopened())?
            .map_err(broken)?
            .ok_or_else(End::closed)
    }

    /// The stream, after its first request.
    async fn follow(
        &mut self,
        subscription: &mut Subscription,
        connected: &ConnectedGuard,
        name: &str,
    ) -> Result<std::convert::Infallible, End> {
        let limits = self.shared.limits.clone();
        let mut generations = self.shared.state.generations();
        let mut shutdown = self.shared.shutdown.clone();
        let outbound = self.outbound.clone();
        let aged = Instant::now() + limits.max_age.mul_f64(rand::random_range(0.9..1.1));
        self.deadline = Instant::now() + limits.opening_timeout;
        loop {
            let newest = *generations.borrow_and_update();
            self.begin_batch(subscription, connected, newest)?;
            let timed = !subscription.is_open() || subscription.is_waiting();
            tokio::select! {
                request = self.inbound.message() => {
                    let request = request.map_err(broken)?.ok_or_else(End::closed)?;
                    self.receive(subscription, request, connected, name)?;
                }
                room = outbound.reserve(), if subscription.has_queued() => {
                    let room = room.map_err(|_| End::closed())?;
                    self.deadline = Instant::now() + limits.answer_timeout;
                    if let Some(response) = subscription.pop() {
                        let (upserts, removals) = (response.upserts.len(), response.removals.len());
                        self.shared.metrics.sent(response.kind, upserts, removals);
                        room.send(response);
                    }
                }
                changed = generations.changed() => {
                    changed.map_err(|_| End::shutdown())?;
                }
                () = sleep_until(self.deadline), if timed => {
                    return Err(if subscription.is_open() {
                        unanswered(limits.answer_timeout)
                    } else {
                        unopened()
                    });
                }
                () = sleep_until(self.first_sync_until), if self.first_sync.is_some() => {
                    self.first_sync = None;
                }
                () = sleep_until(aged) => {
                    let words = "this stream is old; connect again, so that it is authenticated anew";
                    return Err(End::new(EndReason::Aged, Status::unavailable(words)));
                }
                _ = shutdown.wait_for(|&down| down) => return Err(End::shutdown()),
                () = outbound.closed() => return Err(End::closed()),
            }
        }
    }

    fn begin_batch(
        &mut self,
        subscription: &mut Subscription,
        connected: &ConnectedGuard,
        newest: u64,
    ) -> Result<(), End> {
        if !subscription.wants(newest) {
            return Ok(());
        }
        let behind = |behind: crate::state::Behind| {
            let words = format!("{behind}; connect again with the versions that you have");
            End::new(EndReason::Behind, Status::aborted(words))
        };
        let diff = self
            .shared
            .state
            .diff(&subscription.ask())
            .map_err(behind)?;
        let generation = diff.generation;
        if subscription.begin(diff) {
            self.shared.metrics.batches.inc();
            self.deadline = Instant::now() + self.shared.limits.answer_timeout;
            connected.sent();
        } else {
            connected.skipped(generation);
        }
        Ok(())
    }

    fn receive(
        &mut self,
        subscription: &mut Subscription,
        request: Request,
        connected: &ConnectedGuard,
        name: &str,
    ) -> Result<(), End> {
        let type_url = request.type_url.clone();
        let received = subscription.receive(request).map_err(End::invalid)?;
        let Received {
            answer,
            answered,
            subscribed,
            unknown_type,
        } = received;
        let limits = &self.shared.limits;
        if unknown_type {
            debug!(proxy = name, type_url, "nothing is known of this type");
        }
        if subscribed {
            connected.subscribed(subscription.interests());
        }
        if !subscription.is_open() {
            self.deadline = Instant::now() + limits.opening_timeout;
        }
        if let Some(accepted) = answer {
            self.deadline = Instant::now() + limits.answer_timeout;
            let metrics = &self.shared.metrics;
            if accepted {
                &metrics.acks
            } else {
                &metrics.nacks
            }
            .inc();
        }
        if let Some(answered) = answered {
            self.answered(&answered, connected, name);
        }
        Ok(())
    }

    fn answered(&mut self, answered: &Answered, connected: &ConnectedGuard, name: &str) {
        self.first_sync = None;
        connected.answered(answered);
        if let Some(changed_at) = answered.changed_at {
            let latency = SystemTime::now()
                .duration_since(changed_at)
                .unwrap_or_default();
            self.shared.metrics.latency.observe(latency.as_secs_f64());
        }
        for refusal in &answered.refusals {
            warn!(proxy = name, kind = refusal.kind.name(), resource = %refusal.name,
                version = %refusal.version, path = refusal.path, message = refusal.message,
                "refused by a proxy");
        }
        debug!(
            proxy = name,
            generation = answered.generation,
            "batch acknowledged"
        );
    }
}

/// Who the first request says it is.
fn caller(
    first: &Request,
    peer: &Peer,
    identity: Arc<str>,
    granted: &Namespaces,
) -> Result<Caller, End> {
    let node = first.node.as_ref();
    let node = node.filter(|node| !node.id.is_empty() && node.id.len() <= MAX_NODE_BYTES);
    let node = node.ok_or_else(|| {
        End::invalid("the first request must name the proxy in node.id (its pod's name)")
    })?;
    Ok(Caller {
        name: node.id.clone(),
        address: peer.address,
        identity,
        version: node.text("version").chars().take(64).collect(),
        namespaces: granted.narrowed(&node.texts("namespaces")),
    })
}

fn broken(status: Status) -> End {
    End::new(EndReason::Broken, status)
}

fn unopened() -> End {
    let words = format!(
        "the first subscriptions did not come to an end; subscribe to {} last",
        ResourceType::Batch.url()
    );
    End::new(EndReason::Silent, Status::deadline_exceeded(words))
}

fn unanswered(time: Duration) -> End {
    let words = format!(
        "a batch was not answered for {} s; answer every response with its nonce",
        time.as_secs_f64()
    );
    End::new(EndReason::Silent, Status::deadline_exceeded(words))
}
