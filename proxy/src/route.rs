//! Routing: from a request to a rule, and from the rule to a weighted target. Pure.
//!
//! ModelRoute semantics as Kthena's: base-model names before LoRA names, oldest route first, and within a route
//! the first rule whose every part matches. A route without a matching rule leaves the request to the next one.

use http::HeaderMap;
use rand::Rng;
use sluice_config::Snapshot;
use sluice_config::snapshot::{Route, Rule};

/// The rule a request goes by.
#[derive(Debug, Clone, Copy)]
pub struct Matched<'a> {
    /// Index into the snapshot's routes.
    pub route_index: usize,
    /// The route.
    pub route: &'a Route,
    /// Index into the route's rules.
    pub rule_index: usize,
    /// The rule.
    pub rule: &'a Rule,
    /// The model was found among the route's LoRA adapters: its name must reach the engine unchanged.
    pub lora: bool,
}

/// The first rule that takes a request for `model` with this path and these headers.
pub fn resolve<'a>(
    snapshot: &'a Snapshot,
    model: &str,
    path: &str,
    headers: &HeaderMap,
) -> Option<Matched<'a>> {
    let base = snapshot.by_model.get(model).map(|routes| (routes, false));
    let lora = snapshot.by_lora.get(model).map(|routes| (routes, true));
    for (routes, lora) in base.into_iter().chain(lora) {
        for &route_index in routes {
            let route = &snapshot.routes[route_index];
            let found = route
                .rules
                .iter()
                .position(|rule| takes(rule, model, path, headers));
            if let Some(rule_index) = found {
                let rule = &route.rules[rule_index];
                return Some(Matched {
                    route_index,
                    route,
                    rule_index,
                    rule,
                    lora,
                });
            }
        }
    }
    None
}

fn takes(rule: &Rule, model: &str, path: &str, headers: &HeaderMap) -> bool {
    rule.uri.matches(path)
        && rule.body_model.as_deref().is_none_or(|want| want == model)
        && rule.headers.iter().all(|(name, matcher)| {
            let value = headers
                .get(name.as_str())
                .and_then(|value| value.to_str().ok());
            matcher.matches(value.unwrap_or_default())
        })
}

/// Draws one of `weights` by chance, in proportion; `None` when they are all zero.
pub fn draw(weights: impl Iterator<Item = u32> + Clone, random: &mut impl Rng) -> Option<usize> {
    let total: u64 = weights.clone().map(u64::from).sum();
    if total == 0 {
        return None;
    }
    let mut left = random.random_range(0..total);
    weights
        .enumerate()
        .find(|(_, weight)| match left.checked_sub(u64::from(*weight)) {
            Some(rest) => {
                left = rest;
                false
            }
            None => true,
        })
        .map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};
    use std::sync::Arc;

    use rand::SeedableRng;
    use rand::rngs::SmallRng;
    use sluice_config::snapshot::{StringMatcher, Target, WeightedTarget};

    use super::*;

    fn rule(name: &str) -> Rule {
        Rule {
            name: Some(name.into()),
            headers: Vec::new(),
            uri: StringMatcher::Any,
            body_model: None,
            targets: vec![WeightedTarget {
                target: Target::Server(0),
                weight: 1,
            }],
        }
    }

    fn route(model: &str, lora: &[&str], rules: Vec<Rule>) -> Route {
        Route {
            namespace: "default".into(),
            name: model.into(),
            model_name: model.into(),
            lora_adapters: lora.iter().map(ToString::to_string).collect(),
            rules,
            filters: BTreeMap::new(),
            created: 0,
        }
    }

    fn snapshot(routes: Vec<Route>) -> Snapshot {
        let mut by_model = HashMap::<String, Vec<usize>>::new();
        let mut by_lora = HashMap::<String, Vec<usize>>::new();
        for (index, route) in routes.iter().enumerate() {
            let model = route.model_name.clone();
            by_model.entry(model).or_default().push(index);
            for lora in &route.lora_adapters {
                by_lora.entry(lora.clone()).or_default().push(index);
            }
        }
        Snapshot {
            routes: Arc::new(routes.into_iter().map(Arc::new).collect()),
            by_model: Arc::new(by_model),
            by_lora: Arc::new(by_lora),
            ..Snapshot::default()
        }
    }

    fn hit(snapshot: &Snapshot, model: &str, headers: &HeaderMap) -> Option<(usize, usize, bool)> {
        resolve(snapshot, model, "/v1/chat/completions", headers)
            .map(|matched| (matched.route_index, matched.rule_index, matched.lora))
    }

    #[test]
    fn header_rules_are_tried_in_order_and_all_parts_must_hold() {
        let mut premium = rule("premium");
        premium.headers = vec![
            ("user-type".into(), StringMatcher::Exact("premium".into())),
            ("x-region".into(), StringMatcher::Prefix("eu-".into())),
        ];
        let snapshot = snapshot(vec![route("m", &[], vec![premium, rule("default")])]);
        let mut headers = HeaderMap::new();
        headers.insert("user-type", "premium".parse().unwrap());
        assert_eq!(
            hit(&snapshot, "m", &headers),
            Some((0, 1, false)),
            "only one of two holds"
        );
        headers.insert("x-region", "eu-1".parse().unwrap());
        assert_eq!(hit(&snapshot, "m", &headers), Some((0, 0, false)));
    }

    #[test]
    fn an_absent_header_is_the_empty_string() {
        let mut absent = rule("absent");
        absent.headers = vec![("x-a".into(), StringMatcher::Exact(String::new()))];
        let snapshot = snapshot(vec![route("m", &[], vec![absent])]);
        assert!(hit(&snapshot, "m", &HeaderMap::new()).is_some());
    }

    #[test]
    fn a_route_without_a_matching_rule_leaves_the_request_to_the_next() {
        let mut never = rule("never");
        never.uri = StringMatcher::Exact("/v1/embeddings".into());
        let snapshot = snapshot(vec![
            route("m", &[], vec![never]),
            route("m", &[], vec![rule("x")]),
        ]);
        assert_eq!(hit(&snapshot, "m", &HeaderMap::new()), Some((1, 0, false)));
    }

    #[test]
    fn base_names_go_before_lora_names_and_a_lora_hit_says_so() {
        let snapshot = snapshot(vec![
            route("base", &["adapter", "other"], vec![rule("a")]),
            route("other", &[], vec![rule("b")]),
        ]);
        assert_eq!(
            hit(&snapshot, "adapter", &HeaderMap::new()),
            Some((0, 0, true))
        );
        assert_eq!(
            hit(&snapshot, "other", &HeaderMap::new()),
            Some((1, 0, false))
        );
        assert_eq!(hit(&snapshot, "unknown", &HeaderMap::new()), None);
    }

    #[test]
    fn the_body_model_must_be_equal() {
        let mut body = rule("body");
        body.body_model = Some("adapter".into());
        let snapshot = snapshot(vec![route("base", &["adapter"], vec![body])]);
        assert!(hit(&snapshot, "base", &HeaderMap::new()).is_none());
        assert!(hit(&snapshot, "adapter", &HeaderMap::new()).is_some());
    }

    #[test]
    fn weights_are_exact_over_the_long_run() {
        let mut random = SmallRng::seed_from_u64(7);
        let mut counts = [0u32; 3];
        for _ in 0..100_000 {
            counts[draw([90, 0, 10].into_iter(), &mut random).unwrap()] += 1;
        }
        assert_eq!(counts[1], 0);
        assert!((89_700..90_300).contains(&counts[0]), "{counts:?}");
        assert_eq!(draw([0, 0].into_iter(), &mut random), None);
    }
}
