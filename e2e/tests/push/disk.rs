//! The last good state on disk: a gateway that starts while its control loop is away serves from it.

use std::path::Path;

use serde_json::json;
use sluice_config::Bootstrap;
use sluice_config::push::{ResourceType, SecretMessage};
use sluice_e2e::harness::client::{ask, chat, http1};
use sluice_e2e::harness::control::Control;
use sluice_e2e::harness::pushed::{self, Pod, document, route, server};
use sluice_e2e::harness::{Gateway, wait_until};

use crate::bed::{Bed, engine};

fn keeping(file: &Path) -> impl FnOnce(&mut Bootstrap) {
    let file = file.to_owned();
    |bootstrap| bootstrap.source.push.as_mut().unwrap().state_file = Some(file)
}

async fn status(gateway: &Gateway) -> u16 {
    let body = chat("sim", "hello", 3, false);
    ask(&http1(), &gateway.url(""), "x", None, &body)
        .await
        .status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_without_a_control_loop_serves_and_then_asks_for_the_difference() {
    let engine = engine(|_| {});
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state");
    let mut bed = Bed::with("", keeping(&file)).await;
    let good = route("sim", "sim", &[("pool", 1)]);
    bed.push([
        server("pool"),
        Pod::new("a", engine.addr(), &["pool"]).upsert(),
        good.clone(),
    ])
    .await;
    // Refused: on disk stays what is in force.
    let bad = route("sim", "sim", &[("pool", 0)]);
    assert_eq!(bed.push([bad]).await.rejections.len(), 1);
    let Bed {
        control,
        stream,
        gateway,
        ..
    } = bed;
    let (address, config) = (control.address(), control.config());
    drop((stream, control));
    assert_eq!(
        status(&gateway).await,
        200,
        "the control loop's end changes nothing"
    );
    drop(gateway);

    let gateway = Gateway::builder("")
        .with(|bootstrap| {
            bootstrap.source.push = Some(config);
            keeping(&file)(bootstrap);
        })
        .start()
        .await;
    assert_eq!(status(&gateway).await, 200);
    let ready = reqwest::get(gateway.metrics_url("/readyz")).await.unwrap();
    assert_eq!(ready.status(), 200);
    let shown = reqwest::get(gateway.admin_url("/debug/config"))
        .await
        .unwrap();
    let shown: serde_json::Value = shown.json().await.unwrap();
    assert_eq!(shown["push"]["fromDisk"], true);
    assert_eq!(shown["push"]["connected"], false);

    let mut control = Control::start_at(address, None).await;
    let mut stream = control.accept().await;
    let subscriptions = stream.subscriptions().await;
    let known = &subscriptions.known[&ResourceType::ModelRoute];
    assert_eq!(
        known["default/sim"], good.version,
        "the version in force is named"
    );
    assert_eq!(subscriptions.known[&ResourceType::Endpoint].len(), 1);
    let pushed = sluice_e2e::harness::control::Pushed::default();
    control.push(&mut stream, pushed).await;
    assert_eq!(status(&gateway).await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_follows_the_batches_and_holds_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state");
    let mut bed = Bed::with("", keeping(&file)).await;
    let provider = document(json!({
        "apiVersion": "networking.serving.volcano.sh/v1alpha1",
        "kind": "ExternalModelProvider",
        "metadata": {"name": "openai"},
        "spec": {
            "baseURL": "https://api.example.com/v1",
            "auth": {"secretRef": {"name": "key", "key": "token"}},
        },
    }));
    bed.push([provider]).await;
    let message = SecretMessage {
        namespace: "default".into(),
        name: "key".into(),
        data: [("token".to_owned(), b"hunter2".to_vec())].into(),
    };
    bed.push([pushed::resource(
        ResourceType::Secret,
        "default/key",
        &message,
    )])
    .await;
    bed.push([server("marker")]).await;
    let contains =
        |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|w| w == text.as_bytes());
    wait_until("the newest batch is on disk", || async {
        std::fs::read(&file).is_ok_and(|bytes| contains(&bytes, "default/marker"))
    })
    .await;
    let bytes = std::fs::read(&file).unwrap();
    assert!(contains(&bytes, "default/openai"));
    assert!(!contains(&bytes, "hunter2") && !contains(&bytes, "Secret"));
    let secrets = &bed.debug("/debug/config").await["push"]["secrets"];
    assert_eq!(secrets.as_array().unwrap().len(), 1, "in memory it is");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_file_is_ignored_and_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state");
    std::fs::write(&file, b"SLUICEPS and then something else").unwrap();
    let mut bed = Bed::with("", keeping(&file)).await;
    assert_eq!(bed.readiness().await, 503);
    bed.push([server("pool")]).await;
    drop(bed);
    let bytes = std::fs::read(&file).unwrap();
    assert!(bytes.windows(12).any(|w| w == b"default/pool"));
}
