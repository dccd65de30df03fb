use std::sync::atomic::{AtomicUsize, Ordering};

use kube::client::Body;
use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use serde_json::{Value, json};

use super::*;

/// An API server that gives one answer, and counts the questions.
fn api_server(code: u16, answer: Value) -> (TokenReviewer, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let service = tower::service_fn(move |request: http::Request<Body>| {
        counter.fetch_add(1, Ordering::Relaxed);
        let answer = answer.to_string();
        async move {
            assert_eq!(
                request.uri().path(),
                "/apis/authentication.k8s.io/v1/tokenreviews"
            );
            let asked = request.into_body().collect_bytes().await.unwrap();
            let asked: Value = serde_json::from_slice(&asked).unwrap();
            assert_eq!(
                asked["spec"],
                json!({ "token": "t0ken", "audiences": [AUDIENCE] })
            );
            let answer = Body::from(answer.into_bytes());
            let response = http::Response::builder().status(code).body(answer);
            response.map_err(tower::BoxError::from)
        }
    });
    let client = kube::Client::new(service, "default");
    (TokenReviewer::new(client), asked)
}

fn review(status: Value) -> Value {
    json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "metadata": {},
        "spec": { "token": "t0ken" },
        "status": status,
    })
}

fn good() -> Value {
    review(json!({
        "authenticated": true,
        "audiences": [AUDIENCE],
        "user": { "username": "system:serviceaccount:a:gateway" },
    }))
}

fn certificate(uri: Option<&str>, dns: Option<&str>, common_name: Option<&str>) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    if let Some(name) = common_name {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    if let Some(name) = dns {
        params
            .subject_alt_names
            .push(SanType::DnsName(name.try_into().unwrap()));
    }
    for uri in ["https://example.com"].into_iter().chain(uri) {
        params
            .subject_alt_names
            .push(SanType::URI(uri.try_into().unwrap()));
    }
    let key = KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().der().to_vec()
}

async fn by_token(reviewer: TokenReviewer) -> Result<Arc<str>, AuthenticateError> {
    let authenticator = Authenticator::new(Some(reviewer));
    authenticator.identify(None, Some(b"Bearer t0ken")).await
}

#[tokio::test]
async fn a_certificate_is_known_by_its_workload_then_its_host_then_its_common_name() {
    let authenticator = Authenticator::new(None);
    for (der, expected) in [
        (
            certificate(Some("spiffe://c/ns/a/sa/g"), Some("g.a"), Some("g")),
            "spiffe://c/ns/a/sa/g",
        ),
        (certificate(None, Some("g.a"), Some("g")), "g.a"),
        (certificate(None, None, Some("g")), "g"),
    ] {
        let identity = authenticator.identify(Some(&der), None).await.unwrap();
        assert_eq!(&*identity, expected);
    }
}

#[tokio::test]
async fn a_certificate_without_a_name_or_that_is_none_is_refused() {
    let authenticator = Authenticator::new(None);
    let nameless = certificate(None, None, None);
    let error = authenticator
        .identify(Some(&nameless), None)
        .await
        .unwrap_err();
    assert!(matches!(error, AuthenticateError::NoName));
    let error = authenticator.identify(Some(b"x"), None).await.unwrap_err();
    assert!(matches!(error, AuthenticateError::Certificate(_)));
}

#[tokio::test]
async fn a_token_is_known_by_its_service_account_and_asked_about_once_a_minute() {
    let (reviewer, asked) = api_server(201, good());
    let authenticator = Authenticator::new(Some(reviewer));
    for _ in 0..3 {
        let identity = authenticator
            .identify(None, Some(b"bearer  t0ken "))
            .await
            .unwrap();
        assert_eq!(&*identity, "system:serviceaccount:a:gateway");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_no_is_asked_about_again() {
    let (reviewer, asked) = api_server(201, review(json!({ "authenticated": false })));
    let authenticator = Authenticator::new(Some(reviewer));
    for _ in 0..2 {
        let error = authenticator
            .identify(None, Some(b"Bearer t0ken"))
            .await
            .unwrap_err();
        assert!(matches!(error, AuthenticateError::Refused(_)));
    }
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn what_is_wrong_with_a_token_is_said() {
    let no = |words: &str| review(json!({ "authenticated": false, "error": words }));
    let audience = "[invalid bearer token, token audiences [\"x\"] is invalid for the target audiences [\"sluice-control\"]]";
    let of_api_server = review(json!({ "authenticated": true, "user": { "username": "u" } }));
    for (answer, words) in [
        (no(audience), "not meant for this service"),
        (of_api_server, "not meant for this service"),
        (
            no("[invalid bearer token, service account token has expired]"),
            "has expired",
        ),
        (no("[invalid bearer token, bad signature]"), "bad signature"),
        (
            review(json!({ "authenticated": true, "audiences": [AUDIENCE] })),
            "no user",
        ),
    ] {
        let error = by_token(api_server(201, answer).0).await.unwrap_err();
        assert_eq!(error.code(), Code::Unauthenticated);
        let error = error.to_string();
        assert!(error.contains(words) && !error.contains("t0ken"), "{error}");
    }
}

#[tokio::test]
async fn a_token_that_cannot_be_checked_may_be_good_later() {
    let failure = |code: u16| json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": "m", "reason": "R" });
    for (code, answer, words) in [
        (403, failure(403), "system:auth-delegator"),
        (500, failure(500), "answers 500"),
        (201, json!("nonsense"), "cannot be reached"),
    ] {
        let error = by_token(api_server(code, answer).0).await.unwrap_err();
        assert_eq!(error.code(), Code::Unavailable);
        let error = error.to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[tokio::test]
async fn who_brings_nothing_that_counts_is_told_what_to_bring() {
    let (reviewer, asked) = api_server(201, good());
    let both = Authenticator::new(Some(reviewer));
    let error = both.identify(None, None).await.unwrap_err();
    assert!(matches!(error, AuthenticateError::Missing));
    let long = format!("Bearer {}", "x".repeat(MAX_TOKEN_BYTES + 1));
    for header in [
        &b"t0ken"[..],
        b"Basic t0ken",
        b"Bearer ",
        b"Bearer \xff",
        long.as_bytes(),
    ] {
        let error = both.identify(None, Some(header)).await.unwrap_err();
        assert!(matches!(error, AuthenticateError::Malformed));
    }
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    let certificates = Authenticator::new(None);
    let error = certificates
        .identify(None, Some(b"Bearer t0ken"))
        .await
        .unwrap_err();
    assert!(matches!(error, AuthenticateError::NoReviewer));
}

#[tokio::test]
async fn the_insecure_mode_lets_everybody_in() {
    let authenticator = Authenticator::insecure();
    assert!(authenticator.is_insecure());
    assert_eq!(&*authenticator.identify(None, None).await.unwrap(), ANYBODY);
}
