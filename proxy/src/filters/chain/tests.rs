//! Tests of compiling chains and of per-route overrides.

use serde_json::json;

use super::super::testing::{Log, chain, filter, probe, registry};
use super::*;

fn overrides<const N: usize>(given: [(&str, Value); N]) -> BTreeMap<String, FilterOverride> {
    given
        .into_iter()
        .map(|(name, change)| (name.to_owned(), serde_json::from_value(change).unwrap()))
        .collect()
}

fn refused(filters: &[FilterConfig]) -> String {
    Chain::compile(filters, registry(&Log::default()))
        .unwrap_err()
        .to_string()
}

#[test]
fn request_hooks_are_listed_in_order_and_response_hooks_in_reverse() {
    let all = json!({"body": "next", "candidates": "next", "attempt": "next", "response": "next", "chunk": "pass"});
    let filters = [
        probe("a", all.clone()),
        probe("b", json!({"head": "next"})),
        probe("c", all),
    ];
    let lists = &chain(&Log::default(), &filters).lists;
    assert_eq!(lists.request_body, [0, 2]);
    assert_eq!(lists.candidates, [0, 2]);
    assert_eq!(lists.attempt, [0, 2]);
    assert_eq!(lists.response_head, [2, 0]);
    assert_eq!(lists.response_chunk, [2, 0]);
}

#[test]
fn two_filters_of_one_name_are_refused() {
    let filters = [probe("a", json!({})), probe("a", json!({}))];
    assert_eq!(refused(&filters), "two filters are called `a`, rename one");
}

#[test]
fn an_unknown_type_is_refused_even_when_disabled() {
    let mut unknown = filter("x", "prob", Value::Null);
    unknown.disabled = true;
    let error = refused(&[unknown]);
    assert_eq!(
        error,
        "filter `x`: unknown filter type `prob`, use one of: probe"
    );
}

#[test]
fn a_bad_configuration_is_refused_even_when_disabled() {
    let mut bad = filter("x", "probe", json!({"heed": "next"}));
    bad.disabled = true;
    let error = refused(&[bad]);
    assert!(
        error.starts_with("filter `x`: heed: unknown field"),
        "{error}"
    );
}

#[test]
fn without_overrides_a_route_shares_the_chain() {
    let base = chain(&Log::default(), &[probe("a", json!({}))]);
    let route = base.with_overrides(&BTreeMap::new()).unwrap();
    assert!(Arc::ptr_eq(&base, &route));
}

#[test]
fn an_override_disables_a_filter() {
    let base = chain(&Log::default(), &[probe("a", json!({"body": "next"}))]);
    let route = base
        .with_overrides(&overrides([("a", json!({"disabled": true}))]))
        .unwrap();
    assert!(route.lists.request_body.is_empty());
    assert_eq!(base.lists.request_body, [0]);
}

#[test]
fn an_override_replaces_the_configuration_without_merging() {
    let base = chain(
        &Log::default(),
        &[probe("a", json!({"body": "next", "response": "next"}))],
    );
    let change = overrides([("a", json!({"config": {"body": "stop"}}))]);
    let route = base.with_overrides(&change).unwrap();
    assert_eq!(route.lists.request_body, [0]);
    assert!(route.lists.response_head.is_empty());
}

#[test]
fn a_configuration_switches_a_disabled_filter_on() {
    let mut off = filter("a", "probe", Value::Null);
    off.disabled = true;
    let base = chain(&Log::default(), &[off]);
    assert!(base.lists.request_body.is_empty());
    let change = overrides([("a", json!({"config": {"body": "next"}}))]);
    assert_eq!(
        base.with_overrides(&change).unwrap().lists.request_body,
        [0]
    );
}

#[test]
fn filters_without_an_override_are_the_same_plugin_in_both_chains() {
    let base = chain(
        &Log::default(),
        &[probe("a", json!({})), probe("b", json!({}))],
    );
    let route = base
        .with_overrides(&overrides([("b", json!({"config": {}}))]))
        .unwrap();
    let same = |index: usize| {
        let [one, other] = [&base, &route].map(|chain| chain.entries[index].plugin.clone());
        Arc::ptr_eq(&one.unwrap(), &other.unwrap())
    };
    assert!(same(0));
    assert!(!same(1));
}

#[test]
fn bad_overrides_say_what_to_do() {
    let base = chain(
        &Log::default(),
        &[probe("a", json!({})), probe("b", json!({}))],
    );
    let error = |change| base.with_overrides(&change).unwrap_err().to_string();
    assert_eq!(
        error(overrides([("c", json!({"disabled": true}))])),
        "no filter is called `c`, use one of: a, b"
    );
    assert_eq!(
        error(overrides([("a", json!({"disabled": true, "config": {}}))])),
        "filter `a`: `disabled` and `config` exclude each other, remove one"
    );
    let refused = error(overrides([("a", json!({"config": {"heed": 1}}))]));
    assert!(
        refused.starts_with("filter `a`: heed: unknown field"),
        "{refused}"
    );
}
