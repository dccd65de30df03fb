//! Learning from a synthetic engine: the step formula in full, first come first served, chunked prefill.

mod engine;

use std::sync::Arc;

use super::*;
use engine::{Engine, Profile, Traffic};

/// What 200 requests teach about an engine, measured as factors of the truth.
fn learned(profile: Profile, traffic: &Traffic, seed: u64) -> [f64; 3] {
    let engine = Engine::run(profile, traffic, seed);
    let found = engine.stats.constants();
    [
        found.step_ms / (profile.step_ms + profile.base_ms),
        found.token_ms / profile.token_ms,
        found.context_ms / profile.context_ms,
    ]
}

fn profiles() -> [(&'static str, Profile); 5] {
    [
        ("H8B", engine::H8B),
        ("K7B", engine::K7B),
        ("A100-8B", engine::A100),
        ("H8B at a quarter", engine::H8B.slower(4.0)),
        ("H8B twice as fast", engine::H8B.slower(0.5)),
    ]
}

#[test]
fn two_hundred_requests_teach_an_unknown_engine() {
    let mut report = String::new();
    let mut worst: f64 = 1.0;
    for (name, profile) in profiles() {
        for load in [0.2, 0.5, 0.8] {
            for seed in 0..5 {
                let [step, token, context] = learned(profile, &Traffic::mixed(load), seed);
                report += &format!(
                    "{name:18} load {load} seed {seed}: W x{step:.2} D x{token:.2} Kd x{context:.2}\n"
                );
                worst = worst.max(step).max(1.0 / step).max(token).max(1.0 / token);
            }
        }
    }
    // 1.14 when written.
    assert!(worst < 1.25, "{report}");
}

#[test]
fn wrong_guesses_of_what_is_cached_do_little_harm() {
    for load in [0.2, 0.5, 0.8] {
        for seed in 0..5 {
            let traffic = Traffic {
                evicted: 0.15,
                ..Traffic::mixed(load)
            };
            let [step, token, _] = learned(engine::A100, &traffic, seed);
            assert!((0.8..1.25).contains(&step), "W x{step}");
            assert!((0.8..1.4).contains(&token), "D x{token}");
        }
    }
}

#[test]
fn costs_rank_engines_by_their_speed() {
    let fast = Engine::run(engine::H8B, &Traffic::mixed(0.5), 1).stats;
    let middle = Engine::run(engine::A100, &Traffic::mixed(0.5), 2).stats;
    let slow = Engine::run(engine::H8B.slower(4.0), &Traffic::mixed(0.5), 3).stats;
    let prefill = |stats: &EndpointStats| 4000.0 * stats.constants().token_ms;
    let decode = |stats: &EndpointStats| {
        let found = stats.constants();
        found.step_ms + 50_000.0 * found.context_ms
    };
    assert!(prefill(&fast) < prefill(&middle) && prefill(&middle) < prefill(&slow));
    assert!(decode(&fast) < decode(&middle) && decode(&middle) < decode(&slow));
}

/// Of an answer that comes whole, prefill is a small part, within the noise of the rest: D is learned roughly.
#[test]
fn answers_that_come_whole_teach_too() {
    let traffic = Traffic {
        streamed: false,
        ..Traffic::mixed(0.3)
    };
    for seed in 0..5 {
        let [step, token, _] = learned(engine::H8B.slower(4.0), &traffic, seed);
        assert!((0.75..1.35).contains(&step), "W x{step}");
        assert!((0.4..2.5).contains(&token), "D x{token}");
    }
}

#[test]
fn measured_means_are_told_until_they_are_old() {
    let origin = Instant::now();
    let stats = EndpointStats::starting_at(Arc::new(Level::new(Constants::DEFAULT)), origin);
    assert_eq!(stats.ttft_ms(origin), None);
    let counter = Arc::new(super::super::load::LoadCounter::default());
    let work = Work {
        prompt_tokens: 500,
        cached_tokens: 0,
    };
    let mut observation = stats.dispatched(counter.load(), work, origin);
    let first = origin + Duration::from_millis(80);
    stats.first_token(&mut observation, counter.load(), first);
    stats.first_token(&mut observation, counter.load(), first + MEMORY);
    let last = first + Duration::from_secs(1);
    stats.finished(observation, 101, counter.load(), last);
    let near = |found: Option<f64>, wanted: f64| (found.unwrap() - wanted).abs() < 1e-6;
    assert!(near(stats.ttft_ms(last), 80.0));
    assert!(near(stats.token_gap_ms(last), 10.0));
    assert_eq!(stats.view().observations, 2);
    assert_eq!(stats.ttft_ms(last + OLDEST), None, "nothing lately");
}
