//! Conditions and counts of a ModelServer.

use sluice_crds::networking::EndpointCounts;

use crate::index::{Facts, ServerFacts};

use super::condition::{ConditionType, Reason, Truth, Verdict};
use super::desired::not_accepted;

pub(super) fn verdicts(facts: &Facts, server: &ServerFacts) -> Vec<Verdict> {
    let verdict = |truth, reason, message: String| {
        vec![Verdict::new(
            ConditionType::ResolvedRefs,
            truth,
            reason,
            message,
        )]
    };
    let found = |message: &str| verdict(Truth::True, Reason::ResolvedRefs, message.into());
    let missing = |reason, message| verdict(Truth::False, reason, message);
    let Some(selector) = &server.selector else {
        return match server.written {
            0 => vec![not_accepted(ConditionType::ResolvedRefs)],
            _ => found("its endpoints are written down"),
        };
    };
    let (counts, namespace) = (&server.counts, &facts.key.namespace);
    if !server.has_port {
        if !facts.accepted {
            return vec![not_accepted(ConditionType::ResolvedRefs)];
        }
        let message =
            "pods are selected, and there is no port to reach them on: add `workloadPort`";
        return missing(Reason::PortMissing, message.into());
    }
    if let Some(why) = &server.awaiting {
        let message = format!("the pods of namespace `{namespace}` are not known yet: {why}");
        return verdict(Truth::Unknown, Reason::PodsUnknown, message);
    }
    if counts.all.endpoints == 0 && counts.strays == 0 {
        if server.written > 0 {
            return found("its endpoints are written down; no pod is selected");
        }
        let message = format!(
            "no pod in namespace `{namespace}` has the labels `{selector}`: hold workloadSelector.matchLabels against \
             the pods' labels, or scale the workload up"
        );
        return missing(Reason::NoMatchingPods, message);
    }
    if server.has_roles {
        let roles = [("prefill", counts.prefill), ("decode", counts.decode)];
        let absent = roles.iter().filter(|(_, counts)| counts.endpoints == 0);
        let absent: Vec<_> = absent.map(|(role, _)| format!("{role}Labels")).collect();
        if !absent.is_empty() {
            let message = format!(
                "pods in namespace `{namespace}` have the labels `{selector}`, and none of them those of {}: hold \
                 workloadSelector.pdGroup against the pods' labels",
                absent.join(" or ")
            );
            return missing(Reason::RoleNotFound, message);
        }
    }
    found("the selector finds pods")
}

/// With the endpoints that the server lists itself, which are always ready: nobody says otherwise.
pub(super) fn all_endpoints(server: &ServerFacts) -> EndpointCounts {
    let written = i32::try_from(server.written).unwrap_or(i32::MAX);
    let all = server.counts.all;
    EndpointCounts {
        endpoints: all.endpoints.saturating_add(written),
        ready: all.ready.saturating_add(written),
        draining: all.draining,
    }
}
