//! Who gets in, and what they never see.

use std::sync::Arc;

use envoy_types::pb::envoy::service::discovery::v3::DiscoveryRequest;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::{Value, json};
use sluice_config::push::ResourceType;
use sluice_control::authenticate::{AUDIENCE, Authenticator, TokenReviewer};
use sluice_control::grants::Grants;
use tokio::sync::watch;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};

use crate::bed::{Bed, Options};
use crate::gateway::{Gateway, Introduction};

use ResourceType::{ModelRoute, Secret};

fn grants(grants: &[&str]) -> Grants {
    let grants: Vec<_> = grants.iter().map(|&grant| grant.to_owned()).collect();
    Grants::parse(&grants, "sluice-system").unwrap()
}

/// Takes the token `token-of-NAME` for NAME's.
pub(crate) fn reviewer() -> TokenReviewer {
    let service = tower::service_fn(|request: http::Request<kube::client::Body>| async {
        let review = request.into_body().collect_bytes().await.unwrap();
        let mut review: Value = serde_json::from_slice(&review).unwrap();
        let token = review["spec"]["token"].as_str().unwrap();
        review["status"] = match token.strip_prefix("token-of-") {
            Some(name) => json!({
                "authenticated": true,
                "audiences": [AUDIENCE],
                "user": { "username": name },
            }),
            None => json!({ "authenticated": false, "error": "[invalid bearer token]" }),
        };
        let body = kube::client::Body::from(review.to_string().into_bytes());
        Ok::<_, tower::BoxError>(http::Response::new(body))
    });
    TokenReviewer::new(kube::Client::new(service, "default"))
}

async fn bed_with_tokens() -> Bed {
    let options = Options {
        authenticator: Authenticator::new(Some(reviewer())),
        grants: grants(&["tenant=a", "operator=*"]),
        ..Options::default()
    };
    Bed::with(options).await
}

async fn by_token(bed: &Bed, token: &'static str) -> Result<Gateway, Status> {
    let introduction = Introduction {
        token: Some(token),
        ..Introduction::default()
    };
    Gateway::introduced(bed.address, "one", introduction).await
}

#[tokio::test]
async fn what_an_identity_may_not_see_is_never_sent_to_it() {
    let bed = bed_with_tokens().await;
    bed.apply(&[
        (ModelRoute, "a/1", "x"),
        (ModelRoute, "b/1", "x"),
        (Secret, "b/key", "k"),
    ]);
    let mut tenant = by_token(&bed, "token-of-tenant").await.unwrap();
    tenant.subscribe(Secret, &["b/key"]).await;
    tenant.subscribe_to_all().await;
    let first = tenant.follow().await;
    assert_eq!(first.values(), [("a/1".to_owned(), "x".to_owned())]);
    assert_eq!(first.removals(), [(Secret, "b/key".to_owned())]);
    bed.apply(&[(ModelRoute, "b/1", "y"), (Secret, "b/key", "l")]);
    bed.remove(&[(ModelRoute, "b/1")]);
    bed.apply(&[(ModelRoute, "a/1", "y")]);
    let batch = tenant.follow().await;
    assert_eq!(batch.values(), [("a/1".to_owned(), "y".to_owned())]);
    assert!(batch.removals().is_empty());

    let mut operator = by_token(&bed, "token-of-operator").await.unwrap();
    operator.subscribe(Secret, &["b/key"]).await;
    operator.subscribe_to_all().await;
    assert_eq!(operator.follow().await.upserts().len(), 2);
}

#[tokio::test]
async fn who_asks_for_more_namespaces_than_granted_gets_none_of_them() {
    let bed = bed_with_tokens().await;
    bed.apply(&[(ModelRoute, "a/1", "x"), (ModelRoute, "b/1", "x")]);
    let introduction = Introduction {
        namespaces: vec!["b"],
        token: Some("token-of-tenant"),
    };
    let mut gateway = Gateway::introduced(bed.address, "one", introduction)
        .await
        .unwrap();
    gateway.subscribe_to_all().await;
    assert!(gateway.follow().await.is_empty());
}

#[tokio::test]
async fn strangers_are_told_what_is_missing() {
    let bed = bed_with_tokens().await;
    let refused = Gateway::connect(bed.address, "one").await.err().unwrap();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(
        refused
            .message()
            .contains("no client certificate and no token"),
        "{refused}"
    );
    let refused = by_token(&bed, "nonsense").await.err().unwrap();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(
        refused.message().contains("invalid bearer token"),
        "{refused}"
    );
    let refused = by_token(&bed, "token-of-nobody").await.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("--grant 'nobody="), "{refused}");
    assert_eq!(bed.push.acks().connected(), 0);
}

#[tokio::test]
async fn the_state_of_the_world_is_not_served_and_says_so() {
    let bed = Bed::start().await;
    let channel = Endpoint::from_shared(format!("http://{}", bed.address)).unwrap();
    let channel = channel.connect().await.unwrap();
    let mut client = AggregatedDiscoveryServiceClient::new(channel);
    let requests = tokio_stream::once(DiscoveryRequest::default());
    let refused = client
        .stream_aggregated_resources(requests)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    assert!(
        refused.message().contains("DeltaAggregatedResources"),
        "{refused}"
    );
}

/// Certificates of one authority.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
        Self { issuer }
    }

    fn pem(&self) -> String {
        self.issuer.pem()
    }

    fn issue(&self, name: SanType) -> (rcgen::Certificate, KeyPair) {
        let mut params = CertificateParams::default();
        params.subject_alt_names.push(name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate, key)
    }

    /// For a client with this URI.
    fn client(&self, uri: &str) -> Identity {
        let (certificate, key) = self.issue(SanType::URI(uri.try_into().unwrap()));
        Identity::from_pem(certificate.pem(), key.serialize_pem())
    }

    /// For `localhost`, taking clients of `clients`.
    fn server(&self, clients: &Self, optional: bool) -> Arc<ServerConfig> {
        let (certificate, key) = self.issue(SanType::DnsName("localhost".try_into().unwrap()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(clients.issuer.der().clone()).unwrap();
        let mut verifier =
            WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider));
        if optional {
            verifier = verifier.allow_unauthenticated();
        }
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        Arc::new(config)
    }
}

async fn secure_bed(tls: watch::Receiver<Arc<ServerConfig>>) -> Bed {
    let options = Options {
        authenticator: Authenticator::new(Some(reviewer())),
        grants: grants(&["spiffe://c/gateway=a", "tenant=a"]),
        tls: Some(tls),
        ..Options::default()
    };
    Bed::with(options).await
}

/// A channel to `localhost`, trusting one authority.
async fn channel(
    bed: &Bed,
    authority: &Authority,
    identity: Option<Identity>,
) -> Result<Channel, tonic::transport::Error> {
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(authority.pem()))
        .domain_name("localhost");
    if let Some(identity) = identity {
        tls = tls.identity(identity);
    }
    let endpoint = Endpoint::from_shared(format!("https://{}", bed.address)).unwrap();
    endpoint.tls_config(tls).unwrap().connect().await
}

#[tokio::test]
async fn a_client_certificate_is_an_identity() {
    let authority = Authority::new();
    let (_settings, tls) = watch::channel(authority.server(&authority, false));
    let bed = secure_bed(tls).await;
    bed.apply(&[(ModelRoute, "a/1", "x"), (ModelRoute, "b/1", "x")]);
    let known = authority.client("spiffe://c/gateway");
    let channel_of = channel(&bed, &authority, Some(known)).await.unwrap();
    let mut gateway = Gateway::over(channel_of, "one", Introduction::default())
        .await
        .unwrap();
    gateway.subscribe_to_all().await;
    assert_eq!(
        gateway.follow().await.values(),
        [("a/1".to_owned(), "x".to_owned())]
    );
    assert_eq!(bed.push.acks().proxies()[0].identity, "spiffe://c/gateway");

    let other = authority.client("spiffe://c/other");
    let channel_of = channel(&bed, &authority, Some(other)).await.unwrap();
    let refused = Gateway::over(channel_of, "two", Introduction::default())
        .await
        .err()
        .unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn without_a_certificate_a_token_does_where_certificates_are_optional() {
    let authority = Authority::new();
    let (_settings, tls) = watch::channel(authority.server(&authority, true));
    let bed = secure_bed(tls).await;
    let introduction = Introduction {
        token: Some("token-of-tenant"),
        ..Introduction::default()
    };
    let plain = channel(&bed, &authority, None).await.unwrap();
    Gateway::over(plain.clone(), "one", introduction)
        .await
        .unwrap();
    let refused = Gateway::over(plain, "one", Introduction::default())
        .await
        .err()
        .unwrap();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn certificates_of_strangers_and_missing_ones_do_not_pass_the_handshake() {
    let authority = Authority::new();
    let (_settings, tls) = watch::channel(authority.server(&authority, false));
    let bed = secure_bed(tls).await;
    let stranger = Authority::new().client("spiffe://c/gateway");
    for identity in [None, Some(stranger)] {
        // TLS 1.3 tells a client only after it believes to be connected.
        if let Ok(channel) = channel(&bed, &authority, identity).await {
            let refused = Gateway::over(channel, "one", Introduction::default()).await;
            assert!(refused.is_err());
        }
    }
    assert_eq!(bed.push.acks().connected(), 0);
}

#[tokio::test]
async fn a_replaced_certificate_is_used_by_new_connections_and_old_ones_go_on() {
    let (old, new) = (Authority::new(), Authority::new());
    let (settings, tls) = watch::channel(old.server(&old, false));
    let bed = secure_bed(tls).await;
    let uri = "spiffe://c/gateway";
    let first = channel(&bed, &old, Some(old.client(uri))).await.unwrap();
    let mut first = Gateway::over(first, "one", Introduction::default())
        .await
        .unwrap();
    first.subscribe_to_all().await;
    first.follow().await;
    settings.send_replace(new.server(&new, false));
    assert!(channel(&bed, &old, Some(old.client(uri))).await.is_err());
    let second = channel(&bed, &new, Some(new.client(uri))).await.unwrap();
    let mut second = Gateway::over(second, "two", Introduction::default())
        .await
        .unwrap();
    second.subscribe_to_all().await;
    second.follow().await;
    bed.apply(&[(ModelRoute, "a/1", "x")]);
    assert_eq!(first.follow().await.upserts().len(), 1);
    assert_eq!(second.follow().await.upserts().len(), 1);
}
