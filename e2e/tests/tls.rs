//! TLS on both sides of the gateway: an inner gateway serves it, an outer one speaks it to its "engine". And the
//! certificates of listeners, which are replaced while connections are open.

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use sluice_config::bootstrap::ListenerTls;
use sluice_e2e::engine::{EngineOptions, EngineServer};
use sluice_e2e::harness::client::{chat, http1};
use sluice_e2e::harness::{Gateway, model_route, model_server, series_sum, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

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

impl Certificate {
    fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(&self.cert).unwrap()
    }

    /// Puts another one in the place of this.
    fn replace(&self, other: &Certificate) {
        std::fs::copy(&other.key, &self.key).unwrap();
        std::fs::copy(&other.cert, &self.cert).unwrap();
    }
}

/// A new connection of somebody who trusts all of these; with the certificate that it was shown.
async fn connect(
    address: SocketAddr,
    trusted: &[CertificateDer<'static>],
) -> (TlsStream<TcpStream>, CertificateDer<'static>) {
    let mut roots = RootCertStore::empty();
    for certificate in trusted {
        roots.add(certificate.clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "localhost".try_into().unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let stream = connector.connect(name, stream).await.unwrap();
    let shown = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
    (stream, shown.into_owned())
}

/// Lists models on an open connection.
async fn models(stream: &mut TlsStream<TcpStream>) -> String {
    let request = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"}") {
        assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "it is cut");
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_shown_to_new_connections_and_cuts_no_old_one() {
    let engine = EngineServer::start(EngineOptions::instant("sim")).unwrap();
    let (files, second, third) = (certificate(), certificate(), certificate());
    let all = [&files, &second, &third].map(Certificate::der);
    let gateway = inner(&engine, &files).await;
    let refused = async || {
        let metrics = gateway.metrics().await;
        series_sum(&metrics, "sluice_certificates_refused", &[])
    };
    let shows = async |expected: &CertificateDer<'static>| {
        connect(gateway.address, &all).await.1 == *expected
    };
    let (mut old, shown) = connect(gateway.address, &all).await;
    assert_eq!(shown, all[0]);
    assert!(models(&mut old).await.starts_with("HTTP/1.1 200"));

    files.replace(&second);
    wait_until("the new certificate is shown", || shows(&all[1])).await;
    assert!(models(&mut old).await.starts_with("HTTP/1.1 200"));

    std::fs::write(&files.cert, "no certificate").unwrap();
    wait_until("the refusal is counted", async || refused().await == 1.0).await;
    assert!(shows(&all[1]).await, "the last good one is in use");
    let metrics = gateway.metrics().await;
    let failed = series_sum(
        &metrics,
        "sluice_certificate_reads_total",
        &["outcome=\"failed\""],
    );
    assert!(failed >= 1.0, "{metrics}");

    files.replace(&third);
    wait_until("the next good one is shown", || shows(&all[2])).await;
    assert_eq!(refused().await, 0.0);
    assert!(models(&mut old).await.starts_with("HTTP/1.1 200"));
}
