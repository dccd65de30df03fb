//! What a document means to the index: whether gateways will take it, and what it points at.
//!
//! A route counts only when it is accepted. A server's selector and a provider's Secret count as soon as they can be
//! read: gateways keep their last good version of a document that is otherwise wrong, and need its pods and its
//! credential.

use std::sync::Arc;

use serde_json::Value;
use sluice_config::{FilterSet, Kind, Problem, Resource, judge};
use sluice_crds::networking::{ModelRoute, Rule};

use super::object::{Document, DocumentKey, ObjectKey};
use super::selection::Selection;

/// A document, judged.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) accepted: bool,
    /// Errors, or (of an accepted document) warnings.
    pub(super) problems: Arc<[Problem]>,
    pub(super) meaning: Meaning,
}

/// By kind.
#[derive(Debug)]
pub(super) enum Meaning {
    Route(RouteMeaning),
    Server(ServerMeaning),
    Provider(Option<CredentialReference>),
}

/// Empty for a route that is not accepted.
#[derive(Debug, Default)]
pub(super) struct RouteMeaning {
    pub(super) names: Vec<RouteName>,
    pub(super) targets: Vec<Target>,
    pub(super) rules: Vec<Rule>,
}

/// A name under which requests ask for a route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RouteName {
    pub(super) name: Box<str>,
    /// An adapter's, and not a model's.
    pub(super) adapter: bool,
}

#[derive(Debug)]
pub(super) struct Target {
    pub(super) path: String,
    pub(super) document: DocumentKey,
}

#[derive(Debug)]
pub(super) struct ServerMeaning {
    pub(super) selection: Option<Selection>,
    /// Endpoints that it lists itself.
    pub(super) written: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CredentialReference {
    pub(super) secret: ObjectKey,
    pub(super) key: String,
}

impl Judged {
    pub(super) fn of(document: &Document) -> Self {
        let judgement = judge(
            document.value.clone(),
            "the cluster",
            // Which filters a gateway has is in its own file: it refuses what it does not know, and status says so.
            &FilterSet::unknown(),
        );
        let accepted = judgement.accepted();
        let meaning = match document.key.kind {
            Kind::ModelRoute => Meaning::Route(match judgement.resource {
                Some(Resource::Route(route)) if accepted => route_meaning(document, route),
                _ => RouteMeaning::default(),
            }),
            Kind::ModelServer => Meaning::Server(ServerMeaning {
                selection: Selection::of(document.spec()),
                written: document.spec()["endpoints"].as_array().map_or(0, Vec::len),
            }),
            Kind::ExternalModelProvider => Meaning::Provider(credential(document)),
        };
        let problems = judgement.problems.into_iter();
        Self {
            accepted,
            // What is only doubtful in a document that is wrong can wait.
            problems: problems
                .filter(|problem| accepted || problem.is_error())
                .collect(),
            meaning,
        }
    }

    pub(super) fn route(&self) -> Option<&RouteMeaning> {
        match &self.meaning {
            Meaning::Route(route) => Some(route),
            _ => None,
        }
    }

    pub(super) fn selection(&self) -> Option<&Selection> {
        match &self.meaning {
            Meaning::Server(server) => server.selection.as_ref(),
            _ => None,
        }
    }

    pub(super) fn credential(&self) -> Option<&CredentialReference> {
        match &self.meaning {
            Meaning::Provider(credential) => credential.as_ref(),
            _ => None,
        }
    }
}

fn route_meaning(document: &Document, route: ModelRoute) -> RouteMeaning {
    let spec = route.spec;
    let model = Some(spec.model_name).filter(|name| !name.is_empty());
    let name = |name: String, adapter| RouteName {
        name: name.into(),
        adapter,
    };
    let mut names: Vec<_> = model.into_iter().map(|model| name(model, false)).collect();
    names.extend(spec.lora_adapters.into_iter().map(|a| name(a, true)));
    names.sort();
    names.dedup();
    RouteMeaning {
        names,
        targets: targets(&document.key.namespace, &spec.rules),
        rules: spec.rules,
    }
}

fn targets(namespace: &Arc<str>, rules: &[Rule]) -> Vec<Target> {
    let mut targets = Vec::new();
    for (rule, of) in rules.iter().enumerate() {
        for (position, target) in of.target_models.iter().enumerate() {
            let (kind, field, name) = match (
                &target.model_server_name,
                &target.external_model_provider_name,
            ) {
                (Some(name), _) => (Kind::ModelServer, "modelServerName", name),
                (None, Some(name)) => (
                    Kind::ExternalModelProvider,
                    "externalModelProviderName",
                    name,
                ),
                (None, None) => continue,
            };
            targets.push(Target {
                path: format!("spec.rules[{rule}].targetModels[{position}].{field}"),
                document: DocumentKey::new(kind, namespace.clone(), name.as_str()),
            });
        }
    }
    targets
}

fn credential(document: &Document) -> Option<CredentialReference> {
    let reference = &document.spec()["auth"]["secretRef"];
    let text = |value: &Value| {
        value
            .as_str()
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    };
    Some(CredentialReference {
        secret: ObjectKey::new(document.key.namespace.clone(), text(&reference["name"])?),
        key: text(&reference["key"])?,
    })
}
