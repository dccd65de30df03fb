//! What is shown of a connection in debug output.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use sluice_config::push::{ResourceType, WILDCARD};

use super::{Finding, Proxy};
use crate::state::Interests;

/// Names of one type that are listed; more are counted.
const MAX_LISTED_NAMES: usize = 20;

/// One connected gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProxyReport {
    /// As it calls itself: its pod.
    pub name: String,
    /// Where it connected from.
    pub address: String,
    /// As it has proven.
    pub identity: String,
    /// Version of its program; empty if it does not say.
    pub version: String,
    /// What it may see and wants to, as in a grant.
    pub namespaces: String,
    /// What it has subscribed to: `Type/*` or `Type/namespace/name`.
    pub subscriptions: Vec<String>,
    /// The newest generation that it has; none before its first answer.
    pub generation: Option<u64>,
    /// Generations that are newer than that.
    pub behind: u64,
    /// For how long it has owed an answer to a batch, in milliseconds.
    pub waiting_ms: Option<u64>,
    /// Since when it is connected, in seconds of Unix time.
    pub connected_at: u64,
    /// A newer connection of the same gateway has taken its place.
    pub superseded: bool,
    /// What it refuses, ordered by type and name.
    pub rejections: Vec<RejectionReport>,
}

/// Why a gateway refuses a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RejectionReport {
    /// Type of the resource.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// The version that is refused.
    pub version: String,
    /// Field path; empty for the whole.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

/// As [`ProxyReport::subscriptions`].
pub(super) fn subscriptions(interests: &Interests) -> Vec<String> {
    let mut shown = Vec::new();
    for (kind, interest) in ResourceType::ALL.into_iter().zip(interests) {
        let kind = kind.name();
        if interest.everything {
            shown.push(format!("{kind}/{WILDCARD}"));
        }
        let names = interest.names.iter().take(MAX_LISTED_NAMES);
        shown.extend(names.map(|name| format!("{kind}/{name}")));
        let more = interest.names.len().saturating_sub(MAX_LISTED_NAMES);
        if more > 0 {
            shown.push(format!("{kind}: {more} more"));
        }
    }
    shown
}

impl Proxy {
    pub(super) fn report(&self, newest: u64) -> ProxyReport {
        let now = SystemTime::now();
        let waiting = self
            .waiting_since
            .map(|since| now.duration_since(since).unwrap_or_default());
        ProxyReport {
            name: self.caller.name.clone(),
            address: self.caller.address.to_string(),
            identity: self.caller.identity.to_string(),
            version: self.caller.version.clone(),
            namespaces: self.caller.namespaces.to_string(),
            subscriptions: self.subscriptions.clone(),
            generation: self.acknowledged,
            behind: newest.saturating_sub(self.acknowledged.unwrap_or(0)),
            waiting_ms: waiting.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            connected_at: self
                .connected_at
                .duration_since(UNIX_EPOCH)
                .map_or(0, |time| time.as_secs()),
            superseded: self.superseded,
            rejections: self.rejections(),
        }
    }

    fn rejections(&self) -> Vec<RejectionReport> {
        let mut rejections = Vec::new();
        for (kind, refused) in ResourceType::ALL.into_iter().zip(&self.refused) {
            let mut names: Vec<_> = refused.iter().collect();
            names.sort_unstable_by_key(|(name, _)| *name);
            for (name, refused) in names {
                let report = |finding: &Finding| RejectionReport {
                    kind: kind.name(),
                    name: name.to_string(),
                    version: refused.version.to_string(),
                    path: finding.path.clone(),
                    message: finding.message.clone(),
                    remedy: finding.remedy.clone(),
                };
                rejections.extend(refused.findings.iter().map(report));
            }
        }
        rejections
    }
}
