//! A simulated gateway: subscribes to everything, counts what it receives, and accepts it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use bytes::Bytes;
use prost::Message;
use sluice_config::push::{BatchMessage, ResourceType};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};

use super::wire::{GatewayCodec, Node, Request, Response};

const METHOD: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// The types that are subscribed to, the end of batches last.
const TYPES: [ResourceType; 6] = [
    ResourceType::ModelServer,
    ResourceType::ExternalModelProvider,
    ResourceType::Endpoint,
    ResourceType::ModelRoute,
    ResourceType::Peer,
    ResourceType::Batch,
];

/// A stream to the server.
#[derive(Debug)]
pub struct Gateway {
    requests: mpsc::UnboundedSender<Bytes>,
    responses: Streaming<(usize, Response)>,
}

/// First requests, encoded once for many gateways: with what they have, if anything.
#[derive(Debug, Clone)]
pub struct Opening(Arc<[Bytes]>);

/// What one batch held.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Received {
    /// New resources and new versions.
    pub upserts: usize,
    /// Removed names.
    pub removals: usize,
    /// Size of all its responses.
    pub bytes: usize,
    /// As the server counts.
    pub generation: u64,
    /// From the change to its last response; none in a batch that answers a connect.
    pub lag: Option<Duration>,
}

/// Versions by type and name.
#[derive(Debug, Default)]
pub struct Versions(Vec<(ResourceType, String, String)>);

impl Opening {
    /// Of gateways that have these versions.
    pub fn with(versions: &Versions) -> Self {
        let request = |kind: ResourceType| {
            let of_kind = versions.0.iter().filter(|(has, _, _)| *has == kind);
            let request = Request {
                type_url: kind.url().to_owned(),
                initial_resource_versions: of_kind
                    .map(|(_, name, version)| (name.clone(), version.clone()))
                    .collect(),
                ..Request::default()
            };
            Bytes::from(request.encode_to_vec())
        };
        Self(TYPES.map(request).into())
    }
}

impl Gateway {
    /// Connects and subscribes.
    ///
    /// # Errors
    /// When the server cannot be reached, or refuses.
    pub async fn connect(
        address: SocketAddr,
        name: String,
        opening: &Opening,
    ) -> anyhow::Result<Self> {
        let channel = Endpoint::from_shared(format!("http://{address}"))?;
        let channel = channel.tcp_nodelay(true).connect().await?;
        let (requests, stream) = mpsc::unbounded_channel();
        let node = Request {
            node: Some(Node { id: name }),
            ..Request::default()
        };
        // Fields of a message may follow each other in pieces: the node, then the rest of the first request.
        let mut first = node.encode_to_vec();
        for (position, request) in opening.0.iter().enumerate() {
            let request = if position == 0 {
                first.extend_from_slice(request);
                Bytes::from(std::mem::take(&mut first))
            } else {
                request.clone()
            };
            requests.send(request)?;
        }
        let responses = Self::open(channel, UnboundedReceiverStream::new(stream)).await?;
        Ok(Self {
            requests,
            responses,
        })
    }

    async fn open(
        channel: Channel,
        requests: UnboundedReceiverStream<Bytes>,
    ) -> anyhow::Result<Streaming<(usize, Response)>> {
        let mut grpc = Grpc::new(channel);
        grpc.ready().await?;
        let path = http::uri::PathAndQuery::from_static(METHOD);
        let request = tonic::Request::new(requests);
        Ok(grpc
            .streaming(request, path, GatewayCodec)
            .await?
            .into_inner())
    }

    /// Receives the next batch and accepts it.
    ///
    /// # Errors
    /// When the stream ends.
    pub async fn follow(&mut self) -> anyhow::Result<Received> {
        self.collect(|_, _| {}).await
    }

    /// As [`follow`](Self::follow), keeping the versions.
    ///
    /// # Errors
    /// When the stream ends.
    pub async fn versions(&mut self) -> anyhow::Result<Versions> {
        let mut versions = Versions::default();
        let keep = |kind: ResourceType, response: &Response| {
            let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
            let new = response.resources.iter();
            versions
                .0
                .extend(new.map(|one| (kind, text(&one.name), text(&one.version))));
        };
        self.collect(keep).await?;
        Ok(versions)
    }

    async fn collect(
        &mut self,
        mut each: impl FnMut(ResourceType, &Response),
    ) -> anyhow::Result<Received> {
        let (mut upserts, mut removals, mut bytes) = (0, 0, 0);
        let mut answers = Vec::new();
        loop {
            let message = self.responses.message().await?;
            let (size, response) = message.context("the server has ended the stream")?;
            bytes += size;
            let url = std::str::from_utf8(&response.type_url)?;
            let kind = ResourceType::from_url(url).context("a type that nobody knows")?;
            answers.push(answer(kind, &response));
            if kind != ResourceType::Batch {
                upserts += response.resources.len();
                removals += response.removed.len();
                each(kind, &response);
                continue;
            }
            let end = end(&response)?;
            let lag = lag(&end);
            for answer in answers {
                self.requests.send(answer)?;
            }
            return Ok(Received {
                upserts,
                removals,
                bytes,
                generation: end.generation,
                lag,
            });
        }
    }
}

fn answer(kind: ResourceType, response: &Response) -> Bytes {
    let request = Request {
        type_url: kind.url().to_owned(),
        response_nonce: response.nonce.clone(),
        ..Request::default()
    };
    request.encode_to_vec().into()
}

fn end(response: &Response) -> anyhow::Result<BatchMessage> {
    let end = response.resources.first().and_then(|end| end.any.as_ref());
    let end = end.context("a batch without an end")?;
    Ok(BatchMessage::decode(end.value.clone())?)
}

/// Both processes are on one machine and read one clock.
fn lag(end: &BatchMessage) -> Option<Duration> {
    let changed_at = UNIX_EPOCH + Duration::from_micros(end.changed_at);
    let lag = SystemTime::now()
        .duration_since(changed_at)
        .unwrap_or_default();
    (end.changed_at > 0).then_some(lag)
}
