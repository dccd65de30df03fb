//! Rules inside one document that its schema cannot say.
//!
//! For: what Kthena's CRDs, CEL rules and webhooks check, and what Sluice's own fields need.
//! Not for rules between documents (`catalog`).

mod names;
mod provider;
mod regexes;
mod route;
mod server;

pub use self::names::{is_label_key, is_label_value};
pub(crate) use self::regexes::Regexes;
pub(crate) use self::server::split_address;
use crate::document::{Identity, Resource};
use crate::filters::FilterSet;
use crate::path::{FieldPath, Place};
use crate::problem::{Finding, Topic};

/// Where a document comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A file: nobody looks for pods.
    File,
    /// A control loop, which does.
    Push,
}

/// Collects findings; knows what documents are held against.
pub(crate) struct Checker<'a> {
    origin: Origin,
    filters: &'a FilterSet,
    regexes: &'a mut Regexes,
    findings: Vec<Finding>,
}

/// Everything wrong with `resource` by itself.
pub(crate) fn validate(
    identity: &Identity,
    resource: &Resource,
    origin: Origin,
    filters: &FilterSet,
    regexes: &mut Regexes,
) -> Vec<Finding> {
    let mut checker = Checker {
        origin,
        filters,
        regexes,
        findings: Vec::new(),
    };
    let spec = FieldPath::of("spec");
    let metadata = FieldPath::of("metadata");
    checker.metadata(identity, Place::Path(&metadata));
    let spec = Place::Path(&spec);
    match resource {
        Resource::Route(route) => checker.route(&route.spec, spec),
        Resource::Server(server) => checker.server(&server.spec, spec),
        Resource::Provider(provider) => checker.provider(&provider.spec, spec),
    }
    checker.findings
}

impl Checker<'_> {
    fn error(&mut self, at: Place<'_>, message: impl Into<String>, remedy: impl Into<String>) {
        self.findings.push(Finding::error(at, message, remedy));
    }

    fn warn(&mut self, at: Place<'_>, message: impl Into<String>, remedy: impl Into<String>) {
        self.findings.push(Finding::warning(at, message, remedy));
    }

    fn warn_about(&mut self, topic: Topic, at: Place<'_>, message: &str, remedy: &str) {
        let finding = Finding::warning(at, message, remedy);
        self.findings.push(finding.about(topic));
    }

    fn metadata(&mut self, identity: &Identity, at: Place<'_>) {
        if identity.name.is_empty() {
            return self.error(at.key("name"), "the name is empty", "write a name");
        }
        for (key, name) in [("name", &identity.name), ("namespace", &identity.namespace)] {
            if !names::is_dns_name(name) {
                let message = format!("Kubernetes would refuse the {key} `{name}`");
                let remedy = "use lower-case letters, digits, `-` and `.`, at most 253";
                self.warn(at.key(key), message, remedy);
            }
        }
    }

    /// More items than allowed?
    fn at_most(&mut self, at: Place<'_>, count: usize, most: usize, what: &str) {
        if count > most {
            let message = format!("{count} {what}, at most {most} are allowed");
            self.error(
                at,
                message,
                format!("split it over several documents of at most {most}"),
            );
        }
    }
}

#[cfg(test)]
mod tests;
