//! What knowledge of caches costs: hashing a prompt, one decision's look-up, a dispatch, ingesting KV events while
//! decisions go on, and memory per (block, endpoint) pair.
//!
//! `target/bench/cache.json`: `figures.NAME` in microseconds (fastest of many calls), `ingest` (blocks a second on
//! one core, with and without 1,000 decisions a second beside it, and these decisions' p50 and p99 in microseconds),
//! `memory` (booked bytes and resident bytes per pair).

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use serde_json::{Value, json};
use sluice_proxy::cache::budget::IndexBudget;
use sluice_proxy::cache::chain::{Chain, seed, token_seed};
use sluice_proxy::cache::event::{EngineHash, KvEvent, Medium, Stored};
use sluice_proxy::cache::index::{Index, Slot};

#[path = "shared/timing.rs"]
mod timing;

use timing::best_us;

const BLOCK: u32 = 16;
const SLOTS: usize = 64;
const PROMPTS: [(&str, u32); 3] = [("4k", 4 << 10), ("32k", 32 << 10), ("128k", 128 << 10)];

type Figures = BTreeMap<String, f64>;

fn tokens(id: u32, count: u32) -> Vec<u32> {
    let start = id.wrapping_mul(0x9E37_79B1);
    (0..count).map(|at| start ^ at.wrapping_mul(31)).collect()
}

fn chain(id: u32, count: u32) -> Chain {
    Chain::of_tokens(token_seed(None), &tokens(id, count), BLOCK)
}

fn index() -> Index {
    Index::new(IndexBudget::new(1 << 30))
}

fn attach(index: &Index, count: usize) -> Vec<Slot> {
    (0..count).filter_map(|_| index.attach()).collect()
}

/// An event that stores `blocks` blocks of one sequence, under engine hashes that count up from `first`.
fn event(id: u32, first: u64, blocks: u32) -> KvEvent {
    KvEvent::Stored(Stored {
        hashes: (0..u64::from(blocks))
            .map(|at| EngineHash(first + at))
            .collect(),
        parent: None,
        tokens: tokens(id, blocks * BLOCK),
        block_size: BLOCK,
        lora: None,
        medium: Medium::Device,
        group: None,
        partial_attention: false,
        extra: Vec::new(),
    })
}

fn hashing(criterion: &mut Criterion, figures: &mut Figures) {
    let mut group = criterion.benchmark_group("cache/hash");
    let text: Vec<u8> = (0..512 << 10).map(|at: u32| (at * 7) as u8).collect();
    for (name, tokens) in PROMPTS {
        let text = &text[..tokens as usize * 4];
        let run = || {
            let mut chain = Chain::bytes(seed(&["model"]));
            chain.push(text);
            chain.finish()
        };
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(BenchmarkId::new("bytes", name), |bench| bench.iter(run));
        figures.insert(format!("hash/bytes/{name}"), best_us(run));
        let ids = self::tokens(1, tokens);
        let run = || Chain::of_tokens(token_seed(None), black_box(&ids), BLOCK);
        group.bench_function(BenchmarkId::new("tokens", name), |bench| bench.iter(run));
        figures.insert(format!("hash/tokens/{name}"), best_us(run));
    }
}

/// 64 slots beside other chains, so that tables do not fit into the fast caches. `whole`: all hold the prompt. `steps`:
/// each holds another part of it, which is the worst case.
fn matching(criterion: &mut Criterion, figures: &mut Figures) {
    let mut group = criterion.benchmark_group("cache/matched");
    let index = index();
    let slots = attach(&index, SLOTS);
    for (at, slot) in slots.iter().enumerate() {
        for other in 0..8 {
            index.dispatched(*slot, &chain(1000 + at as u32 * 8 + other, 32 << 10));
        }
    }
    for (id, (name, count)) in (0..).zip(PROMPTS) {
        let (whole, steps) = (chain(id, count), chain(id + 10, count));
        for (at, slot) in slots.iter().enumerate() {
            index.dispatched(*slot, &whole);
            index.dispatched(
                *slot,
                &chain(id + 10, count * (at as u32 + 1) / SLOTS as u32),
            );
        }
        for (kind, chain) in [
            ("whole", whole),
            ("steps", steps),
            ("unknown", chain(id + 20, count)),
        ] {
            let run = || index.matched(black_box(&chain));
            group.bench_function(format!("{kind}/{name}"), |bench| bench.iter(run));
            figures.insert(format!("matched/{kind}/{name}"), best_us(run));
        }
    }
}

fn new_prompt(criterion: &mut Criterion, figures: &mut Figures) {
    let index = index();
    let slots = attach(&index, SLOTS);
    let text: Vec<u8> = (0..128 << 10).map(|at: u32| (at * 7) as u8).collect();
    let hash = || {
        let mut chain = Chain::bytes(seed(&["model"]));
        chain.push(&text);
        chain.finish()
    };
    for slot in &slots {
        index.dispatched(*slot, &hash());
    }
    let run = || index.matched(&hash());
    criterion.bench_function("cache/hash_and_match/32k", |bench| bench.iter(run));
    figures.insert("hash_and_match/32k".into(), best_us(run));
}

fn dispatching(criterion: &mut Criterion, figures: &mut Figures) {
    let mut group = criterion.benchmark_group("cache/dispatch");
    for (name, count) in PROMPTS {
        let index = index();
        let slot = attach(&index, 1)[0];
        let prompt = chain(1, count);
        let fresh = || {
            index.dispatched(slot, &prompt);
            index.withdrawn(slot, &prompt);
        };
        let id = format!("new_and_withdrawn/{name}");
        group.bench_function(&id, |bench| bench.iter(fresh));
        figures.insert(format!("dispatch/{id}"), best_us(fresh));
        index.dispatched(slot, &prompt);
        index.confirmed(slot, &prompt);
        let known = || {
            index.dispatched(slot, &prompt);
            index.confirmed(slot, &prompt);
        };
        let id = format!("known_and_confirmed/{name}");
        group.bench_function(&id, |bench| bench.iter(known));
        figures.insert(format!("dispatch/{id}"), best_us(known));
    }
}

/// Blocks of one event, as a 1k-token chunk of prefill gives them.
const EVENT_BLOCKS: u32 = 64;

fn events(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cache/ingest");
    group.throughput(Throughput::Elements(u64::from(EVENT_BLOCKS)));
    let index = index();
    let slot = attach(&index, 1)[0];
    let mut at = 0;
    group.bench_function("store_64_blocks", |bench| {
        let next = || {
            at += 1;
            event(at, u64::from(at % 4096) << 8, EVENT_BLOCKS)
        };
        bench.iter_batched(
            next,
            |event| index.apply(slot, &event),
            BatchSize::LargeInput,
        );
    });
}

/// Stores as fast as it goes, for a second; blocks a second of the time spent in `apply`.
fn ingest(index: &Index, slots: &[Slot]) -> f64 {
    let started = Instant::now();
    let mut spent = Duration::ZERO;
    let mut blocks = 0_u64;
    for at in 0_u32.. {
        let events: Vec<_> = (0..64)
            .map(|sub| {
                event(
                    at * 64 + sub,
                    u64::from((at * 64 + sub) % 16_384) << 8,
                    EVENT_BLOCKS,
                )
            })
            .collect();
        let before = Instant::now();
        for event in &events {
            index.apply(slots[at as usize % slots.len()], event);
        }
        spent += before.elapsed();
        blocks += 64 * u64::from(EVENT_BLOCKS);
        if started.elapsed() > Duration::from_secs(2) {
            break;
        }
    }
    blocks as f64 / spent.as_secs_f64()
}

/// A thousand decisions a second with their dispatches, until told to stop; microseconds of each.
fn decide(index: &Index, slot: Slot, prompts: &[Chain], done: &AtomicBool) -> Vec<f64> {
    let started = Instant::now();
    let mut times = Vec::new();
    for (turn, prompt) in (0_u32..).zip(prompts.iter().cycle()) {
        if done.load(Ordering::Relaxed) {
            break;
        }
        let due = Duration::from_millis(1) * turn;
        thread::sleep(due.saturating_sub(started.elapsed()));
        let before = Instant::now();
        black_box(index.matched(prompt));
        times.push(before.elapsed().as_secs_f64() * 1e6);
        index.dispatched(slot, prompt);
        index.confirmed(slot, prompt);
    }
    times.sort_unstable_by(f64::total_cmp);
    times
}

fn percentile(sorted: &[f64], share: f64) -> f64 {
    let at = (sorted.len() as f64 * share) as usize;
    sorted
        .get(at.min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or(0.0)
}

fn ingest_beside_decisions() -> Value {
    let index = index();
    let slots = attach(&index, SLOTS);
    for slot in &slots {
        index.set_reported(*slot, true);
    }
    let prompts: Vec<_> = (0..16).map(|id| chain(id, 4 << 10)).collect();
    let alone = ingest(&index, &slots);
    let done = AtomicBool::new(false);
    let quiet = thread::scope(|scope| {
        let decisions = scope.spawn(|| decide(&index, slots[0], &prompts, &done));
        thread::sleep(Duration::from_secs(2));
        done.store(true, Ordering::Relaxed);
        decisions.join().expect("the decider does not panic")
    });
    done.store(false, Ordering::Relaxed);
    let (beside, busy) = thread::scope(|scope| {
        let decisions = scope.spawn(|| decide(&index, slots[0], &prompts, &done));
        let beside = ingest(&index, &slots);
        done.store(true, Ordering::Relaxed);
        (
            beside,
            decisions.join().expect("the decider does not panic"),
        )
    });
    json!({
        "blocks_per_second_alone": alone.round(),
        "blocks_per_second_beside_decisions": beside.round(),
        "decisions": busy.len(),
        "decision_4k_p50_us": percentile(&busy, 0.5),
        "decision_4k_p99_us": percentile(&busy, 0.99),
        "quiet_decision_4k_p50_us": percentile(&quiet, 0.5),
        "quiet_decision_4k_p99_us": percentile(&quiet, 0.99),
    })
}

fn resident() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0.0) * 4096.0
}

/// Bytes per pair with so many holders of each block: the mean over sizes from 100k to 400k blocks, since tables grow in
/// steps, and the worst of them.
fn memory(holders: usize, reported: bool) -> Value {
    let budget = IndexBudget::new(8 << 30);
    let index = Index::new(Arc::clone(&budget));
    let slots = attach(&index, holders);
    let before = resident();
    let (mut sum, mut count, mut worst, mut pairs) = (0.0, 0.0, 0.0_f64, 0.0);
    for id in 0..400 {
        let prompt = chain(id, 1000 * BLOCK);
        for slot in &slots {
            if reported {
                index.apply(*slot, &event(id, u64::from(id) << 20, 1000));
            } else {
                index.dispatched(*slot, &prompt);
            }
        }
        if id >= 100 {
            let stats = index.stats();
            pairs = (stats.predicted + stats.reported) as f64;
            let bytes = budget.used() as f64 / pairs;
            (sum, count, worst) = (sum + bytes, count + 1.0, worst.max(bytes));
        }
    }
    json!({
        "mean_bytes_per_pair": (sum / count * 10.0_f64).round() / 10.0,
        "worst_bytes_per_pair": (worst * 10.0).round() / 10.0,
        "resident_bytes_per_pair": ((resident() - before) / pairs * 10.0).round() / 10.0,
    })
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500))
        .configure_from_args();
    let memory = json!({
        "predicted, 8 holders": memory(8, false),
        "predicted, 1 holder": memory(1, false),
        "reported, 8 holders": memory(8, true),
        "reported, 1 holder": memory(1, true),
    });
    let ingest = ingest_beside_decisions();
    let mut figures = Figures::new();
    hashing(&mut criterion, &mut figures);
    matching(&mut criterion, &mut figures);
    new_prompt(&mut criterion, &mut figures);
    dispatching(&mut criterion, &mut figures);
    events(&mut criterion);
    criterion.final_summary();
    let figures =
        json!({"unit": "us, fastest", "figures": figures, "ingest": ingest, "memory": memory});
    sluice_benches::write_figures("cache", &figures).expect("the target folder is writable");
}
