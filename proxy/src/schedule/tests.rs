//! What holds for every policy: who may be chosen, what costs may be, and how a fleet fares under it.

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use sluice_config::scheduling::PolicyName;

use super::build::by_name;
use super::testing::{Fleet, with_in_flight};
use super::*;

const REQUEST: RequestView<'static> = RequestView {
    model: "m",
    prompt_tokens: 2000,
    output_tokens: 200.0,
    session: Some(7),
    prefix: Some(9),
    lora: true,
};

/// Values an engine or a filter may come up with, good and bad.
fn figure() -> impl Strategy<Value = Option<f64>> {
    prop_oneof![
        3 => (0.0..1000.0).prop_map(Some),
        1 => (0.0..1.0).prop_map(Some),
        1 => Just(None),
        1 => prop::sample::select(vec![
            Some(f64::NAN), Some(f64::INFINITY), Some(f64::NEG_INFINITY), Some(-1.0), Some(f64::MAX),
        ]),
    ]
}

fn candidate() -> impl Strategy<Value = CandidateView<'static>> {
    let adapter = prop::sample::select(vec![
        Adapter::Unknown,
        Adapter::Loaded,
        Adapter::Loadable,
        Adapter::Full,
    ]);
    let load = (0..500u32, 0..2_000_000u64, 0..2_000_000u64);
    let reported = (figure(), figure(), figure());
    let rest = (
        figure(),
        figure(),
        0..4000u32,
        prop::bool::weighted(0.2),
        -50.0..500.0,
    );
    (adapter, load, reported, rest).prop_map(|(adapter, load, reported, rest)| CandidateView {
        adapter,
        load: Load {
            in_flight: load.0,
            pending_tokens: load.1,
            context_tokens: load.2,
        },
        reported: Reported {
            running: reported.0,
            waiting: reported.1,
            kv_usage: reported.2,
        },
        ttft_ms: rest.0,
        token_gap_ms: rest.1,
        cached_tokens: rest.2,
        excluded: rest.3.then_some("excluded"),
        penalty_ms: rest.4,
        ..CandidateView::default()
    })
}

fn candidates() -> impl Strategy<Value = Vec<CandidateView<'static>>> {
    prop::collection::vec(candidate(), 0..12).prop_map(|mut candidates| {
        let named = with_in_flight(&vec![0; candidates.len()]);
        for (candidate, named) in candidates.iter_mut().zip(named) {
            candidate.address = named.address;
        }
        candidates
    })
}

fn costs(policy: &dyn Policy, candidates: &[CandidateView<'_>]) -> Vec<Option<f64>> {
    let mut random = SmallRng::seed_from_u64(3);
    let mut costs = vec![None; candidates.len()];
    for ranked in policy.rank(&REQUEST, candidates, &mut random) {
        costs[ranked.index] = Some(ranked.cost);
    }
    costs
}

proptest! {
    #[test]
    fn every_candidate_that_may_be_chosen_is_ranked_once_at_a_finite_cost(
        candidates in candidates(),
    ) {
        for name in PolicyName::ALL {
            let mut random = SmallRng::seed_from_u64(1);
            let ranking = by_name(name).rank(&REQUEST, &candidates, &mut random);
            prop_assert!(ranking.iter().all(|ranked| ranked.cost.is_finite()), "{:?}", name);
            let mut ranked: Vec<usize> = ranking.iter().map(|ranked| ranked.index).collect();
            ranked.sort_unstable();
            let expected: Vec<usize> = rank::eligible(&candidates).map(|(index, _)| index).collect();
            prop_assert_eq!(ranked, expected, "{:?}", name);
        }
    }

    #[test]
    fn the_order_of_the_candidates_does_not_matter(candidates in candidates()) {
        let turned: Vec<_> = candidates.iter().rev().cloned().collect();
        for name in PolicyName::ALL {
            if matches!(name, PolicyName::Random | PolicyName::RoundRobin) {
                continue;
            }
            let policy = by_name(name);
            let (straight, turned) = (costs(&*policy, &candidates), costs(&*policy, &turned));
            for (one, other) in straight.iter().zip(turned.iter().rev()) {
                let (one, other) = (one.unwrap_or(-1.0), other.unwrap_or(-1.0));
                prop_assert!((one - other).abs() <= 1e-9 * one.abs(), "{name:?}: {one} {other}");
            }
        }
    }

    #[test]
    fn terms_add_up_to_the_cost(candidates in candidates()) {
        for name in PolicyName::ALL {
            let policy = by_name(name);
            for (index, cost) in costs(&*policy, &candidates).into_iter().enumerate() {
                let terms = policy.terms(&REQUEST, &candidates, index);
                let Some(cost) = cost.filter(|_| !terms.is_empty()) else { continue };
                let sum = rank::sum(&terms);
                prop_assert!((sum - cost).abs() <= 1e-9 * cost.abs().max(1.0), "{name:?}: {sum} {cost}");
            }
        }
    }

    #[test]
    fn more_pending_never_lowers_the_cost_and_more_cached_never_raises_it(
        mut candidates in candidates(),
        pending in 1..1_000_000u64,
        cached in 1..4000u32,
    ) {
        prop_assume!(!candidates.is_empty());
        candidates[0].excluded = None;
        let mtl = Mtl::default();
        let before = costs(&mtl, &candidates)[0].unwrap_or_default();
        candidates[0].load.pending_tokens += pending;
        let busier = costs(&mtl, &candidates)[0].unwrap_or_default();
        prop_assert!(busier >= before, "{busier} {before}");
        candidates[0].cached_tokens += cached;
        let warmer = costs(&mtl, &candidates)[0].unwrap_or_default();
        prop_assert!(warmer <= busier, "{warmer} {busier}");
    }
}

#[test]
fn a_policy_that_explains_itself_says_so_for_every_candidate() {
    let candidates = with_in_flight(&[1, 2]);
    for name in [
        PolicyName::Mtl,
        PolicyName::KvcacheAware,
        PolicyName::Kthena,
    ] {
        assert!(!by_name(name).terms(&REQUEST, &candidates, 1).is_empty());
    }
}

/// Policies that look at load; the rest are chance, turn, or sticky by intent.
const SPREADING: [PolicyName; 8] = [
    PolicyName::Mtl,
    PolicyName::Lmetric,
    PolicyName::LeastRequest,
    PolicyName::PrefixCache,
    PolicyName::KvcacheAware,
    PolicyName::Session,
    PolicyName::BoundedHash,
    PolicyName::Kthena,
];

#[test]
fn a_hot_prefix_spreads_over_equal_endpoints_by_itself() {
    for name in SPREADING {
        let mut fleet = Fleet::equal(8, 1500);
        let dispatched = fleet.dispatch(&*by_name(name), &REQUEST, 1000, 1.0);
        let mean = 1000.0 / 8.0;
        let most = f64::from(*dispatched.iter().max().expect("eight of them"));
        assert!(most <= 1.3 * mean, "{name:?}: {dispatched:?}");
    }
}

#[test]
fn an_endpoint_of_half_the_speed_gets_clearly_less() {
    for name in [PolicyName::Mtl, PolicyName::Sticky] {
        let mut fleet = Fleet::equal(4, 0);
        fleet.slow_down(0, 2.0);
        let request = RequestView {
            prompt_tokens: 8000,
            ..REQUEST
        };
        let dispatched = fleet.dispatch(&*by_name(name), &request, 1000, 80.0);
        let others = f64::from(dispatched[1..].iter().sum::<u32>()) / 3.0;
        let share = f64::from(dispatched[0]) / others;
        assert!((0.25..0.75).contains(&share), "{name:?}: {dispatched:?}");
    }
}
