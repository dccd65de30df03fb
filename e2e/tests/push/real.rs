//! The gateway at the push server of `sluice-control` itself: what each tells the other beside what is pushed.

use std::sync::Arc;

use sluice_config::bootstrap::PushConfig;
use sluice_control::authenticate::Authenticator;
use sluice_control::grants::Grants;
use sluice_control::push::{Push, PushLimits, listener};
use sluice_control::state::PushState;
use sluice_e2e::harness::{Gateway, wait_until};
use tokio::net::TcpListener;
use tokio::sync::watch;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_knows_each_gateway_by_name_and_version() {
    let state = Arc::new(PushState::new("control-0".into()));
    state.mark_synced();
    let (_running, down) = watch::channel(false);
    let push = Push::new(
        state,
        Authenticator::insecure(),
        Grants::default(),
        PushLimits::default(),
        down,
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(listener::serve(listener, push.clone(), None));
    let config = PushConfig {
        addresses: vec![format!("http://{address}")],
        node: Some("default/gateway".into()),
        ..PushConfig::default()
    };
    let builder = Gateway::builder("").with(|bootstrap| bootstrap.source.push = Some(config));
    let _gateway = builder.start().await;
    wait_until("the gateway has answered", async || {
        let proxies = push.acks().proxies();
        proxies.iter().any(|proxy| proxy.generation.is_some())
    })
    .await;
    let proxies = push.acks().proxies();
    let known: Vec<_> = proxies
        .iter()
        .map(|proxy| (proxy.name.as_str(), proxy.version.as_str()))
        .collect();
    assert_eq!(known, [("default/gateway", env!("CARGO_PKG_VERSION"))]);
}
