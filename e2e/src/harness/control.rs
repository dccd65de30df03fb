//! A control loop under a test's command: it accepts gateways, shows what they ask, and sends what the test says, right
//! or wrong. It decides nothing; the real one is `sluice-control`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use envoy_types::pb::google::protobuf::Any;
use prost::Message;
use sluice_config::bootstrap::PushConfig;
use sluice_config::push::{
    BATCH, BatchMessage, RejectionMessage, RejectionsMessage, ResourceType, Upsert,
};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::metadata::MetadataMap;
use tonic::transport::{Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

use super::PATIENCE;

/// The control loop; dropping it cuts every stream.
pub struct Control {
    address: SocketAddr,
    tls: bool,
    accepted: mpsc::Receiver<ControlStream>,
    generation: AtomicU64,
    task: JoinHandle<()>,
}

/// One gateway's stream.
pub struct ControlStream {
    /// What the gateway sent beside the stream, its token for one.
    pub metadata: MetadataMap,
    requests: Streaming<DeltaDiscoveryRequest>,
    responses: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
    nonces: u64,
}

/// What a gateway subscribes to, by type.
#[derive(Debug, Default)]
pub struct Subscriptions {
    /// `node.id` of the first request.
    pub node: String,
    /// Names of each type.
    pub names: HashMap<ResourceType, Vec<String>>,
    /// Versions that it says it has.
    pub known: HashMap<ResourceType, HashMap<String, String>>,
}

/// What a gateway answered to a batch.
#[derive(Debug, Default)]
pub struct Answers {
    /// Findings of its NACKs.
    pub rejections: Vec<RejectionMessage>,
    /// Secrets that it has subscribed to meanwhile.
    pub secrets: Vec<String>,
}

/// A batch to be sent.
#[derive(Debug, Clone, Default)]
pub struct Pushed {
    /// New and changed resources.
    pub upserts: Vec<Upsert>,
    /// Type and name of what is gone.
    pub removals: Vec<(ResourceType, String)>,
}

struct Service(mpsc::Sender<ControlStream>);

impl Control {
    /// Listens on a free port of the loopback, without TLS.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn start() -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), None).await
    }

    /// Listens there.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn start_at(address: SocketAddr, tls: Option<ServerTlsConfig>) -> Self {
        let listener = TcpListener::bind(address).await.expect("the port is free");
        let address = listener.local_addr().expect("it is bound");
        let (sender, accepted) = mpsc::channel(64);
        let mut server = Server::builder();
        let is_tls = tls.is_some();
        if let Some(tls) = tls {
            server = server.tls_config(tls).expect("the certificate is right");
        }
        let service = AggregatedDiscoveryServiceServer::new(Service(sender))
            .max_decoding_message_size(64 << 20);
        let serving = server
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener));
        let task = tokio::spawn(async move {
            let _ = serving.await;
        });
        Self {
            address,
            tls: is_tls,
            accepted,
            generation: AtomicU64::new(0),
            task,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL.
    pub fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// How a gateway is told to follow it.
    pub fn config(&self) -> PushConfig {
        PushConfig {
            addresses: vec![self.url()],
            node: Some("default/gateway".to_owned()),
            ..PushConfig::default()
        }
    }

    /// The next gateway that connects.
    ///
    /// # Panics
    /// When none comes.
    pub async fn accept(&mut self) -> ControlStream {
        let accepted = timeout(PATIENCE, self.accepted.recv()).await;
        let stream = accepted.expect("a gateway connects in time");
        stream.expect("the server runs")
    }

    /// Sends a batch as `sluice-control` would, and waits for all answers.
    pub async fn push(&self, stream: &mut ControlStream, pushed: Pushed) -> Answers {
        let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
        stream.push(pushed, generation).await
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Pushed {
    /// New and changed resources only.
    pub fn upserts(upserts: impl IntoIterator<Item = Upsert>) -> Self {
        Self {
            upserts: upserts.into_iter().collect(),
            removals: Vec::new(),
        }
    }

    /// One that is gone.
    pub fn removal(kind: ResourceType, name: impl Into<String>) -> Self {
        Self {
            upserts: Vec::new(),
            removals: vec![(kind, name.into())],
        }
    }

    /// Its responses, the types in order, without the end.
    fn responses(self) -> Vec<DeltaDiscoveryResponse> {
        let mut responses = Vec::new();
        for kind in ResourceType::ALL {
            let upserts = self.upserts.iter().filter(|upsert| upsert.kind == kind);
            let resources: Vec<Resource> = upserts.map(resource).collect();
            let removals = self.removals.iter().filter(|(other, _)| *other == kind);
            let removed: Vec<String> = removals.map(|(_, name)| name.clone()).collect();
            if !resources.is_empty() || !removed.is_empty() {
                responses.push(DeltaDiscoveryResponse {
                    removed_resources: removed,
                    ..response(kind, resources)
                });
            }
        }
        responses
    }
}

/// A resource as it stands in a response.
pub fn resource(upsert: &Upsert) -> Resource {
    Resource {
        name: upsert.name.clone(),
        version: upsert.version.clone(),
        resource: Some(Any {
            type_url: upsert.kind.url().to_owned(),
            value: upsert.value.clone(),
        }),
        ..Resource::default()
    }
}

/// A response without a nonce.
pub fn response(kind: ResourceType, resources: Vec<Resource>) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        type_url: kind.url().to_owned(),
        resources,
        ..DeltaDiscoveryResponse::default()
    }
}

/// The end of a batch, seen just now.
pub fn end(generation: u64) -> DeltaDiscoveryResponse {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let message = BatchMessage {
        generation,
        changed_at: now.map_or(0, |now| now.as_micros() as u64),
        control: "scripted".to_owned(),
    };
    let end = super::pushed::resource(ResourceType::Batch, BATCH, &message);
    response(ResourceType::Batch, vec![resource(&end)])
}

impl ControlStream {
    /// The next request; `None` when the gateway has gone.
    ///
    /// # Panics
    /// When nothing comes.
    pub async fn request(&mut self) -> Option<DeltaDiscoveryRequest> {
        let next = timeout(PATIENCE, self.requests.message()).await;
        next.expect("a request comes in time").ok().flatten()
    }

    /// Whether the gateway asks nothing for a while.
    pub async fn is_quiet(&mut self, time: Duration) -> bool {
        timeout(time, self.requests.message()).await.is_err()
    }

    /// The first requests, up to that for the ends of batches.
    ///
    /// # Panics
    /// When they are not what a gateway sends.
    pub async fn subscriptions(&mut self) -> Subscriptions {
        let mut subscriptions = Subscriptions::default();
        loop {
            let request = self.request().await.expect("the gateway subscribes");
            let kind = ResourceType::from_url(&request.type_url).expect("a type of ours");
            if let Some(node) = request.node {
                subscriptions.node = node.id;
            }
            let names = request.resource_names_subscribe;
            subscriptions.names.insert(kind, names);
            let known = request.initial_resource_versions;
            subscriptions.known.insert(kind, known);
            if kind == ResourceType::Batch {
                return subscriptions;
            }
        }
    }

    /// Sends one response as it is; gives its nonce.
    pub async fn send(&mut self, mut response: DeltaDiscoveryResponse) -> String {
        self.nonces += 1;
        response.nonce = self.nonces.to_string();
        let nonce = response.nonce.clone();
        // A gateway that has gone is found out by what it does not answer.
        let _ = self.responses.send(Ok(response)).await;
        nonce
    }

    /// Ends the stream with a status.
    pub async fn fail(self, status: Status) {
        let _ = self.responses.send(Err(status)).await;
    }

    /// Sends a batch and waits for all its answers.
    pub async fn push(&mut self, pushed: Pushed, generation: u64) -> Answers {
        let mut nonces = Vec::new();
        for response in pushed.responses() {
            nonces.push(self.send(response).await);
        }
        nonces.push(self.send(end(generation)).await);
        self.answers(nonces).await
    }

    /// Waits until all these are answered.
    ///
    /// # Panics
    /// When they are not.
    pub async fn answers(&mut self, mut nonces: Vec<String>) -> Answers {
        let mut answers = Answers::default();
        while !nonces.is_empty() {
            let request = self.request().await.expect("the gateway answers");
            nonces.retain(|nonce| *nonce != request.response_nonce);
            if request.type_url == ResourceType::Secret.url() {
                answers.secrets.extend(request.resource_names_subscribe);
            }
            let details = request
                .error_detail
                .into_iter()
                .flat_map(|status| status.details);
            for detail in details {
                let message = RejectionsMessage::decode(detail.value.as_slice());
                answers
                    .rejections
                    .extend(message.expect("findings are readable").rejections);
            }
        }
        answers
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Service {
    type StreamAggregatedResourcesStream = ReceiverStream<Result<DiscoveryResponse, Status>>;
    type DeltaAggregatedResourcesStream = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;

    async fn stream_aggregated_resources(
        &self,
        _request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("delta only"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let (responses, receiver) = mpsc::channel(64);
        let (metadata, _, requests) = request.into_parts();
        let stream = ControlStream {
            metadata,
            requests,
            responses,
            nonces: 0,
        };
        let closed = |_| Status::unavailable("the test is over");
        self.0.send(stream).await.map_err(closed)?;
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}
