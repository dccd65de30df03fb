//! The built-in filters through a whole gateway: what clients and engines see of them.

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use reqwest::Method;
use serde_json::{Value, json};
use sluice_config::bootstrap::{FailPolicy, FilterConfig};
use sluice_e2e::engine::{EngineOptions, EngineServer};
use sluice_e2e::harness::{Gateway, model_route, model_server, wait_until};

const CHAT: &str = "/v1/chat/completions";

fn filter(name: &str, kind: &str, config: Value, disabled: bool) -> FilterConfig {
    FilterConfig {
        name: name.into(),
        kind: kind.into(),
        config,
        disabled,
        fail_policy: FailPolicy::Closed,
    }
}

fn engine(name: &str) -> EngineServer {
    EngineServer::start(EngineOptions::instant(name)).unwrap()
}

/// A gateway with these filters before one engine, model `sim`.
async fn gateway(engine: &EngineServer, extra_route: &str, filters: Vec<FilterConfig>) -> Gateway {
    let routes = model_server("sim", &[engine.addr()], "")
        + &model_route("sim", "sim", &[("sim", 100)])
        + extra_route;
    Gateway::builder(routes)
        .with(|bootstrap| bootstrap.filters = filters)
        .start()
        .await
}

/// A second route to the same engine, with an override of filter `name`.
fn overriding_route(model: &str, name: &str, override_: &Value) -> String {
    let route = model_route(model, model, &[("sim", 100)]);
    let filters = format!("  filters:\n    {name}: {override_}\n---\n");
    route.strip_suffix("---\n").unwrap().to_owned() + &filters
}

fn post(gateway: &Gateway, body: &Value) -> reqwest::RequestBuilder {
    reqwest::Client::new().post(gateway.url(CHAT)).json(body)
}

async fn echo(gateway: &Gateway, body: &Value) -> (reqwest::header::HeaderMap, Value) {
    let answer = post(gateway, body)
        .header("x-echo", "sha256")
        .header("x-drop", "1")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    (answer.headers().clone(), answer.json().await.unwrap())
}

fn headers_config(value: &str) -> Value {
    json!({
        "request": {"set": {"x-team": value}, "add": {"x-added": "1"}, "remove": ["x-drop"]},
        "response": {"set": {"x-gateway": value}, "remove": ["server"]},
    })
}

#[tokio::test]
async fn headers_are_rewritten_both_ways_and_on_errors() {
    let engine = engine("sim");
    let gateway = gateway(
        &engine,
        "",
        vec![filter("h", "headers", headers_config("a"), false)],
    )
    .await;
    let (answer, seen) = echo(&gateway, &json!({"model": "sim"})).await;
    assert_eq!(
        (&answer["x-gateway"], answer.get("server")),
        (&"a".parse().unwrap(), None)
    );
    let seen = &seen["headers"];
    assert_eq!(
        (&seen["x-team"], &seen["x-added"], seen.get("x-drop")),
        (&json!("a"), &json!("1"), None)
    );
    let refused = post(&gateway, &json!({"model": "none"}))
        .send()
        .await
        .unwrap();
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["x-gateway"]),
        (404, &"a".parse().unwrap())
    );
    gateway.settled().await;
}

#[tokio::test]
async fn a_route_overrides_or_switches_off_or_on_a_filter() {
    let engine = engine("sim");
    let routes = overriding_route("other", "h", &json!({"config": headers_config("b")}))
        + &overriding_route("plain", "h", &json!({"disabled": true}))
        + &overriding_route("guarded", "off", &json!({"config": {"maxTokens": 5}}));
    let filters = vec![
        filter("h", "headers", headers_config("a"), false),
        filter("off", "promptGuard", json!({"maxTokens": 1}), true),
    ];
    let gateway = gateway(&engine, &routes, filters).await;
    let problems: Value = reqwest::get(gateway.admin_url("/debug/config"))
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(problems["problems"], json!([]));
    for (model, response) in [("sim", Some("a")), ("other", Some("b")), ("plain", None)] {
        let (answer, _) = echo(&gateway, &json!({"model": model})).await;
        let seen = answer.get("x-gateway").map(|value| value.to_str().unwrap());
        assert_eq!(seen, response, "{model}");
    }
    for (model, tokens, status) in [("sim", 50, 200), ("guarded", 50, 400), ("guarded", 5, 200)] {
        let body = json!({"model": model, "max_tokens": tokens});
        let answer = post(&gateway, &body)
            .header("x-echo", "sha256")
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), status, "{model} {tokens}");
    }
    gateway.settled().await;
}

#[tokio::test]
async fn a_page_of_an_allowed_origin_may_call_and_others_may_not() {
    let engine = engine("sim");
    let config = json!({
        "allowOrigins": ["https://app.example.com"], "allowMethods": ["POST"], "allowHeaders": ["content-type"],
        "allowCredentials": true, "maxAge": 60, "exposeHeaders": ["x-request-id"],
    });
    let gateway = gateway(&engine, "", vec![filter("cors", "cors", config, false)]).await;
    let client = reqwest::Client::new();
    let preflight = |origin: &str| {
        client
            .request(Method::OPTIONS, gateway.url(CHAT))
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .send()
    };
    let good = preflight("https://app.example.com").await.unwrap();
    assert_eq!(good.status(), 204);
    assert_eq!(
        good.headers()["access-control-allow-origin"],
        "https://app.example.com"
    );
    assert_eq!(good.headers()["access-control-allow-methods"], "POST");
    assert_eq!(good.headers()["access-control-max-age"], "60");
    let bad = preflight("https://evil.example.com").await.unwrap();
    assert!(!bad.headers().contains_key("access-control-allow-origin"));
    for (model, status) in [("sim", 200), ("none", 404)] {
        let call = post(&gateway, &json!({"model": model})).header("x-echo", "sha256");
        let answer = call
            .header("origin", "https://app.example.com")
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), status);
        assert_eq!(
            answer.headers()["access-control-allow-origin"],
            "https://app.example.com"
        );
        assert_eq!(
            answer.headers()["access-control-expose-headers"],
            "x-request-id"
        );
    }
    assert_eq!(engine.requests().received, 1, "preflights end here");
    // Without the preflight's fields, OPTIONS is only a question.
    let plain = client
        .request(Method::OPTIONS, gateway.url(CHAT))
        .send()
        .await
        .unwrap();
    assert_eq!(
        (plain.status().as_u16(), &plain.headers()["allow"]),
        (204, &"POST, OPTIONS".parse().unwrap())
    );
    gateway.settled().await;
}

#[tokio::test]
async fn a_prompt_guard_rejects_what_is_too_much() {
    let engine = engine("sim");
    let config = json!({"maxPromptBytes": 100, "maxTokens": 10});
    let gateway = gateway(
        &engine,
        "",
        vec![filter("guard", "promptGuard", config, false)],
    )
    .await;
    let chat = |content: String, tokens: u64| json!({"model": "sim", "max_tokens": tokens, "messages": [{"role": "user", "content": content}]});
    for (body, status, code) in [
        (chat("x".repeat(101), 5), 413, "prompt_too_long"),
        (chat("x".repeat(50), 11), 400, "max_tokens_too_high"),
    ] {
        let answer = post(&gateway, &body).send().await.unwrap();
        assert_eq!(answer.status(), status);
        assert_eq!(answer.headers()["content-type"], "application/json");
        let error: Value = answer.json().await.unwrap();
        assert_eq!(error["error"]["code"], code);
    }
    assert_eq!(engine.requests().received, 0);
    let answer = post(&gateway, &chat("x".repeat(100), 10))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    gateway.settled().await;
}

#[tokio::test]
async fn a_prompt_guard_clamps_what_is_too_much() {
    let engine = engine("sim");
    let config = json!({"maxTokens": 10, "mode": "clamp"});
    let gateway = gateway(
        &engine,
        "",
        vec![filter("guard", "promptGuard", config, false)],
    )
    .await;
    for (asked, passed) in [(json!(50), 10), (json!(7), 7), (json!(null), 10)] {
        let mut body = json!({"model": "sim", "prompt": "x"});
        if !asked.is_null() {
            body["max_tokens"] = asked.clone();
        }
        let answer = post(&gateway, &body)
            .header("x-echo", "body")
            .send()
            .await
            .unwrap();
        let seen: Value = answer.json().await.unwrap();
        assert_eq!(seen["max_tokens"], passed, "asked for {asked}");
    }
    // Which of several limits counts differs from API to API: all are lowered.
    let body =
        json!({"model": "sim", "prompt": "x", "max_completion_tokens": 5, "max_tokens": 1e6});
    let answer = post(&gateway, &body)
        .header("x-echo", "body")
        .send()
        .await
        .unwrap();
    let seen: Value = answer.json().await.unwrap();
    assert_eq!(
        (&seen["max_completion_tokens"], &seen["max_tokens"]),
        (&json!(5), &json!(10))
    );
    let embeddings = reqwest::Client::new().post(gateway.url("/v1/embeddings"));
    let embeddings = embeddings
        .json(&json!({"model": "sim", "input": "x"}))
        .header("x-echo", "body");
    let seen: Value = embeddings.send().await.unwrap().json().await.unwrap();
    assert_eq!(
        seen,
        json!({"model": "sim", "input": "x"}),
        "nothing to limit"
    );
    gateway.settled().await;
}

struct Canary {
    stable: EngineServer,
    canary: EngineServer,
    gateway: Gateway,
}

impl Canary {
    async fn start(config: Value) -> Self {
        let (stable, canary) = (engine("sim"), engine("sim"));
        let routes = model_server("stable", &[stable.addr()], "")
            + &model_server("canary", &[canary.addr()], "")
            + &model_route("sim", "sim", &[("stable", 50), ("canary", 50)]);
        let gateway = Gateway::builder(routes)
            .with(|bootstrap| bootstrap.filters = vec![filter("canary", "canary", config, false)])
            .start()
            .await;
        Self {
            stable,
            canary,
            gateway,
        }
    }

    /// Sends one; did the canary get it?
    async fn hits_canary(&self, body: &Value, header: Option<(&str, &str)>) -> bool {
        let before = (
            self.stable.requests().received,
            self.canary.requests().received,
        );
        let mut request = post(&self.gateway, body).header("x-echo", "sha256");
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        assert_eq!(request.send().await.unwrap().status(), 200);
        let after = (
            self.stable.requests().received,
            self.canary.requests().received,
        );
        assert_eq!(after.0 + after.1, before.0 + before.1 + 1);
        after.1 > before.1
    }
}

#[tokio::test]
async fn a_header_chooses_the_canary() {
    let bed =
        Canary::start(json!({"header": "x-variant", "values": {"new": "canary", "old": "stable"}}))
            .await;
    for _ in 0..20 {
        assert!(
            bed.hits_canary(&json!({"model": "sim"}), Some(("x-variant", "new")))
                .await
        );
        assert!(
            !bed.hits_canary(&json!({"model": "sim"}), Some(("x-variant", "old")))
                .await
        );
    }
    bed.gateway.settled().await;
}

#[tokio::test]
async fn a_user_stays_on_one_variant() {
    let bed = Canary::start(json!({"stickyBy": "user"})).await;
    let mut on_canary = 0;
    for user in 0..30 {
        let body = json!({"model": "sim", "user": format!("user-{user}")});
        let first = bed.hits_canary(&body, None).await;
        for _ in 0..3 {
            assert_eq!(bed.hits_canary(&body, None).await, first, "user {user}");
        }
        on_canary += u32::from(first);
    }
    assert!(
        (5..=25).contains(&on_canary),
        "{on_canary} of 30 users at half the weight"
    );
    wait_until("all is settled", || async { bed.gateway.in_flight() == 0 }).await;
}
