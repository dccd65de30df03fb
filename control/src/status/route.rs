//! Conditions of a ModelRoute.

use crate::index::{Conflict, Facts, RouteFacts, Unresolved};

use super::condition::{ConditionType, Reason, Truth, Verdict};
use super::desired::not_accepted;
use super::programmed::join;

/// Most targets and routes that a message names.
const MAX_NAMED: usize = 3;

pub(super) fn verdicts(facts: &Facts, route: &RouteFacts) -> Vec<Verdict> {
    if !facts.accepted {
        return vec![
            not_accepted(ConditionType::ResolvedRefs),
            not_accepted(ConditionType::Conflicted),
        ];
    }
    vec![resolved(&route.unresolved), conflicted(route)]
}

fn resolved(unresolved: &[Unresolved]) -> Verdict {
    let (truth, reason, message) = if unresolved.is_empty() {
        (
            Truth::True,
            Reason::ResolvedRefs,
            "every target is there".into(),
        )
    } else {
        let reason = match unresolved.iter().all(|target| target.refused) {
            true => Reason::TargetInvalid,
            false => Reason::TargetNotFound,
        };
        (
            Truth::False,
            reason,
            join(unresolved.iter().map(explain), MAX_NAMED),
        )
    };
    Verdict::new(ConditionType::ResolvedRefs, truth, reason, message)
}

fn explain(target: &Unresolved) -> String {
    let (path, kind, name) = (&target.path, target.target.kind.name(), &target.target.name);
    if target.refused {
        return format!("{path}: the {kind} `{name}` is not accepted: mend what its status names");
    }
    let namespace = &target.target.namespace;
    format!(
        "{path}: there is no {kind} `{name}` in namespace `{namespace}`: create it, or correct the name; requests pass \
         the target over until then"
    )
}

fn conflicted(route: &RouteFacts) -> Verdict {
    let shadowing: Vec<&Conflict> = route
        .conflicts
        .iter()
        .filter(|conflict| !conflict.rules.is_empty())
        .collect();
    let verdict = |truth, reason, message: String| {
        Verdict::new(ConditionType::Conflicted, truth, reason, message)
    };
    let Some(first) = route.conflicts.first() else {
        return verdict(Truth::False, Reason::NoConflict, String::new());
    };
    if shadowing.is_empty() {
        let message = format!(
            "requests for `{}` that match ModelRoute {} too go there: it is older",
            first.name, first.older
        );
        return verdict(Truth::False, Reason::OverlapsOlderRoute, message);
    }
    let older = join(shadowing.iter().map(|conflict| taken(conflict)), MAX_NAMED);
    let remedy = "narrow the older route's rules, or delete one of the two";
    if route.shadowed {
        let message = format!("this route gets no requests: {older}; {remedy}");
        return verdict(Truth::True, Reason::Shadowed, message);
    }
    verdict(
        Truth::True,
        Reason::RulesShadowed,
        format!("{older}; {remedy}"),
    )
}

fn taken(conflict: &Conflict) -> String {
    let rules: Vec<_> = conflict.rules.iter().map(ToString::to_string).collect();
    format!(
        "ModelRoute {} is older and takes the requests for `{}` of spec.rules[{}]",
        conflict.older,
        conflict.name,
        rules.join(", ")
    )
}
