//! Engines behind a gateway, and what `/debug/explain` says of them.

use std::net::SocketAddr;

use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use sluice_config::Bootstrap;
use sluice_e2e::engine::{EngineOptions, EngineServer};
use sluice_e2e::harness::client::{Answer, http1, read};
use sluice_e2e::harness::{Gateway, model_route, model_server, wait_until};

/// See the module.
pub(crate) struct Bed {
    pub(crate) engines: Vec<EngineServer>,
    pub(crate) gateway: Gateway,
    pub(crate) client: Client,
}

/// An engine that serves `sim` at once, unless changed.
pub(crate) fn engine(change: impl FnOnce(&mut EngineOptions)) -> EngineServer {
    let mut options = EngineOptions::instant("sim");
    change(&mut options);
    EngineServer::start(options).unwrap()
}

/// Routes of one pool `sim` over the engines; `extra` are further lines of its `spec`.
pub(crate) fn routes(engines: &[EngineServer], extra: &str) -> String {
    let addresses: Vec<SocketAddr> = engines.iter().map(EngineServer::addr).collect();
    model_server("sim", &addresses, extra) + &model_route("sim", "sim", &[("sim", 1)])
}

/// Text of about so many bytes that no other `name` begins with.
pub(crate) fn text(name: &str, bytes: usize) -> String {
    let words = (0..).map(|number| format!("{name} {number} "));
    let mut text = String::with_capacity(bytes + 32);
    for word in words {
        if text.len() >= bytes {
            break;
        }
        text.push_str(&word);
    }
    text
}

/// A chat of these turns, the user's first.
pub(crate) fn turns(turns: &[&str]) -> Value {
    let roles = ["user", "assistant"].into_iter().cycle();
    let messages: Vec<Value> = roles
        .zip(turns)
        .map(|(role, content)| json!({"role": role, "content": content}))
        .collect();
    json!({"model": "sim", "messages": messages, "max_tokens": 8})
}

/// The model's words in an answer to a chat.
pub(crate) fn words(answer: &Answer) -> String {
    let choice = &answer.json()["choices"][0];
    choice["message"]["content"].as_str().unwrap().to_owned()
}

/// The product's own way of choosing, not the harness's.
pub(crate) fn by_default(bootstrap: &mut Bootstrap) {
    bootstrap.scheduling = None;
}

impl Bed {
    /// One pool over the engines.
    pub(crate) async fn new(engines: Vec<EngineServer>, extra: &str) -> Self {
        Self::with(engines, extra, |_| {}).await
    }

    /// The same, with a changed bootstrap.
    pub(crate) async fn with(
        engines: Vec<EngineServer>,
        extra: &str,
        change: impl FnOnce(&mut Bootstrap),
    ) -> Self {
        let builder = Gateway::builder(routes(&engines, extra)).with(|bootstrap| {
            by_default(bootstrap);
            change(bootstrap);
        });
        Self {
            gateway: builder.start().await,
            engines,
            client: http1(),
        }
    }

    /// Asks a chat as `header` makes it.
    pub(crate) async fn ask_as(
        &self,
        body: &Value,
        header: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Answer {
        let url = self.gateway.url("/v1/chat/completions");
        let request = header(self.client.post(url).json(body));
        let answer = read(request.send().await.unwrap()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer
    }

    /// Asks a chat.
    pub(crate) async fn ask(&self, body: &Value) -> Answer {
        self.ask_as(body, |request| request).await
    }

    /// What would happen to a chat.
    pub(crate) async fn explain(&self, body: &Value) -> Value {
        let url = self.gateway.admin_url("/debug/explain");
        let request = self.client.post(url).json(body);
        request.send().await.unwrap().json().await.unwrap()
    }

    /// What [`Self::explain`] says of the engine of this number.
    pub(crate) fn row<'a>(&self, explained: &'a Value, number: usize) -> &'a Value {
        let address = self.engines[number].addr().to_string();
        let rows = explained["candidates"].as_array().unwrap();
        rows.iter().find(|row| row["address"] == address).unwrap()
    }

    /// Tokens of a chat's prompt that each engine is thought to hold.
    pub(crate) async fn cached(&self, body: &Value) -> Vec<u64> {
        let explained = self.explain(body).await;
        let cached = |number| {
            self.row(&explained, number)["cachedTokens"]
                .as_u64()
                .unwrap()
        };
        (0..self.engines.len()).map(cached).collect()
    }

    /// Waits until what is explained of a chat is so.
    pub(crate) async fn explained(&self, body: &Value, what: &str, so: impl Fn(&Value) -> bool) {
        wait_until(what, || async { so(&self.explain(body).await) }).await;
    }

    /// Requests that each engine has received.
    pub(crate) fn received(&self) -> Vec<u64> {
        let engines = self.engines.iter();
        engines.map(|engine| engine.requests().received).collect()
    }
}
