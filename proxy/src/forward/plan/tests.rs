//! Draws, exclusions and their order, over live endpoint state that the tests set.

use std::sync::Arc;
use std::time::SystemTime;

use rand::SeedableRng;
use sluice_config::Snapshot;
use sluice_config::scheduling::{PolicyParams, SchedulingParams};
use sluice_config::snapshot::ModelServer;

use super::*;
use crate::cache::budget::IndexBudget;
use crate::endpoints::load::Work;
use crate::endpoints::scrape::metrics::{EngineReport, LoraReport};
use crate::filters::{Chain, Registry};
use crate::serving::ServingStore;
use crate::telemetry::{BuildInfo, Metrics};

const NOW: Duration = Duration::from_secs(100);
/// Servers with so many endpoints each, named `SERVER-MEMBER:1`.
fn serving(sizes: &[usize]) -> Arc<Serving> {
    serving_with(sizes, &[])
}

/// The same, with these (server, member) draining.
fn serving_with(sizes: &[usize], draining: &[(usize, usize)]) -> Arc<Serving> {
    let build = BuildInfo {
        version: "test",
        revision: "test",
    };
    let metrics = Arc::new(Metrics::new(build, SystemTime::UNIX_EPOCH));
    let chain = Chain::compile(&[], Arc::new(Registry::builtin())).unwrap();
    let store = ServingStore::new(chain, metrics, scheduling(), IndexBudget::new(1 << 20));
    let server = |(server, members): (usize, &usize)| {
        let addresses: Vec<String> = (0..*members)
            .map(|member| format!("{server}-{member}:1"))
            .collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let mut pool = ModelServer::of(&format!("s{server}"), &addresses);
        for (member, endpoint) in pool.endpoints.iter_mut().enumerate() {
            Arc::make_mut(endpoint).draining = draining.contains(&(server, member));
        }
        pool
    };
    store.install(Arc::new(Snapshot {
        servers: sizes.iter().enumerate().map(server).map(Arc::new).collect(),
        ..Snapshot::default()
    }));
    store.load()
}

fn scheduling() -> SchedulingParams {
    SchedulingParams {
        policy: PolicyParams::LeastRequest,
        ..SchedulingParams::default()
    }
}

fn plan_of(serving: &Serving, servers: impl Iterator<Item = (usize, u32)>) -> Plan<'_> {
    Plan::new(serving, servers, Ask::default(), |_| None)
}

fn random() -> SmallRng {
    SmallRng::seed_from_u64(11)
}

fn next(plan: &mut Plan<'_>, random: &mut SmallRng) -> Option<(usize, usize)> {
    let choice = plan.peek(NOW, random)?;
    plan.take(choice, NOW);
    Some((choice.server, choice.member))
}

/// Refused just now: out of use for half a second.
fn eject(serving: &Serving, server: usize, member: usize) {
    let endpoint = &serving.pools[server].members[member].endpoint;
    endpoint.health.unreachable(NOW, NOW);
}

#[test]
fn targets_are_drawn_by_weight() {
    let serving = serving(&[1, 1, 1]);
    let mut random = random();
    let mut counts = [0; 3];
    for _ in 0..10_000 {
        let mut plan = plan_of(&serving, [(0, 90), (1, 10), (2, 0)].into_iter());
        counts[next(&mut plan, &mut random).unwrap().0] += 1;
    }
    assert!((8_850..9_150).contains(&counts[0]), "{counts:?}");
    assert_eq!(counts[2], 0, "no weight, no traffic");
}

#[test]
fn every_endpoint_of_a_target_is_tried_before_another_target_and_none_twice() {
    let serving = serving(&[3, 2]);
    let mut random = random();
    let mut plan = plan_of(&serving, [(0, 50), (1, 50)].into_iter());
    let order: Vec<_> = (0..5)
        .map(|_| next(&mut plan, &mut random).unwrap())
        .collect();
    let first = order[0].0;
    let size = serving.pools[first].members.len();
    assert!(order[..size].iter().all(|(server, _)| *server == first));
    assert!(order[size..].iter().all(|(server, _)| *server != first));
    let mut unique = order.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), 5, "{order:?}");
    assert!(
        next(&mut plan, &mut random).is_some(),
        "with none left untried, any will do"
    );
}

#[test]
fn an_ejected_endpoint_comes_after_the_healthy_ones_of_every_target() {
    let serving = serving(&[2, 1]);
    eject(&serving, 0, 0);
    for seed in 0..50 {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut plan = plan_of(&serving, [(0, 50), (1, 50)].into_iter());
        let order: Vec<_> = (0..3)
            .map(|_| next(&mut plan, &mut random).unwrap())
            .collect();
        assert_eq!(order[2], (0, 0), "seed {seed}: {order:?}");
    }
}

#[test]
fn a_target_with_no_usable_endpoint_is_skipped_for_the_others() {
    let serving = serving(&[1, 1, 0, 1]);
    eject(&serving, 0, 0);
    let targets = [(0, 50), (1, 50), (2, 50), (3, 0)];
    let mut random = random();
    for _ in 0..100 {
        let mut plan = plan_of(&serving, targets.into_iter());
        assert_eq!(plan.skipped(NOW).collect::<Vec<_>>(), [0, 2]);
        assert_eq!(next(&mut plan, &mut random), Some((1, 0)));
    }
}

#[test]
fn a_draining_endpoint_gets_nothing_while_another_can_take_it() {
    let serving = serving_with(&[3, 1], &[(0, 1), (1, 0)]);
    for seed in 0..50 {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut plan = plan_of(&serving, [(0, 50), (1, 50)].into_iter());
        assert_eq!(plan.skipped(NOW).collect::<Vec<_>>(), [1]);
        let order: Vec<_> = (0..4)
            .map(|_| next(&mut plan, &mut random).unwrap())
            .collect();
        let mut first = order[..2].to_vec();
        first.sort_unstable();
        assert_eq!(first, [(0, 0), (0, 2)], "seed {seed}: {order:?}");
    }
}

#[test]
fn draining_endpoints_serve_where_no_other_can() {
    let serving = serving_with(&[2], &[(0, 0), (0, 1)]);
    let mut random = random();
    let mut plan = plan_of(&serving, [(0, 1)].into_iter());
    assert_eq!(plan.skipped(NOW).count(), 0);
    assert!(next(&mut plan, &mut random).is_some());
    // One that is alive is better than one that refuses connections.
    let serving = serving_with(&[2], &[(0, 0)]);
    eject(&serving, 0, 1);
    let mut plan = plan_of(&serving, [(0, 1)].into_iter());
    assert_eq!(next(&mut plan, &mut random), Some((0, 0)));
    assert_eq!(next(&mut plan, &mut random), Some((0, 1)));
}

#[test]
fn explaining_says_who_is_draining() {
    let serving = serving_with(&[2], &[(0, 1)]);
    let mut plan = plan_of(&serving, [(0, 1)].into_iter());
    let rows = plan.explain(NOW, &mut random());
    assert_eq!((rows[0].draining, rows[0].rank), (false, Some(1)));
    assert_eq!((rows[1].draining, rows[1].rank), (true, None));
    assert_eq!(rows[1].reason, "draining");
}

#[test]
fn one_request_takes_the_probe_and_only_when_it_is_really_sent() {
    let serving = serving(&[1, 1]);
    eject(&serving, 0, 0);
    let later = NOW + Duration::from_millis(600);
    let mut random = random();
    let targets = [(0, 1)];
    for _ in 0..3 {
        let mut plan = plan_of(&serving, targets.into_iter());
        let choice = plan.peek(later, &mut random);
        assert!(!choice.unwrap().healthy);
        assert_eq!(plan.skipped(later).count(), 0, "looking takes nothing");
    }
    let mut plan = plan_of(&serving, targets.into_iter());
    let choice = plan.peek(later, &mut random);
    plan.take(choice.unwrap(), later);
    let other = plan_of(&serving, targets.into_iter());
    assert_eq!(other.skipped(later).collect::<Vec<_>>(), [0], "taken");
}

#[test]
fn what_a_filter_removed_is_never_tried_and_its_score_moves_the_rest() {
    let serving = serving(&[3]);
    let mut random = random();
    for _ in 0..20 {
        let mut plan = plan_of(&serving, [(0, 1)].into_iter());
        let mut candidates = plan.candidates();
        candidates.remove(1, "test").unwrap();
        candidates.add_score(0, 1000.0).unwrap();
        plan.apply(candidates);
        let order: Vec<_> = (0..6).map(|_| next(&mut plan, &mut random)).collect();
        assert_eq!(order[0], Some((0, 2)));
        assert_eq!(order[1], Some((0, 0)));
        assert!(!order.contains(&Some((0, 1))), "{order:?}");
    }
    let mut plan = plan_of(&serving, [(0, 1)].into_iter());
    let mut candidates = plan.candidates();
    for member in 0..3 {
        candidates.remove(member, "test").unwrap();
    }
    plan.apply(candidates);
    assert_eq!(next(&mut plan, &mut random), None);
    assert_eq!(plan.obstacle(NOW), Some("test"));
}

#[test]
fn a_pinned_target_goes_first_whatever_its_weight() {
    let serving = serving(&[1, 1, 1]);
    let mut random = random();
    for pinned in 0..3 {
        let mut plan = plan_of(&serving, [(0, 98), (1, 2), (2, 0)].into_iter());
        let mut candidates = plan.candidates();
        candidates.choose_target(pinned, "test").unwrap();
        plan.apply(candidates);
        assert_eq!(next(&mut plan, &mut random), Some((pinned, 0)));
        let second = next(&mut plan, &mut random).unwrap();
        assert_ne!(second.0, pinned, "a retry may go elsewhere");
        assert_ne!(second.0, 2, "but not where no weight is");
    }
}

#[test]
fn the_busier_endpoint_comes_second() {
    let serving = serving(&[2]);
    let _busy = serving.pools[0].members[0]
        .endpoint
        .load
        .reserve(Work::default());
    let mut random = random();
    for _ in 0..20 {
        let mut plan = plan_of(&serving, [(0, 1)].into_iter());
        assert_eq!(next(&mut plan, &mut random), Some((0, 1)));
    }
}

#[test]
fn explaining_changes_nothing_and_names_reasons() {
    let serving = serving(&[3]);
    eject(&serving, 0, 1);
    let mut plan = {
        let mut plan = plan_of(&serving, [(0, 1)].into_iter());
        let mut candidates = plan.candidates();
        candidates.remove(2, "not in this region").unwrap();
        plan.apply(candidates);
        plan
    };
    for later in [0, 600] {
        let now = NOW + Duration::from_millis(later);
        for _ in 0..3 {
            let rows = plan.explain(now, &mut random());
            assert_eq!(rows.len(), 3);
            assert_eq!((rows[0].rank.is_some(), rows[0].in_flight), (true, 0));
            assert_eq!(
                rows[1].rank.is_some(),
                later == 600,
                "probed by none of these"
            );
            assert_eq!(rows[2].reason, "not in this region");
        }
    }
    assert_eq!(plan.targets[0].tried, [false; 3]);
    assert_eq!(plan.current, None);
}

#[test]
fn without_targets_or_endpoints_there_is_no_choice() {
    let serving = serving(&[0]);
    let mut random = random();
    let mut empty = plan_of(&serving, std::iter::empty());
    assert!(empty.is_empty());
    assert_eq!(next(&mut empty, &mut random), None);
    let mut without_endpoints = plan_of(&serving, [(0, 1)].into_iter());
    assert!(!without_endpoints.is_empty());
    assert_eq!(next(&mut without_endpoints, &mut random), None);
}

#[test]
fn an_endpoint_that_answers_with_errors_at_once_is_passed_over() {
    let serving = serving(&[2]);
    let failing = &serving.pools[0].members[0].endpoint.failing;
    let mut random = random();
    let mut tries = 0;
    for _ in 0..200 {
        let mut plan = plan_of(&serving, [(0, 1)].into_iter());
        let (_, member) = next(&mut plan, &mut random).unwrap();
        // Nothing is ever in flight: by load alone both are equal.
        if member == 0 {
            failing.answered(true, NOW);
            tries += 1;
        }
    }
    assert!((1..=5).contains(&tries), "{tries} of 200");
}

#[test]
fn times_are_kept_where_nobody_can_be_chosen() {
    let serving = serving(&[1]);
    let full = EngineReport {
        loras: LoraReport {
            used: Some(1.0),
            max: Some(1.0),
            ..LoraReport::default()
        },
        ..EngineReport::default()
    };
    let reported = &serving.pools[0].members[0].endpoint.reported;
    reported.set_metrics(full, Instant::now(), Duration::from_secs(3600));
    let ask = Ask {
        model: "adapter",
        lora: true,
        ..Ask::default()
    };
    let mut plan = Plan::new(&serving, [(0, 1)].into_iter(), ask, |_| None);
    plan.time_plugins();
    assert_eq!(next(&mut plan, &mut random()), None);
    assert!(!plan.timings().is_empty());
}
