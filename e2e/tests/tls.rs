//! TLS on both sides of the gateway: an inner gateway serves it, an outer one speaks it to its "engine".

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::net::SocketAddr;
use std::path::PathBuf;

use sluice_config::bootstrap::ListenerTls;
use sluice_e2e::engine::{EngineOptions, EngineServer};
use sluice_e2e::harness::client::{chat, http1};
use sluice_e2e::harness::{Gateway, model_route, model_server};

struct Certificate {
    _folder: tempfile::TempDir,
    cert: PathBuf,
    key: PathBuf,
}

fn certificate() -> Certificate {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (cert, key) = (
        folder.path().join("cert.pem"),
        folder.path().join("key.pem"),
    );
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    Certificate {
        _folder: folder,
        cert,
        key,
    }
}

fn routes(endpoints: &[SocketAddr], extra: &str) -> String {
    model_server("sim", endpoints, extra) + &model_route("sim", "sim", &[("sim", 100)])
}

/// A gateway that serves TLS in front of a plain engine.
async fn inner(engine: &EngineServer, certificate: &Certificate) -> Gateway {
    let tls = ListenerTls {
        cert_file: certificate.cert.clone(),
        key_file: certificate.key.clone(),
    };
    Gateway::builder(routes(&[engine.addr()], ""))
        .with(|bootstrap| bootstrap.listeners[0].tls = Some(tls))
        .start()
        .await
}

/// Routes to the inner gateway by TLS; by name, since that is what the certificate says.
fn outer_routes(inner: &Gateway, http2: bool) -> String {
    let extra = format!("workloadPort: {{port: 443, protocol: https, http2: {http2}}}");
    let routes = routes(&[inner.address], &extra);
    routes.replace("127.0.0.1", "localhost")
}

#[tokio::test(flavor = "multi_thread")]
async fn chats_and_streams_pass_through_tls_by_http1_and_http2() {
    let engine = EngineServer::start(EngineOptions::instant("sim")).unwrap();
    let certificate = certificate();
    let inner = inner(&engine, &certificate).await;
    for (http2, protocol) in [(false, "HTTP/1.1"), (true, "HTTP/2.0")] {
        let outer = Gateway::builder(outer_routes(&inner, http2))
            .with(|bootstrap| bootstrap.upstream.ca_file = Some(certificate.cert.clone()))
            .start()
            .await;
        for stream in [false, true] {
            let answer = http1()
                .post(outer.url("/v1/chat/completions"))
                .header("x-request-id", format!("tls-{http2}-{stream}"))
                .json(&chat("sim", &"word ".repeat(40_000), 8, stream))
                .send()
                .await
                .unwrap();
            assert_eq!(answer.status(), 200, "{protocol}");
            let text = answer.text().await.unwrap();
            assert_eq!(text.ends_with("data: [DONE]\n\n"), stream, "{text}");
            let line = inner.access_line(&format!("tls-{http2}-{stream}")).await;
            assert_eq!(line["protocol"], protocol);
        }
        outer.settled().await;
    }
    inner.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_with_a_certificate_of_nobody_we_trust_is_not_talked_to() {
    let engine = EngineServer::start(EngineOptions::instant("sim")).unwrap();
    let certificate = certificate();
    let inner = inner(&engine, &certificate).await;
    let stranger = self::certificate();
    let outer = Gateway::builder(outer_routes(&inner, false))
        .with(|bootstrap| bootstrap.upstream.ca_file = Some(stranger.cert.clone()))
        .start()
        .await;
    let answer = http1()
        .post(outer.url("/v1/chat/completions"))
        .json(&chat("sim", "hello", 8, false))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 502);
    assert!(answer.text().await.unwrap().contains("engine_unreachable"));
    assert_eq!(engine.requests().received, 0);
    outer.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_does_not_match_its_key_stops_the_start_with_words() {
    let (one, other) = (certificate(), certificate());
    let mut bootstrap = Gateway::bootstrap();
    bootstrap.listeners[0].tls = Some(ListenerTls {
        cert_file: one.cert.clone(),
        key_file: other.key.clone(),
    });
    let refused = sluice_proxy::server::Assembly::new(bootstrap.clone())
        .err()
        .unwrap();
    let words = format!("{refused:#}");
    assert!(
        words.contains("listener") && words.contains("cert.pem"),
        "{words}"
    );
    bootstrap.listeners[0].tls = Some(ListenerTls {
        cert_file: "missing.pem".into(),
        key_file: other.key.clone(),
    });
    let refused = sluice_proxy::server::Assembly::new(bootstrap)
        .err()
        .unwrap();
    assert!(format!("{refused:#}").contains("missing.pem"));
}
