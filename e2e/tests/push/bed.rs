//! A control loop, a gateway that follows it, and engines.

use reqwest::Client;
use serde_json::Value;
use sluice_config::Bootstrap;
use sluice_config::push::Upsert;
use sluice_e2e::engine::{EngineOptions, EngineServer};
use sluice_e2e::harness::client::{Answer, ask, chat, http1};
use sluice_e2e::harness::control::{Answers, Control, ControlStream, Pushed};
use sluice_e2e::harness::{Gateway, wait_until};

/// See the module.
pub(crate) struct Bed {
    pub(crate) control: Control,
    pub(crate) stream: ControlStream,
    pub(crate) gateway: Gateway,
    pub(crate) client: Client,
}

/// An engine that serves `sim` at once, unless changed.
pub(crate) fn engine(change: impl FnOnce(&mut EngineOptions)) -> EngineServer {
    let mut options = EngineOptions::instant("sim");
    change(&mut options);
    EngineServer::start(options).unwrap()
}

impl Bed {
    /// Connected and subscribed, and nothing pushed yet.
    pub(crate) async fn new() -> Self {
        Self::with("", |_| {}).await
    }

    /// The same, with routes of a file and a changed bootstrap.
    pub(crate) async fn with(routes: &str, change: impl FnOnce(&mut Bootstrap)) -> Self {
        let mut control = Control::start().await;
        let config = control.config();
        let builder = Gateway::builder(routes).with(|bootstrap| {
            bootstrap.source.push = Some(config);
            change(bootstrap);
        });
        let gateway = builder.start().await;
        let mut stream = control.accept().await;
        stream.subscriptions().await;
        Self {
            control,
            stream,
            gateway,
            client: http1(),
        }
    }

    /// Pushes these, and waits until they are answered: then they are in force.
    pub(crate) async fn push(&mut self, upserts: impl IntoIterator<Item = Upsert>) -> Answers {
        let pushed = Pushed::upserts(upserts);
        self.control.push(&mut self.stream, pushed).await
    }

    /// Pushes a batch of any kind.
    pub(crate) async fn push_batch(&mut self, pushed: Pushed) -> Answers {
        self.control.push(&mut self.stream, pushed).await
    }

    /// Asks a chat of a model.
    pub(crate) async fn ask(&self, model: &str) -> Answer {
        let body = chat(model, "hello", 3, false);
        ask(&self.client, &self.gateway.url(""), "x", None, &body).await
    }

    /// A page of the admin listener.
    pub(crate) async fn debug(&self, path: &str) -> Value {
        let answer = self.client.get(self.gateway.admin_url(path)).send().await;
        answer.unwrap().json().await.unwrap()
    }

    /// Status of `/readyz`.
    pub(crate) async fn readiness(&self) -> u16 {
        let answer = self
            .client
            .get(self.gateway.metrics_url("/readyz"))
            .send()
            .await;
        answer.unwrap().status().as_u16()
    }

    /// Waits until `/debug/config` says so of the push stream.
    pub(crate) async fn shows(&self, what: &str, so: impl Fn(&Value) -> bool) {
        wait_until(what, || async {
            so(&self.debug("/debug/config").await["push"])
        })
        .await;
    }
}
