//! Calls as the API server makes them, over TLS on loopback.

use std::net::SocketAddr;

use axum::http::header;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;

use super::*;
use crate::certificates::{
    Authority, Lifetimes, Names, Resolver, ServingCertificate, Trust, server_config,
};
use crate::listener::Listener;

/// A webhook that is served, and what its caller knows of it.
struct Served {
    webhook: Webhook,
    address: SocketAddr,
    authority: Authority,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Served {
    async fn start() -> Self {
        let now = std::time::SystemTime::now();
        let lifetimes = Lifetimes::default();
        let authority = Authority::generate(now, lifetimes.authority).unwrap();
        let names = Names::of_service("sluice-control", "sluice", "cluster.local");
        let resolver = Arc::new(Resolver::default());
        resolver.set(&ServingCertificate::issue(&authority, &names, now, &lifetimes).unwrap());
        let tls = Arc::new(server_config(resolver, None, &["h2", "http/1.1"]).unwrap());

        let webhook = Webhook::default();
        let loopback = "127.0.0.1:0".parse().unwrap();
        let listener = Listener::bind(loopback, webhook.router(), Some(tls))
            .await
            .unwrap();
        let address = listener.address().unwrap();
        let (stop, stopped) = watch::channel(false);
        Self {
            webhook,
            address,
            authority,
            stop,
            task: tokio::spawn(listener.serve(stopped)),
        }
    }

    /// Status and body of one call.
    async fn post(&self, path: &str, body: impl Into<Body>) -> (StatusCode, Bytes) {
        let body: Body = body.into();
        let mut roots = rustls::RootCertStore::empty();
        let authority = self.authority.certificate().as_bytes();
        roots
            .add(CertificateDer::from_pem_slice(authority).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        // As the API server does.
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("sluice-control.sluice.svc").unwrap();
        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        tokio::spawn(connection);
        let request = Request::post(format!(
            "https://sluice-control.sluice.svc{path}?timeout=5s"
        ))
        .header(header::CONTENT_TYPE, "application/json")
        .body(body)
        .unwrap();
        let response = sender.send_request(request).await.unwrap();
        let status = response.status();
        (
            status,
            response.into_body().collect().await.unwrap().to_bytes(),
        )
    }

    async fn review(&self, path: &str, request: Value) -> Value {
        let body = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request,
        });
        let (status, body) = self.post(path, body.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{body:?}");
        let review: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(review["apiVersion"], "admission.k8s.io/v1");
        assert_eq!(review["response"]["uid"], "1-2-3");
        review["response"].clone()
    }

    fn counted(&self, kind: &'static str, outcome: &'static str) -> u64 {
        let labels = RequestLabels { kind, outcome };
        self.webhook.metrics.requests.get_or_create(&labels).get()
    }
}

fn request(operation: &str, kind: &str, object: Value, old: Value) -> Value {
    json!({
        "uid": "1-2-3",
        "kind": { "group": "networking.serving.volcano.sh", "version": "v1alpha1", "kind": kind },
        "resource": { "group": "networking.serving.volcano.sh", "version": "v1alpha1", "resource": "x" },
        "name": "chat", "namespace": "models", "operation": operation,
        "userInfo": { "username": "someone" },
        "object": object, "oldObject": old, "dryRun": true, "options": null,
    })
}

fn route(weight: u32) -> Value {
    json!({
        "apiVersion": "networking.serving.volcano.sh/v1alpha1",
        "kind": "ModelRoute",
        "metadata": {
            "name": "chat", "namespace": "models", "uid": "9", "generation": 1,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "managedFields": [{ "manager": "kubectl", "operation": "Update", "apiVersion": "v1",
                "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": { "f:spec": {} } }],
        },
        "spec": {
            "modelName": "chat",
            "rules": [{ "targetModels": [{ "modelServerName": "not-there-yet", "weight": weight }] }],
        },
        "status": { "conditions": [] },
    })
}

const ROUTE: &str = "/validate/modelroute";

#[tokio::test]
async fn a_right_object_is_allowed_though_what_it_points_at_is_not_there() {
    let served = Served::start().await;
    let answer = served
        .review(
            ROUTE,
            request("CREATE", "ModelRoute", route(1), json!(null)),
        )
        .await;
    assert_eq!(answer, json!({ "uid": "1-2-3", "allowed": true }));
    assert_eq!(served.counted("ModelRoute", "allowed"), 1);
}

#[tokio::test]
async fn a_wrong_object_is_denied_with_every_field_and_what_to_do() {
    let served = Served::start().await;
    let mut wrong = route(101);
    wrong["spec"]["rulez"] = json!([]);
    let answer = served
        .review(ROUTE, request("CREATE", "ModelRoute", wrong, json!(null)))
        .await;
    assert_eq!(answer["allowed"], false);
    let message = answer["status"]["message"].as_str().unwrap();
    assert!(message.starts_with("2 errors:\n- "), "{message}");
    assert!(
        message.contains("\n- spec.rules[0].targetModels[0].weight: "),
        "{message}"
    );
    assert!(
        message.contains("\n- spec.rulez: unknown field `rulez`; did you mean `rules`?"),
        "{message}"
    );
    assert_eq!(
        (&answer["status"]["code"], &answer["status"]["reason"]),
        (&json!(422), &json!("Invalid"))
    );
    let causes = answer["status"]["details"]["causes"].as_array().unwrap();
    assert_eq!(causes.len(), 2);
    assert_eq!(causes[0]["field"], "spec.rules[0].targetModels[0].weight");
    assert_eq!(served.counted("ModelRoute", "denied"), 1);
}

#[tokio::test]
async fn an_object_that_was_wrong_before_may_have_its_metadata_changed_and_be_deleted() {
    let served = Served::start().await;
    let old = route(101);
    let mut labelled = old.clone();
    labelled["metadata"]["labels"] = json!({ "team": "a" });
    let answer = served
        .review(
            ROUTE,
            request("UPDATE", "ModelRoute", labelled, old.clone()),
        )
        .await;
    assert_eq!(answer["allowed"], true);
    let warning = answer["warnings"][0].as_str().unwrap();
    assert!(
        warning.starts_with("wrong since before: spec.rules[0]"),
        "{warning}"
    );

    // Touching the spec means mending it.
    let answer = served
        .review(
            ROUTE,
            request("UPDATE", "ModelRoute", route(102), old.clone()),
        )
        .await;
    assert_eq!(answer["allowed"], false);
    let mut leaving = route(102);
    leaving["metadata"]["deletionTimestamp"] = json!("2026-01-02T00:00:00Z");
    let answer = served
        .review(ROUTE, request("UPDATE", "ModelRoute", leaving, old.clone()))
        .await;
    assert_eq!(answer["allowed"], true);
    let answer = served
        .review(
            ROUTE,
            request("DELETE", "ModelRoute", json!(null), old.clone()),
        )
        .await;
    assert_eq!(answer["allowed"], true);
    let mut status = request("UPDATE", "ModelRoute", old, json!(null));
    status["subResource"] = json!("status");
    assert_eq!(served.review(ROUTE, status).await["allowed"], true);
}

#[tokio::test]
async fn each_path_judges_its_kind_and_no_other() {
    let served = Served::start().await;
    let server = json!({
        "apiVersion": "networking.serving.volcano.sh/v1alpha1", "kind": "ModelServer",
        "metadata": { "name": "pool" },
        "spec": { "inferenceEngine": "vLLM", "workloadSelector": { "matchLabels": {} },
            "workloadPort": { "port": 70000 } },
    });
    let answer = served
        .review(
            "/validate/modelserver",
            request("CREATE", "ModelServer", server, json!(null)),
        )
        .await;
    assert_eq!(answer["allowed"], false, "{answer}");
    assert!(
        answer["status"]["message"]
            .as_str()
            .unwrap()
            .contains("spec.workloadPort.port"),
        "{answer}"
    );

    let provider = json!({
        "apiVersion": "networking.serving.volcano.sh/v1alpha1", "kind": "ExternalModelProvider",
        "metadata": { "name": "cloud" }, "spec": { "baseURL": "http://plain.example" },
    });
    let answer = served
        .review(
            "/validate/externalmodelprovider",
            request("CREATE", "ExternalModelProvider", provider, json!(null)),
        )
        .await;
    assert!(
        answer["status"]["message"]
            .as_str()
            .unwrap()
            .contains("spec.baseURL"),
        "{answer}"
    );

    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": request("CREATE", "ModelServer", json!({}), json!(null)),
    });
    let (status, body) = served.post(ROUTE, review.to_string()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(
        String::from_utf8_lossy(&body).contains("this path is for ModelRoute"),
        "{body:?}"
    );
    let (status, _) = served.post("/validate/other", "{}").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_review_of_more_values_than_fit_into_etcd_is_not_read() {
    let served = Served::start().await;
    let body = format!("[{}0]", "0,".repeat(MAX_VALUES));
    let (status, words) = served.post(ROUTE, body).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let words = String::from_utf8_lossy(&words);
    assert!(words.contains("more than 300000 values"), "{words}");
}

#[tokio::test]
async fn what_is_no_review_fails_without_a_verdict() {
    let served = Served::start().await;
    for body in [
        "".to_owned(),
        "{".to_owned(),
        "[]".to_owned(),
        json!({ "apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview" }).to_string(),
        json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview" }).to_string(),
    ] {
        let (status, _) = served.post(ROUTE, body.clone()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    }
    // An object of no shape at all is a denial.
    for object in [
        json!("text"),
        json!([1]),
        json!(null),
        json!({ "metadata": 7 }),
    ] {
        let answer = served
            .review(ROUTE, request("CREATE", "ModelRoute", object, json!(null)))
            .await;
        assert_eq!(answer["allowed"], false);
    }
    assert_eq!(served.counted("ModelRoute", "failed"), 5);
    assert_eq!(served.counted("ModelRoute", "denied"), 4);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let served = Served::start().await;
    let (status, _) = served.post(ROUTE, vec![b' '; MAX_BODY_BYTES + 1]).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn warnings_are_passed_on_in_the_length_that_the_api_server_takes() {
    let served = Served::start().await;
    let mut odd = route(1);
    odd["metadata"]["name"] = "Näme".repeat(100).into();
    let answer = served
        .review(ROUTE, request("CREATE", "ModelRoute", odd, json!(null)))
        .await;
    assert_eq!(answer["allowed"], true, "{answer}");
    let warning = answer["warnings"][0].as_str().unwrap();
    assert!(
        warning.len() <= MAX_WARNING && warning.ends_with("..."),
        "{warning}"
    );
}

const MAX_WARNING: usize = 256;

#[tokio::test]
async fn a_name_that_the_api_server_will_make_up_is_no_fault() {
    let served = Served::start().await;
    let mut unnamed = route(1);
    let metadata = unnamed["metadata"].as_object_mut().unwrap();
    metadata.remove("name");
    metadata.insert("generateName".into(), "chat-".into());
    let answer = served
        .review(ROUTE, request("CREATE", "ModelRoute", unnamed, json!(null)))
        .await;
    assert_eq!(answer["allowed"], true, "{answer}");
}

#[tokio::test]
async fn calls_under_way_are_finished_at_shutdown() {
    let served = Served::start().await;
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": request("CREATE", "ModelRoute", route(1), json!(null)),
    });
    // The call lasts as long as its body, which does not end before `parts` is dropped.
    let (parts, stream) = tokio::sync::mpsc::channel(1);
    let part = Ok::<_, std::convert::Infallible>(review.to_string());
    parts.send(part).await.unwrap();
    let call = served.post(ROUTE, Body::from_stream(ReceiverStream::new(stream)));
    let shutdown = async {
        // A slot is taken by a call that has begun.
        while served.webhook.slots.available_permits() == CONCURRENCY {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        served.stop.send_replace(true);
        drop(parts);
    };
    let ((status, body), ()) = tokio::join!(call, shutdown);
    assert_eq!(status, StatusCode::OK, "{body:?}");
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(answer["response"]["allowed"], true);
    served.task.await.unwrap();
    assert!(TcpStream::connect(served.address).await.is_err());
}

#[test]
fn the_registration_is_what_the_api_server_needs() {
    let mut registration = Registration {
        name: "sluice-control-sluice".into(),
        target: Target::Service {
            namespace: "sluice".into(),
            name: "sluice-control".into(),
            port: 443,
        },
        failure_policy: FailurePolicy::Fail,
        namespaces: Vec::new(),
    };
    let trust = Trust {
        bundle: "PEM".into(),
    };
    let object = registration.object(Some(&trust), None).unwrap();
    assert_eq!(object["kind"], "ValidatingWebhookConfiguration");
    assert_eq!(object["metadata"]["name"], "sluice-control-sluice");
    let webhook = &object["webhooks"][1];
    let want = json!({
        "name": "modelserver.networking.serving.volcano.sh",
        "admissionReviewVersions": ["v1"],
        "clientConfig": {
            "caBundle": "UEVN",
            "service": { "namespace": "sluice", "name": "sluice-control", "port": 443,
                "path": "/validate/modelserver" },
        },
        "failurePolicy": "Fail",
        "matchPolicy": "Equivalent",
        "namespaceSelector": {},
        "rules": [{
            "apiGroups": ["networking.serving.volcano.sh"], "apiVersions": ["v1alpha1"],
            "operations": ["CREATE", "UPDATE"], "resources": ["modelservers"], "scope": "Namespaced",
        }],
        "sideEffects": "None",
        "timeoutSeconds": 5,
    });
    assert_eq!(*webhook, want);

    registration.target = Target::Url("https://127.0.0.1:9443/".into());
    registration.namespaces = vec!["models".into()];
    registration.failure_policy = FailurePolicy::Ignore;
    let object = registration.object(None, Some(&object)).unwrap();
    let webhook = &object["webhooks"][0];
    let client = json!({ "url": "https://127.0.0.1:9443/validate/modelroute" });
    assert_eq!(webhook["clientConfig"], client);
    assert_eq!(webhook["failurePolicy"], "Ignore");
    assert_eq!(
        webhook["namespaceSelector"]["matchExpressions"][0]["values"],
        json!(["models"])
    );
    let nothing = registration.nothing(Some(&object)).unwrap();
    assert_eq!(nothing["webhooks"], json!([]));
    assert_eq!(registration.nothing(None), None);
}

#[test]
fn in_a_configuration_of_the_chart_only_the_authority_is_filled_in() {
    let registration = Registration {
        name: "sluice-control-sluice".into(),
        target: Target::Url("https://127.0.0.1:1".into()),
        failure_policy: FailurePolicy::Fail,
        namespaces: Vec::new(),
    };
    let theirs = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": { "name": "sluice-control-sluice", "labels": { "app.kubernetes.io/managed-by": "Helm" } },
        "webhooks": [{ "name": "a.b.c", "failurePolicy": "Ignore", "clientConfig": { "url": "https://x" } }],
    });
    let trust = Trust {
        bundle: "PEM".into(),
    };
    let applied = registration.object(Some(&trust), Some(&theirs)).unwrap();
    let webhooks = json!([{ "name": "a.b.c", "clientConfig": { "caBundle": "UEVN" } }]);
    assert_eq!(applied["webhooks"], webhooks);
    assert_eq!(
        applied["metadata"],
        json!({ "name": "sluice-control-sluice" })
    );
    assert_eq!(registration.object(None, Some(&theirs)), None);
    assert_eq!(registration.nothing(Some(&theirs)), None);
}

#[test]
fn plurals_are_those_of_the_definitions() {
    let plurals: Vec<String> = sluice_crds::manifest::definitions()
        .into_iter()
        .map(|definition| definition.spec.names.plural)
        .collect();
    for (kind, _) in PATHS {
        let plural = format!("{}s", kind.name().to_lowercase());
        assert!(plurals.contains(&plural), "{plural}");
    }
}
