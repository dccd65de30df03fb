//! The layer of what is pushed: documents, endpoints, Secrets and other gateways, each with its last good version.
//!
//! Not for how batches come, nor for what the layers make together.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use prost::Message;
use serde_json::Value;

use crate::document::{Document, DocumentPlace, Identity, Kind, Reading, Resource, read};
use crate::judge::{Judge, problems};
use crate::live::Standing;
use crate::problem::{Problem, Severity, Topic};
use crate::push::{
    Batch, DocumentMessage, PeerMessage, Refusal, ResourceType, SecretMessage, Upsert,
};
use crate::snapshot::{Peer, Secret};
use crate::validate::Origin;
use crate::yaml::Source;

use super::endpoints::Endpoints;

/// Largest document, in bytes: above what an API server stores.
const MAX_DOCUMENT_BYTES: usize = 2 << 20;
/// Most documents.
const MAX_DOCUMENTS: usize = 50_000;
/// Largest Secret, in bytes: as an API server allows.
const MAX_SECRET_BYTES: usize = 1 << 20;
/// Most Secrets, and most other gateways.
const MAX_OTHERS: usize = 10_000;
/// Longest name: a namespace, a pod and a port.
const MAX_NAME_BYTES: usize = 600;

/// Stands for the file in problems.
const STREAM: &str = "push";

static SOURCE: LazyLock<Arc<Source>> =
    LazyLock::new(|| Arc::new(Source::new(STREAM.to_owned(), String::new())));

/// Pushed documents in force, by identity.
pub(super) type Documents = BTreeMap<Identity, PushedDocument>;

/// A good document and what came with it.
#[derive(Debug)]
pub(super) struct PushedDocument {
    version: String,
    pub(super) document: Arc<Document>,
    /// Of the document; as long as it says the same, the same one.
    resource: Arc<Resource>,
    /// Unix seconds.
    created: u64,
    warnings: Vec<Problem>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Pushed {
    /// A batch has come.
    pub(super) any: bool,
    pub(super) documents: Documents,
    pub(super) endpoints: Endpoints,
    pub(super) secrets: Arc<BTreeMap<String, Secret>>,
    pub(super) peers: Arc<BTreeMap<String, Peer>>,
    /// Secrets that documents in force refer to: no other is kept.
    pub(super) wanted: Arc<BTreeSet<String>>,
    /// What is wrong with the newest version of a resource.
    pub(super) refused: BTreeMap<(ResourceType, String), Vec<Problem>>,
}

/// What a batch changes.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// Documents, or what is wrong with them.
    pub(super) documents: bool,
    /// Endpoints of these pools.
    pub(super) pools: BTreeSet<String>,
    /// Secrets or other gateways.
    pub(super) beside: bool,
    /// What is refused.
    pub(super) refused: bool,
}

/// Why a resource is refused.
#[derive(Debug)]
pub(super) struct Wrong(Vec<Problem>);

impl Wrong {
    pub(super) fn at(path: &str, message: impl Into<String>, remedy: &str) -> Self {
        Self(vec![Problem {
            severity: Severity::Error,
            file: STREAM.to_owned(),
            line: 0,
            document: None,
            path: path.to_owned(),
            message: message.into(),
            remedy: remedy.to_owned(),
            topic: Topic::General,
        }])
    }

    pub(super) fn whole(message: impl Into<String>, remedy: &str) -> Self {
        Self::at("", message, remedy)
    }

    pub(super) fn unreadable(error: &prost::DecodeError) -> Self {
        let message = format!("the message cannot be read: {error}");
        Self::whole(message, "bring gateway and control loop to one version")
    }

    pub(super) fn misnamed(message: String) -> Self {
        Self::whole(message, "this is a fault of the sender")
    }
}

impl PushedDocument {
    pub(super) fn standing<'a>(&'a self, identity: &'a Identity) -> Standing<'a> {
        Standing {
            identity,
            document: &self.document,
            resource: &self.resource,
            created: self.resource.created().unwrap_or(self.created),
        }
    }
}

impl Pushed {
    /// Takes a batch in as far as it is right.
    pub(super) fn take(
        &mut self,
        batch: &Batch,
        (filters, regexes): Judge<'_>,
        now: u64,
    ) -> (Touched, Vec<Refusal>) {
        self.any = true;
        let mut touched = Touched::default();
        for (kind, name) in &batch.removals {
            self.remove(*kind, name, &mut touched);
        }
        let mut refusals = Vec::new();
        for (item, upsert) in batch.upserts.iter().enumerate() {
            let key = (upsert.kind, upsert.name.clone());
            let judge = (filters, &mut *regexes);
            match self.insert(upsert, judge, now, &mut touched) {
                Ok(()) => touched.refused |= self.refused.remove(&key).is_some(),
                Err(Wrong(mut problems)) => {
                    let document = format!("{} {}", upsert.kind.name(), upsert.name);
                    for problem in &mut problems {
                        problem.document = Some(document.clone());
                        refusals.push(refusal(item, problem));
                    }
                    touched.refused = true;
                    self.refused.insert(key, problems);
                }
            }
        }
        (touched, refusals)
    }

    /// These Secrets are referred to from now on. Says whether one that is here is not wanted any more.
    pub(super) fn want(&mut self, wanted: BTreeSet<String>) -> bool {
        if *self.wanted != wanted {
            self.wanted = Arc::new(wanted);
        }
        let wanted = &self.wanted;
        let all_wanted = self.secrets.keys().all(|name| wanted.contains(name));
        if !all_wanted {
            Arc::make_mut(&mut self.secrets).retain(|name, _| wanted.contains(name));
        }
        !all_wanted
    }

    pub(super) fn versions(
        &self,
        kind: ResourceType,
    ) -> Box<dyn Iterator<Item = (String, String)> + '_> {
        match kind {
            ResourceType::Endpoint => Box::new(self.endpoints.versions()),
            ResourceType::Secret => Box::new(
                (self.secrets.iter()).map(|(name, secret)| (name.clone(), secret.version.clone())),
            ),
            ResourceType::Peer => Box::new(
                (self.peers.iter()).map(|(name, peer)| (name.clone(), peer.version.clone())),
            ),
            ResourceType::Batch => Box::new(std::iter::empty()),
            ResourceType::ModelServer
            | ResourceType::ModelRoute
            | ResourceType::ExternalModelProvider => {
                let kind = document_kind(kind);
                let documents = self.documents.iter();
                let of_kind = documents.filter(move |(identity, _)| Some(identity.kind) == kind);
                Box::new(of_kind.map(|(identity, one)| (identity.qualified(), one.version.clone())))
            }
        }
    }

    pub(super) fn counts(&self) -> [(ResourceType, usize); 6] {
        let mut documents = [0; 3];
        for identity in self.documents.keys() {
            documents[identity.kind as usize] += 1;
        }
        [
            (
                ResourceType::ModelServer,
                documents[Kind::ModelServer as usize],
            ),
            (
                ResourceType::ExternalModelProvider,
                documents[Kind::ExternalModelProvider as usize],
            ),
            (ResourceType::Secret, self.secrets.len()),
            (ResourceType::Endpoint, self.endpoints.len()),
            (
                ResourceType::ModelRoute,
                documents[Kind::ModelRoute as usize],
            ),
            (ResourceType::Peer, self.peers.len()),
        ]
    }

    /// Of all that is in force or was refused.
    pub(super) fn problems(&self) -> impl Iterator<Item = &Problem> {
        let refused = self.refused.values().flatten();
        let warnings = self.documents.values().flat_map(|one| &one.warnings);
        refused.chain(warnings)
    }

    fn remove(&mut self, kind: ResourceType, name: &str, touched: &mut Touched) {
        touched.refused |= self.refused.remove(&(kind, name.to_owned())).is_some();
        match kind {
            ResourceType::Endpoint => self.endpoints.remove(name, &mut touched.pools),
            ResourceType::Secret => {
                if self.secrets.contains_key(name) {
                    Arc::make_mut(&mut self.secrets).remove(name);
                    touched.beside = true;
                }
            }
            ResourceType::Peer => {
                if self.peers.contains_key(name) {
                    Arc::make_mut(&mut self.peers).remove(name);
                    touched.beside = true;
                }
            }
            _ => {
                let identity = document_kind(kind).and_then(|kind| identity(kind, name));
                let removed = identity.and_then(|identity| self.documents.remove(&identity));
                touched.documents |= removed.is_some();
            }
        }
    }

    fn insert(
        &mut self,
        upsert: &Upsert,
        judge: Judge<'_>,
        now: u64,
        touched: &mut Touched,
    ) -> Result<(), Wrong> {
        let Upsert {
            kind,
            name,
            version,
            value,
        } = upsert;
        if name.len() > MAX_NAME_BYTES || version.len() > MAX_NAME_BYTES {
            let message = format!("its name or version is longer than {MAX_NAME_BYTES} bytes");
            return Err(Wrong::misnamed(message));
        }
        match kind {
            ResourceType::Endpoint => {
                self.endpoints
                    .insert(name, version, value, &mut touched.pools)
            }
            ResourceType::Secret => self.secret(name, version, value, touched),
            ResourceType::Peer => self.peer(name, version, value, touched),
            _ => match document_kind(*kind) {
                Some(kind) => self.document(kind, upsert, judge, now, touched),
                None => Err(Wrong::misnamed("it is not a resource".to_owned())),
            },
        }
    }

    fn document(
        &mut self,
        kind: Kind,
        upsert: &Upsert,
        judge: Judge<'_>,
        now: u64,
        touched: &mut Touched,
    ) -> Result<(), Wrong> {
        let (document, warnings) = document(kind, upsert, judge)?;
        let identity = document.identity.clone();
        let last = self.documents.get(&identity);
        if last.is_none() && self.documents.len() >= MAX_DOCUMENTS {
            let message = format!("there are {MAX_DOCUMENTS} documents already");
            return Err(Wrong::whole(message, "narrow the gateway's namespaces"));
        }
        let resource = document
            .resource
            .as_ref()
            .expect("a good document has a typed form");
        let same = last.filter(|last| last.resource == *resource);
        touched.documents |= same.is_none() || last.is_none_or(|last| last.warnings != warnings);
        let next = PushedDocument {
            version: upsert.version.clone(),
            resource: Arc::clone(same.map_or(resource, |last| &last.resource)),
            created: last.map_or(now, |last| last.created),
            document,
            warnings,
        };
        self.documents.insert(identity, next);
        Ok(())
    }

    fn secret(
        &mut self,
        name: &str,
        version: &str,
        value: &[u8],
        touched: &mut Touched,
    ) -> Result<(), Wrong> {
        if value.len() > MAX_SECRET_BYTES {
            let message = format!("it is larger than {} KiB", MAX_SECRET_BYTES >> 10);
            return Err(Wrong::whole(message, "name a smaller Secret"));
        }
        let message = SecretMessage::decode(value).map_err(|error| Wrong::unreadable(&error))?;
        check_name(name, &message.namespace, &message.name)?;
        // Sent before it was heard here that nobody needs it any more.
        if !self.wanted.contains(name) {
            return Ok(());
        }
        check_room(self.secrets.contains_key(name), self.secrets.len())?;
        let secret = Secret {
            version: version.to_owned(),
            data: message.data,
        };
        touched.beside |= self.secrets.get(name) != Some(&secret);
        Arc::make_mut(&mut self.secrets).insert(name.to_owned(), secret);
        Ok(())
    }

    fn peer(
        &mut self,
        name: &str,
        version: &str,
        value: &[u8],
        touched: &mut Touched,
    ) -> Result<(), Wrong> {
        let message = PeerMessage::decode(value).map_err(|error| Wrong::unreadable(&error))?;
        check_name(name, &message.namespace, &message.pod)?;
        check_room(self.peers.contains_key(name), self.peers.len())?;
        if message.host.parse::<IpAddr>().is_err() {
            let words = format!("{:?} is not an IP address", message.host);
            return Err(Wrong::at("host", words, "wait until the pod has one"));
        }
        let peer = Peer {
            version: version.to_owned(),
            host: message.host,
            zone: message.zone,
            ready: message.ready,
        };
        touched.beside |= self.peers.get(name) != Some(&peer);
        Arc::make_mut(&mut self.peers).insert(name.to_owned(), peer);
        Ok(())
    }
}

/// A good document with its warnings.
fn document(
    kind: Kind,
    upsert: &Upsert,
    judge: Judge<'_>,
) -> Result<(Arc<Document>, Vec<Problem>), Wrong> {
    if upsert.value.len() > MAX_DOCUMENT_BYTES {
        let message = format!("it is larger than {} MiB", MAX_DOCUMENT_BYTES >> 20);
        return Err(Wrong::whole(message, "split it into several documents"));
    }
    let message = DocumentMessage::decode(upsert.value.as_slice())
        .map_err(|error| Wrong::unreadable(&error))?;
    let value: Value = serde_json::from_str(&message.json).map_err(|error| {
        Wrong::whole(
            format!("not JSON: {error}"),
            "this is a fault of the sender",
        )
    })?;
    let place = DocumentPlace {
        source: Arc::clone(&SOURCE),
        position: 0,
        item: None,
    };
    let document = match read(value, Vec::new(), place) {
        Reading::Document(document) => document,
        Reading::Problem(problem) => {
            return Err(Wrong(vec![Problem {
                severity: Severity::Error,
                ..problem
            }]));
        }
    };
    if document.identity.kind != kind || document.identity.qualified() != upsert.name {
        let message = format!("it says that it is {}", document.identity);
        return Err(Wrong::misnamed(message));
    }
    let mut problems = problems(&document, Origin::Push, judge);
    if problems.iter().any(Problem::is_error) || document.resource.is_none() {
        problems.retain(Problem::is_error);
        return Err(Wrong(problems));
    }
    Ok((document, problems))
}

fn refusal(item: usize, problem: &Problem) -> Refusal {
    Refusal {
        item,
        path: problem.path.clone(),
        message: problem.message.clone(),
        remedy: problem.remedy.clone(),
    }
}

fn check_name(name: &str, namespace: &str, inner: &str) -> Result<(), Wrong> {
    let says = format!("{namespace}/{inner}");
    match says == name {
        true => Ok(()),
        false => Err(Wrong::misnamed(format!("it says that it is {says}"))),
    }
}

fn check_room(known: bool, count: usize) -> Result<(), Wrong> {
    match known || count < MAX_OTHERS {
        true => Ok(()),
        false => {
            let message = format!("there are {MAX_OTHERS} of its type already");
            Err(Wrong::whole(message, "narrow the gateway's namespaces"))
        }
    }
}

fn document_kind(kind: ResourceType) -> Option<Kind> {
    match kind {
        ResourceType::ModelServer => Some(Kind::ModelServer),
        ResourceType::ModelRoute => Some(Kind::ModelRoute),
        ResourceType::ExternalModelProvider => Some(Kind::ExternalModelProvider),
        ResourceType::Secret
        | ResourceType::Endpoint
        | ResourceType::Peer
        | ResourceType::Batch => None,
    }
}

fn identity(kind: Kind, name: &str) -> Option<Identity> {
    let (namespace, name) = name.split_once('/')?;
    Some(Identity {
        kind,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    })
}
