//! Cost of a prompt's ids: the next turn of a long session, a cold prompt, and the template alone.
//!
//! `SLUICE_TOKENIZER` names another model's folder; the default is the small tokenizer of the proxy's tests with
//! the template of Qwen 2.5.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::Criterion;
use serde_json::{Value, json};
use sluice_proxy::tokens::encode::Memo;
use sluice_proxy::tokens::request::{Prompt, prompt};
use sluice_proxy::tokens::{ApiKind, ModelTokenizer, Outcome, TokenPool, TokenPoolParams};

#[path = "shared/timing.rs"]
mod timing;

use timing::best_us;

/// Calls through the pool of which the quantiles are taken.
const POOL_CALLS: usize = 200;

fn model_folder() -> PathBuf {
    if let Some(path) = std::env::var_os("SLUICE_TOKENIZER") {
        return path.into();
    }
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proxy/tests/fixtures");
    let folder =
        std::env::temp_dir().join(format!("sluice-bench-tokenizer-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("the temporary folder is writable");
    for (from, to) in [
        ("tokenizers/byte-level.json", "tokenizer.json"),
        ("templates/qwen-2.5.jinja", "chat_template.jinja"),
    ] {
        std::fs::copy(fixtures.join(from), folder.join(to))
            .expect("the fixtures are in the repository");
    }
    folder
}

/// Prose and code whose words differ, so that no cache of words hides the work.
struct Writer {
    state: u64,
}

impl Writer {
    fn next(&mut self) -> u64 {
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.state >> 33
    }

    fn text(&mut self, bytes: usize) -> String {
        const WORDS: [&str; 24] = [
            "the",
            "model",
            "returns",
            "session",
            "value",
            "of",
            "request",
            "cache",
            "when",
            "token",
            "prefix",
            "in",
            "self.index",
            "def",
            "for",
            "class",
            "routing",
            "engine",
            "answer",
            "and",
            "latency",
            "blocks",
            "hash",
            "is",
        ];
        const ENDS: [&str; 8] = [" ", " ", " ", " ", ", ", ". ", "\n", " = "];
        let mut text = String::with_capacity(bytes + 16);
        while text.len() < bytes {
            let word = self.next();
            text.push_str(WORDS[word as usize % WORDS.len()]);
            if word.is_multiple_of(7) {
                text.push_str(&(word % 10_000).to_string());
            }
            text.push_str(ENDS[self.next() as usize % ENDS.len()]);
        }
        text
    }
}

/// A model, its memo, and how many bytes of our text make a token.
struct Bench {
    model: Arc<ModelTokenizer>,
    memo: Memo,
    writer: Writer,
    bytes_per_token: f64,
}

impl Bench {
    fn new(folder: &Path) -> Self {
        let model = ModelTokenizer::load(folder).expect("the folder holds a tokenizer");
        let mut writer = Writer { state: 1 };
        let text = writer.text(64 << 10);
        let bytes = text.len() as f64;
        let memo = Memo::new(256 << 20);
        let ids = model.ids(
            &memo,
            Prompt::Text {
                text,
                add_special_tokens: false,
            },
        );
        let bytes_per_token = bytes / ids.expect("the text is plain").len() as f64;
        Self {
            model,
            memo,
            writer,
            bytes_per_token,
        }
    }

    fn message(&mut self, role: &str, tokens: usize) -> Value {
        let bytes = (tokens as f64 * self.bytes_per_token) as usize;
        json!({"role": role, "content": self.writer.text(bytes)})
    }

    /// A session of `turns` messages with about `tokens` in all.
    fn session(&mut self, tokens: usize, turns: usize) -> Vec<Value> {
        let roles = ["user", "assistant"];
        (0..turns)
            .map(|turn| self.message(roles[turn % 2], tokens / turns))
            .collect()
    }

    fn ids(&self, body: &[u8]) -> usize {
        let prompt = prompt(ApiKind::Chat, body, |tools| {
            self.model.content_format(tools)
        });
        let ids = prompt.and_then(|prompt| self.model.ids(&self.memo, prompt));
        ids.expect("the session is well formed").len()
    }

    /// The body of the session with one more turn of fresh text.
    fn turn(&mut self, session: &[Value], tokens: usize) -> Bytes {
        let mut messages = session.to_vec();
        messages.push(self.message("user", tokens));
        body(&messages)
    }
}

fn body(messages: &[Value]) -> Bytes {
    json!({"model": "m", "messages": messages})
        .to_string()
        .into()
}

/// Microseconds of the fastest of a few calls, each on an input of its own.
fn best_fresh_us<T>(mut input: impl FnMut() -> T, mut call: impl FnMut(T)) -> f64 {
    let mut best = Duration::MAX;
    for _ in 0..30 {
        let input = input();
        let started = Instant::now();
        call(input);
        best = best.min(started.elapsed());
    }
    (best.as_secs_f64() * 1e9).round() / 1e3
}

/// p50 and p99 of turns through the pool, the hop to its thread included, in microseconds.
fn through_the_pool(bench: &mut Bench, session: &[Value]) -> (f64, f64) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime starts");
    let params = TokenPoolParams {
        deadline: Duration::from_secs(10),
        ..TokenPoolParams::default()
    };
    let pool = TokenPool::new(params).expect("threads start");
    let mut times: Vec<Duration> = (0..POOL_CALLS + 2)
        .map(|_| {
            let body = bench.turn(session, 1_000);
            let started = Instant::now();
            let outcome = runtime.block_on(pool.tokenize(&bench.model, ApiKind::Chat, body));
            assert!(matches!(outcome, Outcome::Tokens(_)), "{outcome:?}");
            started.elapsed()
        })
        .skip(2)
        .collect();
    times.sort_unstable();
    let at =
        |quantile: f64| times[((times.len() - 1) as f64 * quantile) as usize].as_secs_f64() * 1e6;
    (at(0.5).round(), at(0.99).round())
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let folder = model_folder();
    let loading = Instant::now();
    black_box(ModelTokenizer::load(&folder).expect("the folder holds a tokenizer"));
    let load_ms = loading.elapsed().as_millis() as u64;
    let mut bench = Bench::new(&folder);

    let session = bench.session(32_000, 64);
    let session_tokens = bench.ids(&body(&session));
    let turn = bench.turn(&session, 1_000);
    let turn_tokens = bench.ids(&turn) - session_tokens;
    let hundred = bench.session(10_000, 100);
    let hundred = body(&hundred);

    // Every turn has text of its own: made before, or the memo would answer.
    let turns: Vec<Bytes> = (0..40).map(|_| bench.turn(&session, 1_000)).collect();
    let colds: Vec<Bytes> = (0..40).map(|_| bench.turn(&[], 4_000)).collect();
    let (mut turns, mut colds) = (turns.into_iter(), colds.into_iter());
    let next = "as many inputs as calls were made";
    let turn_us = best_fresh_us(|| turns.next().expect(next), |body| _ = bench.ids(&body));
    let cold_us = best_fresh_us(|| colds.next().expect(next), |body| _ = bench.ids(&body));
    let render = |body: &[u8]| match prompt(ApiKind::Chat, body, |tools| {
        bench.model.content_format(tools)
    }) {
        Ok(Prompt::Chat(chat)) => bench
            .model
            .render(chat)
            .expect("the template takes the session"),
        other => panic!("not a chat: {other:?}"),
    };
    let render_us = best_us(|| render(&hundred));
    let render_session_us = best_us(|| render(&turn));
    let again_us = best_us(|| bench.ids(&turn));

    let mut group = criterion.benchmark_group("tokens");
    group
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1));
    group.bench_function("render-100-messages", |bencher| {
        bencher.iter(|| render(black_box(&hundred)))
    });
    group.bench_function("32k-again", |bencher| {
        bencher.iter(|| bench.ids(black_box(&turn)))
    });
    group.finish();
    criterion.final_summary();

    let (pool_p50_us, pool_p99_us) = through_the_pool(&mut bench, &session);
    let figures = json!({
        "load_ms": load_ms,
        "session_tokens": session_tokens,
        "turn_tokens": turn_tokens,
        "body_bytes": turn.len(),
        "turn_us": turn_us,
        "again_us": again_us,
        "cold_4k_us": cold_us,
        "render_100_messages_us": render_us,
        "render_session_us": render_session_us,
        "pool_turn_p50_us": pool_p50_us,
        "pool_turn_p99_us": pool_p99_us,
    });
    sluice_benches::write_figures("tokens", &figures).expect("the target folder is writable");
}
