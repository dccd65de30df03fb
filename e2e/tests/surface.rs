//! The API surface: which paths there are, what of a request an engine sees, which rule a request takes, and what
//! operators are shown.

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use serde_json::{Value, json};
use sluice_e2e::engine::{EngineOptions, EngineServer};
use sluice_e2e::harness::{Gateway, model_route, model_server};

struct Bed {
    /// Served as `sim`, and for the adapters.
    main: EngineServer,
    /// Told another model name.
    other: EngineServer,
    gateway: Gateway,
    client: reqwest::Client,
}

/// A route whose rules are given as YAML, unindented.
fn rules_route(name: &str, head: &str, rules: &str) -> String {
    let head: String = head.lines().map(|line| format!("  {line}\n")).collect();
    let rules: String = rules.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "apiVersion: networking.serving.volcano.sh/v1alpha1\nkind: ModelRoute\nmetadata:\n  name: {name}\nspec:\n{head}  rules:\n{rules}---\n"
    )
}

const MATCHING: &str = "\
- modelMatch: {headers: {x-tier: {exact: gold}}}
  targetModels: [{modelServerName: other}]
- modelMatch: {uri: {prefix: /v1/emb}}
  targetModels: [{modelServerName: other}]
- modelMatch: {headers: {x-tier: {regex: '^sil'}}, uri: {exact: /v1/completions}}
  targetModels: [{modelServerName: other}]
- targetModels: [{modelServerName: main}]";

impl Bed {
    async fn start() -> Self {
        let start = || EngineServer::start(EngineOptions::instant("sim")).unwrap();
        let (main, other) = (start(), start());
        let adapters = "loraAdapters: [org/adapter, plain-adapter]";
        let routes = model_server("main", &[main.addr()], "")
            + &model_server("other", &[other.addr()], "model: other-name")
            + &model_route("plain", "org/sim:v1", &[("main", 100)])
            + &rules_route("matching", "modelName: matching", MATCHING)
            + &rules_route(
                "adapted",
                &format!("modelName: base\n{adapters}"),
                "- targetModels: [{modelServerName: other}]",
            )
            + &rules_route(
                "body",
                "loraAdapters: [one, two]",
                "- modelMatch: {body: {model: two}}\n  targetModels: [{modelServerName: other}]\n- targetModels: [{modelServerName: main}]",
            );
        let gateway = Gateway::builder(routes).start().await;
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self {
            main,
            other,
            gateway,
            client,
        }
    }

    fn post(&self, path: &str, body: &Value) -> reqwest::RequestBuilder {
        self.client.post(self.gateway.url(path)).json(body)
    }

    async fn get(&self, url: String) -> (u16, Value) {
        let answer = self.client.get(url).send().await.unwrap();
        (
            answer.status().as_u16(),
            answer.json().await.unwrap_or_default(),
        )
    }

    /// Sends it; which engine got it, and the model it was told.
    async fn lands(&self, path: &str, tier: Option<&str>, body: &Value) -> (&'static str, String) {
        let before = self.main.requests().received;
        let mut request = self.post(path, body).header("x-echo", "body");
        if let Some(tier) = tier {
            request = request.header("x-tier", tier);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path} {tier:?} {body}");
        let seen: Value = answer.json().await.unwrap();
        let main = self.main.requests().received > before;
        (
            if main { "main" } else { "other" },
            seen["model"].as_str().unwrap().to_owned(),
        )
    }
}

#[tokio::test]
async fn models_are_listed_and_found_by_name() {
    let bed = Bed::start().await;
    let (status, list) = bed.get(bed.gateway.url("/v1/models")).await;
    assert_eq!((status, &list["object"]), (200, &json!("list")));
    let mut names: Vec<&str> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["id"].as_str().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "base",
            "matching",
            "one",
            "org/adapter",
            "org/sim:v1",
            "plain-adapter",
            "two"
        ]
    );
    for (path, id) in [
        ("org/sim:v1", "org/sim:v1"),
        ("org%2Fsim%3Av1", "org/sim:v1"),
        ("org/adapter", "org/adapter"),
    ] {
        let (status, model) = bed
            .get(bed.gateway.url(&format!("/v1/models/{path}")))
            .await;
        assert_eq!(
            (status, &model["id"], &model["object"]),
            (200, &json!(id), &json!("model"))
        );
    }
    let (_, adapter) = bed.get(bed.gateway.url("/v1/models/org/adapter")).await;
    assert_eq!(adapter["parent"], "base");
    let head = bed
        .client
        .head(bed.gateway.url("/v1/models/base"))
        .send()
        .await
        .unwrap();
    assert_eq!(head.status(), 200);
    for (path, allow) in [
        ("/v1/models", "GET, HEAD, OPTIONS"),
        ("/v1/responses", "POST, OPTIONS"),
    ] {
        let options = bed
            .client
            .request(reqwest::Method::OPTIONS, bed.gateway.url(path))
            .send()
            .await
            .unwrap();
        assert_eq!(
            (
                options.status().as_u16(),
                options.headers()["allow"].to_str().unwrap()
            ),
            (204, allow)
        );
    }
    assert_eq!(
        bed.main.requests().received + bed.other.requests().received,
        0
    );
}

#[tokio::test]
async fn every_api_reaches_the_engine_with_path_and_body_intact() {
    let bed = Bed::start().await;
    for path in [
        "chat/completions",
        "completions",
        "embeddings",
        "responses",
        "messages",
        "rerank",
        "score",
        "audio/speech",
        "images/generations",
        "something/new?x=1",
    ] {
        let path = format!("/v1/{path}");
        let body = r#"{ "model" : "org/sim:v1", "n": 1.0e0, "x": [1,  2], "é": "\u00e9" }"#;
        let request = || {
            bed.client
                .post(bed.gateway.url(&path))
                .header("content-type", "application/json")
                .body(body)
        };
        let seen = request()
            .header("x-echo", "body")
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        assert_eq!(seen, body, "{path}");
        let seen: Value = request()
            .header("x-echo", "sha256")
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        assert_eq!(
            (&seen["target"], &seen["method"]),
            (&json!(path), &json!("POST"))
        );
    }
    bed.gateway.settled().await;
}

#[tokio::test]
async fn a_form_is_routed_by_its_model_and_only_that_is_renamed() {
    let bed = Bed::start().await;
    let form = |model: &str| {
        let mut form = b"--B0und\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\ncontent-type: audio/wav\r\n\r\n".to_vec();
        form.extend((0..100_000_u32).map(|n| (n * 31 % 251) as u8));
        form.extend_from_slice(
            format!("\r\n--B0und\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\n{model}\r\n--B0und--\r\n").as_bytes(),
        );
        form
    };
    for (model, told) in [("org/sim:v1", "org/sim:v1"), ("base", "other-name")] {
        let request = bed
            .client
            .post(bed.gateway.url("/v1/audio/transcriptions"))
            .header("x-echo", "body");
        let request = request
            .header("content-type", "multipart/form-data; boundary=B0und")
            .body(form(model));
        let answer = request.send().await.unwrap();
        assert_eq!(
            answer.headers()["content-type"],
            "multipart/form-data; boundary=B0und"
        );
        assert!(answer.bytes().await.unwrap() == form(told), "{model}");
    }
}

#[tokio::test]
async fn the_servers_model_name_replaces_the_clients_but_not_an_adapters() {
    let bed = Bed::start().await;
    let bed = &bed;
    let lands = |model: &'static str| async move {
        let body = json!({"model": model});
        bed.lands("/v1/completions", None, &body).await
    };
    assert_eq!(lands("base").await, ("other", "other-name".to_owned()));
    assert_eq!(
        lands("org/adapter").await,
        ("other", "org/adapter".to_owned())
    );
    assert_eq!(lands("org/sim:v1").await, ("main", "org/sim:v1".to_owned()));
}

#[tokio::test]
async fn rules_match_by_header_path_and_model_as_explain_says() {
    let bed = Bed::start().await;
    for (model, path, tier, expected) in [
        ("matching", "/v1/completions", None, "main"),
        ("matching", "/v1/completions", Some("gold"), "other"),
        ("matching", "/v1/completions", Some("golden"), "main"),
        ("matching", "/v1/completions", Some("silver"), "other"),
        ("matching", "/v1/responses", Some("silver"), "main"),
        ("matching", "/v1/embeddings", None, "other"),
        ("one", "/v1/completions", None, "main"),
        ("two", "/v1/completions", None, "other"),
        ("base", "/v1/completions", None, "other"),
        ("plain-adapter", "/v1/completions", None, "other"),
    ] {
        let body = json!({"model": model});
        let sent = bed.main.requests().received + bed.other.requests().received;
        let mut explain = bed
            .client
            .post(
                bed.gateway
                    .admin_url(&format!("/debug/explain?path={path}")),
            )
            .json(&body);
        if let Some(tier) = tier {
            explain = explain.header("x-tier", tier);
        }
        let told: Value = explain.send().await.unwrap().json().await.unwrap();
        assert_eq!(
            bed.main.requests().received + bed.other.requests().received,
            sent,
            "explain sends nothing"
        );
        let (landed, upstream_model) = bed.lands(path, tier, &body).await;
        assert_eq!(landed, expected, "{model} {path} {tier:?}");
        assert_eq!(told["target"], format!("default/{landed}"), "{told}");
        assert_eq!(told["upstreamModel"], upstream_model, "{told}");
    }
    let none: Value = bed
        .client
        .post(bed.gateway.admin_url("/debug/explain"))
        .json(&json!({"model": "x"}))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert!(
        none["refused"]
            .as_str()
            .unwrap()
            .contains("route not found"),
        "{none}"
    );
    bed.gateway.settled().await;
}

#[tokio::test]
async fn what_engines_answer_passes_unchanged_and_once() {
    let bed = Bed::start().await;
    for status in [400, 401, 404, 409, 413, 422, 429, 500, 501] {
        let before = bed.main.requests().received;
        let request = bed.post(
            "/v1/completions",
            &json!({"model": "org/sim:v1", "prompt": "x"}),
        );
        let answer = request
            .header("x-fault", format!("status:{status}"))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), status);
        assert_eq!(answer.headers()["content-type"], "application/json");
        let retry_after = answer.headers().get("retry-after").is_some();
        assert_eq!(retry_after, status == 429);
        let body: Value = answer.json().await.unwrap();
        assert_eq!(
            body["error"]["message"],
            format!("injected fault: status {status}")
        );
        assert_eq!(
            bed.main.requests().received,
            before + 1,
            "{status} is asked for once"
        );
    }
    // A single endpoint that is overloaded: its own words reach the client.
    let request = bed.post(
        "/v1/completions",
        &json!({"model": "org/sim:v1", "prompt": "x"}),
    );
    let answer = request
        .header("x-fault", "status:503")
        .send()
        .await
        .unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["retry-after"]),
        (503, &"1".parse().unwrap())
    );
    assert!(answer.text().await.unwrap().contains("injected fault"));
    bed.gateway.settled().await;
}

#[tokio::test]
async fn operators_see_health_configuration_and_endpoints() {
    let bed = Bed::start().await;
    for url in [
        bed.gateway.admin_url("/healthz"),
        bed.gateway.metrics_url("/healthz"),
        bed.gateway.admin_url("/readyz"),
    ] {
        assert_eq!(bed.client.get(url).send().await.unwrap().status(), 200);
    }
    let (status, config) = bed.get(bed.gateway.admin_url("/debug/config")).await;
    assert_eq!((status, &config["generation"]), (200, &json!(1)));
    assert_eq!(config["routes"].as_array().unwrap().len(), 4);
    let (_, endpoints) = bed.get(bed.gateway.admin_url("/debug/endpoints")).await;
    let text = endpoints.to_string();
    assert!(
        text.contains(&bed.main.addr().to_string()) && text.contains("healthy"),
        "{text}"
    );
    // Debug endpoints stay on their own listener.
    for url in [
        bed.gateway.metrics_url("/debug/config"),
        bed.gateway.url("/debug/config"),
    ] {
        assert_eq!(bed.client.get(url).send().await.unwrap().status(), 404);
    }
}
