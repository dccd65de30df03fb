//! What those who come from Kthena count on: its metrics (R11), its router configuration (R14, without a restart) and
//! its debug server (R15), as its own end-to-end tests assert them.

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use sluice_e2e::engine::{EngineOptions, EngineServer};
use sluice_e2e::harness::client::{ask, chat, http1};
use sluice_e2e::harness::{Gateway, model_route, model_server, series_sum, wait_until};
use sluice_proxy::server::Running;

fn engines(count: usize) -> Vec<EngineServer> {
    let start = || EngineServer::start(EngineOptions::instant("upstream-sim")).unwrap();
    (0..count).map(|_| start()).collect()
}

fn routes(engines: &[EngineServer]) -> String {
    let addresses: Vec<SocketAddr> = engines.iter().map(EngineServer::addr).collect();
    model_server("sim", &addresses, "model: upstream-sim")
        + &model_route("chat", "deepseek", &[("sim", 100)])
}

async fn chats(gateway: &Gateway, model: &str, count: usize, expected: u16) {
    let client = http1();
    for _ in 0..count {
        let body = chat(model, "tell me of routers", 4, false);
        let answer = ask(&client, &gateway.url(""), "x", None, &body).await;
        assert_eq!(answer.status, expected, "{}", answer.text());
    }
    gateway.settled().await;
}

/// The labels of Kthena's test, all in one series.
fn sum(metrics: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    let labels: Vec<String> = (labels.iter())
        .map(|(name, value)| format!("{name}=\"{value}\""))
        .collect();
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    series_sum(metrics, &format!("kthena_router_{name}"), &labels)
}

#[tokio::test]
async fn r11_requests_raise_kthenas_counters_with_kthenas_labels() {
    let engines = engines(1);
    let gateway = Gateway::builder(routes(&engines))
        .with(|bootstrap| bootstrap.metrics.kthena = true)
        .start()
        .await;
    let served = [
        ("model", "deepseek"),
        ("path", "/v1/chat/completions"),
        ("status_code", "200"),
        ("model_route", "default/chat"),
        ("backend_type", "model_server"),
        ("backend_name", "default/sim"),
        ("upstream_model", "upstream-sim"),
    ];
    let before = gateway.metrics().await;
    assert_eq!(sum(&before, "requests_total", &served), 0.0);
    chats(&gateway, "deepseek", 3, 200).await;
    let after = gateway.metrics().await;
    assert_eq!(sum(&after, "requests_total", &served), 3.0);
    assert_eq!(sum(&after, "request_duration_seconds_count", &served), 3.0);
    let succeeded = [served[0], ("error_type", "successful_request")];
    assert_eq!(sum(&after, "requests_total", &succeeded), 3.0);
    for kind in ["input", "output"] {
        let tokens = [served[0], served[5], ("token_type", kind)];
        assert!(sum(&after, "tokens_total", &tokens) >= 3.0, "{after}");
    }
    assert!(
        after.contains("\nkthena_router_active_requests 0\n"),
        "{after}"
    );
    let downstream = [("model", "deepseek")];
    assert_eq!(sum(&after, "active_downstream_requests", &downstream), 0.0);
    // Kthena's parser goes by these.
    assert!(after.contains("# TYPE kthena_router_requests_total counter\n"));
    assert!(after.contains("# TYPE kthena_router_request_duration_seconds histogram\n"));
    let bound = [("le", "+Inf"), served[0]];
    assert!(sum(&after, "request_duration_seconds_bucket", &bound) >= 3.0);

    chats(&gateway, "no-such-model", 2, 404).await;
    let after = gateway.metrics().await;
    let unknown = [
        ("model", "unknown"),
        ("path", "/v1/chat/completions"),
        ("status_code", "404"),
        ("error_type", "route_not_found"),
    ];
    assert_eq!(sum(&after, "requests_total", &unknown), 2.0);
    assert!(!after.contains("no-such-model"));
    // Ours go on beside them.
    assert_eq!(
        series_sum(&after, "sluice_requests_total", &["model=\"deepseek\""]),
        3.0
    );
}

#[tokio::test]
async fn a_request_in_flight_shows_at_its_backend() {
    let mut options = EngineOptions::instant("upstream-sim");
    options.event_interval = Some(std::time::Duration::from_millis(50));
    let engines = [EngineServer::start(options).unwrap()];
    let gateway = Gateway::builder(routes(&engines))
        .with(|bootstrap| bootstrap.metrics.kthena = true)
        .start()
        .await;
    let client = http1();
    let body = chat("deepseek", "hello", 200, true);
    let stream = client
        .post(gateway.url("/v1/chat/completions"))
        .json(&body)
        .send();
    let stream = stream.await.unwrap();
    let metrics = gateway.metrics().await;
    let upstream = [
        ("model_server", "default/sim"),
        ("model_route", "default/chat"),
        ("backend_type", "model_server"),
        ("upstream_model", "upstream-sim"),
    ];
    assert_eq!(sum(&metrics, "active_upstream_requests", &upstream), 1.0);
    assert_eq!(
        sum(
            &metrics,
            "active_downstream_requests",
            &[("model", "deepseek")]
        ),
        1.0
    );
    drop(stream);
    gateway.settled().await;
    let metrics = gateway.metrics().await;
    assert_eq!(sum(&metrics, "active_upstream_requests", &upstream), 0.0);
}

/// As Kthena's ConfigMap has it.
fn config_map(plugins: &[(&str, u32)]) -> String {
    let scores: String = plugins
        .iter()
        .map(|(name, weight)| {
            format!("            - name: {name}\n              weight: {weight}\n")
        })
        .collect();
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: kthena-router-config\n  namespace: kthena-system\n\
         data:\n  routerConfiguration: |-\n    scheduler:\n      plugins:\n        Filter:\n          enabled:\n            \
         - least-request\n        Score:\n          enabled:\n{scores}"
    )
}

fn write(file: &Path, text: &str) {
    let new = file.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, file).unwrap();
}

/// Times that each plug-in ran.
async fn plugins(gateway: &Gateway) -> Vec<(String, f64)> {
    let metrics = gateway.metrics().await;
    let all = [
        "least-request",
        "gpu-usage",
        "least-latency",
        "prefix-cache",
        "random",
        "mtl",
    ];
    all.iter()
        .map(|plugin| {
            let labels = [("plugin", *plugin), ("type", "score")];
            let count = sum(&metrics, "scheduler_plugin_duration_seconds_count", &labels);
            ((*plugin).to_owned(), count)
        })
        .filter(|(_, count)| *count > 0.0)
        .collect()
}

async fn config(gateway: &Gateway) -> Value {
    let answer = reqwest::get(gateway.admin_url("/debug/config"))
        .await
        .unwrap();
    answer.json().await.unwrap()
}

/// Edits the router configuration, and waits until `word` schedules: it is told before the pools are made anew.
async fn reschedule(gateway: &Gateway, file: &Path, text: &str, word: &str) {
    let pool = || Arc::clone(&gateway.running.gateway.serving.load().pools[0]);
    let before = pool();
    write(file, text);
    wait_until(&format!("{word} schedules"), || async {
        let config = config(gateway).await;
        let told = config["defaults"]["scheduling"].as_str().unwrap();
        told.contains(word) && !Arc::ptr_eq(&pool(), &before)
    })
    .await;
}

#[tokio::test]
async fn r14_an_edit_of_the_router_configuration_switches_plugins_without_a_restart() {
    let engines = engines(2);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kthena-router-config.yaml");
    write(
        &file,
        &config_map(&[("least-request", 1), ("prefix-cache", 2)]),
    );
    let gateway = Gateway::builder(routes(&engines))
        .with(|bootstrap| {
            bootstrap.scheduling = None;
            bootstrap.metrics.kthena = true;
            bootstrap.source.router_configuration = Some(file.clone());
        })
        .start()
        .await;
    let generation = gateway.generation();
    chats(&gateway, "deepseek", 4, 200).await;
    let counted = |all: &[(&str, f64)]| -> Vec<(String, f64)> {
        all.iter()
            .map(|(name, count)| ((*name).to_owned(), *count))
            .collect()
    };
    let first = counted(&[("least-request", 4.0), ("prefix-cache", 4.0)]);
    assert_eq!(plugins(&gateway).await, first);
    let metrics = gateway.metrics().await;
    let filter = [
        ("plugin", "least-request"),
        ("type", "filter"),
        ("model", "deepseek"),
    ];
    assert_eq!(
        sum(&metrics, "scheduler_plugin_duration_seconds_count", &filter),
        4.0
    );

    reschedule(&gateway, &file, &config_map(&[("random", 1)]), "Random").await;
    chats(&gateway, "deepseek", 3, 200).await;
    let second = counted(&[
        ("least-request", 4.0),
        ("prefix-cache", 4.0),
        ("random", 3.0),
    ]);
    assert_eq!(plugins(&gateway).await, second);
    assert_eq!(gateway.generation(), generation, "the routes are untouched");

    // A bad edit says where and what, and the last good one stays.
    let bad = config_map(&[("randon", 1)]);
    write(&file, &bad);
    wait_until("the edit is refused", || async {
        config(&gateway).await["problems"][0]["severity"] == "error"
    })
    .await;
    let problem = &config(&gateway).await["problems"][0];
    assert_eq!(problem["file"], file.display().to_string());
    assert_eq!(problem["line"], 15, "{problem}\n{bad}");
    assert_eq!(problem["path"], "scheduler.plugins.Score.enabled[0].name");
    assert_eq!(problem["remedy"], "did you mean `random`?");
    let metrics = gateway.metrics().await;
    let errors = ["severity=\"error\""];
    assert_eq!(series_sum(&metrics, "sluice_config_problems", &errors), 1.0);
    assert_eq!(
        series_sum(&metrics, "sluice_config_rejects_total", &[]),
        1.0
    );
    chats(&gateway, "deepseek", 2, 200).await;
    assert_eq!(plugins(&gateway).await[2], ("random".to_owned(), 5.0));

    // Nothing said any more: our own default.
    reschedule(&gateway, &file, "# nothing\n", "Mtl").await;
    chats(&gateway, "deepseek", 1, 200).await;
    assert_eq!(plugins(&gateway).await.last().unwrap().0, "mtl");
    let metrics = gateway.metrics().await;
    assert_eq!(series_sum(&metrics, "sluice_config_problems", &errors), 0.0);
}

#[tokio::test]
async fn a_model_server_that_chooses_and_a_bootstrap_that_does_go_before_the_router_configuration()
{
    let engines = engines(1);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("router.yaml");
    write(&file, &config_map(&[("random", 1)]));
    let own = model_server(
        "own",
        &[engines[0].addr()],
        "scheduling: {policy: round-robin}",
    ) + &model_route("own", "own", &[("own", 1)]);
    let gateway = Gateway::builder(routes(&engines) + &own)
        .with(|bootstrap| {
            bootstrap.scheduling = None;
            bootstrap.source.router_configuration = Some(file.clone());
        })
        .start()
        .await;
    let policies = |gateway: &Gateway| -> Vec<&'static str> {
        let serving = gateway.running.gateway.serving.load();
        serving
            .pools
            .iter()
            .map(|pool| pool.policy.name())
            .collect()
    };
    assert_eq!(policies(&gateway), ["round-robin", "kthena"]);
    // The harness chooses least-request.
    let gateway = Gateway::builder(routes(&engines) + &own)
        .with(|bootstrap| bootstrap.source.router_configuration = Some(file.clone()))
        .start()
        .await;
    assert_eq!(policies(&gateway), ["round-robin", "least-request"]);
    let problems = config(&gateway).await["problems"].clone();
    assert_eq!(problems[0]["path"], "scheduler");
    assert_eq!(problems[0]["severity"], "warning");
}

#[tokio::test]
async fn a_router_configuration_that_is_bad_from_the_start_stops_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("router.yaml");
    let mut bootstrap = Gateway::bootstrap();
    bootstrap.source.router_configuration = Some(file.clone());
    let refused = |bootstrap: &sluice_config::Bootstrap| match Running::start(bootstrap.clone()) {
        Ok(_) => panic!("it starts"),
        Err(error) => format!("{error:#}"),
    };
    assert!(refused(&bootstrap).contains("cannot be read"));
    write(&file, "auth: {issuer: a}\n");
    let told = refused(&bootstrap);
    assert!(
        told.contains("router.yaml:1: auth: nobody is asked for a token"),
        "{told}"
    );
}

#[tokio::test]
async fn r15_the_debug_server_lists_what_is_served_and_is_on_loopback_alone() {
    let engines = engines(2);
    let gateway = Gateway::builder(routes(&engines))
        .with(|bootstrap| bootstrap.engines.metrics = true)
        .start()
        .await;
    chats(&gateway, "deepseek", 1, 200).await;
    let get = async |path: &str| {
        let answer = reqwest::get(gateway.admin_url(&format!("/debug/config_dump/{path}")));
        let answer = answer.await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json::<Value>().await.unwrap())
    };
    let counts = [
        ("modelroutes", 1),
        ("modelservers", 1),
        ("pods", 2),
        ("gateways", 0),
        ("httproutes", 0),
        ("inferencepools", 0),
    ];
    for (kind, count) in counts {
        let (status, value) = get(kind).await;
        assert_eq!(status, 200, "{kind}");
        assert_eq!(value[kind].as_array().unwrap().len(), count, "{value}");
    }
    let (_, route) = get("namespaces/default/modelroutes/chat").await;
    assert_eq!(route["spec"]["modelName"], "deepseek");
    wait_until("an engine has told of itself", || async {
        let (_, pods) = get("pods").await;
        pods["pods"][0]["models"] != json!([])
    })
    .await;
    let (_, pods) = get("pods").await;
    for pod in pods["pods"].as_array().unwrap() {
        assert_eq!(pod["engine"], "vLLM");
        assert_eq!(pod["modelServers"], json!(["default/sim"]));
        for number in ["requestWaitingNum", "requestRunningNum", "tpot", "ttft"] {
            assert!(pod["metrics"][number].is_number(), "{pod}");
        }
    }
    assert_eq!(get("namespaces/default/pods/none").await.0, 404);
    // By default on loopback, and the metrics listener has none of it.
    let default = sluice_config::Bootstrap::default();
    assert!(default.admin.address.ip().is_loopback());
    let elsewhere = gateway.metrics_url("/debug/config_dump/pods");
    assert_eq!(reqwest::get(elsewhere).await.unwrap().status(), 404);
}
