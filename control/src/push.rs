//! The push: tells gateways what to serve, as `sluice_config::push` describes it, and remembers what they acknowledge.
//!
//! [`Push`] is the gRPC service; [`listener::serve`] puts it on a port. For each stream there is a [`subscription`], which is
//! the protocol alone, and a task in [`connection`], which moves its messages. Other replicas are told here, too, what
//! gateways have acknowledged ([`summary`]).
//! Not for what is pushed ([`state`](crate::state)), nor for who may connect ([`authenticate`](crate::authenticate),
//! [`grants`](crate::grants)).

pub mod acks;
mod batch;
mod connection;
mod inbound;
pub mod listener;
mod metrics;
mod replicas;
mod subscription;
pub mod summary;
mod wire;

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use rustls::pki_types::CertificateDer;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tonic::Status;
use tonic::body::Body;
use tonic::codec::{Codec, EncodeBody};
use tonic::codegen::{BoxFuture, Service, StdError};
use tracing::info;

use crate::authenticate::{AuthenticateError, Authenticator};
use crate::grants::Grants;
use crate::state::PushState;

use acks::Acks;
use connection::{End, Guest, Outbound};
use inbound::Inbound;
use metrics::EndReason;
use replicas::Summaries;
use summary::SummaryCodec;
use wire::PushEncoder;

pub use metrics::PushMetrics;

/// The method that gateways call.
const DELTA: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// Its sibling, which repeats the whole state at every change.
const STATE_OF_THE_WORLD: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";

/// What the answers are.
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

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
    /// How long a new stream may go without the next of its first requests; the last of these is for the end of batches.
    pub opening_timeout: Duration,
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
    /// Tells this process from all others.
    instance: u64,
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

impl Default for PushLimits {
    fn default() -> Self {
        Self {
            max_proxies: 2_000,
            max_first_syncs: 32,
            first_sync_turn: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(30),
            opening_timeout: Duration::from_secs(30),
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
    /// Serves `state` to whom `authenticator` knows and `grants` names, until `shutdown` becomes true, or nobody
    /// is left to say so.
    pub fn new(
        state: Arc<PushState>,
        authenticator: Authenticator,
        grants: Grants,
        limits: PushLimits,
        shutdown: watch::Receiver<bool>,
    ) -> Self {
        let shared = Shared {
            instance: rand::random(),
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

    /// What tells this process from all others that serve a push.
    pub fn instance(&self) -> u64 {
        self.shared.instance
    }

    /// Counters and gauges, to be registered.
    pub fn metrics(&self) -> &PushMetrics {
        &self.shared.metrics
    }

    /// Answers a call of the delta method with a stream.
    async fn accept<B>(&self, request: http::Request<B>) -> Result<Outbound, Status>
    where
        B: tonic::codegen::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<StdError> + Send + 'static,
    {
        let peer = request.extensions().get::<Peer>().cloned();
        let peer = peer.ok_or_else(|| Status::internal("served by another listener than ours"))?;
        // Before the first await, so that a connection is not idle while somebody is being identified.
        let _stream = peer.stream();
        let token = request.headers().get(AUTHORIZATION).cloned();
        let token = token.as_ref().map(HeaderValue::as_bytes);
        let guest = self.admit(peer.clone(), token).await;
        let guest = guest.map_err(|end| {
            info!(address = %peer.address, reason = ?end.reason, words = end.status.message(),
                "proxy not accepted");
            self.shared.metrics.ended(end.reason);
            end.status
        })?;
        let body = Body::new(request.into_body());
        let inbound = Inbound::new(body, self.shared.limits.max_request_bytes);
        Ok(connection::spawn(Arc::clone(&self.shared), guest, inbound))
    }

    async fn admit(&self, peer: Peer, authorization: Option<&[u8]>) -> Result<Guest, End> {
        let shared = &self.shared;
        if *shared.shutdown.borrow() {
            return Err(End::shutdown());
        }
        let identity = self.identify(&peer, authorization).await?;
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

    async fn identify(&self, peer: &Peer, authorization: Option<&[u8]>) -> Result<Arc<str>, End> {
        let certificate = peer.certificate.as_deref();
        let identity = self
            .shared
            .authenticator
            .identify(certificate, authorization);
        identity.await.map_err(|error| unidentified(&error))
    }

    /// Answers a call of another replica.
    async fn accept_replica<B>(&self, request: http::Request<B>) -> Result<Summaries, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let peer = peer.ok_or_else(|| Status::internal("served by another listener than ours"))?;
        let _stream = peer.stream();
        let token = request.headers().get(AUTHORIZATION).cloned();
        let token = token.as_ref().map(HeaderValue::as_bytes);
        let identity = self
            .identify(&peer, token)
            .await
            .map_err(|end| end.status)?;
        let shared = &self.shared;
        if !shared.authenticator.is_insecure() && !shared.grants.is_replica(&identity) {
            let words = format!(
                "{identity} is no replica of this control loop; see --replica-identity of sluice-control"
            );
            return Err(Status::permission_denied(words));
        }
        Ok(replicas::spawn(Arc::clone(shared), peer))
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

impl<B> Service<http::Request<B>> for Push
where
    B: tonic::codegen::Body<Data = Bytes> + Send + 'static,
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
            summary::METHOD => {
                let push = self.clone();
                return Left(Box::pin(async move { Ok(push.summaries(request).await) }));
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
        B: tonic::codegen::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<StdError> + Send + 'static,
    {
        let outbound = match self.accept(request).await {
            Ok(outbound) => outbound,
            Err(status) => return status.into_http(),
        };
        let encoder = PushEncoder {
            bytes: self.shared.metrics.bytes.clone(),
        };
        let body = EncodeBody::new_server(encoder, outbound, None, Default::default(), None);
        answer(Body::new(body))
    }

    async fn summaries<B>(self, request: http::Request<B>) -> http::Response<Body>
    where
        B: Send + 'static,
    {
        let summaries = match self.accept_replica(request).await {
            Ok(summaries) => summaries,
            Err(status) => return status.into_http(),
        };
        let encoder = SummaryCodec::default().encoder();
        let body = EncodeBody::new_server(encoder, summaries, None, Default::default(), None);
        answer(Body::new(body))
    }
}

fn answer(body: Body) -> http::Response<Body> {
    let mut response = http::Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}
