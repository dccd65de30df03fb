//! The documents in force of both layers, as one list in order of precedence.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use crate::compile;
use crate::document::{Identity, Kind, Resource};
use crate::live::Standing;
use crate::path::FieldPath;
use crate::problem::{Finding, Problem, Topic, did_you_mean};

use super::files::{Files, Kept};
use super::pushed::{Documents, PushedDocument};
use super::references::targets;

/// Beyond so many missing ModelServers no similar names are looked for.
const MAX_SUGGESTIONS: usize = 16;

/// See the module.
pub(super) struct Layers<'a> {
    /// By namespace and name.
    pub(super) servers: Vec<Standing<'a>>,
    /// Those of files first.
    pub(super) routes: Vec<Standing<'a>>,
    providers: Vec<Standing<'a>>,
    /// Pushed documents that a file's document stands in for.
    hidden: Vec<(&'a PushedDocument, &'a Kept)>,
}

impl<'a> Layers<'a> {
    pub(super) fn of(files: &'a Files, pushed: &'a Documents) -> Self {
        let mut hidden = Vec::new();
        let mut named: BTreeMap<&Identity, Standing<'a>> = files
            .in_force
            .iter()
            .map(|(identity, kept)| (identity, kept.standing(identity)))
            .collect();
        for (identity, document) in pushed {
            // What is only kept for a route's sake makes way for what is really there.
            match files.in_force.get(identity).filter(|kept| !kept.gone) {
                Some(kept) => hidden.push((document, kept)),
                None => {
                    named.insert(identity, document.standing(identity));
                }
            }
        }
        let (mut servers, mut routes, mut providers) = (Vec::new(), Vec::new(), Vec::new());
        for (identity, standing) in named {
            match identity.kind {
                Kind::ModelServer => servers.push(standing),
                Kind::ModelRoute => routes.push(standing),
                Kind::ExternalModelProvider => providers.push(standing),
            }
        }
        routes.sort_by_cached_key(|route| precedence(route, pushed));
        Self {
            servers,
            routes,
            providers,
            hidden,
        }
    }

    /// Secrets that providers refer to, as `namespace/name`.
    pub(super) fn wanted_secrets(&self) -> BTreeSet<String> {
        let secret = |standing: &Standing<'_>| {
            let Resource::Provider(provider) = &**standing.resource else {
                return None;
            };
            let name = &provider.spec.auth.as_ref()?.secret_ref.name;
            Some(format!("{}/{name}", standing.identity.namespace))
        };
        self.providers.iter().filter_map(secret).collect()
    }

    /// What is wrong between the layers: pushed documents that are hidden, and targets that nobody has.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let hidden = self.hidden.iter().map(|(document, kept)| {
            let place = &kept.document.place;
            let file = &place.source.name;
            let line = place.line(&FieldPath::of("metadata.name"));
            let message = format!("it is hidden by the document of the same name at {file}:{line}");
            let remedy = "remove one of the two; until then the file's is in force";
            document
                .document
                .problem(&Finding::warning(FieldPath::default(), message, remedy))
        });
        hidden.chain(self.missing()).collect()
    }

    fn missing(&self) -> Vec<Problem> {
        let servers: HashSet<(&str, &str)> = self
            .servers
            .iter()
            .map(|one| (one.identity.namespace.as_str(), one.identity.name.as_str()))
            .collect();
        let mut problems = Vec::new();
        for route in &self.routes {
            let Resource::Route(document) = &**route.resource else {
                continue;
            };
            let namespace = route.identity.namespace.as_str();
            let is_there = |name: &str| servers.contains(&(namespace, name));
            if compile::server_names(&document.spec).all(is_there) {
                continue;
            }
            for (path, server) in targets(route.identity, route.resource) {
                if is_there(&server.name) {
                    continue;
                }
                let name = &server.name;
                let message = format!(
                    "there is no ModelServer `{name}` in namespace `{namespace}`: the target is passed over"
                );
                let remedy = if problems.len() < MAX_SUGGESTIONS {
                    let siblings = servers.iter().filter(|(other, _)| *other == namespace);
                    did_you_mean(name, siblings.map(|(_, name)| *name))
                } else {
                    "create it, or correct the name".to_owned()
                };
                let finding = Finding::warning(path, message, remedy).about(Topic::MissingTarget);
                problems.push(route.document.problem(&finding));
            }
        }
        problems
    }
}

impl Kept {
    fn standing<'a>(&'a self, identity: &'a Identity) -> Standing<'a> {
        Standing {
            identity,
            document: &self.document,
            resource: &self.resource,
            created: self.resource.created().unwrap_or(self.created),
        }
    }
}

/// Where a route stands: in which layer, then how old, then where in its layer.
type Precedence = (bool, bool, Option<u64>, String, usize, Option<usize>);

/// Files: oldest `creationTimestamp` first, then those without one as they stand in the files. The time of first load
/// has no say: a restart must not change the order. Pushed: oldest first, of equal age by name, so that every gateway
/// has the same order.
fn precedence(route: &Standing<'_>, pushed: &Documents) -> Precedence {
    let created = route.resource.created();
    let is_pushed = pushed
        .get(route.identity)
        .is_some_and(|document| Arc::ptr_eq(&document.document, route.document));
    let (place, position, item) = match is_pushed {
        true => (route.identity.qualified(), 0, None),
        false => {
            let (file, position, item) = route.document.order();
            (file.to_owned(), position, item)
        }
    };
    (is_pushed, created.is_none(), created, place, position, item)
}
