//! Tests of the `canary` filter.

use bytes::Bytes;
use http::HeaderValue;
use serde_json::json;

use super::super::testing::{body, builtin, info, now, refusal, request};
use super::super::{Chain, Flow, Stream};
use super::*;

fn targets<const N: usize>(shares: [(&str, u32); N]) -> Vec<TargetView> {
    let target = |(server, weight): (&str, u32)| TargetView {
        server: server.into(),
        weight,
    };
    shares.map(target).to_vec()
}

/// The choice for a request with these headers from `user`, between `stable` (90) and `canary` (10).
fn choice(
    chain: &Arc<Chain>,
    headers: &[(&'static str, &str)],
    user: Option<&str>,
) -> Option<(usize, &'static str)> {
    choice_among(
        targets([("stable", 90), ("canary", 10)]),
        chain,
        headers,
        user,
    )
}

fn choice_among(
    targets: Vec<TargetView>,
    chain: &Arc<Chain>,
    headers: &[(&'static str, &str)],
    user: Option<&str>,
) -> Option<(usize, &'static str)> {
    let mut stream = Stream::new(chain, info());
    let (mut head, bytes) = (request(), Bytes::new());
    for (name, value) in headers {
        head.headers
            .insert(*name, HeaderValue::from_str(value).unwrap());
    }
    let view = BodyView {
        user,
        ..body(&bytes)
    };
    assert_eq!(now(stream.request_head(&mut head)), Flow::Next);
    assert_eq!(now(stream.request_body(&mut head, &view)), Flow::Next);
    let mut candidates = Candidates::new(targets, Vec::new());
    assert_eq!(stream.candidates(&head, &mut candidates), Flow::Next);
    candidates.chosen()
}

#[test]
fn a_header_names_the_target() {
    let chain = builtin("canary", json!({"header": "x-target"}));
    assert_eq!(
        choice(&chain, &[("x-target", "canary")], None),
        Some((1, "header"))
    );
    assert_eq!(
        choice(&chain, &[("x-target", "stable")], None),
        Some((0, "header"))
    );
    assert_eq!(choice(&chain, &[("x-target", "other")], None), None);
    assert_eq!(choice(&chain, &[], None), None);
}

#[test]
fn a_header_may_name_a_target_without_weight() {
    let chain = builtin("canary", json!({"header": "x-target"}));
    let targets = targets([("stable", 100), ("canary", 0)]);
    let chosen = choice_among(targets, &chain, &[("x-target", "canary")], None);
    assert_eq!(chosen, Some((1, "header")));
}

#[test]
fn with_a_map_only_its_values_choose() {
    let values = json!({"always": "canary", "never": "stable"});
    let chain = builtin("canary", json!({"header": "x-canary", "values": values}));
    assert_eq!(
        choice(&chain, &[("x-canary", "always")], None),
        Some((1, "header"))
    );
    assert_eq!(
        choice(&chain, &[("x-canary", "never")], None),
        Some((0, "header"))
    );
    assert_eq!(choice(&chain, &[("x-canary", "canary")], None), None);
}

#[test]
fn the_header_goes_before_stickiness() {
    let chain = builtin("canary", json!({"header": "x-target", "stickyBy": "user"}));
    for user in (0..50).map(|number| format!("user-{number}")) {
        let chosen = choice(&chain, &[("x-target", "canary")], Some(&user));
        assert_eq!(chosen, Some((1, "header")));
    }
}

#[test]
fn without_a_user_the_choice_is_left_to_the_weights() {
    let chain = builtin("canary", json!({"stickyBy": "user"}));
    assert_eq!(choice(&chain, &[], None), None);
}

#[test]
fn one_user_stays_on_one_target_and_the_shares_are_the_weights() {
    let chain = builtin("canary", json!({"stickyBy": "user"}));
    let mut on_canary = 0;
    for user in (0..10_000).map(|number| format!("user-{number}")) {
        let chosen = choice(&chain, &[], Some(&user));
        assert_eq!(chosen, choice(&chain, &[], Some(&user)));
        on_canary += usize::from(chosen == Some((1, "sticky")));
    }
    assert!(
        (850..=1150).contains(&on_canary),
        "{on_canary} of 10000, wanted 10 %"
    );
}

#[test]
fn shares_hold_among_three_targets() {
    let targets = targets([("a", 50), ("b", 30), ("c", 20)]);
    let mut counts = [0_i32; 3];
    for number in 0..10_000 {
        let key = hash::of(format!("session-{number}").as_bytes());
        counts[sticky_target(key, &targets).unwrap()] += 1;
    }
    for (count, wanted) in counts.into_iter().zip([5000, 3000, 2000]) {
        assert!((count - wanted).abs() <= 150, "{counts:?}");
    }
}

#[test]
fn a_higher_weight_moves_users_only_towards_that_target() {
    let (before, after) = (
        targets([("stable", 90), ("canary", 10)]),
        targets([("stable", 70), ("canary", 30)]),
    );
    let mut moved = 0;
    for number in 0..10_000 {
        let key = hash::of(format!("user-{number}").as_bytes());
        let pair = (sticky_target(key, &before), sticky_target(key, &after));
        assert_ne!(pair, (Some(1), Some(0)), "user-{number} went back");
        moved += i32::from(pair == (Some(0), Some(1)));
    }
    assert!(
        (1850..=2150).contains(&moved),
        "{moved} of 10000 moved, wanted 20 %"
    );
}

#[test]
fn a_target_without_weight_is_never_sticky() {
    let targets = targets([("stable", 0), ("canary", 1)]);
    assert!((0..100).all(|key| sticky_target(hash::mix(key), &targets) == Some(1)));
    assert_eq!(sticky_target(1, &[]), None);
}

#[test]
fn stickiness_may_follow_a_header() {
    let chain = builtin("canary", json!({"stickyBy": "header:X-Tenant"}));
    let tenants: Vec<_> = (0..200).map(|number| format!("tenant-{number}")).collect();
    let chosen = |tenant: &String| choice(&chain, &[("x-tenant", tenant)], None);
    let targets: Vec<_> = tenants.iter().map(chosen).collect();
    assert_eq!(targets, tenants.iter().map(chosen).collect::<Vec<_>>());
    assert!(targets.contains(&Some((0, "sticky"))));
    assert!(targets.contains(&Some((1, "sticky"))));
    assert_eq!(choice(&chain, &[("x-tenant", "")], None), None);
}

#[test]
fn the_body_is_only_asked_for_when_it_decides() {
    let hooks = |config| build(&config).unwrap().hooks();
    assert_eq!(hooks(json!({"header": "x"})), Hooks::CANDIDATES);
    assert_eq!(hooks(json!({"stickyBy": "header:x"})), Hooks::CANDIDATES);
    let with_body = Hooks::REQUEST_BODY | Hooks::CANDIDATES;
    assert_eq!(hooks(json!({"stickyBy": "session"})), with_body);
}

#[test]
fn bad_settings_are_refused_by_name() {
    let refusal = |config| refusal(KIND, config);
    assert!(refusal(json!({})).starts_with("nothing to do"));
    assert!(refusal(json!({"header": "x y"})).starts_with("header: `x y`"));
    assert!(refusal(json!({"stickyBy": "header:"})).starts_with("stickyBy: ``"));
    assert_eq!(
        refusal(json!({"stickyBy": "ip"})),
        "stickyBy: `ip` is unknown, use `user`, `session` or `header:NAME`"
    );
    let lonely = json!({"stickyBy": "user", "values": {"a": "b"}});
    assert!(refusal(lonely).starts_with("values: "));
    assert!(refusal(json!({"sticky": "user"})).contains("`sticky`"));
}
