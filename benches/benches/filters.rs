//! What the filter chain costs: per request and per response chunk, with 0, 1 and 10 filters.
//!
//! The filters do next to nothing, so that the figures are the chain's. `headers` shows a real one beside them.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::Criterion;
use futures::FutureExt;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use serde_json::{Value, json};
use sluice_config::bootstrap::{FailPolicy, FilterConfig};
use sluice_proxy::filters::{
    BodyView, Candidates, Chain, ChunkStep, FilterError, Hooks, Outcome, Plugin, Registry, Step,
    Stream, StreamFilter, StreamInfo, StreamView,
};
use sluice_proxy::http::{RequestHead, ResponseHead};

/// Reads one field in each head hook; counts chunks when its configuration says `chunks`.
struct Glance {
    hooks: Hooks,
}

#[derive(Default)]
struct GlanceStream {
    chunks: u64,
}

impl Plugin for Glance {
    fn kind(&self) -> &'static str {
        "glance"
    }

    fn hooks(&self) -> Hooks {
        self.hooks
    }

    fn open(&self, _head: &RequestHead) -> Option<Box<dyn StreamFilter>> {
        Some(Box::new(GlanceStream::default()))
    }
}

impl StreamFilter for GlanceStream {
    fn on_request_head(
        &mut self,
        _cx: &mut StreamView<'_>,
        head: &mut RequestHead,
    ) -> Result<Step, FilterError> {
        black_box(&head.method);
        Ok(Step::Next)
    }

    fn on_response_head(
        &mut self,
        _cx: &mut StreamView<'_>,
        response: &mut ResponseHead,
    ) -> Result<Step, FilterError> {
        black_box(response.status);
        Ok(Step::Next)
    }

    fn on_response_chunk(
        &mut self,
        _cx: &mut StreamView<'_>,
        chunk: &mut Bytes,
        _last: bool,
    ) -> ChunkStep {
        self.chunks += 1;
        black_box(chunk);
        ChunkStep::Pass
    }
}

fn chain(kind: &str, configs: impl IntoIterator<Item = Value>) -> Arc<Chain> {
    let mut registry = Registry::builtin();
    registry.register("glance", |config| {
        let mut hooks = Hooks::REQUEST_HEAD | Hooks::RESPONSE_HEAD;
        if config["chunks"] == true {
            hooks = hooks | Hooks::RESPONSE_CHUNK;
        }
        Ok(Arc::new(Glance { hooks }))
    });
    let named = |(index, config)| FilterConfig {
        name: format!("filter-{index}"),
        kind: kind.into(),
        config,
        disabled: false,
        fail_policy: FailPolicy::Closed,
    };
    let filters: Vec<_> = configs.into_iter().enumerate().map(named).collect();
    Chain::compile(&filters, Arc::new(registry)).expect("the bench's own configuration")
}

fn glances(count: usize) -> Arc<Chain> {
    chain("glance", vec![json!({}); count])
}

fn request() -> RequestHead {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    RequestHead {
        method: Method::POST,
        uri: "/v1/chat/completions".parse().expect("a path"),
        version: Version::HTTP_11,
        headers,
    }
}

fn response() -> ResponseHead {
    ResponseHead {
        status: StatusCode::OK,
        headers: HeaderMap::new(),
    }
}

/// Median time per call, in nanoseconds, by name.
type Figures = BTreeMap<String, f64>;

/// Runs `routine` under criterion and keeps the median of the samples for the figures' file.
fn measure(
    criterion: &mut Criterion,
    figures: &mut Figures,
    name: &str,
    mut routine: impl FnMut(u64) -> Duration,
) {
    let mut samples = Vec::new();
    criterion.bench_function(name, |bencher| {
        bencher.iter_custom(|calls| {
            let spent = routine(calls);
            samples.push(spent.as_secs_f64() * 1e9 / calls as f64);
            spent
        });
    });
    samples.sort_by(f64::total_cmp);
    if let Some(median) = samples.get(samples.len() / 2) {
        figures.insert(name.to_owned(), (median * 100.0).round() / 100.0);
    }
}

/// Every phase of one request, without chunks.
fn per_request(criterion: &mut Criterion, figures: &mut Figures, name: &str, chain: &Arc<Chain>) {
    let info = StreamInfo {
        random: 1,
        deadline: Instant::now() + Duration::from_secs(3600),
    };
    let (mut head, mut answer) = (request(), response());
    let (bytes, outcome) = (Bytes::from_static(b"{}"), Outcome::default());
    let mut candidates = Candidates::default();
    let body = BodyView {
        bytes: &bytes,
        model: "llama",
        prompt_bytes: 2,
        max_tokens: None,
        stream: true,
        user: None,
        session: None,
    };
    measure(criterion, figures, name, |calls| {
        let start = Instant::now();
        for _ in 0..calls {
            let mut stream = Stream::new(black_box(chain), info);
            black_box(stream.request_head(&mut head).now_or_never());
            black_box(stream.request_body(&mut head, &body).now_or_never());
            let _ = black_box(stream.candidates(&head, &mut candidates));
            let _ = black_box(stream.attempt(&mut head, "10.0.0.1:8000"));
            black_box(stream.response_head(&mut answer).now_or_never());
            stream.done(&outcome);
        }
        start.elapsed()
    });
}

fn per_chunk(criterion: &mut Criterion, figures: &mut Figures, name: &str, chain: &Arc<Chain>) {
    let info = StreamInfo {
        random: 1,
        deadline: Instant::now() + Duration::from_secs(3600),
    };
    let mut stream = Stream::new(chain, info);
    black_box(stream.request_head(&mut request()).now_or_never());
    let mut chunk =
        Bytes::from_static(b"data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n");
    measure(criterion, figures, name, |calls| {
        let start = Instant::now();
        for _ in 0..calls {
            let _ = black_box(black_box(&mut stream).response_chunk(&mut chunk, false));
        }
        start.elapsed()
    });
}

fn main() {
    let mut criterion = Criterion::default()
        .measurement_time(Duration::from_secs(2))
        .warm_up_time(Duration::from_millis(500))
        .configure_from_args();
    let mut figures = Figures::new();

    let ten_one_on_chunks = (0..10).map(|index| json!({"chunks": index == 5}));
    let ten_one_on_chunks = chain("glance", ten_one_on_chunks);
    let one_on_chunks = chain("glance", [json!({"chunks": true})]);
    let set = json!({"request": {"set": {"x-a": "1"}}, "response": {"set": {"x-a": "1"}}});

    per_request(&mut criterion, &mut figures, "request/0", &Chain::empty());
    per_request(&mut criterion, &mut figures, "request/1", &glances(1));
    per_request(&mut criterion, &mut figures, "request/10", &glances(10));
    per_request(
        &mut criterion,
        &mut figures,
        "request/headers",
        &chain("headers", [set]),
    );
    per_chunk(&mut criterion, &mut figures, "chunk/0", &Chain::empty());
    per_chunk(
        &mut criterion,
        &mut figures,
        "chunk/1, none on chunks",
        &glances(1),
    );
    per_chunk(
        &mut criterion,
        &mut figures,
        "chunk/1, one on chunks",
        &one_on_chunks,
    );
    per_chunk(
        &mut criterion,
        &mut figures,
        "chunk/10, none on chunks",
        &glances(10),
    );
    per_chunk(
        &mut criterion,
        &mut figures,
        "chunk/10, one on chunks",
        &ten_one_on_chunks,
    );
    criterion.final_summary();

    let figures = json!({"unit": "ns, median", "figures": figures});
    sluice_benches::write_figures("filters", &figures).expect("the target folder is writable");
}
