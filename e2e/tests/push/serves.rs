//! What is pushed is served, at once and whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use sluice_config::push::{PeerMessage, ResourceType, SecretMessage};
use sluice_e2e::harness::client::{ask, chat, http1, sample};
use sluice_e2e::harness::control::{Pushed, end, resource, response};
use sluice_e2e::harness::pushed::{self, Pod, document, route, server};
use sluice_e2e::harness::wait_until;

use crate::bed::{Bed, engine};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_is_ready_with_its_first_batch_and_serves_it() {
    let engine = engine(|_| {});
    let mut bed = Bed::new().await;
    assert_eq!(bed.readiness().await, 503);
    assert_eq!(bed.ask("sim").await.status, 404);
    let answers = bed
        .push([
            server("pool"),
            Pod::new("a", engine.addr(), &["pool"]).upsert(),
            route("sim", "sim", &[("pool", 1)]),
        ])
        .await;
    assert!(answers.rejections.is_empty(), "{answers:?}");
    assert_eq!(bed.readiness().await, 200);
    assert_eq!(bed.ask("sim").await.status, 200);
    bed.push_batch(Pushed::removal(ResourceType::ModelRoute, "default/sim"))
        .await;
    assert_eq!(bed.ask("sim").await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_and_its_endpoints_are_never_half_there() {
    let engine = engine(|_| {});
    let mut bed = Bed::new().await;
    bed.push([]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (url, stopped) = (bed.gateway.url(""), Arc::clone(&stop));
    let asking = tokio::spawn(async move {
        let (client, body) = (http1(), chat("sim", "hello", 3, false));
        let mut seen = Vec::new();
        while !stopped.load(Ordering::Relaxed) {
            seen.push(ask(&client, &url, "x", None, &body).await.status);
        }
        seen
    });
    // Piece by piece, with time in between for requests to see what is in force.
    let pod = Pod::new("a", engine.addr(), &["pool"]).upsert();
    let pieces = [server("pool"), route("sim", "sim", &[("pool", 1)]), pod];
    let mut nonces = Vec::new();
    for piece in &pieces {
        let part = response(piece.kind, vec![resource(piece)]);
        nonces.push(bed.stream.send(part).await);
        let before = bed.gateway.running.gateway.metrics.encode();
        let requests = |text: &str| sample(text, "sluice_requests_total", &[]);
        let before = requests(&before);
        wait_until("requests were served meanwhile", || async {
            requests(&bed.gateway.running.gateway.metrics.encode()) > before + 5.0
        })
        .await;
        assert_eq!(
            bed.gateway.generation(),
            1,
            "nothing is in force before the end"
        );
    }
    nonces.push(bed.stream.send(end(2)).await);
    bed.stream.answers(nonces).await;
    assert_eq!(bed.ask("sim").await.status, 200);
    stop.store(true, Ordering::Relaxed);
    let seen = asking.await.unwrap();
    assert!(
        seen.iter().all(|status| [404, 200].contains(status)),
        "{seen:?}"
    );
    assert!(seen.contains(&404));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_weight_shifts_the_traffic() {
    let (stable, canary) = (engine(|_| {}), engine(|_| {}));
    let mut bed = Bed::new().await;
    bed.push([
        server("stable"),
        server("canary"),
        Pod::new("a", stable.addr(), &["stable"]).upsert(),
        Pod::new("b", canary.addr(), &["canary"]).upsert(),
        route("sim", "sim", &[("stable", 100), ("canary", 0)]),
    ])
    .await;
    for _ in 0..20 {
        assert_eq!(bed.ask("sim").await.status, 200);
    }
    assert_eq!(canary.requests().received, 0);
    let before = stable.requests().received;
    bed.push([route("sim", "sim", &[("stable", 0), ("canary", 100)])])
        .await;
    for _ in 0..20 {
        assert_eq!(bed.ask("sim").await.status, 200);
    }
    assert_eq!(stable.requests().received, before);
    assert_eq!(canary.requests().received, 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_without_its_server_is_passed_over_and_named_when_it_is_all_there_is() {
    let engine = engine(|_| {});
    let mut bed = Bed::new().await;
    bed.push([
        server("pool"),
        Pod::new("a", engine.addr(), &["pool"]).upsert(),
        route("mixed", "mixed", &[("gone", 99), ("pool", 1)]),
        route("lost", "lost", &[("gone", 1)]),
        route("idle", "idle", &[("gone", 1), ("pool", 0)]),
    ])
    .await;
    for _ in 0..10 {
        let body = chat("mixed", "hello", 3, false);
        let answer = ask(&bed.client, &bed.gateway.url(""), "x", None, &body).await;
        // The engine knows `sim` only; that it was asked is what counts.
        assert_eq!(answer.status, 404);
    }
    assert_eq!(engine.requests().received, 10);
    for model in ["lost", "idle"] {
        let answer = bed.ask(model).await;
        assert_eq!(answer.status, 503);
        let error = &answer.json()["error"];
        let words = error["message"].as_str().unwrap();
        assert!(words.contains("ModelServer `default/gone`"), "{words}");
        assert!(answer.headers.contains_key("retry-after"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_are_asked_for_by_those_who_need_them_and_shown_by_version_only() {
    let mut bed = Bed::new().await;
    bed.push([]).await;
    let provider = document(json!({
        "apiVersion": "networking.serving.volcano.sh/v1alpha1",
        "kind": "ExternalModelProvider",
        "metadata": {"name": "openai"},
        "spec": {
            "baseURL": "https://api.example.com/v1",
            "auth": {"secretRef": {"name": "key", "key": "token"}},
        },
    }));
    let nonces = vec![
        bed.stream
            .send(response(provider.kind, vec![resource(&provider)]))
            .await,
        bed.stream.send(end(2)).await,
    ];
    bed.stream.answers(nonces).await;
    let asked = bed.stream.request().await.unwrap();
    assert_eq!(asked.type_url, ResourceType::Secret.url());
    assert_eq!(asked.resource_names_subscribe, ["default/key"]);
    bed.shows("the Secret is missed", |push| {
        push["missingSecrets"] == json!(["default/key"])
    })
    .await;
    let message = SecretMessage {
        namespace: "default".into(),
        name: "key".into(),
        data: [("token".to_owned(), b"hunter2".to_vec())].into(),
    };
    let secret = pushed::resource(ResourceType::Secret, "default/key", &message);
    let version = secret.version.clone();
    bed.push([secret]).await;
    let shown = bed.debug("/debug/config").await;
    let secrets = &shown["push"]["secrets"];
    assert_eq!(
        *secrets,
        json!([{"name": "default/key", "version": version}])
    );
    assert!(!shown.to_string().contains("hunter2"));
    bed.push_batch(Pushed::removal(
        ResourceType::ExternalModelProvider,
        "default/openai",
    ))
    .await;
    let asked = bed.stream.request().await.unwrap();
    assert_eq!(asked.resource_names_unsubscribe, ["default/key"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn debug_pages_and_metrics_tell_how_the_stream_stands() {
    let engine = engine(|_| {});
    let mut bed = Bed::new().await;
    let peer = PeerMessage {
        namespace: "sluice".into(),
        pod: "proxy-1".into(),
        host: "10.0.0.7".into(),
        zone: "zone-b".into(),
        ready: true,
    };
    bed.push([
        server("pool"),
        Pod::new("a", engine.addr(), &["pool"]).draining().upsert(),
        route("sim", "sim", &[("pool", 1)]),
        pushed::resource(ResourceType::Peer, "sluice/proxy-1", &peer),
    ])
    .await;
    let push = &bed.debug("/debug/config").await["push"];
    assert_eq!(push["connected"], true, "{push}");
    assert_eq!(
        (&push["control"], &push["generation"]),
        (&json!("scripted"), &json!(1))
    );
    assert_eq!(push["node"], "default/gateway");
    assert_eq!(push["resources"]["Endpoint"], 1);
    assert_eq!(push["peers"][0]["name"], "sluice/proxy-1");
    let endpoints = bed.debug("/debug/endpoints").await;
    let endpoint = &endpoints["pools"][0]["endpoints"][0];
    assert_eq!(endpoint["draining"], true);
    assert_eq!(endpoint["pod"]["name"], "default/a");
    assert_eq!(endpoint["pod"]["zone"], "zone-a");
    let explained = bed.client.post(bed.gateway.admin_url("/debug/explain"));
    let explained = explained
        .json(&chat("sim", "hello", 3, false))
        .send()
        .await
        .unwrap();
    let explained: serde_json::Value = explained.json().await.unwrap();
    let row = &explained["candidates"][0];
    assert_eq!(
        (&row["reason"], &row["pod"]),
        (&json!("draining"), &json!("default/a"))
    );
    let metrics = bed.gateway.metrics().await;
    for line in [
        "sluice_push_connected 1",
        "sluice_push_generation 1",
        "sluice_push_batches_total 1",
        "sluice_push_rejected 0",
        "sluice_push_lag_seconds_count 1",
        "sluice_push_resources{type=\"ModelRoute\"} 1",
    ] {
        assert!(
            metrics.lines().any(|found| found == line),
            "no {line} in\n{metrics}"
        );
    }
    let address = engine.addr().to_string();
    let labels = [format!("endpoint=\"{address}\"")];
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    assert_eq!(sample(&metrics, "sluice_endpoint_draining", &labels), 1.0);
    assert!(metrics.contains("pod=\"default/a\""));
}
