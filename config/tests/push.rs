//! Pushed documents and endpoints: what they become, how they stand beside those of files, what is refused, and that a
//! snapshot made bit by bit is the one made at once.

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

#[path = "push/bed.rs"]
mod bed;
#[path = "push/layers.rs"]
mod layers;
#[path = "push/random.rs"]
mod random;
#[path = "push/refused.rs"]
mod refused;

use std::sync::Arc;

use sluice_config::push::{EndpointMessage, MembershipMessage, ResourceType, RoleMessage};
use sluice_config::snapshot::{Role, Target};

use bed::{Bed, With, endpoint, provider, route, secret, server};

#[test]
fn a_batch_becomes_one_snapshot_with_the_endpoints_in_their_pools() {
    let mut bed = Bed::new();
    let applied = bed.put(&[
        server("pool"),
        endpoint("b", "10.0.0.2", &["pool"]),
        endpoint("a", "10.0.0.1", &["pool", "later"]),
        route("chat", "2025-01-01T00:00:00Z", &[("pool", 10)]),
    ]);
    assert_eq!((applied.update.changed, applied.refusals.len()), (true, 0));
    assert!(
        applied.update.problems.is_empty(),
        "{:?}",
        applied.update.problems
    );
    let snapshot = &applied.update.snapshot;
    assert_eq!(snapshot.generation, 1);
    assert_eq!(bed.addresses("pool"), ["10.0.0.1:8000", "10.0.0.2:8000"]);
    assert_eq!(
        snapshot.routes[0].rules[0].targets[0].target,
        Target::Server(0)
    );
    assert_eq!(snapshot.by_model["chat"], [0]);
    bed.put(&[server("later")]);
    assert_eq!(bed.addresses("later"), ["10.0.0.1:8000"]);
}

#[test]
fn an_endpoint_keeps_what_its_message_says() {
    let mut bed = Bed::new();
    let message = EndpointMessage {
        namespace: "default".into(),
        pod: "p".into(),
        uid: "u".into(),
        host: "fd00::1".into(),
        port: 8000,
        memberships: vec![MembershipMessage {
            server: "pool".into(),
            role: RoleMessage::Decode.into(),
            pd_group: "g".into(),
        }],
        labels: [("app".to_owned(), "x".to_owned())].into(),
        revision: "r".into(),
        node: "n".into(),
        zone: "z".into(),
        draining: true,
        topology: [("rack".to_owned(), "7".to_owned())].into(),
    };
    bed.put(&[
        server("pool"),
        bed::upsert(ResourceType::Endpoint, "default/p:8000", &message),
    ]);
    let snapshot = bed.snapshot();
    let found = &snapshot.servers[0].endpoints[0];
    assert_eq!(
        (&*found.address, &*found.host),
        ("[fd00::1]:8000", "fd00::1")
    );
    assert_eq!(
        (&*found.pod, &*found.uid, &*found.revision),
        ("default/p", "u", "r")
    );
    assert_eq!(
        (&*found.node, &*found.zone, found.draining),
        ("n", "z", true)
    );
    assert_eq!((found.role, &*found.pd_group), (Role::Decode, "g"));
    assert_eq!(
        (&found.labels["app"], &found.topology["rack"]),
        (&"x".into(), &"7".into())
    );
}

#[test]
fn a_change_of_one_endpoint_leaves_every_other_part_as_it_is() {
    let mut bed = Bed::new();
    bed.put(&[
        server("one"),
        server("two"),
        endpoint("a", "10.0.0.1", &["one"]),
        endpoint("b", "10.0.0.2", &["two"]),
        route("chat", "2025-01-01T00:00:00Z", &[("one", 1), ("two", 1)]),
    ]);
    let before = bed.snapshot();
    let applied = bed.put(&[endpoint("c", "10.0.0.3", &["two"])]);
    let after = applied.update.snapshot;
    assert_eq!(after.generation, before.generation + 1);
    assert!(Arc::ptr_eq(&before.servers[0], &after.servers[0]));
    assert!(!Arc::ptr_eq(&before.servers[1], &after.servers[1]));
    assert!(Arc::ptr_eq(&before.routes, &after.routes));
    assert!(Arc::ptr_eq(&before.by_model, &after.by_model));
    let kept = &before.servers[1].endpoints[0];
    assert!(Arc::ptr_eq(kept, &after.servers[1].endpoints[0]));
    // The same once more is no news.
    let applied = bed.put(&[endpoint("c", "10.0.0.3", &["two"])]);
    assert!(!applied.update.changed);
}

#[test]
fn a_change_of_one_route_compiles_no_other_and_touches_no_pool() {
    let mut bed = Bed::new();
    bed.put(&[
        server("b"),
        route("old", "2025-01-01T00:00:00Z", &[("b", 1)]),
        route("new", "2025-01-02T00:00:00Z", &[("b", 1)]),
    ]);
    let before = bed.snapshot();
    let after = bed
        .put(&[route("new", "2025-01-02T00:00:00Z", &[("b", 7)])])
        .update
        .snapshot;
    assert!(Arc::ptr_eq(&before.routes[0], &after.routes[0]));
    assert!(!Arc::ptr_eq(&before.routes[1], &after.routes[1]));
    assert!(Arc::ptr_eq(&before.servers[0], &after.servers[0]));
    // A pool in front of the others moves their places: targets follow.
    let moved = bed.put(&[server("a")]).update.snapshot;
    assert_eq!(
        moved.routes[0].rules[0].targets[0].target,
        Target::Server(1)
    );
    assert!(Arc::ptr_eq(&after.servers[0], &moved.servers[1]));
}

#[test]
fn pushed_routes_go_by_age_and_then_by_name() {
    let mut bed = Bed::new();
    bed.put(&[
        server("s"),
        route("c", "2025-01-02T00:00:00Z", &[("s", 1)]),
        route("b", "2025-01-02T00:00:00Z", &[("s", 1)]),
        route("d", "2025-01-01T00:00:00Z", &[("s", 1)]),
    ]);
    bed.put(&[route("a", "2025-01-02T00:00:00Z", &[("s", 1)])]);
    assert_eq!(bed.routes(), ["d", "a", "b", "c"]);
}

#[test]
fn a_target_without_its_server_is_passed_over_until_it_comes() {
    let mut bed = Bed::new();
    let applied = bed.put(&[route("r", "2025-01-01T00:00:00Z", &[("gone", 1)])]);
    assert!(applied.refusals.is_empty());
    let problems = &applied.update.problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(!problems[0].is_error());
    assert_eq!(
        problems[0].path,
        "spec.rules[0].targetModels[0].modelServerName"
    );
    let target = |bed: &Bed| bed.snapshot().routes[0].rules[0].targets[0].target.clone();
    assert_eq!(target(&bed), Target::Missing("default/gone".into()));
    let applied = bed.put(&[server("gone")]);
    assert_eq!(target(&bed), Target::Server(0));
    assert!(applied.update.problems.is_empty());
    bed.remove(ResourceType::ModelServer, "default/gone");
    assert_eq!(target(&bed), Target::Missing("default/gone".into()));
}

#[test]
fn an_endpoint_moves_between_pools_and_leaves_with_its_pod() {
    let mut bed = Bed::new();
    bed.put(&[
        server("one"),
        server("two"),
        endpoint("a", "10.0.0.1", &["one"]),
    ]);
    bed.put(&[endpoint("a", "10.0.0.1", &["two"])]);
    assert!(bed.addresses("one").is_empty());
    assert_eq!(bed.addresses("two"), ["10.0.0.1:8000"]);
    bed.remove(ResourceType::Endpoint, "default/a:8000");
    assert!(bed.addresses("two").is_empty());
    assert_eq!(bed.catalog.versions(ResourceType::Endpoint).count(), 0);
}

#[test]
fn written_endpoints_go_first_and_hide_a_pod_at_the_same_address() {
    let mut bed = Bed::new();
    let written = server("s").with("spec.endpoints", r#"[{"address": "10.0.0.9:8000"}]"#);
    bed.put(&[
        written,
        endpoint("a", "10.0.0.1", &["s"]),
        endpoint("z", "10.0.0.9", &["s"]),
    ]);
    assert_eq!(bed.addresses("s"), ["10.0.0.9:8000", "10.0.0.1:8000"]);
}

#[test]
fn secrets_are_kept_while_a_provider_refers_to_them() {
    let mut bed = Bed::new();
    bed.put(&[secret("key", "hunter2")]);
    assert!(bed.snapshot().secrets.is_empty(), "nobody needs it");
    bed.put(&[provider("openai", "key")]);
    assert_eq!(
        *bed.catalog.wanted_secrets(),
        ["default/key".to_owned()].into()
    );
    let applied = bed.put(&[secret("key", "hunter2")]);
    assert!(applied.update.changed);
    assert_eq!(
        bed.snapshot().secrets["default/key"].data["token"],
        b"hunter2"
    );
    assert!(!format!("{applied:?}").contains("hunter2"));
    bed.remove(ResourceType::ExternalModelProvider, "default/openai");
    assert!(bed.snapshot().secrets.is_empty());
}

#[test]
fn an_empty_batch_is_news_the_first_time_only() {
    let mut bed = Bed::new();
    let first = bed.put(&[]).update;
    assert_eq!((first.changed, first.snapshot.generation), (true, 1));
    assert!(!bed.put(&[]).update.changed);
}
