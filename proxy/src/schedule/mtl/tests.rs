use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::*;
use crate::endpoints::constants::Constants;
use crate::endpoints::load::Load;
use crate::schedule::testing::{Fleet, with_in_flight};

const REQUEST: RequestView<'static> = RequestView {
    model: "m",
    prompt_tokens: 4000,
    output_tokens: 200.0,
    session: None,
    prefix: None,
    lora: false,
};

fn load(in_flight: u32, pending_tokens: u64, context_tokens: u64) -> Load {
    Load {
        in_flight,
        pending_tokens,
        context_tokens,
    }
}

fn pool(loads: &[Load]) -> Vec<CandidateView<'static>> {
    let mut candidates = with_in_flight(&vec![0; loads.len()]);
    for (candidate, &load) in candidates.iter_mut().zip(loads) {
        candidate.load = load;
    }
    candidates
}

fn term(policy: &Mtl, request: &RequestView<'_>, pool: &[CandidateView<'_>], name: &str) -> f64 {
    let terms = policy.terms(request, pool, 0);
    let found = terms.iter().find(|term| term.name == name);
    found.expect("a known term").value
}

fn best(request: &RequestView<'_>, candidates: &[CandidateView<'_>]) -> usize {
    let mut random = SmallRng::seed_from_u64(1);
    Mtl::default().rank(request, candidates, &mut random)[0].index
}

#[track_caller]
fn near(found: f64, expected: f64) {
    assert!(
        (found - expected).abs() <= 1e-6 * expected.abs(),
        "{found} is not {expected}"
    );
}

#[test]
fn the_terms_are_those_of_the_formula() {
    let mut candidates = pool(&[load(4, 2000, 50_000)]);
    candidates[0].cached_tokens = 3000;
    let policy = Mtl::default();
    let MtlParams {
        inflicted,
        decode,
        price,
    } = policy.weights;
    let of = |name| term(&policy, &REQUEST, &candidates, name);
    let prefill = 1000.0 * (0.030 + 0.000_001_06 * (4000.0 - 500.0));
    let read = 0.000_076_2 * 50_000.0;
    let full_step = f64::sqrt(9.2 * 9.2 + (0.030 * 8192.0) * (0.030 * 8192.0)) + read;
    near(of("own wait"), 2000.0 * full_step / 8192.0);
    near(of("own prefill"), prefill);
    near(of("own first step"), read);
    near(of("delay inflicted on others"), inflicted * 4.0 * prefill);
    near(
        of("price of the engine's time"),
        price * prefill * (1.0 + inflicted * 4.0),
    );
    let sequence = 0.001 * 9.2;
    near(of("own decoding"), decode * 200.0 * (read + 4.0 * sequence));
    near(
        of("slower decoding of others"),
        decode * 0.5 * 4.0 * (0.000_076_2 * 4000.0 + sequence) * 200.0,
    );
    near(of("preemption") + 1.0, 1.0);
    near(of("unfair wait") + 1.0, 1.0);
}

#[test]
fn preemption_is_charged_above_95_per_cent_of_the_cache() {
    let candidates = pool(&[load(40, 0, 380_000)]);
    let excess = 380_000.0 + 4000.0 + 200.0 - 0.95 * 385_000.0;
    let expected = excess / 380_000.0 * 200.0 * (9.2 + 0.000_076_2 * 380_000.0);
    let policy = Mtl::default();
    near(term(&policy, &REQUEST, &candidates, "preemption"), expected);
    let crowded_out = pool(&[load(40, 0, 380_000), load(40, 0, 200_000)]);
    assert_eq!(best(&REQUEST, &crowded_out), 1);
}

#[test]
fn a_warm_engine_is_kept_until_others_are_cheaper() {
    let mut candidates = pool(&[load(4, 1000, 20_000), load(1, 0, 5000)]);
    candidates[0].cached_tokens = 3900;
    assert_eq!(best(&REQUEST, &candidates), 0);
    candidates[0].load = load(30, 40_000, 200_000);
    assert_eq!(best(&REQUEST, &candidates), 1);
}

#[test]
fn where_all_hold_the_prompt_queue_context_and_requests_decide() {
    for (better, worse) in [
        (load(5, 0, 50_000), load(5, 3000, 50_000)),
        (load(5, 0, 50_000), load(5, 0, 150_000)),
        (load(5, 0, 50_000), load(25, 0, 50_000)),
    ] {
        let mut candidates = pool(&[worse, better]);
        for candidate in &mut candidates {
            candidate.cached_tokens = 4000;
        }
        assert_eq!(best(&REQUEST, &candidates), 1);
    }
}

#[test]
fn a_guess_of_the_output_scales_the_decode_terms_alone() {
    let mut candidates = pool(&[load(4, 2000, 50_000)]);
    let policy = Mtl::default();
    let terms = policy.terms(&REQUEST, &candidates, 0);
    let doubled = RequestView {
        output_tokens: 400.0,
        ..REQUEST
    };
    for (once, twice) in terms.iter().zip(policy.terms(&doubled, &candidates, 0)) {
        let decoding = ["own decoding", "slower decoding of others"].contains(&once.name);
        near(twice.value, once.value * if decoding { 2.0 } else { 1.0 });
    }
    candidates.push(candidates[0].clone());
    for unknown in [0.0, f64::NAN, f64::INFINITY, -3.0] {
        let request = RequestView {
            output_tokens: unknown,
            ..REQUEST
        };
        assert!(rank::sum(&policy.terms(&request, &candidates, 0)).is_finite());
    }
}

#[test]
fn the_decode_terms_fade_out_as_every_cache_fills() {
    let policy = Mtl::default();
    let decoding = |loads: &[Load]| term(&policy, &REQUEST, &pool(loads), "own decoding");
    let (half, full) = (load(9, 0, 190_000), load(9, 0, 380_000));
    assert!(decoding(&[full, half]) > 0.0, "one has room");
    near(decoding(&[full, full]) + 1.0, 1.0);
    let almost = load(9, 0, 336_875);
    let unfaded = policy.weights.decode * 200.0 * (0.000_076_2 * 336_875.0 + 9.0 * 0.0092);
    near(decoding(&[almost, full]), unfaded / 2.0);
}

#[test]
fn an_engines_own_word_on_its_cache_goes_before_our_count() {
    let policy = Mtl::default();
    let mut candidates = pool(&[load(9, 0, 380_000), load(9, 0, 380_000)]);
    candidates[1].reported.kv_usage = Some(0.3);
    assert!(term(&policy, &REQUEST, &candidates, "own decoding") > 0.0);
}

#[test]
fn in_overload_an_unfair_wait_is_charged_and_in_calm_it_is_not() {
    let policy = Mtl::default();
    let unfair = |loads: &[Load]| term(&policy, &REQUEST, &pool(loads), "unfair wait");
    let (long, short) = (load(9, 120_000, 100_000), load(9, 30_000, 100_000));
    assert!(unfair(&[long, short, short]) > 0.0);
    near(unfair(&[short, long, long]) + 1.0, 1.0);
    near(unfair(&[load(1, 6000, 6000), load(0, 0, 0)]) + 1.0, 1.0);
}

#[test]
fn a_slow_engine_is_charged_for_its_slowness() {
    let mut candidates = pool(&[load(4, 2000, 50_000), load(4, 2000, 50_000)]);
    candidates[0].constants = Constants {
        step_ms: 18.4,
        token_ms: 0.060,
        ..Constants::DEFAULT
    };
    assert_eq!(best(&REQUEST, &candidates), 1);
}

#[test]
fn prompts_of_a_few_tokens_spread_over_equal_engines() {
    let tiny = RequestView {
        prompt_tokens: 3,
        output_tokens: 16.0,
        ..REQUEST
    };
    let shares = |wrong_by: f64| {
        let mut fleet = Fleet::equal(2, 0);
        // Equal, but learned a little differently.
        fleet.slow_down(0, wrong_by);
        let mut counts = fleet.dispatch(&Mtl::default(), &tiny, 4000, 0.5);
        counts.sort_unstable();
        counts[0]
    };
    assert!(shares(1.0) > 1800, "{}", shares(1.0));
    assert!(shares(1.2) > 1400, "{}", shares(1.2));
}

#[test]
fn where_prompts_cost_next_to_nothing_requests_in_flight_decide() {
    let tiny = RequestView {
        prompt_tokens: 3,
        output_tokens: 16.0,
        ..REQUEST
    };
    let mut candidates = pool(&[load(60, 0, 900), load(20, 0, 300)]);
    for candidate in &mut candidates {
        candidate.constants.token_ms = 0.0015;
        candidate.constants.context_ms = 0.000_004;
    }
    for seed in 0..20 {
        let mut random = SmallRng::seed_from_u64(seed);
        let ranking = Mtl::default().rank(&tiny, &candidates, &mut random);
        assert_eq!(ranking[0].index, 1, "not a matter of chance");
    }
}
