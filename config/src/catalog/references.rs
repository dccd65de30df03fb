//! Targets of routes: each must exist, or the route's last good version stays in force with everything it
//! needs.

use std::sync::Arc;

use super::{InForce, Pass};
use crate::document::{Document, Identity, Kind, Resource};
use crate::path::FieldPath;
use crate::problem::{Finding, did_you_mean};

/// Reports dangling routes and puts their last good version (and its ModelServers) back.
pub(super) fn resolve(in_force: &InForce, pass: &mut Pass) {
    report_refused(in_force, pass);
    let routes: Vec<(Identity, Arc<Document>, bool)> = pass
        .next
        .iter()
        .filter(|(identity, _)| identity.kind == Kind::ModelRoute)
        .map(|(identity, kept)| (identity.clone(), kept.document.clone(), kept.stale))
        .collect();
    let mut restored = InForce::new();
    for (identity, document, stale) in routes {
        let missing: Vec<_> = targets(&document)
            .into_iter()
            .filter(|(_, server)| !pass.next.contains_key(server))
            .collect();
        if missing.is_empty() {
            continue;
        }
        for (path, server) in &missing {
            let (message, remedy) = explain(server, in_force, pass);
            let mut problem = document.problem(&Finding::error(path.clone(), message, remedy));
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
        for (_, server) in targets(&last.document) {
            if let Some(kept) = in_force.get(&server) {
                restored.insert(server, kept.stale());
            }
        }
        pass.next.insert(identity, last.stale());
    }
    for (identity, kept) in restored {
        pass.next.entry(identity).or_insert(kept);
    }
}

/// Routes refused for other reasons: what else is wrong with them is said in the same go.
fn report_refused(in_force: &InForce, pass: &mut Pass) {
    let mut problems = Vec::new();
    for document in pass.refused.values() {
        for (path, server) in targets(document) {
            let known = pass.next.contains_key(&server) || pass.refused.contains_key(&server);
            let reported = document.findings.iter().any(|finding| finding.path == path);
            if !known && !reported && !server.name.is_empty() {
                let (message, remedy) = explain(&server, in_force, pass);
                problems.push(document.problem(&Finding::error(path, message, remedy)));
            }
        }
    }
    pass.problems.extend(problems);
}

fn explain(server: &Identity, in_force: &InForce, pass: &Pass) -> (String, String) {
    let name = &server.name;
    if pass.refused.contains_key(server) {
        let message = format!("the ModelServer `{name}` is refused and has no last good version");
        return (message, "mend the ModelServer first".into());
    }
    if in_force.contains_key(server) {
        let message = format!("the ModelServer `{name}` was removed while this route targets it");
        return (
            message,
            "it stays in force: restore it, or remove the target".into(),
        );
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
    (message, remedy)
}

/// Every ModelServer that a route targets, with the path of the target.
fn targets(document: &Document) -> Vec<(FieldPath, Identity)> {
    let Some(Resource::Route(route)) = &document.resource else {
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
            let namespace = document.identity.namespace.clone();
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
