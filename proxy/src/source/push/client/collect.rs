//! Responses become a batch: what they bring, checked for what no catalog would see, and what is to be answered.

use std::collections::HashSet;

use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource,
};
use envoy_types::pb::google::protobuf::Any;
use envoy_types::pb::google::rpc::Status;
use prost::Message;
use sluice_config::push::{
    BATCH, Batch, BatchMessage, REJECTIONS_URL, Refusal, RejectionMessage, RejectionsMessage,
    ResourceType, Upsert,
};

/// What one batch may hold.
const MAX_BATCH_BYTES: usize = 256 << 20;
const MAX_BATCH_RESOURCES: usize = 500_000;
const MAX_RESPONSES: usize = 100_000;
/// Largest value: above every limit of a type, each of which is told in its own words.
const MAX_VALUE_BYTES: usize = 4 << 20;
/// Findings in one answer: more would not be read.
const MAX_FINDINGS: usize = 1000;
/// Names of others are cut to this in answers.
const MAX_SHOWN_BYTES: usize = 256;
/// gRPC's INVALID_ARGUMENT.
const INVALID: i32 = 3;

/// There is more in one batch than a gateway holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a batch of more than {MAX_BATCH_BYTES} bytes or {MAX_BATCH_RESOURCES} resources")]
pub struct TooMuch;

/// A batch that is coming.
#[derive(Debug, Default)]
pub(super) struct Collecting {
    pub(super) batch: Batch,
    pub(super) end: Option<BatchMessage>,
    responses: Vec<Response>,
    /// The response that each upsert came in.
    origins: Vec<usize>,
    names: HashSet<(ResourceType, String)>,
    bytes: usize,
}

/// A response to be answered.
#[derive(Debug)]
struct Response {
    type_url: String,
    nonce: String,
    rejections: Vec<RejectionMessage>,
}

impl Collecting {
    pub(super) fn is_empty(&self) -> bool {
        self.responses.is_empty()
    }

    pub(super) fn take(&mut self, response: DeltaDiscoveryResponse) -> Result<(), TooMuch> {
        let values = response.resources.iter();
        let values = values
            .map(|one| one.name.len() + one.resource.as_ref().map_or(0, |any| any.value.len()));
        let removed = response.removed_resources.iter().map(String::len);
        self.bytes += values.sum::<usize>() + removed.sum::<usize>();
        let resources =
            self.names.len() + response.resources.len() + response.removed_resources.len();
        if self.bytes > MAX_BATCH_BYTES
            || resources > MAX_BATCH_RESOURCES
            || self.responses.len() >= MAX_RESPONSES
        {
            return Err(TooMuch);
        }
        let kind = ResourceType::from_url(&response.type_url);
        self.responses.push(Response {
            type_url: response.type_url,
            nonce: response.nonce,
            rejections: Vec::new(),
        });
        match kind {
            Some(ResourceType::Batch) => self.take_end(response.resources),
            Some(kind) => self.take_resources(kind, response.resources, response.removed_resources),
            None => {
                let message = "this gateway knows no such type";
                self.reject("", message, "bring gateway and control loop to one version");
            }
        }
        Ok(())
    }

    /// An end is an end, whatever it says: else the next batch would be taken for part of this one.
    fn take_end(&mut self, resources: Vec<Resource>) {
        let end = match resources.as_slice() {
            [one] if one.name == BATCH => {
                let value = one.resource.as_ref().map(|any| any.value.as_slice());
                BatchMessage::decode(value.unwrap_or_default())
                    .map_err(|error| format!("the message cannot be read: {error}"))
            }
            [one] => Err(format!(
                "it is called `{}`, not `{BATCH}`",
                shown(&one.name)
            )),
            more => Err(format!("there are {} of it, not one", more.len())),
        };
        self.end = Some(end.unwrap_or_else(|message| {
            self.reject(BATCH, &message, "this is a fault of the sender");
            BatchMessage::default()
        }));
    }

    fn take_resources(
        &mut self,
        kind: ResourceType,
        resources: Vec<Resource>,
        removed: Vec<String>,
    ) {
        for name in removed {
            if self.is_new(kind, &name) {
                self.batch.removals.push((kind, name));
            }
        }
        for resource in resources {
            if !self.is_new(kind, &resource.name) {
                continue;
            }
            match value(kind, resource.resource) {
                Ok(value) => {
                    self.origins.push(self.responses.len() - 1);
                    self.batch.upserts.push(Upsert {
                        kind,
                        name: resource.name,
                        version: resource.version,
                        value,
                    });
                }
                Err(message) => {
                    self.reject(&resource.name, &message, "this is a fault of the sender");
                }
            }
        }
    }

    /// Of two that have one name nobody can tell which is meant: the first stays.
    fn is_new(&mut self, kind: ResourceType, name: &str) -> bool {
        let new = self.names.insert((kind, name.to_owned()));
        if !new {
            let message = "it stands twice in one batch: only the first counts";
            self.reject(name, message, "this is a fault of the sender");
        }
        new
    }

    /// Of the response that is being read.
    fn reject(&mut self, name: &str, message: &str, remedy: &str) {
        if let Some(response) = self.responses.last_mut() {
            response.rejections.push(RejectionMessage {
                name: shown(name).to_owned(),
                path: String::new(),
                message: message.to_owned(),
                remedy: remedy.to_owned(),
            });
        }
    }

    /// One for each response: ACK, or NACK with what was wrong in it.
    pub(super) fn answers(
        mut self,
        batch: &Batch,
        refusals: &[Refusal],
    ) -> Vec<DeltaDiscoveryRequest> {
        for refusal in refusals {
            let origin = self.origins.get(refusal.item);
            let response = origin.and_then(|origin| self.responses.get_mut(*origin));
            let name = batch.upserts.get(refusal.item).map(|upsert| &upsert.name);
            if let (Some(response), Some(name)) = (response, name) {
                response.rejections.push(RejectionMessage {
                    name: shown(name).to_owned(),
                    path: refusal.path.clone(),
                    message: refusal.message.clone(),
                    remedy: refusal.remedy.clone(),
                });
            }
        }
        self.responses.into_iter().map(answer).collect()
    }
}

fn answer(response: Response) -> DeltaDiscoveryRequest {
    let Response {
        type_url,
        nonce,
        mut rejections,
    } = response;
    let message = rejections.first().map(|first| {
        let more = match rejections.len() - 1 {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        format!("{}: {}{more}", first.name, first.message)
    });
    let error_detail = message.map(|message| {
        rejections.truncate(MAX_FINDINGS);
        let details = RejectionsMessage { rejections };
        Status {
            code: INVALID,
            message,
            details: vec![Any {
                type_url: REJECTIONS_URL.to_owned(),
                value: details.encode_to_vec(),
            }],
        }
    });
    DeltaDiscoveryRequest {
        type_url,
        response_nonce: nonce,
        error_detail,
        ..DeltaDiscoveryRequest::default()
    }
}

fn value(kind: ResourceType, any: Option<Any>) -> Result<Vec<u8>, String> {
    let any = any.ok_or("it has no value")?;
    if any.type_url != kind.url() {
        return Err(format!("its value is a `{}`", shown(&any.type_url)));
    }
    if any.value.len() > MAX_VALUE_BYTES {
        return Err(format!("it is larger than {} MiB", MAX_VALUE_BYTES >> 20));
    }
    Ok(any.value)
}

fn shown(name: &str) -> &str {
    &name[..name.floor_char_boundary(MAX_SHOWN_BYTES)]
}
