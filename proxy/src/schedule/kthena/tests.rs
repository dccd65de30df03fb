use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::*;
use crate::schedule::testing::with_in_flight;

fn only(plugin: ScorePlugin) -> Kthena {
    Kthena {
        params: KthenaParams {
            filters: Vec::new(),
            scores: vec![(plugin, 1)],
            ..KthenaParams::default()
        },
    }
}

const REQUEST: RequestView<'static> = RequestView {
    model: "m",
    prompt_tokens: 1000,
    output_tokens: 100.0,
    session: None,
    prefix: None,
    lora: true,
};

/// Scores by candidate: what is not missed of 100.
fn scores(policy: &Kthena, candidates: &[CandidateView<'_>]) -> Vec<f64> {
    let terms = |index| policy.terms(&REQUEST, candidates, index);
    (0..candidates.len())
        .map(|index| 100.0 - rank::sum(&terms(index)))
        .collect()
}

fn order(policy: &Kthena, candidates: &[CandidateView<'_>]) -> Vec<usize> {
    let mut random = SmallRng::seed_from_u64(1);
    let ranking = policy.rank(&REQUEST, candidates, &mut random);
    ranking.iter().map(|ranked| ranked.index).collect()
}

#[test]
fn least_request_counts_those_that_cannot_run_a_hundredfold() {
    let mut candidates = with_in_flight(&[4, 2, 0]);
    assert_eq!(
        scores(&only(ScorePlugin::LeastRequest), &candidates),
        [0.0, 50.0, 100.0]
    );
    candidates[1].reported.running = Some(1.0);
    let found = scores(&only(ScorePlugin::LeastRequest), &candidates);
    assert_eq!(found[1], 0.0);
    assert!((found[0] - (102.0 - 4.0) / 1.02).abs() < 1e-9, "{found:?}");
    let idle = with_in_flight(&[0, 0]);
    assert_eq!(
        scores(&only(ScorePlugin::LeastRequest), &idle),
        [100.0, 100.0]
    );
}

#[test]
fn gpu_usage_takes_a_silent_engine_for_average() {
    let mut candidates = with_in_flight(&[0, 0, 0]);
    let policy = only(ScorePlugin::GpuUsage);
    assert_eq!(scores(&policy, &candidates), [50.0; 3]);
    candidates[0].reported.kv_usage = Some(0.2);
    candidates[1].reported.kv_usage = Some(0.6);
    let expected = [80.0, 40.0, 60.0];
    for (found, expected) in scores(&policy, &candidates).iter().zip(expected) {
        assert!((found - expected).abs() < 1e-9);
    }
}

#[test]
fn least_latency_blends_two_ranges() {
    let mut candidates = with_in_flight(&[0, 0, 0, 0]);
    let measured = [(100.0, 10.0), (300.0, 20.0), (200.0, 10.0)];
    for (candidate, (ttft, gap)) in candidates.iter_mut().zip(measured) {
        (candidate.ttft_ms, candidate.token_gap_ms) = (Some(ttft), Some(gap));
    }
    let found = scores(&only(ScorePlugin::LeastLatency), &candidates);
    assert_eq!(found, [100.0, 0.0, 75.0, 50.0]);
}

#[test]
fn every_holder_scores_its_share_of_the_whole_prompt() {
    let mut candidates = with_in_flight(&[0; 8]);
    for (index, candidate) in candidates.iter_mut().enumerate() {
        candidate.cached_tokens = 100 * index as u32;
    }
    let expected: Vec<f64> = (0..8).map(|index| 10.0 * f64::from(index)).collect();
    for plugin in [ScorePlugin::PrefixCache, ScorePlugin::KvcacheAware] {
        for (found, expected) in scores(&only(plugin), &candidates).iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-9);
        }
    }
}

#[test]
fn weights_decide_between_plugins() {
    let mut candidates = with_in_flight(&[10, 6]);
    candidates[0].cached_tokens = 500;
    let blend = |cache: u32, load: u32| Kthena {
        params: KthenaParams {
            scores: vec![
                (ScorePlugin::PrefixCache, cache),
                (ScorePlugin::LeastRequest, load),
            ],
            ..KthenaParams::default()
        },
    };
    assert_eq!(order(&blend(1, 1), &candidates), [0, 1]);
    assert_eq!(order(&blend(1, 2), &candidates), [1, 0]);
}

#[test]
fn what_a_filter_removes_comes_last_and_a_silent_engine_stays() {
    let mut candidates = with_in_flight(&[0, 5, 9]);
    candidates[0].reported.waiting = Some(10.0);
    candidates[1].reported.waiting = Some(9.0);
    let policy = Kthena::default();
    assert_eq!(order(&policy, &candidates), [1, 2, 0]);
    let terms = policy.terms(&REQUEST, &candidates, 0);
    assert!(terms.iter().any(|term| term.name == "filtered"));
}

#[test]
fn a_filter_that_would_leave_nobody_is_passed_over() {
    let mut candidates = with_in_flight(&[3, 1]);
    for candidate in &mut candidates {
        candidate.reported.waiting = Some(50.0);
        candidate.adapter = Adapter::Full;
    }
    let mut policy = Kthena::default();
    policy.params.filters = vec![FilterPlugin::LeastRequest, FilterPlugin::LoraAffinity];
    assert_eq!(order(&policy, &candidates), [1, 0]);
    candidates[0].adapter = Adapter::Loaded;
    assert_eq!(order(&policy, &candidates), [0, 1]);
}

#[test]
fn chance_alone_is_chance() {
    let policy = only(ScorePlugin::Random);
    let candidates = with_in_flight(&[0, 9]);
    let mut random = SmallRng::seed_from_u64(1);
    let mut first = [0u32; 2];
    for _ in 0..2000 {
        first[policy.rank(&REQUEST, &candidates, &mut random)[0].index] += 1;
    }
    assert!(first.iter().all(|&count| count > 850), "{first:?}");
}

#[test]
fn every_plugin_is_told_of_in_turn_and_the_ranking_is_the_same() {
    let candidates = with_in_flight(&[3, 1, 2]);
    let policy = Kthena::default();
    let mut told = Vec::new();
    let mut random = SmallRng::seed_from_u64(1);
    let mut ran = |plugin: Plugin| told.push((plugin.kind, plugin.name));
    let ranking = policy.rank_told(&REQUEST, &candidates, &mut random, &mut ran);
    let expected = [
        (PluginKind::Filter, "least-request"),
        (PluginKind::Score, "least-request"),
        (PluginKind::Score, "gpu-usage"),
        (PluginKind::Score, "least-latency"),
        (PluginKind::Score, "prefix-cache"),
    ];
    assert_eq!(told, expected);
    let mut random = SmallRng::seed_from_u64(1);
    assert_eq!(ranking, policy.rank(&REQUEST, &candidates, &mut random));
}
