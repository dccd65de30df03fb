//! What was known of caches survives a restart of the gateway, and nothing depends on it.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

use sluice_config::Bootstrap;
use sluice_e2e::engine::EngineServer;
use sluice_e2e::harness::Gateway;

use crate::bed::{Bed, by_default, engine, routes, text, turns};

async fn gateway(engines: &[EngineServer], file: &Path) -> Gateway {
    let keep = |bootstrap: &mut Bootstrap| {
        by_default(bootstrap);
        bootstrap.cache.file = Some(file.to_owned());
    };
    Gateway::builder(routes(engines, ""))
        .with(keep)
        .start()
        .await
}

#[tokio::test]
async fn the_next_gateway_knows_the_warm_engine_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cache");
    let engines = vec![engine(|_| {}), engine(|_| {}), engine(|_| {})];
    let mut bed = Bed {
        gateway: gateway(&engines, &file).await,
        engines,
        client: reqwest::Client::new(),
    };
    let body = turns(&[&text("kept", 8_000)]);
    bed.ask(&body).await;
    let before = bed.cached(&body).await;
    let warm = bed.received().iter().position(|&count| count == 1).unwrap();
    assert!(before[warm] > 1_000, "{before:?}");
    bed.gateway.running.terminate();

    bed.gateway = gateway(&bed.engines, &file).await;
    let after = bed.cached(&body).await;
    assert!(after[warm] > 1_000, "{after:?}");
    assert_eq!(after.iter().filter(|&&cached| cached > 0).count(), 1);
    bed.ask(&body).await;
    assert_eq!(bed.received()[warm], 2);
}

/// What is logged while it lives.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_passed_over_with_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cache");
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    // The file is read on this very thread.
    let logging = tracing::subscriber::set_default(subscriber);
    for damage in [&b"not what was written"[..], b"", &[0xff; 4096]] {
        std::fs::write(&file, damage).unwrap();
        log.0.lock().unwrap().clear();
        let engines = vec![engine(|_| {}), engine(|_| {})];
        let bed = Bed {
            gateway: gateway(&engines, &file).await,
            engines,
            client: reqwest::Client::new(),
        };
        let said = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert!(said.contains("WARN"), "{said}");
        assert!(said.contains("is not taken over"), "{said}");
        let body = turns(&[&text("fresh", 8_000)]);
        assert_eq!(bed.cached(&body).await, [0, 0]);
        bed.ask(&body).await;
    }
    drop(logging);
}
