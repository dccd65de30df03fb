//! The push: tells gateways what to serve, as `sluice_config::push` describes it, and remembers what they acknowledge.
//!
//! [`Push`] is the gRPC service; [`listener::serve`] puts it on a port. For each stream there is a [`subscription`], which is
//! the protocol alone, and a task in [`connection`], which moves its messages.
//! Not for what is pushed ([`state`](crate::state)), nor for who may connect ([`authenticate`](crate::authenticate),
//! [`grants`](crate::grants)).

pub mod acks;
mod batch;
mod connection;
pub mod listener;
mod metrics;
mod subscription;
mod wire;

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, StdError};
use tonic::{Status, Streaming};
use tracing::info;

use crate::authenticate::{AuthenticateError, Authenticator};
use crate::grants::Grants;
use crate::state::PushState;

use acks::Acks;
use connection::{End, Guest, Outbound};
use metrics::EndReason;
use wire::{PushCodec, Request};

pub use metrics::PushMetrics;

/// The method that gateways call.
const DELTA: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// Its sibling, which repeats the whole state at every change.
const STATE_OF_THE_WORLD: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";

/// Bounds of what gateways may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushLimits {
    /// Streams at a time.
    pub max_proxies: usize,
    /// Gateways that are told everything at a time.
    pub max_first_syncs: usize,
    /// How long one of these may keep the others waiting.
    pub first_sync_turn: Duration,
    /// How long a batch may go without an answer, or without the transport taking more of it.
    pub answer_timeout: Duration,
    /// How long a new stream may go without a request.
    pub opening_timeout: Duration,
    /// Silence after a request that is taken for the end of the subscriptions, for gateways that do not name it.
    pub quiet: Duration,
    /// Age at which a stream is ended, give or take a tenth: credentials are looked at when it comes back.
    pub max_age: Duration,
    /// Largest request; the first of a type names every resource that a gateway has.
    pub max_request_bytes: usize,
    /// Names subscribed to, a type.
    pub max_names: usize,
    /// Pause between pings on an open connection.
    pub keep_alive_interval: Duration,
    /// How long a ping may go without an answer.
    pub keep_alive_timeout: Duration,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// How long a connection may be open without a stream.
    pub idle_timeout: Duration,
}

/// The service. Clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct Push {
    shared: Arc<Shared>,
}

/// What every stream needs.
#[derive(Debug)]
struct Shared {
    state: Arc<PushState>,
    acks: Arc<Acks>,
    authenticator: Authenticator,
    grants: Grants,
    limits: PushLimits,
    metrics: PushMetrics,
    proxies: Arc<Semaphore>,
    first_syncs: Arc<Semaphore>,
    shutdown: watch::Receiver<bool>,
}

/// The other end of a connection, as the listener knows it.
#[derive(Debug, Clone)]
struct Peer {
    address: SocketAddr,
    /// Whose chain has been verified.
    certificate: Option<CertificateDer<'static>>,
    link: Arc<Link>,
}

/// What a connection and its streams tell each other.
#[derive(Debug, Default)]
struct Link {
    streams: AtomicUsize,
    cut: Notify,
}

/// Counts a stream of a connection while it is open.
#[derive(Debug)]
struct StreamGuard(Arc<Link>);

/// The delta method, as tonic calls it.
#[derive(Debug)]
struct Delta(Push);

impl Default for PushLimits {
    fn default() -> Self {
        Self {
            max_proxies: 2_000,
            max_first_syncs: 32,
            first_sync_turn: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(30),
            opening_timeout: Duration::from_secs(10),
            quiet: Duration::from_millis(100),
            max_age: Duration::from_secs(3600),
            max_request_bytes: 16 * 1024 * 1024,
            max_names: 10_000,
            keep_alive_interval: Duration::from_secs(20),
            keep_alive_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(20),
        }
    }
}

impl Push {
    /// Serves `state` to whom `authenticator` knows and `grants` names, until `shutdown` becomes true.
    pub fn new(
        state: Arc<PushState>,
        authenticator: Authenticator,
        grants: Grants,
        limits: PushLimits,
        shutdown: watch::Receiver<bool>,
    ) -> Self {
        let shared = Shared {
            acks: Arc::new(Acks::new(Arc::clone(&state))),
            state,
            authenticator,
            grants,
            metrics: PushMetrics::new(),
            proxies: Arc::new(Semaphore::new(limits.max_proxies)),
            first_syncs: Arc::new(Semaphore::new(limits.max_first_syncs)),
            limits,
            shutdown,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// What gateways have acknowledged.
    pub fn acks(&self) -> &Arc<Acks> {
        &self.shared.acks
    }

    /// Counters and gauges, to be registered.
    pub fn metrics(&self) -> &PushMetrics {
        &self.shared.metrics
    }

    async fn accept(
        &self,
        request: tonic::Request<Streaming<Request>>,
    ) -> Result<tonic::Response<Outbound>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let peer = peer.ok_or_else(|| Status::internal("served by another listener than ours"))?;
        // Before the first await, so that a connection is not idle while somebody is being identified.
        let _stream = peer.stream();
        let token = request.metadata().get("authorization");
        let token = token.map(|value| value.as_encoded_bytes().to_vec());
        let guest = self.admit(peer.clone(), token.as_deref()).await;
        let guest = guest.map_err(|end| {
            info!(address = %peer.address, reason = ?end.reason, words = end.status.message(),
                "proxy not accepted");
            self.shared.metrics.ended(end.reason);
            end.status
        })?;
        let shared = Arc::clone(&self.shared);
        let outbound = connection::spawn(shared, guest, request.into_inner());
        Ok(tonic::Response::new(outbound))
    }

    async fn admit(&self, peer: Peer, authorization: Option<&[u8]>) -> Result<Guest, End> {
        let shared = &self.shared;
        if *shared.shutdown.borrow() {
            return Err(End::shutdown());
        }
        let certificate = peer.certificate.as_deref();
        let identity = shared.authenticator.identify(certificate, authorization);
        let identity = identity.await.map_err(|error| unidentified(&error))?;
        let namespaces = if shared.authenticator.is_insecure() {
            Some(&crate::grants::Namespaces::All)
        } else {
            shared.grants.namespaces(&identity)
        };
        let namespaces = namespaces.ok_or_else(|| denied(&identity))?.clone();
        if !shared.state.is_synced() {
            let status = Status::unavailable("not synced yet: the cluster has not been read");
            return Err(End::new(EndReason::NotSynced, status));
        }
        let slot = Arc::clone(&shared.proxies).try_acquire_owned();
        let slot: OwnedSemaphorePermit = slot.map_err(|_| full(shared.limits.max_proxies))?;
        Ok(Guest {
            peer,
            identity,
            namespaces,
            slot,
        })
    }
}

fn unidentified(error: &AuthenticateError) -> End {
    let reason = match error.code() {
        tonic::Code::Unavailable => EndReason::Unverified,
        _ => EndReason::Unauthenticated,
    };
    End::new(reason, Status::new(error.code(), error.to_string()))
}

fn denied(identity: &str) -> End {
    let words =
        format!("{identity} has no grant; add --grant '{identity}=NAMESPACE' to sluice-control");
    End::new(EndReason::Denied, Status::permission_denied(words))
}

fn full(limit: usize) -> End {
    let words =
        format!("{limit} proxies are connected, which is the limit; connect to another replica");
    End::new(EndReason::Full, Status::resource_exhausted(words))
}

impl Peer {
    fn new(address: SocketAddr, certificate: Option<CertificateDer<'static>>) -> Self {
        Self {
            address,
            certificate,
            link: Arc::default(),
        }
    }

    fn stream(&self) -> StreamGuard {
        self.link.streams.fetch_add(1, Ordering::Relaxed);
        StreamGuard(Arc::clone(&self.link))
    }

    /// Ends the connection, whatever is still unsent.
    fn cut(&self) {
        self.link.cut.notify_one();
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl tonic::server::StreamingService<Request> for Delta {
    type Response = Arc<wire::Response>;
    type ResponseStream = Outbound;
    type Future = BoxFuture<tonic::Response<Outbound>, Status>;

    fn call(&mut self, request: tonic::Request<Streaming<Request>>) -> Self::Future {
        let push = self.0.clone();
        Box::pin(async move { push.accept(request).await })
    }
}

impl<B> Service<http::Request<B>> for Push
where
    B: tonic::codegen::Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = futures::future::Either<
        BoxFuture<Self::Response, Infallible>,
        Ready<Result<Self::Response, Infallible>>,
    >;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        use futures::future::Either::{Left, Right};
        let words = match request.uri().path() {
            DELTA => {
                let push = self.clone();
                return Left(Box::pin(async move { Ok(push.stream(request).await) }));
            }
            STATE_OF_THE_WORLD => {
                "state-of-the-world streams are not served; call DeltaAggregatedResources"
            }
            _ => "this port serves AggregatedDiscoveryService/DeltaAggregatedResources only",
        };
        Right(ready(Ok(Status::unimplemented(words).into_http())))
    }
}

impl Push {
    async fn stream<B>(self, request: http::Request<B>) -> http::Response<Body>
    where
        B: tonic::codegen::Body + Send + 'static,
        B::Error: Into<StdError> + Send + 'static,
    {
        let codec = PushCodec {
            bytes: self.shared.metrics.bytes.clone(),
        };
        let max_request_bytes = self.shared.limits.max_request_bytes;
        let mut grpc = tonic::server::Grpc::new(codec).max_decoding_message_size(max_request_bytes);
        grpc.streaming(Delta(self), request).await
    }
}
