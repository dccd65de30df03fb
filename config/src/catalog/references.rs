//! Targets of routes: each must exist, or the route's last good version stays in force with everything it
//! needs.

use std::sync::Arc;

use super::files::{InForce, Pass};
use crate::document::{Document, Identity, Kind, Resource};
use crate::path::FieldPath;
use crate::problem::{Finding, Topic, did_you_mean};

/// Reports dangling routes and puts their last good version (and its ModelServers) back.
pub(super) fn resolve(in_force: &InForce, pass: &mut Pass<'_>) {
    report_refused(in_force, pass);
    let routes: Vec<(Identity, Arc<Document>, Arc<Resource>, bool)> = pass
        .next
        .iter()
        .filter(|(identity, _)| identity.kind == Kind::ModelRoute)
        .map(|(identity, kept)| {
            let (document, resource) = (&kept.document, &kept.resource);
            (
                identity.clone(),
                document.clone(),
                resource.clone(),
                kept.stale,
            )
        })
        .collect();
    let mut restored = InForce::new();
    for (identity, document, resource, stale) in routes {
        let missing: Vec<_> = targets(&identity, &resource)
            .into_iter()
            .filter(|(_, server)| !pass.next.contains_key(server))
            .filter(|(_, server)| pass.must_be_here(server, in_force))
            .collect();
        if missing.is_empty() {
            continue;
        }
        for (path, server) in &missing {
            let mut problem = document.problem(&explain(path.clone(), server, in_force, pass));
            if stale {
                // The text it came from is gone.
                problem.line = 0;
            }
            pass.problems.push(problem);
        }
        pass.rejected += usize::from(!pass.refused.contains_key(&identity));
        let Some(last) = in_force.get(&identity) else {
            pass.next.remove(&identity);
            continue;
        };
        for (_, server) in targets(&identity, &last.resource) {
            if let Some(kept) = in_force.get(&server) {
                restored.insert(server, kept.gone());
            }
        }
        pass.next.insert(identity, last.stale());
    }
    for (identity, kept) in restored {
        pass.next.entry(identity).or_insert(kept);
    }
}

impl Pass<'_> {
    /// Without pushed documents every ModelServer comes from a file. With them, one that no file has ever had is theirs
    /// to bring.
    fn must_be_here(&self, server: &Identity, in_force: &InForce) -> bool {
        match self.pushed {
            None => true,
            Some(pushed) => in_force.contains_key(server) && !pushed.contains_key(server),
        }
    }
}

/// Routes refused for other reasons: what else is wrong with them is said in the same go.
fn report_refused(in_force: &InForce, pass: &mut Pass<'_>) {
    let mut problems = Vec::new();
    for document in pass.refused.values() {
        let Some(resource) = &document.resource else {
            continue;
        };
        for (path, server) in targets(&document.identity, resource) {
            let known = pass.next.contains_key(&server)
                || pass.refused.contains_key(&server)
                || !pass.must_be_here(&server, in_force);
            let reported = document.findings.iter().any(|finding| finding.path == path);
            if !known && !reported && !server.name.is_empty() {
                problems.push(document.problem(&explain(path, &server, in_force, pass)));
            }
        }
    }
    pass.problems.extend(problems);
}

/// Why the ModelServer that `path` names is not there.
fn explain(path: FieldPath, server: &Identity, in_force: &InForce, pass: &Pass<'_>) -> Finding {
    let name = &server.name;
    if pass.refused.contains_key(server) {
        let message = format!("the ModelServer `{name}` is refused and has no last good version");
        return Finding::error(path, message, "mend the ModelServer first");
    }
    if in_force.contains_key(server) {
        let message = format!("the ModelServer `{name}` was removed while this route targets it");
        let remedy = "it stays in force: restore it, or remove the target";
        return Finding::error(path, message, remedy);
    }
    let siblings = pass
        .next
        .keys()
        .chain(pass.refused.keys())
        .filter(|other| other.kind == Kind::ModelServer && other.namespace == server.namespace);
    let remedy = did_you_mean(name, siblings.map(|sibling| sibling.name.as_str()));
    let message = format!(
        "there is no ModelServer `{name}` in namespace `{}`",
        server.namespace
    );
    Finding::error(path, message, remedy).about(Topic::MissingTarget)
}

/// Every ModelServer that a route targets, with the path of the target.
pub(super) fn targets(identity: &Identity, resource: &Resource) -> Vec<(FieldPath, Identity)> {
    let Resource::Route(route) = resource else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for (rule_index, rule) in route.spec.rules.iter().enumerate() {
        for (index, target) in rule.target_models.iter().enumerate() {
            let Some(name) = &target.model_server_name else {
                continue;
            };
            let path = FieldPath::of("spec.rules")
                .index(rule_index)
                .key("targetModels")
                .index(index);
            let namespace = identity.namespace.clone();
            let server = Identity {
                kind: Kind::ModelServer,
                namespace,
                name: name.clone(),
            };
            all.push((path.key("modelServerName"), server));
        }
    }
    all
}
