//! One connection as the protocol sees it: requests in, responses to send out. No I/O, no clock, no lock.
//!
//! A batch at a time: [`Subscription::ask`] is put to the state once [`Subscription::wants`] says so, the answer becomes the
//! next batch, and no other one is begun before every response of it is answered.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use envoy_types::pb::google::rpc;
use prost::Message;
use sluice_config::push::{
    REJECTIONS_URL, RejectionMessage, RejectionsMessage, ResourceType, WILDCARD,
};
use thiserror::Error;

use super::batch::responses;
use super::wire::{Request, Response};
use crate::grants::Namespaces;
use crate::state::{Ask, Diff, Interest, Interests, TYPES};

/// Longest name that is subscribed to: a namespace, a `/`, a pod and a port fit several times.
const MAX_NAME_BYTES: usize = 512;

/// What a request asks that it must not.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum RequestError {
    #[error(
        "more than {limit} names of type {} subscribed; subscribe to `*`, or to fewer",
        kind.name()
    )]
    TooManyNames { kind: ResourceType, limit: usize },
    #[error("a resource name of {0} bytes; the longest allowed has {MAX_NAME_BYTES}")]
    LongName(usize),
}

/// One finding about one resource that the gateway refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) kind: ResourceType,
    pub(super) name: Arc<str>,
    /// The version that it refuses.
    pub(super) version: Arc<str>,
    pub(super) path: String,
    pub(super) message: String,
    pub(super) remedy: String,
}

/// A batch that the gateway has answered as a whole.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) generation: u64,
    /// None for a batch that answered a subscription.
    pub(super) changed_at: Option<SystemTime>,
    pub(super) responses: Vec<Arc<Response>>,
    pub(super) refusals: Vec<Refusal>,
}

/// What a request did.
#[derive(Debug, Default)]
pub(super) struct Received {
    /// It answered a response: with yes, or with no.
    pub(super) answer: Option<bool>,
    /// That was the last answer of the batch.
    pub(super) answered: Option<Answered>,
    /// Subscriptions are not what they were.
    pub(super) subscribed: bool,
    /// It is about a type that nobody here knows: a newer gateway's.
    pub(super) unknown_type: bool,
}

/// A batch on its way.
#[derive(Debug)]
struct Outstanding {
    generation: u64,
    changed_at: Option<SystemTime>,
    first_nonce: u64,
    responses: Vec<Arc<Response>>,
    /// By position in `responses`.
    answers: Vec<bool>,
    unanswered: usize,
    refusals: Vec<Refusal>,
}

/// The state of one connection.
#[derive(Debug)]
pub(super) struct Subscription {
    control: String,
    namespaces: Namespaces,
    interests: Interests,
    /// Types of which a first request has come.
    begun: [bool; TYPES],
    /// All first subscriptions are there.
    open: bool,
    /// A first batch has been made.
    started: bool,
    /// What the gateway has once `outstanding` is answered.
    generation: u64,
    queue: VecDeque<Arc<Response>>,
    outstanding: Option<Outstanding>,
    next_nonce: u64,
    max_names: usize,
}

impl Subscription {
    /// `control` signs the batches; at most `max_names` names of each type are taken.
    pub(super) fn new(control: String, namespaces: Namespaces, max_names: usize) -> Self {
        Self {
            control,
            namespaces,
            interests: Interests::default(),
            begun: [false; TYPES],
            open: false,
            started: false,
            generation: 0,
            queue: VecDeque::new(),
            outstanding: None,
            next_nonce: 1,
            max_names,
        }
    }

    /// Takes one request.
    pub(super) fn receive(&mut self, request: Request) -> Result<Received, RequestError> {
        let mut received = Received::default();
        let Some(kind) = ResourceType::from_url(&request.type_url) else {
            received.unknown_type = true;
            return Ok(received);
        };
        if !request.response_nonce.is_empty() {
            let Request {
                response_nonce,
                error_detail,
                ..
            } = &request;
            received.answer = self.answer(kind, response_nonce, error_detail.as_ref());
            received.answered = self.settle();
        }
        received.subscribed = if kind == ResourceType::Batch {
            !std::mem::replace(&mut self.open, true)
        } else {
            self.subscribe(kind, request)?
        };
        Ok(received)
    }

    /// Have all first subscriptions come? Only the gateway knows, and says so: a pause between them may be a slow network.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// Is it time to ask the state, whose newest generation is this?
    pub(super) fn wants(&self, generation: u64) -> bool {
        let news = generation > self.generation || self.interests.iter().any(Interest::is_fresh);
        self.open && self.outstanding.is_none() && (news || !self.started)
    }

    /// The question.
    pub(super) fn ask(&self) -> Ask<'_> {
        Ask {
            since: self.generation,
            namespaces: &self.namespaces,
            interests: &self.interests,
        }
    }

    /// Makes the answer the next batch. False when there is nothing to send: the gateway has that generation already.
    /// The first answer is sent even when it is empty, so that the gateway knows that it has everything.
    pub(super) fn begin(&mut self, diff: Diff) -> bool {
        self.generation = diff.generation;
        self.interests.iter_mut().for_each(Interest::told);
        let first = !std::mem::replace(&mut self.started, true);
        if diff.is_empty() && !first {
            return false;
        }
        let (generation, changed_at) = (diff.generation, diff.oldest_change);
        let first_nonce = self.next_nonce;
        let responses = responses(diff, &self.control, first_nonce);
        self.next_nonce += responses.len() as u64;
        self.queue = responses.iter().cloned().collect();
        self.outstanding = Some(Outstanding {
            generation,
            changed_at,
            first_nonce,
            answers: vec![false; responses.len()],
            unanswered: responses.len(),
            responses,
            refusals: Vec::new(),
        });
        true
    }

    /// Is there a response to be sent?
    pub(super) fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The next response to be sent.
    pub(super) fn pop(&mut self) -> Option<Arc<Response>> {
        self.queue.pop_front()
    }

    /// Is the gateway owing an answer?
    pub(super) fn is_waiting(&self) -> bool {
        self.outstanding.is_some()
    }

    /// What is subscribed to.
    pub(super) fn interests(&self) -> &Interests {
        &self.interests
    }

    /// Takes an answer; `None` when it is to nothing that is outstanding.
    fn answer(
        &mut self,
        kind: ResourceType,
        nonce: &str,
        error: Option<&rpc::Status>,
    ) -> Option<bool> {
        let queued = self.queue.len();
        let outstanding = self.outstanding.as_mut()?;
        let nonce: u64 = nonce.parse().ok()?;
        let at = usize::try_from(nonce.checked_sub(outstanding.first_nonce)?).ok()?;
        let sent = outstanding.responses.len() - queued;
        if at >= sent || outstanding.answers[at] || outstanding.responses[at].kind != kind {
            return None;
        }
        outstanding.answers[at] = true;
        outstanding.unanswered -= 1;
        if let Some(error) = error {
            let refusals = refusals(&outstanding.responses, at, error);
            outstanding.refusals.extend(refusals);
        }
        Some(error.is_none())
    }

    fn settle(&mut self) -> Option<Answered> {
        let outstanding = self.outstanding.take_if(|batch| batch.unanswered == 0)?;
        Some(Answered {
            generation: outstanding.generation,
            changed_at: outstanding.changed_at,
            responses: outstanding.responses,
            refusals: outstanding.refusals,
        })
    }

    /// True when something is subscribed to, or no longer.
    fn subscribe(&mut self, kind: ResourceType, request: Request) -> Result<bool, RequestError> {
        let at = kind as usize;
        let first = !std::mem::replace(&mut self.begun[at], true);
        let interest = &mut self.interests[at];
        for name in &request.unsubscribe {
            interest.unsubscribe(name);
        }
        let mut changed = !request.unsubscribe.is_empty() || !request.subscribe.is_empty();
        // Secrets are for those who can name them.
        let may_have_all = kind != ResourceType::Secret;
        if first && request.subscribe.is_empty() && may_have_all {
            interest.subscribe_to_all();
            changed = true;
        }
        for name in request.subscribe {
            if name == WILDCARD {
                if may_have_all {
                    interest.subscribe_to_all();
                }
                continue;
            }
            if name.len() > MAX_NAME_BYTES {
                return Err(RequestError::LongName(name.len()));
            }
            interest.subscribe_to(name);
            if interest.names.len() > self.max_names {
                let limit = self.max_names;
                return Err(RequestError::TooManyNames { kind, limit });
            }
        }
        if first {
            interest.known = request.initial_resource_versions;
        }
        Ok(changed)
    }
}

impl Interest {
    fn subscribe_to_all(&mut self) {
        self.everything = true;
        self.fresh_everything = true;
    }

    fn subscribe_to(&mut self, name: String) {
        self.fresh_names.insert(name.clone());
        self.names.insert(name);
    }

    fn unsubscribe(&mut self, name: &str) {
        if name == WILDCARD {
            self.everything = false;
            self.fresh_everything = false;
        } else {
            self.names.remove(name);
            self.fresh_names.remove(name);
        }
    }
}

/// What a no to the response at this position refuses.
fn refusals(responses: &[Arc<Response>], at: usize, error: &rpc::Status) -> Vec<Refusal> {
    let findings = findings(error);
    if findings.is_empty() {
        return refuse_all(responses, at, &error.message);
    }
    findings
        .into_iter()
        .filter_map(|finding| refuse(responses, responses[at].kind, finding))
        .collect()
}

/// The details of a no, if it has some that can be read.
fn findings(error: &rpc::Status) -> Vec<RejectionMessage> {
    error
        .details
        .iter()
        .filter(|detail| detail.type_url == REJECTIONS_URL)
        .filter_map(|detail| RejectionsMessage::decode(detail.value.as_slice()).ok())
        .flat_map(|message| message.rejections)
        .collect()
}

/// A finding about a resource of the batch. A type may have come in several responses, all of which count, and the end
/// of a batch speaks for every type; findings about anything else are dropped: nobody asked.
fn refuse(
    responses: &[Arc<Response>],
    kind: ResourceType,
    finding: RejectionMessage,
) -> Option<Refusal> {
    let entry = responses
        .iter()
        .filter(|response| kind == ResourceType::Batch || response.kind == kind)
        .find_map(|response| {
            let name = |entry: &Arc<crate::state::Entry>| (*entry.resource.name).cmp(&finding.name);
            let found = response.upserts.binary_search_by(name).ok()?;
            response.upserts.get(found)
        })?;
    Some(Refusal {
        kind: entry.resource.kind,
        name: Arc::clone(&entry.resource.name),
        version: Arc::clone(&entry.resource.version),
        path: finding.path,
        message: finding.message,
        remedy: finding.remedy,
    })
}

/// Everything in the response is refused for one reason; for the end of a batch, everything in the batch.
fn refuse_all(responses: &[Arc<Response>], at: usize, message: &str) -> Vec<Refusal> {
    let whole = responses[at].kind == ResourceType::Batch;
    let refused = if whole {
        responses
    } else {
        &responses[at..=at]
    };
    refused
        .iter()
        .flat_map(|response| &response.upserts)
        .filter(|entry| entry.resource.kind != ResourceType::Batch)
        .map(|entry| Refusal {
            kind: entry.resource.kind,
            name: Arc::clone(&entry.resource.name),
            version: Arc::clone(&entry.resource.version),
            path: String::new(),
            message: message.to_owned(),
            remedy: String::new(),
        })
        .collect()
}

#[cfg(test)]
mod tests;
