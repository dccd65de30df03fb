//! The real binary and a real SIGTERM.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sluice_e2e::engine::{EngineOptions, EngineServer};
use sluice_e2e::harness::client::{ask, chat, http1, http2, post};
use sluice_e2e::harness::{free_port, model_route, model_server, wait_until};
use tokio::task::JoinSet;

/// The binary, built if it is not there.
fn binary() -> PathBuf {
    let folder = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target"),
        PathBuf::from,
    );
    let path = folder.join("debug/sluice-proxy");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // Also when it is there: it may be older than the sources.
    let built = Command::new(cargo)
        .args([
            "build",
            "--package",
            "sluice-proxy",
            "--bin",
            "sluice-proxy",
        ])
        .stdin(Stdio::null())
        .status();
    assert!(built.expect("cargo runs").success());
    path
}

/// Ends the process when a test fails.
struct Process(Child);

impl Process {
    fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([format!("-{name}"), self.0.id().to_string()])
            .status();
        assert!(sent.expect("kill runs").success());
    }

    async fn ended(&mut self) -> std::process::ExitStatus {
        let mut status = None;
        wait_until("the process ends", || {
            status = self.0.try_wait().expect("the process is ours");
            let ended = status.is_some();
            async move { ended }
        })
        .await;
        status.expect("it has ended")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

struct Setting {
    engine: EngineServer,
    process: Process,
    url: String,
    ready: String,
    folder: tempfile::TempDir,
}

async fn start(drain_delay: &str) -> Setting {
    let mut options = EngineOptions::instant("sim");
    options.event_interval = Some(Duration::from_millis(50));
    let engine = EngineServer::start(options).expect("an engine starts");
    let folder = tempfile::tempdir().expect("a folder");
    let (routes, config) = (
        folder.path().join("routes.yaml"),
        folder.path().join("b.yaml"),
    );
    let text =
        model_server("sim", &[engine.addr()], "") + &model_route("sim", "sim", &[("sim", 1)]);
    std::fs::write(&routes, text).expect("routes are written");
    let log = folder.path().join("access.log");
    let bootstrap = format!(
        "drain:\n  delay: {drain_delay}\naccessLog:\n  output: {}\n",
        log.display()
    );
    std::fs::write(&config, bootstrap).expect("it is written");
    let address = |port: u16| format!("127.0.0.1:{port}");
    let (listen, metrics) = (address(free_port()), address(free_port()));
    let child = Command::new(binary())
        .arg("--config")
        .arg(&config)
        .arg("--routes")
        .arg(&routes)
        .args(["--listen", &listen, "--metrics", &metrics])
        .args(["--admin", &address(free_port())])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary runs");
    let ready = format!("http://{metrics}/readyz");
    wait_until("the process is ready", || async {
        reqwest::get(&ready)
            .await
            .is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    wait_until("the process listens", || async {
        tokio::net::TcpStream::connect(&listen).await.is_ok()
    })
    .await;
    Setting {
        engine,
        process: Process(child),
        url: format!("http://{listen}"),
        ready,
        folder,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_lets_twenty_streams_finish_and_ends_with_success() {
    let mut setting = start("0s").await;
    let mut streams = JoinSet::new();
    for number in 0_u32..20 {
        let url = setting.url.clone();
        streams.spawn(async move {
            let client = if number.is_multiple_of(2) {
                http1()
            } else {
                http2()
            };
            ask(&client, &url, "x", None, &chat("sim", "hello", 20, true)).await
        });
    }
    // Not those in flight: on a busy machine the first may end before the last begins.
    wait_until("all streams have begun", || async {
        setting.engine.requests().received == 20
    })
    .await;
    setting.process.signal("TERM");
    for answer in streams.join_all().await {
        assert!(answer.complete);
        assert_eq!(answer.events().last().unwrap().data, "[DONE]");
    }
    assert!(setting.process.ended().await.success());
    let log = std::fs::read_to_string(setting.folder.path().join("access.log")).unwrap();
    assert_eq!(log.lines().count(), 20, "every request is logged: {log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_sigterm_ends_the_process_at_once() {
    let mut setting = start("60s").await;
    let body = chat("sim", "hello", 10_000, true);
    let stream = post(&http1(), &setting.url, "x", None, &body).await;
    setting.process.signal("TERM");
    wait_until("the process is no longer ready", || async {
        reqwest::get(&setting.ready)
            .await
            .is_ok_and(|answer| answer.status() == 503)
    })
    .await;
    let started = Instant::now();
    setting.process.signal("TERM");
    setting.process.ended().await;
    assert!(started.elapsed() < Duration::from_secs(5), "no drain");
    drop(stream);
}
