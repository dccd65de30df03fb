//! Cost of renaming the model and asking for usage in a scanned body.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion};
use serde_json::{Map, json};
use sluice_proxy::openai::edit::Edits;
use sluice_proxy::openai::scan::{Facts, scan};

#[path = "shared/bodies.rs"]
mod bodies;
#[path = "shared/timing.rs"]
mod timing;

use bodies::{Content, body};
use timing::best_us;

fn edits(facts: &Facts) -> Edits {
    let mut edits = Edits::new();
    edits.rename_model(facts, "llama-3-8b");
    edits.include_usage(facts);
    edits
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut figures = Map::new();
    let mut group = criterion.benchmark_group("splice");
    group.sample_size(20);
    group.warm_up_time(std::time::Duration::from_millis(200));
    group.measurement_time(std::time::Duration::from_millis(500));
    for (name, bytes) in [("1KiB", 1 << 10), ("128KiB", 128 << 10)] {
        for content in Content::ALL {
            let body = Bytes::from(body(bytes, content, true));
            let facts = scan(&body).expect("the bench writes JSON");
            let case = format!("{name}/{content:?}").to_lowercase();
            figures.insert(
                case.clone(),
                json!({
                    "pieces_us": best_us(|| edits(&facts).pieces(&body)),
                    "apply_us": best_us(|| edits(&facts).apply(&body)),
                    "unedited_us": best_us(|| Edits::new().apply(&body)),
                }),
            );
            group.bench_function(BenchmarkId::new("apply", &case), |bencher| {
                bencher.iter(|| edits(black_box(&facts)).apply(&body));
            });
            group.bench_function(BenchmarkId::new("pieces", &case), |bencher| {
                bencher.iter(|| edits(black_box(&facts)).pieces(&body));
            });
        }
    }
    group.finish();
    criterion.final_summary();
    sluice_benches::write_figures("splice", &figures.into())
        .expect("the target folder is writable");
}
