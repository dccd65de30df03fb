//! The shortest way through the whole product: a request, a stream, a log line.

use serde_json::{Value, json};
use sluice_e2e::engine::{EngineOptions, EngineServer};
use sluice_e2e::harness::{Gateway, model_route, model_server};

#[tokio::test]
async fn a_chat_goes_through_and_is_logged() {
    let engine = EngineServer::start(EngineOptions::instant("sim")).unwrap();
    let routes =
        model_server("sim", &[engine.addr()], "") + &model_route("sim", "sim", &[("sim", 100)]);
    let gateway = Gateway::builder(routes).start().await;
    let answer = reqwest::Client::new()
        .post(gateway.url("/v1/chat/completions"))
        .header("x-request-id", "smoke-1")
        .json(&json!({"model": "sim", "messages": [{"role": "user", "content": "hello"}]}))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["x-request-id"], "smoke-1");
    let body: Value = answer.json().await.unwrap();
    let line = gateway.access_line("smoke-1").await;
    assert_eq!(line["output_tokens"], body["usage"]["completion_tokens"]);
    assert_eq!(line["selected_pod"], engine.addr().to_string());
    gateway.settled().await;
}
