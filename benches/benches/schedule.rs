//! What a ranking costs: every policy over 8 and over 64 candidates.
//!
//! Goal: a few microseconds, small beside the 200 us a whole decision may take at 64 candidates.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::Criterion;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use sluice_config::scheduling::PolicyName;
use sluice_proxy::endpoints::load::Load;
use sluice_proxy::schedule::build::by_name;
use sluice_proxy::schedule::{CandidateView, Reported, RequestView};

const REQUEST: RequestView<'static> = RequestView {
    model: "llama",
    prompt_tokens: 4000,
    output_tokens: 200.0,
    session: Some(7),
    prefix: Some(9),
    lora: false,
};

/// A busy pool: no two candidates alike.
fn candidates<'a>(addresses: &'a [String], random: &mut SmallRng) -> Vec<CandidateView<'a>> {
    (addresses.iter())
        .map(|address| CandidateView {
            address,
            cached_tokens: random.random_range(0..4000),
            load: Load {
                in_flight: random.random_range(0..40),
                pending_tokens: random.random_range(0..20_000),
                context_tokens: random.random_range(0..200_000),
            },
            reported: Reported {
                running: Some(random.random_range(0.0..40.0)),
                waiting: Some(random.random_range(0.0..12.0)),
                kv_usage: Some(random.random_range(0.0..1.0)),
            },
            ttft_ms: Some(random.random_range(20.0..2000.0)),
            token_gap_ms: Some(random.random_range(10.0..50.0)),
            ..CandidateView::default()
        })
        .collect()
}

fn main() {
    let mut criterion = Criterion::default()
        .measurement_time(Duration::from_millis(500))
        .warm_up_time(Duration::from_millis(200))
        .configure_from_args();
    let mut figures: BTreeMap<String, f64> = BTreeMap::new();
    for count in [8, 64] {
        let mut random = SmallRng::seed_from_u64(1);
        let addresses: Vec<String> = (0..count).map(|i| format!("10.0.0.{i}:8000")).collect();
        let candidates = candidates(&addresses, &mut random);
        for name in PolicyName::ALL {
            let policy = by_name(name);
            let mut samples = Vec::new();
            let title = format!("{}/{count}", name.as_str());
            criterion.bench_function(&title, |bencher| {
                bencher.iter_custom(|calls| {
                    let start = Instant::now();
                    for _ in 0..calls {
                        black_box(policy.rank(&REQUEST, black_box(&candidates), &mut random));
                    }
                    let spent = start.elapsed();
                    samples.push(spent.as_secs_f64() * 1e9 / calls as f64);
                    spent
                });
            });
            samples.sort_by(f64::total_cmp);
            if let Some(median) = samples.get(samples.len() / 2) {
                figures.insert(title, median.round());
            }
        }
    }
    criterion.final_summary();
    let figures = json!({"unit": "ns, median", "figures": figures});
    sluice_benches::write_figures("schedule", &figures).expect("the target folder is writable");
}
