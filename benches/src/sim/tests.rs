//! The simulator as a whole, on workloads small enough for a debug build.

use std::time::Duration;

use super::prompt::Segment;
use super::workload::{Incident, Options, Request, Start, Workload};
use super::world::{self, Outcome, Setup};
use super::{ideal, policies};

fn small(name: &str, limit: usize) -> Workload {
    let options = Options {
        limit: Some(limit),
        ..Options::default()
    };
    Workload::named(name, 7, &options).unwrap()
}

fn run(workload: &Workload, setup: &Setup, policy: &str) -> Outcome {
    world::run(workload, setup, &|| policies::named(policy).unwrap())
}

fn finished(outcome: &Outcome) -> usize {
    let records = outcome.records.iter();
    records.filter(|record| record.finished.is_some()).count()
}

#[test]
fn the_same_seed_gives_the_same_outcome_and_another_does_not() {
    let workload = small("A-long", 60);
    let setup = Setup {
        replicas: 2,
        ..Setup::default()
    };
    let other = Setup {
        seed: 2,
        ..setup.clone()
    };
    for policy in ["mtl", "kthena-prefix"] {
        let first = run(&workload, &setup, policy);
        assert_eq!(first, run(&workload, &setup, policy));
        assert_ne!(first, run(&workload, &other, policy));
    }
}

#[test]
fn every_policy_answers_every_request() {
    let workload = small("C", 40);
    for policy in policies::DEFAULT_POLICIES {
        let outcome = run(&workload, &Setup::default(), policy);
        assert_eq!(finished(&outcome), 40, "{policy}");
        for record in &outcome.records {
            assert!(record.first_token >= Some(record.arrived));
            assert!(record.finished >= record.first_token);
            assert!(record.cached_tokens < record.prompt_tokens);
        }
    }
}

#[test]
fn a_turn_comes_after_the_turn_before_it_has_ended() {
    let workload = small("C", 40);
    let outcome = run(&workload, &Setup::default(), "mtl");
    let mut turns = 0;
    for (index, request) in workload.requests.iter().enumerate() {
        if let Start::After(before, wait) = request.start {
            let end = outcome.records[before].finished.unwrap();
            assert_eq!(outcome.records[index].arrived, end + wait);
            turns += 1;
        }
    }
    assert!(turns > 0);
}

#[test]
fn a_closed_loop_never_has_more_in_flight_than_callers() {
    let mut workload = small("A-short", 60);
    workload.callers = Some(5);
    let outcome = run(&workload, &Setup::default(), "mtl");
    assert_eq!(finished(&outcome), 60);
    for record in &outcome.records {
        let during = outcome.records.iter().filter(|other| {
            other.arrived <= record.arrived && other.finished > Some(record.arrived)
        });
        assert!(during.count() <= 5);
    }
}

#[test]
fn the_ideal_of_two_equal_prompts_is_all_but_the_last_block_once() {
    let request = |seed| Request {
        start: Start::At(Duration::ZERO),
        prompt: vec![Segment::text(1, 640)],
        output_tokens: 1,
        output_seed: seed,
        session: seed,
    };
    let workload = Workload {
        requests: vec![request(1), request(2)],
        ..small("C", 0)
    };
    // Ten blocks of 64, the last of which is computed again for its last token; the first prompt finds nothing.
    assert_eq!(ideal::hit_rate(&workload), 576.0 / 1280.0);
    let outcome = run(&workload, &Setup::default(), "mtl");
    assert_eq!(finished(&outcome), 2);
}

#[test]
fn events_keep_the_hits_across_replicas_and_guesses_do_not() {
    let workload = small("C", 100);
    let hits = |policy: &str, replicas: usize| {
        let setup = Setup {
            replicas,
            ..Setup::default()
        };
        let outcome = run(&workload, &setup, policy);
        let cached = outcome.records.iter().map(|record| record.cached_tokens);
        f64::from(cached.sum::<u32>())
    };
    let (one, eight) = (hits("mtl", 1), hits("mtl", 8));
    assert!(eight > 0.95 * one, "{eight} of {one}");
    let (one, eight) = (hits("llmd-322-approx", 1), hits("llmd-322-approx", 8));
    assert!(eight < 0.95 * one, "{eight} of {one}");
}

#[test]
fn a_dead_engines_requests_are_answered_by_others() {
    let mut workload = small("hot-prefix", 150);
    workload.engines.truncate(2);
    workload.incidents = vec![
        (Duration::from_secs(1), Incident::Kill(0)),
        (Duration::from_secs(2), Incident::Kill(1)),
        (Duration::from_secs(3), Incident::Start(0)),
    ];
    let outcome = run(&workload, &Setup::default(), "mtl");
    assert_eq!(finished(&outcome), 150);
    assert!(outcome.records.iter().any(|record| record.retries > 0));
    let late = outcome
        .records
        .iter()
        .filter(|record| record.arrived > Duration::from_secs(2));
    assert!(late.into_iter().all(|record| record.engine == 0));
}

#[test]
fn late_and_lost_events_told_loads_and_learned_constants_are_survived() {
    let workload = small("C", 40);
    let setup = Setup {
        replicas: 3,
        event_delay: Duration::from_millis(50),
        event_loss: 0.2,
        exchange: Some(Duration::from_millis(10)),
        constants_wrong_by: (2.0, 0.5),
        learn: true,
        ..Setup::default()
    };
    assert_eq!(finished(&run(&workload, &setup, "mtl")), 40);
}
