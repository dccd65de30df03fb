//! The ports as `curl` sees them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use prost::Message;
use serde_json::Value;
use sluice_config::push::{
    DocumentMessage, EndpointMessage, MembershipMessage, ResourceType, RoleMessage, SecretMessage,
};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::*;
use crate::authenticate::Authenticator;
use crate::grants::Grants;
use crate::listener::Listener;
use crate::push::{Push, PushLimits};
use crate::state::{Change, PushState, Resource};

/// Serves a router; answers where.
async fn serve(router: Router) -> SocketAddr {
    let loopback = "127.0.0.1:0".parse().unwrap();
    let listener = Listener::bind(loopback, router, None).await.unwrap();
    let address = listener.address().unwrap();
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        listener.serve(stopped).await;
        drop(stop);
    });
    address
}

async fn get(address: SocketAddr, path: &str) -> (StatusCode, String) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = http::Request::get(path)
        .header("host", "control")
        .body(Empty::<Bytes>::new());
    let response = sender.send_request(request.unwrap()).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn readiness_says_what_is_missing() {
    let synced = Arc::new(AtomicBool::new(false));
    let mut readiness = Readiness::default();
    let state = synced.clone();
    readiness.require("the cluster has not been read yet", move || {
        state.load(Ordering::Relaxed)
    });
    readiness.require("there is no certificate", || true);
    let operations = Operations {
        metrics: Metrics::new(SystemTime::now()),
        readiness,
    };
    let address = serve(operations.router()).await;
    let missing = "not ready: the cluster has not been read yet\n".to_owned();
    assert_eq!(
        get(address, "/readyz").await,
        (StatusCode::SERVICE_UNAVAILABLE, missing)
    );
    assert_eq!(
        get(address, "/healthz").await,
        (StatusCode::OK, "ok\n".into())
    );
    synced.store(true, Ordering::Relaxed);
    assert_eq!(
        get(address, "/readyz").await,
        (StatusCode::OK, "ready\n".into())
    );
    let (status, metrics) = get(address, "/metrics").await;
    assert_eq!(status, StatusCode::OK);
    assert!(metrics.contains("sluice_build_info"), "{metrics}");
    assert_eq!(get(address, "/debug/state").await.0, StatusCode::NOT_FOUND);
}

fn resource(kind: ResourceType, name: &str, message: &impl Message) -> Resource {
    let namespace = name.split_once('/').unwrap().0;
    Resource::new(kind, name, namespace, message.encode_to_vec().into())
}

/// A state with one resource of several types, and its debug port.
async fn debug() -> SocketAddr {
    let state = Arc::new(PushState::new("control-0".into()));
    let document = DocumentMessage {
        json: r#"{"kind":"ModelRoute","spec":{"modelName":"chat"}}"#.into(),
    };
    let secret = SecretMessage {
        namespace: "models".into(),
        name: "cloud".into(),
        data: BTreeMap::from([("key".into(), b"hush".to_vec())]),
    };
    let endpoint = EndpointMessage {
        namespace: "models".into(),
        pod: "p-0".into(),
        host: "10.0.0.1".into(),
        port: 8000,
        memberships: vec![MembershipMessage {
            server: "pool".into(),
            role: RoleMessage::Decode.into(),
            pd_group: "g".into(),
        }],
        draining: true,
        ..EndpointMessage::default()
    };
    state.apply(Change {
        upserts: vec![
            resource(ResourceType::ModelRoute, "models/chat", &document),
            resource(ResourceType::Secret, "models/cloud", &secret),
            resource(ResourceType::Endpoint, "models/p-0:8000", &endpoint),
        ],
        removals: Vec::new(),
        seen_at: SystemTime::now(),
    });
    let shutdown = watch::channel(false).1;
    let push = Push::new(
        state.clone(),
        Authenticator::new(None),
        Grants::default(),
        PushLimits::default(),
        shutdown,
    );
    serve(debug_router(state, push.acks().clone())).await
}

#[tokio::test]
async fn the_state_is_shown_by_type_and_in_full_by_name() {
    let address = debug().await;
    let (status, text) = get(address, "/debug/state").await;
    assert_eq!(status, StatusCode::OK);
    let state: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(state["identity"], "control-0");
    assert_eq!(
        (&state["generation"], &state["synced"]),
        (&1.into(), &false.into())
    );
    assert_eq!(state["counts"]["ModelRoute"], 1);
    assert_eq!(state["resources"]["ModelRoute"][0]["name"], "models/chat");

    let (_, text) = get(address, "/debug/state?type=endpoint").await;
    let state: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(state["resources"].as_object().unwrap().len(), 1);

    let (_, text) = get(address, "/debug/state?name=models/chat").await;
    let found: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(found[0]["value"]["spec"]["modelName"], "chat");
    let (_, text) = get(address, "/debug/state?name=models/p-0:8000").await;
    let found: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(found[0]["value"]["memberships"][0]["role"], "decode");
    assert_eq!(found[0]["value"]["draining"], true);

    assert_eq!(
        get(address, "/debug/state?name=models/none").await.0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        get(address, "/debug/state?type=Pod").await.0,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn secrets_are_never_shown() {
    let address = debug().await;
    for path in [
        "/debug/state",
        "/debug/state?name=models/cloud",
        "/debug/proxies",
    ] {
        let (_, text) = get(address, path).await;
        for form in ["hush", "aHVzaA"] {
            assert!(!text.contains(form), "{path}: {text}");
        }
    }
    let (_, text) = get(address, "/debug/state?name=models/cloud").await;
    assert!(text.contains("(not shown)"), "{text}");
}

#[tokio::test]
async fn gateways_are_listed() {
    let (status, text) = get(debug().await, "/debug/proxies").await;
    assert_eq!(status, StatusCode::OK);
    let shown: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(shown["proxies"], Value::Array(Vec::new()));
    assert_eq!(shown["generation"], 1);
}
