//! The gateway before real engines (llama.cpp with SmolLM2) and a real client (the OpenAI Python SDK).
//!
//! Ignored unless asked for: `make test-real` fetches the engines and runs them; without them these tests fail.

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use serde_json::{Value, json};
use sluice_e2e::harness::llama::{LlamaEngine, python};
use sluice_e2e::harness::{Gateway, model_route, model_server};

const MODEL: &str = "smollm2";

async fn two_engines() -> (Vec<LlamaEngine>, Gateway) {
    let engines: Vec<LlamaEngine> = (0..2)
        .map(|_| LlamaEngine::start(MODEL).expect("a real engine"))
        .collect();
    let addresses: Vec<_> = engines.iter().map(LlamaEngine::addr).collect();
    let routes =
        model_server("llama", &addresses, "") + &model_route(MODEL, MODEL, &[("llama", 100)]);
    let gateway = Gateway::builder(routes)
        .with(|bootstrap| bootstrap.scheduling = None)
        .start()
        .await;
    (engines, gateway)
}

fn chat(stream: bool, include_usage: bool) -> Value {
    let mut body = json!({
        "model": MODEL, "max_tokens": 16, "temperature": 0, "seed": 1, "cache_prompt": false,
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
    });
    if stream {
        body["stream"] = json!(true);
    }
    if include_usage {
        body["stream_options"] = json!({"include_usage": true});
    }
    body
}

async fn post(url: String, body: &Value) -> String {
    let answer = reqwest::Client::new()
        .post(url)
        .json(body)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    answer.text().await.unwrap()
}

/// The stream without what differs between any two answers: ids, times and timings.
fn essence(stream: &str) -> Vec<Value> {
    stream
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| match serde_json::from_str::<Value>(data) {
            Ok(mut event) => {
                for key in ["id", "created", "timings"] {
                    event.as_object_mut().unwrap().remove(key);
                }
                event
            }
            Err(_) => json!(data),
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs real engines: make test-real"]
async fn a_real_stream_is_what_the_engine_sent() {
    let (engines, gateway) = two_engines().await;
    for include_usage in [false, true] {
        let body = chat(true, include_usage);
        let path = "/v1/chat/completions";
        let direct = post(format!("http://{}{path}", engines[0].addr()), &body).await;
        let through = post(gateway.url(path), &body).await;
        assert_eq!(
            essence(&through),
            essence(&direct),
            "include_usage: {include_usage}"
        );
        assert!(through.ends_with("data: [DONE]\n\n"), "{through}");
    }
    gateway.settled().await;
    for line in gateway.access_log() {
        assert_eq!(line["tokens_estimated"], false, "{line}");
        assert!(line["output_tokens"].as_u64().unwrap() > 0, "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs real engines: make test-real"]
async fn a_real_answer_is_a_sentence() {
    let (_engines, gateway) = two_engines().await;
    let answer = post(gateway.url("/v1/chat/completions"), &chat(false, false)).await;
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(text.split_whitespace().count() >= 3, "{text}");
    gateway.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs real engines: make test-real"]
async fn a_gone_client_stops_a_real_engine() {
    let (engines, gateway) = two_engines().await;
    let mut body = chat(true, false);
    body["max_tokens"] = json!(2000);
    body["messages"][0]["content"] = json!("Tell a very long story.");
    let answer = reqwest::Client::new()
        .post(gateway.url("/v1/chat/completions"))
        .json(&body)
        .send()
        .await
        .unwrap();
    drop(answer);
    gateway.settled().await;
    let busy = |slots: &Value| {
        slots
            .as_array()
            .unwrap()
            .iter()
            .any(|slot| slot["is_processing"] == json!(true))
    };
    sluice_e2e::harness::wait_until("both engines are idle", || async {
        for engine in &engines {
            let slots = reqwest::get(format!("http://{}/slots", engine.addr()))
                .await
                .unwrap();
            if busy(&slots.json::<Value>().await.unwrap()) {
                return false;
            }
        }
        true
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs real engines: make test-real"]
async fn the_openai_sdk_finds_nothing_wrong() {
    let (_engines, gateway) = two_engines().await;
    let url = gateway.url("/v1");
    let output = tokio::task::spawn_blocking(move || {
        python("sdk_client.py")
            .unwrap()
            .arg(url)
            .args(["--model", MODEL])
            .output()
            .unwrap()
    })
    .await
    .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let said: Value = serde_json::from_str(said.trim()).unwrap();
    assert_eq!(said["ok"], true, "{said}");
    gateway.settled().await;
}
