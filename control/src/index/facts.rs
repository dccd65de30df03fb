//! What the index knows of a document, for its status.
//!
//! Not yet words: `status` makes conditions of it, together with what gateways have acknowledged.

use std::sync::Arc;

use sluice_config::Problem;
use sluice_config::push::RoleMessage;
use sluice_crds::networking::EndpointCounts;

use super::object::{DocumentKey, ObjectKey, PodState, Shown};
use super::selection::Place;

/// All that is known of one document.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// Which document.
    pub key: DocumentKey,
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// `metadata.generation`.
    pub generation: i64,
    /// Version of its resource on the push stream.
    pub version: Arc<str>,
    /// Its status as the cluster shows it.
    pub shown: Arc<Shown>,
    /// Would a gateway take it into force?
    pub accepted: bool,
    /// The errors if not, else the warnings.
    pub problems: Arc<[Problem]>,
    /// Its namespace is being deleted: nothing can be created there, events neither.
    pub terminating: bool,
    /// What its kind adds.
    pub detail: Detail,
}

/// What is known of a document by its kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Detail {
    /// Of a ModelRoute.
    Route(RouteFacts),
    /// Of a ModelServer.
    Server(ServerFacts),
    /// Of an ExternalModelProvider.
    Provider(Credential),
}

/// What is known of a ModelRoute; nothing of one that is not accepted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RouteFacts {
    /// Targets that requests cannot go to.
    pub unresolved: Vec<Unresolved>,
    /// Older routes that take requests which this one would take, the oldest first; at most
    /// [`MAX_CONFLICTS`](super::MAX_CONFLICTS).
    pub conflicts: Vec<Conflict>,
    /// Between them they take every request: this route never gets one.
    pub shadowed: bool,
}

/// A target that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unresolved {
    /// Path of the field that names it.
    pub path: String,
    /// The document that it names.
    pub target: DocumentKey,
    /// It is there, but gateways refuse it.
    pub refused: bool,
}

/// An older route for the same model or adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The older route, in whatever namespace: gateways look in all that they serve.
    pub older: ObjectKey,
    /// The name that both have.
    pub name: Box<str>,
    /// Positions of the younger route's rules that get no request under this name for the older one's sake. Empty: some
    /// requests match both, and go to the older.
    pub rules: Vec<usize>,
}

/// What is known of a ModelServer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFacts {
    /// Its selector, as `kubectl get -l` takes it; `None` when it selects no pods.
    pub selector: Option<String>,
    /// Has it a port for its pods?
    pub has_port: bool,
    /// Has it prefill and decode pods?
    pub has_roles: bool,
    /// Endpoints that it lists itself.
    pub written: usize,
    /// What its pods come to.
    pub counts: Counts,
    /// Why its pods are not known yet, if so.
    pub awaiting: Option<Arc<str>>,
}

/// What is known of a provider's credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// It needs none.
    NotRequired,
    /// There is no such Secret with the label that it needs.
    NotFound {
        /// The Secret.
        secret: String,
    },
    /// The Secret has no such key, or nothing under it.
    KeyNotFound {
        /// The Secret.
        secret: String,
        /// The key.
        key: String,
    },
    /// What is there cannot stand in a header.
    Invalid {
        /// The Secret.
        secret: String,
        /// The key.
        key: String,
    },
    /// It is there.
    Resolved,
}

/// Pods of a ModelServer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// All that serve in it, have served or will.
    pub all: EndpointCounts,
    /// Of these, the ones that prefill.
    pub prefill: EndpointCounts,
    /// Of these, the ones that decode.
    pub decode: EndpointCounts,
    /// Selected, but with the labels of neither role: not among the others.
    pub strays: i32,
}

impl Counts {
    /// One pod more (`sign` 1) or less (-1).
    pub(super) fn add(&mut self, place: Place, state: PodState, sign: i32) {
        let Place::Member(role) = place else {
            self.strays += sign;
            return;
        };
        add(&mut self.all, state, sign);
        match role {
            RoleMessage::Whole => {}
            RoleMessage::Prefill => add(&mut self.prefill, state, sign),
            RoleMessage::Decode => add(&mut self.decode, state, sign),
        }
    }
}

fn add(counts: &mut EndpointCounts, state: PodState, sign: i32) {
    counts.endpoints += sign;
    match state {
        PodState::Idle => {}
        PodState::Serving => counts.ready += sign,
        PodState::Draining => counts.draining += sign,
    }
}
