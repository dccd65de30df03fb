//! What a pushed change costs from its bytes to its being in force, among 10,000 endpoints in 200 pools and 1,000 routes:
//! decoded, collected, compiled and installed, as the gateway does off its requests' way.
//!
//! Goals: one endpoint in less than 5 ms (the command fails above), a document in about 15 ms. `first` is the whole of it,
//! once. And what requests notice: how long it takes to load what is in force and to match a route in it, alone and
//! beside changes that follow each other without a pause.

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use criterion::Criterion;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
use envoy_types::pb::google::protobuf::Any;
use http::HeaderMap;
use prost::Message;
use serde_json::{Value, json};
use sluice_benches::load::summary::quantile;
use sluice_config::push::{
    BATCH, BatchMessage, DocumentMessage, EndpointMessage, MembershipMessage, ResourceType, version,
};
use sluice_config::scheduling::SchedulingParams;
use sluice_config::{Catalog, FilterSet};
use sluice_proxy::cache::budget::IndexBudget;
use sluice_proxy::filters::{Chain, Registry};
use sluice_proxy::route::resolve;
use sluice_proxy::serving::ServingStore;
use sluice_proxy::source::push::client::NodeParams;
use sluice_proxy::source::push::{Client, Known};
use sluice_proxy::telemetry::{BuildInfo, Metrics};

const SERVERS: usize = 200;
const ROUTES: usize = 1000;
const ENDPOINTS: usize = 10_000;
/// Of one pool, in the case of a large one.
const LARGE: usize = 5000;
/// Longest time that one changed endpoint may take.
const MAX_ENDPOINT_US: f64 = 5000.0;
/// What requests do is timed so often.
const READS: usize = 200_000;

/// A gateway's inside, from the stream to what requests read.
struct Gateway {
    client: Client,
    catalog: Catalog,
    store: Arc<ServingStore>,
}

impl Gateway {
    fn new() -> Self {
        let build = BuildInfo {
            version: "bench",
            revision: "bench",
        };
        let metrics = Arc::new(Metrics::new(build, SystemTime::UNIX_EPOCH));
        let chain = Chain::compile(&[], Arc::new(Registry::builtin())).expect("no filter");
        let budget = IndexBudget::new(256 << 20);
        Self {
            client: Client::start(&NodeParams::default(), &Known::default()).0,
            catalog: Catalog::with_push(FilterSet::unknown()),
            store: Arc::new(ServingStore::new(
                chain,
                metrics,
                SchedulingParams::default(),
                budget,
            )),
        }
    }

    /// One batch, from its bytes on. Must change something.
    fn apply(&mut self, responses: &[Vec<u8>]) {
        for bytes in responses {
            let response = DeltaDiscoveryResponse::decode(bytes.as_slice()).expect("a response");
            let Some(collected) = self.client.take(response).expect("not too much") else {
                continue;
            };
            let applied = self.catalog.push(&collected.batch, 1);
            assert!(applied.refusals.is_empty(), "{:?}", applied.refusals);
            assert!(applied.update.changed);
            self.store.install(applied.update.snapshot);
            let (receipts, batch) = (collected.receipts, &collected.batch);
            let answers = self
                .client
                .settle(receipts, batch, &applied.refusals, &BTreeSet::new());
            black_box(answers);
        }
    }
}

fn response(kind: ResourceType, resources: Vec<(String, Vec<u8>)>) -> Vec<u8> {
    let resource = |(name, value): (String, Vec<u8>)| Resource {
        name,
        version: version(&value),
        resource: Some(Any {
            type_url: kind.url().to_owned(),
            value,
        }),
        ..Resource::default()
    };
    let response = DeltaDiscoveryResponse {
        type_url: kind.url().to_owned(),
        resources: resources.into_iter().map(resource).collect(),
        nonce: "1".to_owned(),
        ..DeltaDiscoveryResponse::default()
    };
    response.encode_to_vec()
}

fn end() -> Vec<u8> {
    let message = BatchMessage::default().encode_to_vec();
    response(ResourceType::Batch, vec![(BATCH.to_owned(), message)])
}

fn document(kind: &str, name: &str, spec: &Value) -> (String, Vec<u8>) {
    let value = json!({
        "apiVersion": "networking.serving.volcano.sh/v1alpha1",
        "kind": kind,
        "metadata": {
            "namespace": "models",
            "name": name,
            "uid": "5b6f2c0e-3c4d-4b3a-9f59-1f3d7f0f2a11",
            "creationTimestamp": "2025-01-01T00:00:00Z",
            "generation": 3,
        },
        "spec": spec,
    });
    let json = value.to_string();
    (
        format!("models/{name}"),
        DocumentMessage { json }.encode_to_vec(),
    )
}

fn server(name: &str, model: &str) -> (String, Vec<u8>) {
    let spec = json!({
        "model": model,
        "inferenceEngine": "vLLM",
        "workloadSelector": {"matchLabels": {"app": name}},
        "workloadPort": {"port": 8000},
        "trafficPolicy": {"timeout": "10m", "retry": {"attempts": 2, "retryInterval": "100ms"}},
    });
    document("ModelServer", name, &spec)
}

fn route(number: usize, weight: u32) -> (String, Vec<u8>) {
    let targets = |offset: usize| {
        json!([
            {"modelServerName": pool((number + offset) % SERVERS), "weight": weight},
            {"modelServerName": pool((number + offset + 1) % SERVERS), "weight": 10},
        ])
    };
    let spec = json!({
        "modelName": format!("model-{number}"),
        "rules": [
            {
                "modelMatch": {"headers": {"x-tenant": {"regex": format!("^team-{number}-[0-9]+$")}}},
                "targetModels": targets(0),
            },
            {"targetModels": targets(7)},
        ],
    });
    document("ModelRoute", &format!("route-{number}"), &spec)
}

fn pool(number: usize) -> String {
    format!("pool-{number:03}")
}

fn endpoint(number: usize, pool: &str, draining: bool) -> (String, Vec<u8>) {
    let pod = format!("{pool}-7d9c5b8f6d-{number:05}");
    let labels = [
        ("app", pool),
        ("pod-template-hash", "7d9c5b8f6d"),
        ("modelserving.volcano.sh/name", pool),
        ("modelserving.volcano.sh/role", "decode"),
    ];
    let message = EndpointMessage {
        namespace: "models".into(),
        uid: format!("8b1c6d3e-0f6e-4b53-8f7f-{number:012}"),
        host: format!(
            "10.{}.{}.{}",
            number >> 16,
            (number >> 8) & 255,
            number & 255
        ),
        port: 8000,
        memberships: vec![MembershipMessage {
            server: pool.to_owned(),
            role: 0,
            pd_group: String::new(),
        }],
        labels: labels
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        revision: "7d9c5b8f6d".into(),
        node: format!("node-{}", number % 500),
        zone: format!("zone-{}", number % 3),
        draining,
        topology: BTreeMap::from([("kubernetes.io/hostname".into(), "node".into())]),
        pod: pod.clone(),
    };
    (format!("models/{pod}:8000"), message.encode_to_vec())
}

/// Everything: the first batch of a stream, in pieces as a control loop sends it.
fn everything() -> Vec<Vec<u8>> {
    let servers = (0..SERVERS).map(|number| server(&pool(number), "llama"));
    let endpoints: Vec<_> = (0..ENDPOINTS)
        .map(|number| endpoint(number, &pool(number % SERVERS), false))
        .collect();
    let mut responses = vec![response(ResourceType::ModelServer, servers.collect())];
    let pieces = endpoints.chunks(700).map(<[_]>::to_vec);
    responses.extend(pieces.map(|piece| response(ResourceType::Endpoint, piece)));
    let routes = (0..ROUTES).map(|number| route(number, 90));
    responses.push(response(ResourceType::ModelRoute, routes.collect()));
    responses.push(end());
    responses
}

/// A change that undoes the one before it.
fn alternating(
    kind: ResourceType,
    one: (String, Vec<u8>),
    other: (String, Vec<u8>),
) -> [Vec<Vec<u8>>; 2] {
    [one, other].map(|resource| vec![response(kind, vec![resource]), end()])
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .measurement_time(Duration::from_secs(2))
        .warm_up_time(Duration::from_millis(500))
        .configure_from_args();
    let mut figures: BTreeMap<&str, f64> = BTreeMap::new();
    let everything = everything();
    let bytes: usize = everything.iter().map(Vec::len).sum();
    bench(&mut criterion, &mut figures, "first", |calls| {
        let mut spent = Duration::ZERO;
        for _ in 0..calls {
            let mut gateway = Gateway::new();
            let start = Instant::now();
            gateway.apply(&everything);
            spent += start.elapsed();
        }
        spent
    });
    let mut gateway = Gateway::new();
    gateway.apply(&everything);
    let reads = reads(&mut gateway);
    let pod = |draining| endpoint(7777, &pool(7777 % SERVERS), draining);
    let route = |weight| route(500, weight);
    let named = |model| server(&pool(100), model);
    let cases = [
        (
            "endpoint",
            // `reads` left it draining.
            alternating(ResourceType::Endpoint, pod(false), pod(true)),
        ),
        (
            "route",
            alternating(ResourceType::ModelRoute, route(50), route(90)),
        ),
        (
            "server",
            alternating(ResourceType::ModelServer, named("other"), named("llama")),
        ),
    ];
    for (name, changes) in &cases {
        repeat(&mut criterion, &mut figures, &mut gateway, name, changes);
    }
    // One more pool before all others: every target points elsewhere.
    let mut gone = DeltaDiscoveryResponse {
        type_url: ResourceType::ModelServer.url().to_owned(),
        ..DeltaDiscoveryResponse::default()
    };
    gone.removed_resources.push("models/a-pool".to_owned());
    let come = response(ResourceType::ModelServer, vec![server("a-pool", "llama")]);
    let changes = [vec![come, end()], vec![gone.encode_to_vec(), end()]];
    repeat(&mut criterion, &mut figures, &mut gateway, "pool", &changes);
    let large = (0..LARGE).map(|number| endpoint(100_000 + number, "pool-000", false));
    gateway.apply(&[response(ResourceType::Endpoint, large.collect()), end()]);
    let pod = |draining| endpoint(102_500, "pool-000", draining);
    let changes = alternating(ResourceType::Endpoint, pod(true), pod(false));
    let name = "endpoint of 5000";
    repeat(&mut criterion, &mut figures, &mut gateway, name, &changes);
    criterion.final_summary();
    let figures = json!({
        "unit": "us, median",
        "servers": SERVERS,
        "routes": ROUTES,
        "endpoints": ENDPOINTS,
        "first_bytes": bytes,
        "figures": figures,
        "reads_us": reads,
    });
    sluice_benches::write_figures("apply", &figures).expect("the target folder is writable");
    let endpoint = &figures["figures"]["endpoint"];
    assert!(
        endpoint.as_f64().is_none_or(|us| us < MAX_ENDPOINT_US),
        "a changed endpoint takes {endpoint} us, more than {MAX_ENDPOINT_US}"
    );
}

/// What a request does with what is in force, timed many times: alone, and while changes come without a pause.
fn reads(gateway: &mut Gateway) -> Value {
    let store = Arc::clone(&gateway.store);
    let alone = percentiles(read(&store));
    let pod = |draining| endpoint(7777, &pool(7777 % SERVERS), draining);
    let changes = alternating(ResourceType::Endpoint, pod(true), pod(false));
    let done = AtomicBool::new(false);
    let (beside, applied) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let times = read(&store);
            done.store(true, Ordering::Relaxed);
            times
        });
        let mut applied = 0;
        for change in changes.iter().cycle() {
            if done.load(Ordering::Relaxed) {
                break;
            }
            gateway.apply(change);
            applied += 1;
        }
        (reader.join().expect("the reader ends"), applied)
    });
    json!({ "alone": alone, "beside": percentiles(beside), "changes": applied })
}

/// Times of single reads, in microseconds.
fn read(store: &ServingStore) -> Vec<f64> {
    let headers = HeaderMap::new();
    let time = |number: usize| {
        let model = format!("model-{}", number % ROUTES);
        let start = Instant::now();
        let serving = store.load();
        let matched = resolve(&serving.snapshot, &model, "/v1/completions", &headers);
        assert!(matched.is_some(), "no route for {model}");
        start.elapsed().as_secs_f64() * 1e6
    };
    (0..READS).map(time).collect()
}

fn percentiles(mut times: Vec<f64>) -> Value {
    times.sort_by(f64::total_cmp);
    let at = |part| (quantile(&times, part) * 100.0).round() / 100.0;
    json!({ "p50": at(0.5), "p99": at(0.99), "p999": at(0.999), "max": at(1.0) })
}

/// Applies two changes in turn.
fn repeat<'a>(
    criterion: &mut Criterion,
    figures: &mut BTreeMap<&'a str, f64>,
    gateway: &mut Gateway,
    name: &'a str,
    changes: &[Vec<Vec<u8>>; 2],
) {
    let mut turns = changes.iter().cycle();
    bench(criterion, figures, name, |calls| {
        let start = Instant::now();
        for change in turns.by_ref().take(calls as usize) {
            gateway.apply(change);
        }
        start.elapsed()
    });
}

fn bench<'a>(
    criterion: &mut Criterion,
    figures: &mut BTreeMap<&'a str, f64>,
    name: &'a str,
    mut run: impl FnMut(u64) -> Duration,
) {
    let mut samples = Vec::new();
    criterion.bench_function(&format!("apply/{name}"), |bencher| {
        bencher.iter_custom(|calls| {
            let spent = run(calls);
            samples.push(spent.as_secs_f64() * 1e6 / calls as f64);
            spent
        });
    });
    samples.sort_by(f64::total_cmp);
    if let Some(median) = samples.get(samples.len() / 2) {
        figures.insert(name, median.round());
    }
}
