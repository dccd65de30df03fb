//! A gateway as the push sees it: what it subscribes to, collects and answers.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3 as discovery;
use envoy_types::pb::google::protobuf::{Any, ListValue, Struct, Value, value::Kind};
use envoy_types::pb::google::rpc;
use prost::Message;
use sluice_config::push::{
    BatchMessage, REJECTIONS_URL, RejectionMessage, RejectionsMessage, ResourceType,
};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

use crate::bed::LONG;
use discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

/// The types that a gateway subscribes to by wildcard.
pub(crate) const WILDCARD_TYPES: [ResourceType; 5] = [
    ResourceType::ModelServer,
    ResourceType::ExternalModelProvider,
    ResourceType::Endpoint,
    ResourceType::ModelRoute,
    ResourceType::Peer,
];

/// What it has: versions by type and name.
pub(crate) type Resources = BTreeMap<(ResourceType, String), String>;

pub(crate) struct Gateway {
    node: Option<Node>,
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
    pub(crate) has: Resources,
}

/// A whole batch.
pub(crate) struct Batch {
    pub(crate) responses: Vec<DeltaDiscoveryResponse>,
    pub(crate) end: BatchMessage,
}

/// What a gateway brings along besides its name.
#[derive(Default)]
pub(crate) struct Introduction {
    pub(crate) namespaces: Vec<&'static str>,
    pub(crate) token: Option<&'static str>,
}

impl Gateway {
    pub(crate) async fn connect(address: SocketAddr, name: &str) -> Result<Self, Status> {
        Self::introduced(address, name, Introduction::default()).await
    }

    pub(crate) async fn introduced(
        address: SocketAddr,
        name: &str,
        introduction: Introduction,
    ) -> Result<Self, Status> {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let channel = endpoint.connect().await.unwrap();
        Self::over(channel, name, introduction).await
    }

    pub(crate) async fn over(
        channel: Channel,
        name: &str,
        introduction: Introduction,
    ) -> Result<Self, Status> {
        let mut client = AggregatedDiscoveryServiceClient::new(channel);
        let (requests, stream) = mpsc::channel(1000);
        let mut request = Request::new(ReceiverStream::new(stream));
        if let Some(token) = introduction.token {
            let token = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", token);
        }
        let responses = client.delta_aggregated_resources(request).await?;
        Ok(Self {
            node: Some(node(name, &introduction.namespaces)),
            requests,
            responses: responses.into_inner(),
            has: Resources::new(),
        })
    }

    pub(crate) async fn send(&mut self, mut request: DeltaDiscoveryRequest) {
        // Only the first request of a stream names the node.
        request.node = self.node.take();
        self.requests.send(request).await.unwrap();
    }

    /// To names of a type, or without any to all of it, with what it has of it.
    pub(crate) async fn subscribe(&mut self, kind: ResourceType, names: &[&str]) {
        let request = DeltaDiscoveryRequest {
            type_url: kind.url().into(),
            resource_names_subscribe: names.iter().map(|&name| name.into()).collect(),
            initial_resource_versions: self.versions(kind),
            ..DeltaDiscoveryRequest::default()
        };
        self.send(request).await;
    }

    pub(crate) async fn unsubscribe(&mut self, kind: ResourceType, names: &[&str]) {
        let request = DeltaDiscoveryRequest {
            type_url: kind.url().into(),
            resource_names_unsubscribe: names.iter().map(|&name| name.into()).collect(),
            ..DeltaDiscoveryRequest::default()
        };
        self.send(request).await;
    }

    pub(crate) async fn subscribe_to_all(&mut self) {
        for kind in WILDCARD_TYPES {
            self.subscribe(kind, &[]).await;
        }
        self.subscribe(ResourceType::Batch, &[]).await;
    }

    fn versions(&self, kind: ResourceType) -> HashMap<String, String> {
        let of_kind = self.has.iter().filter(|((has, _), _)| *has == kind);
        of_kind
            .map(|((_, name), version)| (name.clone(), version.clone()))
            .collect()
    }

    pub(crate) async fn response(&mut self) -> Result<Option<DeltaDiscoveryResponse>, Status> {
        timeout(LONG, self.responses.message()).await.unwrap()
    }

    /// Collects the next batch, without an answer.
    pub(crate) async fn collect(&mut self) -> Batch {
        let mut responses = Vec::new();
        loop {
            let response = self.response().await.unwrap().unwrap();
            let is_end = response.type_url == ResourceType::Batch.url();
            responses.push(response);
            if is_end {
                let end = &responses.last().unwrap().resources[0];
                let value = end.resource.as_ref().unwrap().value.as_slice();
                let end = BatchMessage::decode(value).unwrap();
                return Batch { responses, end };
            }
        }
    }

    /// Puts a batch into force.
    pub(crate) fn apply(&mut self, batch: &Batch) {
        for (kind, name, version) in batch.upserts() {
            self.has.insert((kind, name), version);
        }
        for (kind, name) in batch.removals() {
            self.has.remove(&(kind, name));
        }
    }

    /// Accepts every response of a batch.
    pub(crate) async fn accept(&mut self, batch: &Batch) {
        for response in &batch.responses {
            self.send(answer(response)).await;
        }
    }

    /// Collects, puts into force and accepts the next batch.
    pub(crate) async fn follow(&mut self) -> Batch {
        let batch = self.collect().await;
        self.apply(&batch);
        self.accept(&batch).await;
        batch
    }

    /// How the stream ends, whatever comes before.
    pub(crate) async fn end(&mut self) -> Status {
        loop {
            match self.response().await {
                Ok(Some(_)) => {}
                Ok(None) => return Status::ok(""),
                Err(status) => return status,
            }
        }
    }

    /// Ends its side of the stream, keeping what it has.
    pub(crate) fn disconnect(self) -> Resources {
        self.has
    }
}

impl Batch {
    fn of<'a, T>(
        &'a self,
        each: impl Fn(ResourceType, &'a DeltaDiscoveryResponse) -> Vec<T>,
    ) -> Vec<T> {
        let responses = self.responses.iter().map(|response| {
            let kind = ResourceType::from_url(&response.type_url).unwrap();
            (kind, response)
        });
        let content = responses.filter(|(kind, _)| *kind != ResourceType::Batch);
        content
            .flat_map(|(kind, response)| each(kind, response))
            .collect()
    }

    pub(crate) fn upserts(&self) -> Vec<(ResourceType, String, String)> {
        self.of(|kind, response| {
            let resources = response.resources.iter();
            resources
                .map(|resource| (kind, resource.name.clone(), resource.version.clone()))
                .collect()
        })
    }

    pub(crate) fn removals(&self) -> Vec<(ResourceType, String)> {
        self.of(|kind, response| {
            let names = response.removed_resources.iter();
            names.map(|name| (kind, name.clone())).collect()
        })
    }

    /// Values of what is new, as text, by name.
    pub(crate) fn values(&self) -> Vec<(String, String)> {
        self.of(|_, response| {
            let value = |resource: &discovery::Resource| {
                let value = resource.resource.clone().unwrap().value;
                (resource.name.clone(), String::from_utf8(value).unwrap())
            };
            response.resources.iter().map(value).collect()
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.upserts().is_empty() && self.removals().is_empty()
    }
}

fn node(name: &str, namespaces: &[&str]) -> Node {
    let text = |text: &str| Value {
        kind: Some(Kind::StringValue(text.into())),
    };
    let mut fields = HashMap::from([("version".to_owned(), text("1.2.3"))]);
    if !namespaces.is_empty() {
        let values = namespaces.iter().map(|name| text(name)).collect();
        let kind = Some(Kind::ListValue(ListValue { values }));
        fields.insert("namespaces".into(), Value { kind });
    }
    Node {
        id: name.into(),
        metadata: Some(Struct { fields }),
        ..Node::default()
    }
}

pub(crate) fn answer(response: &DeltaDiscoveryResponse) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: response.type_url.clone(),
        response_nonce: response.nonce.clone(),
        ..DeltaDiscoveryRequest::default()
    }
}

/// Refuses one resource of a response, with path and words.
pub(crate) fn refusal(
    response: &DeltaDiscoveryResponse,
    rejection: RejectionMessage,
) -> DeltaDiscoveryRequest {
    let message = RejectionsMessage {
        rejections: vec![rejection],
    };
    let detail = Any {
        type_url: REJECTIONS_URL.into(),
        value: message.encode_to_vec(),
    };
    DeltaDiscoveryRequest {
        error_detail: Some(rpc::Status {
            code: 3,
            message: "1 resource is refused".into(),
            details: vec![detail],
        }),
        ..answer(response)
    }
}
