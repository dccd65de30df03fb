//! Cost per KiB of stream of looking for usage, counting events and withholding the usage event.

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use serde_json::{Map, json};
use sluice_proxy::openai::sse::{EventCounter, UsageFilter, UsageScan};

#[path = "shared/timing.rs"]
mod timing;

use timing::best_us;

const USAGE: &str = r#""usage":{"prompt_tokens":1000,"total_tokens":1012,"completion_tokens":12,"prompt_tokens_details":{"cached_tokens":960}}"#;

/// A stream of `count` tokens, one event a chunk.
fn stream(count: usize, continuous: bool) -> Vec<Bytes> {
    let mut chunks: Vec<Bytes> = (0..count)
        .map(|at| {
            let usage = if continuous { format!(",{USAGE}") } else { String::new() };
            Bytes::from(format!(
                "data: {{\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"meta-llama/Llama-3.1-8B-Instruct\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\" word{at}\"}},\"logprobs\":null,\"finish_reason\":null}}]{usage}}}\n\n"
            ))
        })
        .collect();
    chunks.push(Bytes::from(format!(
        "data: {{\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion.chunk\",\"choices\":[],{USAGE}}}\n\n"
    )));
    chunks.push(Bytes::from_static(b"data: [DONE]\n\n"));
    chunks
}

/// The same bytes in chunks of another size, cut through events.
fn rechunk(chunks: &[Bytes], size: usize) -> Vec<Bytes> {
    let whole = chunks.concat();
    whole.chunks(size).map(Bytes::copy_from_slice).collect()
}

fn usage_scan(chunks: &[Bytes]) -> u64 {
    let mut scan = UsageScan::new();
    for chunk in chunks {
        scan.push(chunk);
    }
    scan.usage().map_or(0, |usage| usage.completion_tokens)
}

fn count(chunks: &[Bytes]) -> u64 {
    let mut counter = EventCounter::new();
    for chunk in chunks {
        counter.push(chunk);
    }
    counter.count()
}

fn filter(chunks: &[Bytes], out: &mut Vec<Bytes>) -> u64 {
    let mut filter = UsageFilter::new();
    for chunk in chunks {
        filter.push(chunk.clone(), out);
        out.clear();
    }
    filter.finish(out);
    filter.withheld_events()
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut figures = Map::new();
    let mut group = criterion.benchmark_group("sse");
    group.sample_size(20);
    group.warm_up_time(std::time::Duration::from_millis(200));
    group.measurement_time(std::time::Duration::from_millis(500));
    let plain = stream(1000, false);
    let whole_answer = vec![Bytes::from(format!(
        "{{\"choices\":[{{\"message\":{{\"content\":\"{}\"}}}}],{USAGE}}}",
        "The quick brown fox\\n".repeat(12_000)
    ))];
    let cases = [
        ("event-a-chunk", plain.clone()),
        ("4KiB-chunks", rechunk(&plain, 4096)),
        ("continuous-usage", stream(1000, true)),
        ("whole-answer", whole_answer),
    ];
    for (case, chunks) in &cases {
        let bytes: usize = chunks.iter().map(Bytes::len).sum();
        let kib = bytes as f64 / 1024.0;
        let mut out = Vec::with_capacity(64);
        let per_kib = |us: f64| (us / kib * 10_000.0).round() / 10_000.0;
        figures.insert(
            (*case).to_owned(),
            json!({
                "bytes": bytes,
                "chunks": chunks.len(),
                "usage_scan_us_per_kib": per_kib(best_us(|| usage_scan(chunks))),
                "count_us_per_kib": per_kib(best_us(|| count(chunks))),
                "filter_us_per_kib": per_kib(best_us(|| filter(chunks, &mut out))),
            }),
        );
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::new("usage_scan", case), |bencher| {
            bencher.iter(|| usage_scan(chunks));
        });
        group.bench_function(BenchmarkId::new("filter", case), |bencher| {
            bencher.iter(|| filter(chunks, &mut out));
        });
    }
    group.finish();
    criterion.final_summary();
    sluice_benches::write_figures("sse", &figures.into()).expect("the target folder is writable");
}
