//! Requests that are good HTTP and still wrong: each is told what is wrong in OpenAI's form, counted by reason, and
//! never reaches an engine.

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use serde_json::{Value, json};
use sluice_e2e::engine::{EngineOptions, EngineServer};
use sluice_e2e::harness::{Gateway, RawClient, model_route, model_server, series_sum};

const CHAT: &str = "/v1/chat/completions";

struct Bed {
    engine: EngineServer,
    gateway: Gateway,
    client: reqwest::Client,
}

/// What is expected of a refusal.
struct Refusal {
    status: u16,
    code: &'static str,
    reason: &'static str,
    param: Option<&'static str>,
}

const fn refusal(status: u16, code: &'static str, reason: &'static str) -> Refusal {
    let param = None;
    Refusal {
        status,
        code,
        reason,
        param,
    }
}

const INVALID: Refusal = refusal(400, "invalid_body", "invalid_body");
const TOO_LARGE: Refusal = refusal(413, "body_too_large", "body_too_large");

impl Refusal {
    const fn of(self, param: &'static str) -> Self {
        Self {
            param: Some(param),
            ..self
        }
    }
}

impl Bed {
    async fn start() -> Self {
        Self::with(512 << 20).await
    }

    async fn with(budget: usize) -> Self {
        let engine = EngineServer::start(EngineOptions::instant("sim")).unwrap();
        let routes = model_server("sim", &[engine.addr()], "")
            + &model_route("secret", "sim", &[("sim", 100)]);
        let gateway = Gateway::builder(routes)
            .with(|bootstrap| bootstrap.limits.body_budget_bytes = budget)
            .start()
            .await;
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self {
            engine,
            gateway,
            client,
        }
    }

    fn post(&self, body: impl Into<reqwest::Body>) -> reqwest::RequestBuilder {
        let request = self.client.post(self.gateway.url(CHAT));
        request
            .header("content-type", "application/json")
            .body(body)
    }

    async fn count(&self, reason: &str) -> f64 {
        let label = format!("reason=\"{reason}\"");
        series_sum(
            &self.gateway.metrics().await,
            "sluice_requests_total",
            &[&label],
        )
    }

    /// Sends it and asserts the refusal in answer, metrics and log; the error object.
    async fn refused(&self, request: reqwest::RequestBuilder, expected: &Refusal) -> Value {
        let before = self.count(expected.reason).await;
        let received = self.engine.requests().received;
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        assert_eq!(answer.headers()["content-type"], "application/json");
        let id = answer.headers()["x-request-id"]
            .to_str()
            .unwrap()
            .to_owned();
        let body: Value = answer.json().await.unwrap();
        let error = body["error"].clone();
        assert_eq!(
            (status, error["code"].as_str()),
            (expected.status, Some(expected.code)),
            "{body}"
        );
        assert_eq!(error["param"].as_str(), expected.param, "{body}");
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|text| text.len() > 10),
            "{body}"
        );
        assert!(error["type"].is_string(), "{body}");
        let line = self.gateway.access_line(&id).await;
        assert_eq!(line["status_code"], expected.status, "{line}");
        assert_eq!(self.count(expected.reason).await, before + 1.0, "{body}");
        assert_eq!(
            self.engine.requests().received,
            received,
            "the engine saw nothing"
        );
        error
    }

    async fn is_well(&self) {
        let body = json!({"model": "sim", "messages": [{"role": "user", "content": "hi"}]});
        let answer = self.post(body.to_string()).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.bytes().await.unwrap();
        self.gateway.settled().await;
    }
}

#[tokio::test]
async fn bodies_that_are_no_json_object_are_refused() {
    let bed = Bed::start().await;
    let bodies: [&[u8]; 16] = [
        b"",
        b"   ",
        b"nonsense",
        b"[{\"model\":\"sim\"}]",
        b"\"sim\"",
        b"null",
        b"{\"model\":\"sim\"",
        b"{\"model\":\"si",
        b"{\"model\":\"sim\",}",
        b"{\"model\":\"sim\"} x",
        b"{\"model\":\"sim\"}{\"model\":\"b\"}",
        b"{'model':'sim'}",
        b"{model:\"sim\"}",
        b"{\"model\":\"sim\",\"a\":\"\xff\xfe\"}",
        b"{\"model\":\"sim\",\"a\":\"b\nc\"}",
        b"{\"model\":\"sim\",\"a\":\"\0\"}",
    ];
    for body in bodies {
        bed.refused(bed.post(body), &INVALID).await;
    }
    bed.is_well().await;
}

#[tokio::test]
async fn a_model_that_is_no_name_is_refused() {
    let bed = Bed::start().await;
    for body in [
        r#"{"messages":[]}"#,
        r#"{"model":""}"#,
        r#"{"model":42}"#,
        r#"{"model":null}"#,
        r#"{"model":["sim"]}"#,
        r#"{"model":{"name":"sim"}}"#,
        r#"{"nested":{"model":"sim"}}"#,
    ] {
        let expected = refusal(400, "invalid_model", "invalid_model").of("model");
        bed.refused(bed.post(body), &expected).await;
    }
    for body in [
        r#"{"model":"sim","model":"sim"}"#,
        r#"{"model":"sim","messages":[],"model":"other"}"#,
        r#"{"model":"sim","mod\u0065l":"other"}"#,
        r#"{"model":"\ud800"}"#,
    ] {
        let expected = refusal(400, "invalid_body", "invalid_body").of("model");
        bed.refused(bed.post(body), &expected).await;
    }
    bed.is_well().await;
}

#[tokio::test]
async fn an_unknown_model_is_not_told_of_others() {
    let bed = Bed::start().await;
    for model in ["gpt-5", "SIM", "sim ", "simx", "", "\u{0}"]
        .iter()
        .filter(|name| !name.is_empty())
    {
        let expected = refusal(404, "model_not_found", "route_not_found").of("model");
        let error = bed
            .refused(bed.post(json!({"model": model}).to_string()), &expected)
            .await;
        let message = error["message"].as_str().unwrap().replace(model, "");
        assert!(
            !message.contains("secret") && !message.contains("sim"),
            "{message}"
        );
    }
    let metrics = bed.gateway.metrics().await;
    assert!(
        !metrics.contains("gpt-5"),
        "clients must not be able to make series"
    );
    bed.is_well().await;
}

#[tokio::test]
async fn deep_nesting_is_refused_without_harm() {
    let bed = Bed::start().await;
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = format!(
            "{{\"a\":{}1{},\"model\":\"sim\"}}",
            open.repeat(10_000),
            close.repeat(10_000)
        );
        bed.refused(bed.post(deep), &INVALID).await;
    }
    bed.refused(bed.post("[".repeat(1 << 20)), &INVALID).await;
    bed.is_well().await;
}

#[tokio::test]
async fn odd_strings_pass_when_they_are_escaped() {
    let bed = Bed::start().await;
    let body = r#"{"model":"sim","pad":"\u0000 \ud800 \udc00x \uD83D\uDE00 \/ é 😀 \u007f"}"#;
    let answer = bed
        .post(body)
        .header("x-echo", "body")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.text().await.unwrap(), body);
    bed.is_well().await;
}

#[tokio::test]
async fn bodies_above_the_limit_are_413_with_and_without_a_length() {
    let bed = Bed::start().await;
    let body = vec![b' '; 17 << 20];
    bed.refused(bed.post(body.clone()), &TOO_LARGE).await;
    let pieces: Vec<_> = body
        .chunks(1 << 16)
        .map(|piece| Ok::<_, std::io::Error>(piece.to_vec()))
        .collect();
    let streamed = reqwest::Body::wrap_stream(futures::stream::iter(pieces));
    bed.refused(bed.post(streamed), &TOO_LARGE).await;
    bed.is_well().await;
}

#[tokio::test]
async fn other_content_types_are_415() {
    let bed = Bed::start().await;
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/xml",
        "jsonx/foo",
        "multipart/mixed",
    ] {
        let request = bed
            .client
            .post(bed.gateway.url(CHAT))
            .header("content-type", kind);
        let expected = refusal(415, "unsupported_content_type", "unsupported_content_type");
        bed.refused(request.body(r#"{"model":"sim"}"#), &expected)
            .await;
    }
    for kind in [
        "application/json; charset=utf-8",
        "APPLICATION/JSON",
        "application/vnd.api+json",
    ] {
        let request = bed
            .client
            .post(bed.gateway.url(CHAT))
            .header("content-type", kind);
        let answer = request
            .header("x-echo", "sha256")
            .body(r#"{"model":"sim"}"#)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200, "{kind}");
    }
    bed.is_well().await;
}

#[tokio::test]
async fn forms_without_a_usable_model_are_refused() {
    let bed = Bed::start().await;
    let part = |name: &str, value: &str| {
        format!("--B\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let model = part("model", "sim");
    for (kind, body, param) in [
        ("multipart/form-data", format!("{model}--B--\r\n"), None),
        (
            "multipart/form-data; boundary=B",
            format!("{}--B--\r\n", part("a", "b")),
            Some("model"),
        ),
        (
            "multipart/form-data; boundary=B",
            format!("{model}{model}--B--\r\n"),
            Some("model"),
        ),
        ("multipart/form-data; boundary=B", model.clone(), None),
        (
            "multipart/form-data; boundary=B",
            "nothing".to_owned(),
            None,
        ),
    ] {
        let request = bed.client.post(bed.gateway.url("/v1/audio/transcriptions"));
        let request = request.header("content-type", kind).body(body);
        bed.refused(request, &Refusal { param, ..INVALID }).await;
    }
    bed.is_well().await;
}

#[tokio::test]
async fn the_body_budget_answers_503_and_frees_itself() {
    let bed = Bed::with(100_000).await;
    let expected = refusal(503, "overloaded", "body_budget");
    let body = json!({"model": "sim", "pad": "x".repeat(150_000)}).to_string();
    bed.refused(bed.post(body.clone()), &expected).await;
    let answer = bed.post(body).send().await.unwrap();
    assert_eq!(answer.headers()["retry-after"], "1");
    // It is counted after its answer, and must not be taken for the next one.
    bed.gateway.settled().await;
    // What one client holds, another cannot have, until the first is done.
    let mut holder = RawClient::connect(bed.gateway.address).await;
    holder
        .send(format!(
            "POST {CHAT} HTTP/1.1\r\nhost: a\r\ncontent-length: 90000\r\n\r\n"
        ))
        .await
        .unwrap();
    sluice_e2e::harness::wait_until("the holder's bytes are taken", || async {
        bed.gateway.running.gateway.bodies.used() == 90_000
    })
    .await;
    let second = json!({"model": "sim", "pad": "x".repeat(20_000)}).to_string();
    bed.refused(bed.post(second.clone()), &expected).await;
    drop(holder);
    bed.gateway.settled().await;
    let answer = bed
        .post(second)
        .header("x-echo", "sha256")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    bed.is_well().await;
}

#[tokio::test]
async fn unknown_paths_and_methods_are_told_apart() {
    let bed = Bed::start().await;
    for path in [
        "/",
        "/v1",
        "/v1/",
        "/v2/chat/completions",
        "/metrics",
        "/healthz",
        "/debug/config",
        "//v1/models",
    ] {
        let expected = refusal(404, "unknown_path", "unknown_path");
        bed.refused(bed.client.get(bed.gateway.url(path)), &expected)
            .await;
    }
    for (method, path, allow) in [
        ("GET", CHAT, "POST, OPTIONS"),
        ("PUT", CHAT, "POST, OPTIONS"),
        ("POST", "/v1/models", "GET, HEAD, OPTIONS"),
        ("DELETE", "/v1/models/sim", "GET, HEAD, OPTIONS"),
        ("BREW", CHAT, "POST, OPTIONS"),
    ] {
        let request = || {
            bed.client
                .request(method.parse().unwrap(), bed.gateway.url(path))
        };
        let expected = refusal(405, "method_not_allowed", "method_not_allowed");
        bed.refused(request(), &expected).await;
        let answer = request().send().await.unwrap();
        assert_eq!(answer.headers()["allow"], allow);
        // It is counted after its answer, and must not be taken for the next one.
        bed.gateway.settled().await;
    }
    let expected = refusal(404, "model_not_found", "route_not_found").of("model");
    bed.refused(
        bed.client.get(bed.gateway.url("/v1/models/other")),
        &expected,
    )
    .await;
    bed.is_well().await;
}
