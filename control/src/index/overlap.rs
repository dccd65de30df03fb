//! Which rule takes requests before another can: containment and overlap of matches.
//!
//! Sure of what it says, at the price of not seeing everything: a rule is called covered only when every request that
//! it matches is certain to match the other, and two rules are called apart only when no request can match both.
//! Regular expressions are compared as texts.

use sluice_crds::networking::{ModelMatch, Rule, StringMatch};

/// How two rules of two routes stand to each other under one model name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overlap {
    /// No request matches both.
    Apart,
    /// Some request may match both.
    Partly,
    /// Every request that the younger one matches, the older one matches too.
    Covered,
}

/// The older rule against the younger one, for requests that name `model`.
pub(super) fn compare(older: &Rule, younger: &Rule, model: &str) -> Overlap {
    let empty = ModelMatch::default();
    let older = older.model_match.as_ref().unwrap_or(&empty);
    let younger = younger.model_match.as_ref().unwrap_or(&empty);
    if !takes(older, model) || !takes(younger, model) {
        return Overlap::Apart;
    }
    let mut overlap = text(Text::of(older.uri.as_ref()), Text::of(younger.uri.as_ref()));
    for (name, wanted) in &older.headers {
        let found = younger
            .headers
            .iter()
            .find(|(other, _)| other.eq_ignore_ascii_case(name));
        let found = Text::of(found.map(|(_, text)| text));
        overlap = both(overlap, text(Text::of(Some(wanted)), found));
    }
    overlap
}

/// Can a request that names `model` match the rule at all?
pub(super) fn is_reachable(rule: &Rule, model: &str) -> bool {
    let part = rule.model_match.as_ref();
    part.is_none_or(|part| takes(part, model))
}

fn takes(rule: &ModelMatch, model: &str) -> bool {
    let wanted = rule.body.as_ref().and_then(|body| body.model.as_deref());
    wanted.is_none_or(|wanted| wanted == model)
}

/// Both parts of a match have to hold.
fn both(a: Overlap, b: Overlap) -> Overlap {
    match (a, b) {
        (Overlap::Apart, _) | (_, Overlap::Apart) => Overlap::Apart,
        (Overlap::Covered, Overlap::Covered) => Overlap::Covered,
        _ => Overlap::Partly,
    }
}

/// A match of one text, as gateways read it.
#[derive(Clone, Copy)]
enum Text<'a> {
    Any,
    Exact(&'a str),
    Prefix(&'a str),
    Regex(&'a str),
}

impl<'a> Text<'a> {
    fn of(text: Option<&'a StringMatch>) -> Self {
        let Some(text) = text else { return Self::Any };
        match (&text.exact, &text.prefix, &text.regex) {
            (Some(exact), _, _) => Self::Exact(exact),
            (None, Some(prefix), _) if prefix.is_empty() => Self::Any,
            (None, Some(prefix), _) => Self::Prefix(prefix),
            (None, None, Some(regex)) => Self::Regex(regex),
            (None, None, None) => Self::Any,
        }
    }
}

fn text(older: Text<'_>, younger: Text<'_>) -> Overlap {
    use Overlap::{Apart, Covered, Partly};
    use Text::{Any, Exact, Prefix, Regex};
    let when = |holds, then, otherwise| if holds { then } else { otherwise };
    match (older, younger) {
        (Any, _) => Covered,
        (Exact(a), Exact(b)) => when(a == b, Covered, Apart),
        (Prefix(a), Exact(b)) => when(b.starts_with(a), Covered, Apart),
        (Exact(a), Prefix(b)) => when(a.starts_with(b), Partly, Apart),
        (Prefix(a), Prefix(b)) if b.starts_with(a) => Covered,
        (Prefix(a), Prefix(b)) => when(a.starts_with(b), Partly, Apart),
        (Regex(a), Regex(b)) if a == b => Covered,
        (Regex(_), _) | (_, Regex(_)) | (_, Any) => Partly,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn rule(model_match: Value) -> Rule {
        serde_json::from_value(json!({ "modelMatch": model_match, "targetModels": [] })).unwrap()
    }

    fn overlap(older: Value, younger: Value) -> Overlap {
        compare(&rule(older), &rule(younger), "m")
    }

    #[test]
    fn a_rule_without_a_match_covers_every_other() {
        assert_eq!(overlap(json!({}), json!({})), Overlap::Covered);
        let tier = json!({ "headers": { "x-tier": { "exact": "a" } } });
        assert_eq!(overlap(json!({}), tier.clone()), Overlap::Covered);
        assert_eq!(overlap(tier, json!({})), Overlap::Partly);
    }

    #[test]
    fn texts_are_compared_as_gateways_match_them() {
        let uri = |older: Value, younger: Value| {
            overlap(json!({ "uri": older }), json!({ "uri": younger }))
        };
        let exact = |text: &str| json!({ "exact": text });
        let prefix = |text: &str| json!({ "prefix": text });
        let regex = |text: &str| json!({ "regex": text });
        assert_eq!(uri(exact("/a"), exact("/a")), Overlap::Covered);
        assert_eq!(uri(exact("/a"), exact("/b")), Overlap::Apart);
        assert_eq!(uri(prefix("/a"), exact("/ab")), Overlap::Covered);
        assert_eq!(uri(prefix("/a"), exact("/b")), Overlap::Apart);
        assert_eq!(uri(exact("/ab"), prefix("/a")), Overlap::Partly);
        assert_eq!(uri(prefix("/a"), prefix("/ab")), Overlap::Covered);
        assert_eq!(uri(prefix("/ab"), prefix("/a")), Overlap::Partly);
        assert_eq!(uri(prefix("/a"), prefix("/b")), Overlap::Apart);
        assert_eq!(uri(prefix(""), exact("/b")), Overlap::Covered);
        assert_eq!(uri(regex("a+"), regex("a+")), Overlap::Covered);
        assert_eq!(uri(regex("a+"), exact("b")), Overlap::Partly);
        // Exact goes before prefix where both are given.
        let two = json!({ "exact": "/a", "prefix": "/" });
        assert_eq!(uri(two, exact("/b")), Overlap::Apart);
    }

    #[test]
    fn every_header_of_the_older_rule_must_cover() {
        let older = json!({ "headers": { "X-A": { "exact": "1" }, "x-b": { "prefix": "2" } } });
        let covered = json!({ "headers": { "x-a": { "exact": "1" }, "x-b": { "exact": "22" } } });
        let partly = json!({ "headers": { "x-a": { "exact": "1" } } });
        let apart = json!({ "headers": { "x-a": { "exact": "9" }, "x-b": { "exact": "22" } } });
        assert_eq!(overlap(older.clone(), covered), Overlap::Covered);
        assert_eq!(overlap(older.clone(), partly), Overlap::Partly);
        assert_eq!(overlap(older, apart), Overlap::Apart);
    }

    #[test]
    fn a_rule_for_another_model_takes_nothing_under_this_one() {
        let other = json!({ "body": { "model": "other" } });
        let same = json!({ "body": { "model": "m" } });
        assert_eq!(overlap(other.clone(), json!({})), Overlap::Apart);
        assert_eq!(overlap(json!({}), other), Overlap::Apart);
        assert_eq!(overlap(same, json!({})), Overlap::Covered);
    }
}
