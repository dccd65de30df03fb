//! Route match with 1,000 routes, and compilation of 1,000 routes and 10,000 endpoints.
//!
//! Goals: a match below 1 us, a compilation below 50 ms.

use std::hint::black_box;
use std::time::Instant;

use criterion::Criterion;
use http::HeaderMap;
use serde_json::{Value, json};
use sluice_benches::write_figures;
use sluice_config::{Catalog, FilterSet, LoadedDocuments, Snapshot, compile};
use sluice_crds::networking::{ModelRoute, ModelServer};
use sluice_proxy::route;

const API: &str = "networking.serving.volcano.sh/v1alpha1";
const ROUTES: usize = 1_000;
const ENDPOINTS_EACH: usize = 10;

fn server(index: usize) -> Value {
    let endpoints: Vec<Value> = (0..ENDPOINTS_EACH)
        .map(|endpoint| json!({"address": format!("10.{}.{}.{endpoint}:8000", index / 250, index % 250)}))
        .collect();
    json!({
        "apiVersion": API, "kind": "ModelServer", "metadata": {"name": format!("server-{index}")},
        "spec": {"inferenceEngine": "vLLM", "endpoints": endpoints},
    })
}

/// Every route has a header rule before its plain one.
fn model_route(index: usize) -> Value {
    let target = json!([{"modelServerName": format!("server-{index}")}]);
    json!({
        "apiVersion": API, "kind": "ModelRoute", "metadata": {"name": format!("route-{index}")},
        "spec": {"modelName": format!("model-{index}"), "rules": [
            {"modelMatch": {"headers": {"user-type": {"exact": "premium"}}}, "targetModels": target},
            {"modelMatch": {"uri": {"regex": "^/v1/(chat/)?completions$"}}, "targetModels": target},
        ]},
    })
}

fn resources() -> Vec<sluice_config::Resource> {
    let servers = (0..ROUTES).map(|index| {
        let server: ModelServer = serde_json::from_value(server(index)).expect("a ModelServer");
        sluice_config::Resource::Server(Box::new(server))
    });
    let routes = (0..ROUTES).map(|index| {
        let route: ModelRoute = serde_json::from_value(model_route(index)).expect("a ModelRoute");
        sluice_config::Resource::Route(route)
    });
    servers.chain(routes).collect()
}

fn snapshot() -> Snapshot {
    let (snapshot, problems) = compile(resources(), &FilterSet::unknown(), 0);
    assert!(
        problems.iter().all(|problem| !problem.is_error()),
        "{problems:?}"
    );
    assert_eq!(snapshot.routes.len(), ROUTES);
    snapshot
}

fn best_of(runs: usize, mut work: impl FnMut()) -> f64 {
    (0..runs)
        .map(|_| {
            let started = Instant::now();
            work();
            started.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min)
}

fn routing(criterion: &mut Criterion) {
    let snapshot = snapshot();
    let headers: HeaderMap = [("host", "gateway"), ("content-type", "application/json")]
        .into_iter()
        .map(|(name, value)| {
            (
                name.parse().expect("a name"),
                value.parse().expect("a value"),
            )
        })
        .collect();
    let resolve = || {
        let found = route::resolve(
            black_box(&snapshot),
            black_box("model-777"),
            "/v1/chat/completions",
            &headers,
        );
        assert!(found.is_some());
    };
    criterion.bench_function("route/match in 1,000", |bench| bench.iter(resolve));
    let matched = best_of(50, || (0..1_000).for_each(|_| resolve())) / 1_000.0;

    let compile_once = || {
        let mut catalog = Catalog::new(FilterSet::unknown());
        let documents = LoadedDocuments::from_resources("bench", resources());
        let started = Instant::now();
        black_box(catalog.update(documents, 0));
        started.elapsed().as_secs_f64()
    };
    let compiled = (0..10)
        .map(|_| compile_once())
        .fold(f64::INFINITY, f64::min);
    let figures = json!({
        "route_match_us": matched * 1e6,
        "compile_ms": compiled * 1e3,
        "routes": ROUTES,
        "endpoints": ROUTES * ENDPOINTS_EACH,
    });
    write_figures("routing", &figures).expect("target/bench is writable");
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    routing(&mut criterion);
    criterion.final_summary();
}
