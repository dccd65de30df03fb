//! Getting to a control loop and staying with one: several addresses, certificates, tokens, streams that end.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use sluice_config::bootstrap::PushConfig;
use sluice_config::push::ResourceType;
use sluice_e2e::harness::client::{ask, chat, http1, sample};
use sluice_e2e::harness::control::{Control, ControlStream, Pushed};
use sluice_e2e::harness::pushed::{Pod, route, server};
use sluice_e2e::harness::{Gateway, wait_until};
use tempfile::TempDir;
use tonic::Status;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

use crate::bed::{Bed, engine};

/// An authority, and what it has signed for a control loop at `localhost` and for a gateway.
struct Authority {
    folder: TempDir,
    server: ServerTlsConfig,
}

impl Authority {
    fn new() -> Self {
        Self::with(|_| {})
    }

    /// The same, with a changed certificate of the control loop.
    fn with(change: impl FnOnce(&mut CertificateParams)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let named = |name: &str| CertificateParams::new(vec![name.to_owned()]).unwrap();
        let issue = |params: CertificateParams| {
            let key = KeyPair::generate().unwrap();
            (
                params.signed_by(&key, &issuer).unwrap().pem(),
                key.serialize_pem(),
            )
        };
        let mut params = named("localhost");
        change(&mut params);
        let (cert, key) = issue(params);
        let server = ServerTlsConfig::new()
            .identity(Identity::from_pem(cert, key))
            .client_ca_root(Certificate::from_pem(issuer.pem()))
            .client_auth_optional(true);
        let (cert, key) = issue(named("gateway"));
        for (name, text) in [
            ("ca", issuer.pem()),
            ("cert", cert),
            ("key", key),
            ("token", "one".into()),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        Self { folder, server }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self, control: &Control) -> PushConfig {
        let port = control.address().port();
        PushConfig {
            addresses: vec![format!("https://localhost:{port}")],
            ca_file: Some(self.file("ca")),
            token_file: Some(self.file("token")),
            ..PushConfig::default()
        }
    }
}

async fn follow(config: PushConfig) -> Gateway {
    let builder = Gateway::builder("").with(|bootstrap| bootstrap.source.push = Some(config));
    builder.start().await
}

async fn shows(gateway: &Gateway, what: &str, so: impl Fn(&serde_json::Value) -> bool) {
    wait_until(what, || async {
        let shown = reqwest::get(gateway.admin_url("/debug/config"))
            .await
            .unwrap();
        so(&shown.json::<serde_json::Value>().await.unwrap()["push"])
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_token_is_shown_over_tls_and_read_anew_for_every_connection() {
    let authority = Authority::new();
    let any = ([127, 0, 0, 1], 0).into();
    let mut control = Control::start_at(any, Some(authority.server.clone())).await;
    let gateway = follow(authority.config(&control)).await;
    let mut stream = control.accept().await;
    assert_eq!(stream.metadata.get("authorization").unwrap(), "Bearer one");
    stream.subscriptions().await;
    std::fs::write(authority.file("token"), "two\n").unwrap();
    stream
        .fail(Status::unauthenticated("the token has expired"))
        .await;
    shows(&gateway, "it is said", |push| {
        let text = push["lastFailure"].as_str().unwrap_or_default();
        text.contains("the token has expired") && text.contains("source.push.tokenFile")
    })
    .await;
    let stream = control.accept().await;
    assert_eq!(stream.metadata.get("authorization").unwrap(), "Bearer two");
    let shown = reqwest::get(gateway.admin_url("/debug/config"))
        .await
        .unwrap();
    assert!(!shown.text().await.unwrap().contains("Bearer"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_another_authority_is_not_believed() {
    let (authority, other) = (Authority::new(), Authority::new());
    let any = ([127, 0, 0, 1], 0).into();
    let mut control = Control::start_at(any, Some(authority.server.clone())).await;
    let gateway = follow(PushConfig {
        ca_file: Some(other.file("ca")),
        ..authority.config(&control)
    })
    .await;
    shows(&gateway, "the certificate is refused", |push| {
        push["lastFailure"]
            .as_str()
            .unwrap_or_default()
            .contains("certificate")
    })
    .await;
    // The file is read for every attempt: once it is the right one, so is the connection.
    std::fs::copy(authority.file("ca"), other.file("ca")).unwrap();
    let mut stream = control.accept().await;
    stream.subscriptions().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_has_expired_is_not_believed() {
    let authority = Authority::with(|params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 1, 2);
    });
    let any = ([127, 0, 0, 1], 0).into();
    let control = Control::start_at(any, Some(authority.server.clone())).await;
    let gateway = follow(authority.config(&control)).await;
    shows(&gateway, "it is said", |push| {
        let text = push["lastFailure"].as_str().unwrap_or_default();
        text.contains("expired")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_authority_is_replaced_the_next_connection_believes_the_new_one() {
    let (authority, next) = (Authority::new(), Authority::new());
    let any = ([127, 0, 0, 1], 0).into();
    let mut before = Control::start_at(any, Some(authority.server.clone())).await;
    let mut after = Control::start_at(any, Some(next.server.clone())).await;
    let mut config = authority.config(&before);
    config.addresses.extend(next.config(&after).addresses);
    let _gateway = follow(config).await;
    let mut stream = before.accept().await;
    stream.subscriptions().await;
    // As the kubelet does: the new file takes the place of the old one.
    let new = authority.file("ca.new");
    std::fs::copy(next.file("ca"), &new).unwrap();
    std::fs::rename(&new, authority.file("ca")).unwrap();
    drop((stream, before));
    let mut stream = after.accept().await;
    stream.subscriptions().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_is_shown_where_one_is_configured() {
    let authority = Authority::new();
    let any = ([127, 0, 0, 1], 0).into();
    let must = authority.server.clone().client_auth_optional(false);
    let mut control = Control::start_at(any, Some(must)).await;
    let _gateway = follow(PushConfig {
        token_file: None,
        cert_file: Some(authority.file("cert")),
        key_file: Some(authority.file("key")),
        ..authority.config(&control)
    })
    .await;
    let mut stream = control.accept().await;
    assert!(stream.metadata.get("authorization").is_none());
    stream.subscriptions().await;
}

/// A gateway that may follow either of two control loops, and the one that it follows.
struct Choice {
    gateway: Gateway,
    chosen: Control,
    stream: ControlStream,
    other: Control,
}

impl Choice {
    async fn of_two() -> Self {
        let (mut one, mut two) = (Control::start().await, Control::start().await);
        let gateway = follow(PushConfig {
            addresses: vec![one.url(), two.url(), "http://127.0.0.1:1".into()],
            ..one.config()
        })
        .await;
        let (first, stream) = tokio::select! {
            stream = one.accept() => (true, stream),
            stream = two.accept() => (false, stream),
        };
        let (chosen, other) = if first { (one, two) } else { (two, one) };
        Self {
            gateway,
            chosen,
            stream,
            other,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_one_control_loop_goes_the_gateway_follows_another() {
    let Choice {
        gateway,
        chosen,
        mut stream,
        mut other,
    } = Choice::of_two().await;
    let subscriptions = stream.subscriptions().await;
    assert_eq!(subscriptions.node, "default/gateway");
    stream.push(Pushed::upserts([server("pool")]), 1).await;
    drop((stream, chosen));
    let mut stream = other.accept().await;
    let subscriptions = stream.subscriptions().await;
    let known = &subscriptions.known[&ResourceType::ModelServer];
    assert_eq!(known.len(), 1, "only the difference need flow");
    other.push(&mut stream, Pushed::default()).await;
    shows(&gateway, "it is connected again", |push| {
        push["connected"] == true
    })
    .await;
    let metrics = gateway.metrics().await;
    assert!(sample(&metrics, "sluice_push_reconnects_total", &[]) >= 1.0);
    assert_eq!(sample(&metrics, "sluice_push_connected", &[]), 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_control_loop_knows_takes_the_place_of_what_the_first_did() {
    let models = ["both", "first", "second"];
    let engine = engine(|options| options.models = models.map(str::to_owned).into());
    let Choice {
        gateway,
        chosen,
        mut stream,
        mut other,
    } = Choice::of_two().await;
    stream.subscriptions().await;
    let pod = Pod::new("a", engine.addr(), &["pool"]).upsert();
    let [both, first, second] = models.map(|model| route(model, model, &[("pool", 1)]));
    let pushed = Pushed::upserts([server("pool"), pod, both, first]);
    chosen.push(&mut stream, pushed).await;
    assert_eq!(status(&gateway, "first").await, 200);
    drop((stream, chosen));
    let mut stream = other.accept().await;
    stream.subscriptions().await;
    // The second is behind in one thing and ahead in another.
    let mut pushed = Pushed::removal(ResourceType::ModelRoute, "default/first");
    pushed.upserts.push(second);
    other.push(&mut stream, pushed).await;
    for (model, wanted) in [("both", 200), ("first", 404), ("second", 200)] {
        assert_eq!(status(&gateway, model).await, wanted, "{model}");
    }
}

async fn status(gateway: &Gateway, model: &str) -> u16 {
    let body = chat(model, "hello", 3, false);
    let answer = ask(&http1(), &gateway.url(""), "x", None, &body).await;
    answer.status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_of_the_stream_is_said_and_tried_again() {
    let mut bed = Bed::new().await;
    bed.push([server("pool")]).await;
    let denied = Status::permission_denied("no namespace is granted");
    let next = bed.control.accept();
    bed.stream.fail(denied).await;
    bed.stream = next.await;
    let push = &bed.gateway.running.source.push().unwrap().show();
    let text = push["lastFailure"].as_str().unwrap();
    assert!(
        text.contains("no namespace is granted; grant the gateway's identity"),
        "{text}"
    );
    assert_eq!(push["connected"], false);
    assert_eq!(bed.gateway.generation(), 1, "what was in force is in force");
}
