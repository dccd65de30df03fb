//! What every conformance test stands on: a gateway before one engine, for each pair of protocols.

use std::net::SocketAddr;

use serde_json::Value;
use sha2::{Digest, Sha256};
use sluice_e2e::engine::{EngineOptions, EngineServer};
use sluice_e2e::harness::{Gateway, RawClient, model_route, model_server};

/// A version of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    H1,
    H2,
}

/// Client's and engine's protocol, all pairs.
pub(crate) const LANES: [(Wire, Wire); 4] = [
    (Wire::H1, Wire::H1),
    (Wire::H1, Wire::H2),
    (Wire::H2, Wire::H1),
    (Wire::H2, Wire::H2),
];

/// A gateway before the simulator.
pub(crate) struct Bed {
    pub(crate) engine: EngineServer,
    pub(crate) gateway: Gateway,
    pub(crate) client: reqwest::Client,
}

impl Bed {
    pub(crate) async fn start(client: Wire, upstream: Wire) -> Self {
        let engine = EngineServer::start(EngineOptions::instant("sim")).unwrap();
        let gateway = gateway(engine.addr(), upstream).await;
        Self {
            client: http_client(client),
            engine,
            gateway,
        }
    }

    /// HTTP/1.1 on both sides.
    pub(crate) async fn h1() -> Self {
        Self::start(Wire::H1, Wire::H1).await
    }

    pub(crate) fn post(&self, path: &str) -> reqwest::RequestBuilder {
        self.client
            .post(self.gateway.url(path))
            .header("content-type", "application/json")
    }

    pub(crate) async fn raw(&self) -> RawClient {
        RawClient::connect(self.gateway.address).await
    }

    /// The gateway still serves, and has nothing left over.
    pub(crate) async fn is_well(&self) {
        let answer = self.post(CHAT).body(chat()).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.bytes().await.unwrap();
        self.gateway.settled().await;
    }
}

pub(crate) const CHAT: &str = "/v1/chat/completions";

/// A gateway before one address.
pub(crate) async fn gateway(engine: SocketAddr, upstream: Wire) -> Gateway {
    let extra = match upstream {
        Wire::H1 => "",
        Wire::H2 => "workloadPort: {port: 1, http2: true}",
    };
    let routes =
        model_server("sim", &[engine], extra) + &model_route("sim", "sim", &[("sim", 100)]);
    Gateway::builder(routes)
        .with(|bootstrap| bootstrap.limits.body_bytes = 17 << 20)
        .start()
        .await
}

pub(crate) fn http_client(wire: Wire) -> reqwest::Client {
    let builder = reqwest::Client::builder().no_proxy();
    let builder = match wire {
        Wire::H1 => builder.http1_only(),
        Wire::H2 => builder.http2_prior_knowledge(),
    };
    builder.build().unwrap()
}

/// A small chat request.
pub(crate) fn chat() -> String {
    r#"{"model":"sim","messages":[{"role":"user","content":"hello"}],"max_tokens":4}"#.to_owned()
}

/// A JSON body of exactly `size` bytes (at least 40), with text that shows any shift.
pub(crate) fn body_of(size: usize) -> Vec<u8> {
    let (head, tail) = (r#"{"pad":""#, r#"","model":"sim"}"#);
    let pad = size - head.len() - tail.len();
    let mut body = head.as_bytes().to_vec();
    // A block of prime length, so that it never lines up with a buffer.
    let letters = b"abcdefghijklmnopqrstuvwxyz0123456789-";
    let block: Vec<u8> = (0..9973_usize)
        .map(|at| letters[(at * 7 + at / 251) % 37])
        .collect();
    for _ in 0..pad / block.len() {
        body.extend_from_slice(&block);
    }
    body.extend_from_slice(&block[..pad % block.len()]);
    body.extend_from_slice(tail.as_bytes());
    assert_eq!(body.len(), size);
    body
}

pub(crate) fn sha256(body: &[u8]) -> String {
    let digest = Sha256::digest(body);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A raw request whose answer tells what the engine saw.
pub(crate) fn echo_request(extra: &str) -> String {
    let body = chat();
    format!(
        "POST {CHAT} HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\nx-echo: sha256\r\n{extra}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The names of the fields that the engine saw.
pub(crate) fn seen_headers(echo: &Value) -> Vec<String> {
    echo["headers"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect()
}
