//! Cost of the one pass over a request body, with sonic-rs reading the same fields alongside.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use serde::Deserialize;
use serde_json::{Map, json};
use sluice_proxy::openai::scan::scan;

#[path = "shared/bodies.rs"]
mod bodies;
#[path = "shared/timing.rs"]
mod timing;

use bodies::{Content, body};
use timing::best_us;

const SIZES: [(&str, usize); 4] = [
    ("1KiB", 1 << 10),
    ("16KiB", 16 << 10),
    ("128KiB", 128 << 10),
    ("1MiB", 1 << 20),
];

/// The same fields by a typed parser.
#[derive(Deserialize)]
struct Typed<'a> {
    #[serde(borrow)]
    model: std::borrow::Cow<'a, str>,
    stream: Option<bool>,
    max_tokens: Option<u64>,
    #[serde(borrow)]
    messages: sonic_rs::LazyValue<'a>,
}

fn typed(body: &[u8]) -> usize {
    let typed: Typed<'_> = sonic_rs::from_slice(body).expect("the bench writes JSON");
    black_box((typed.stream, typed.max_tokens));
    typed.model.len() + typed.messages.as_raw_str().len()
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut figures = Map::new();
    let mut group = criterion.benchmark_group("scan");
    group.sample_size(20);
    group.warm_up_time(std::time::Duration::from_millis(200));
    group.measurement_time(std::time::Duration::from_millis(500));
    for (name, bytes) in SIZES {
        for content in Content::ALL {
            for model_first in [true, false] {
                let text = body(bytes, content, model_first);
                let place = if model_first { "first" } else { "last" };
                let case = format!("{name}/{content:?}/model-{place}").to_lowercase();
                figures.insert(
                    case.clone(),
                    json!({
                        "bytes": text.len(),
                        "scan_us": best_us(|| scan(text.as_bytes())),
                        "sonic_us": best_us(|| typed(text.as_bytes())),
                        "utf8_us": best_us(|| std::str::from_utf8(text.as_bytes()).is_ok()),
                    }),
                );
                // Criterion only where a regression would show: the rest is in the figures.
                if bytes == 128 << 10 && !model_first {
                    group.throughput(Throughput::Bytes(text.len() as u64));
                    group.bench_with_input(
                        BenchmarkId::new("own", &case),
                        &text,
                        |bencher, text| {
                            bencher.iter(|| scan(black_box(text.as_bytes())));
                        },
                    );
                    group.bench_with_input(
                        BenchmarkId::new("sonic", &case),
                        &text,
                        |bencher, text| {
                            bencher.iter(|| typed(black_box(text.as_bytes())));
                        },
                    );
                }
            }
        }
    }
    group.finish();
    criterion.final_summary();
    sluice_benches::write_figures("scan", &figures.into()).expect("the target folder is writable");
}
