//! What a change leaves alone, and what a pod's coming and going does to its state.

use std::time::SystemTime;

use sluice_config::scheduling::SchedulingParams;
use sluice_config::snapshot::{self, ModelServer};

use super::*;
use crate::endpoints::load::Work;
use crate::filters::Registry;
use crate::telemetry::BuildInfo;

fn store() -> ServingStore {
    let build = BuildInfo {
        version: "test",
        revision: "test",
    };
    let metrics = Arc::new(Metrics::new(build, SystemTime::UNIX_EPOCH));
    let chain = Chain::compile(&[], Arc::new(Registry::builtin())).unwrap();
    let budget = IndexBudget::new(1 << 20);
    ServingStore::new(chain, metrics, SchedulingParams::default(), budget)
}

fn pod(address: &str, uid: &str) -> Arc<snapshot::Endpoint> {
    let (host, _) = address.split_once(':').unwrap();
    Arc::new(snapshot::Endpoint {
        address: address.to_owned(),
        host: host.to_owned(),
        port: 1,
        uid: uid.to_owned(),
        ..snapshot::Endpoint::default()
    })
}

fn server(name: &str, endpoints: &[&Arc<snapshot::Endpoint>]) -> Arc<ModelServer> {
    let mut server = ModelServer::of(name, &[]);
    server.endpoints = endpoints.iter().map(|one| Arc::clone(one)).collect();
    Arc::new(server)
}

fn install(store: &ServingStore, servers: &[&Arc<ModelServer>]) -> Arc<Serving> {
    store.install(Arc::new(Snapshot {
        servers: servers.iter().map(|one| Arc::clone(one)).collect(),
        ..(*store.load().snapshot).clone()
    }));
    store.load()
}

#[test]
fn a_pool_that_did_not_change_is_the_same_pool() {
    let store = store();
    let (a, b) = (pod("a:1", "1"), pod("b:1", "1"));
    let (one, two) = (server("one", &[&a]), server("two", &[&b]));
    let before = install(&store, &[&one, &two]);
    let after = install(&store, &[&one, &server("two", &[])]);
    assert!(Arc::ptr_eq(&before.pools[0], &after.pools[0]));
    assert!(!Arc::ptr_eq(&before.pools[1], &after.pools[1]));
    assert!(Arc::ptr_eq(&before.pools[1].cache, &after.pools[1].cache));
    assert!(Arc::ptr_eq(&before.routes, &after.routes));
}

#[test]
fn members_that_stay_keep_their_state_whoever_comes_and_goes_around_them() {
    let store = store();
    let pods: Vec<_> = (0..40).map(|n| pod(&format!("p{n:02}:1"), "1")).collect();
    let all: Vec<_> = pods.iter().collect();
    let before = install(&store, &[&server("s", &all)]);
    let fresh = pod("p07:1", "2");
    let changed: Vec<_> = pods[2..7]
        .iter()
        .chain([&fresh])
        .chain(&pods[20..])
        .collect();
    let after = install(&store, &[&server("s", &changed)]);
    for (place, member) in after.pools[0].members.iter().enumerate() {
        assert!(Arc::ptr_eq(&member.configured, changed[place]));
        let known = before.pools[0].members.iter();
        let mut known = known.filter(|known| Arc::ptr_eq(&known.endpoint, &member.endpoint));
        match member.configured.uid.as_str() {
            "1" => assert!(Arc::ptr_eq(&known.next().unwrap().cache, &member.cache)),
            _ => assert!(known.next().is_none()),
        }
    }
}

#[test]
fn a_new_pod_at_an_old_address_starts_fresh() {
    let store = store();
    let old = install(&store, &[&server("s", &[&pod("a:1", "1")])]);
    let member = &old.pools[0].members[0];
    let since = std::time::Duration::from_secs(1);
    member.endpoint.health.unreachable(since, since);
    let _busy = member.endpoint.load.reserve(Work::default());
    let new = install(&store, &[&server("s", &[&pod("a:1", "2")])]);
    let fresh = &new.pools[0].members[0];
    assert_eq!(fresh.endpoint.address, member.endpoint.address);
    assert_eq!(fresh.endpoint.load.load().in_flight, 0);
    let admission = fresh.endpoint.health.admission(since);
    assert_eq!(admission, crate::endpoints::Admission::Healthy);
    assert!(!Arc::ptr_eq(&fresh.cache, &member.cache));
}

#[test]
fn a_pod_that_starts_to_drain_is_the_same_endpoint() {
    let store = store();
    let ready = pod("a:1", "1");
    let before = install(&store, &[&server("s", &[&ready])]);
    let draining = Arc::new(snapshot::Endpoint {
        draining: true,
        ..(*ready).clone()
    });
    let after = install(&store, &[&server("s", &[&draining])]);
    let (before, after) = (&before.pools[0].members[0], &after.pools[0].members[0]);
    assert!(after.configured.draining && !before.configured.draining);
    assert!(Arc::ptr_eq(&before.endpoint, &after.endpoint));
    assert!(Arc::ptr_eq(&before.cache, &after.cache));
}

#[test]
fn an_endpoint_is_in_use_while_a_pool_of_the_configuration_has_it() {
    let store = store();
    let a = pod("a:1", "1");
    let (one, two) = (server("one", &[&a]), server("two", &[&a]));
    let held = install(&store, &[&one, &two]);
    let link = &held.pools[0].members[0].endpoint.link;
    assert!(link.is_in_use());
    install(&store, &[&one]);
    assert!(link.is_in_use(), "one pool still has it");
    install(&store, &[]);
    assert!(!link.is_in_use(), "though a request holds it");
    install(&store, &[&two]);
    assert!(link.is_in_use());
}

#[test]
fn a_route_that_did_not_change_keeps_its_state() {
    let store = store();
    let route = |name: &str| {
        Arc::new(Route {
            namespace: "default".into(),
            name: name.into(),
            model_name: name.into(),
            lora_adapters: Vec::new(),
            rules: Vec::new(),
            filters: Default::default(),
            created: 0,
        })
    };
    let install = |routes: &[&Arc<Route>]| {
        let routes = routes.iter().map(|one| Arc::clone(one)).collect();
        store.install(Arc::new(Snapshot {
            routes: Arc::new(routes),
            ..Snapshot::default()
        }));
        store.load()
    };
    let (a, b) = (route("a"), route("b"));
    let before = install(&[&a, &b]);
    let guard = before.routes[1].reserve();
    let after = install(&[&b, &route("a")]);
    assert!(Arc::ptr_eq(&before.routes[1], &after.routes[0]));
    assert_eq!(after.routes[0].in_flight(), 1);
    drop(guard);
    assert_eq!(after.routes[0].in_flight(), 0);
}
