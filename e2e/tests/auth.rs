//! Who may ask: tokens on every path of the clients' listener, keys that change, issuers that fail, and rules that change
//! while the gateway runs.

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use sluice_config::auth::JwtConfig;
use sluice_e2e::engine::{EngineOptions, EngineServer};
use sluice_e2e::harness::client::{chat, http2};
use sluice_e2e::harness::issuer::{ISSUER, Issuer, SigningKey, claims, part};
use sluice_e2e::harness::{
    Gateway, Manner, RawClient, ScriptedEngine, model_route, model_server, series_sum, wait_until,
};

const ANSWER: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";

fn routes(address: std::net::SocketAddr) -> String {
    model_server("sim", &[address], "") + &model_route("sim", "sim", &[("sim", 1)])
}

fn rules(issuer: &Issuer) -> JwtConfig {
    JwtConfig {
        issuer: ISSUER.into(),
        audiences: vec!["sluice".into()],
        jwks_uri: Some(issuer.uri()),
        ..JwtConfig::default()
    }
}

struct Bed {
    engine: EngineServer,
    gateway: Gateway,
    issuer: Issuer,
    client: reqwest::Client,
}

impl Bed {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut JwtConfig)) -> Self {
        let engine = EngineServer::start(EngineOptions::instant("sim")).unwrap();
        let issuer = Issuer::start().await;
        let mut jwt = rules(&issuer);
        change(&mut jwt);
        let gateway = Gateway::builder(routes(engine.addr()))
            .with(|bootstrap| bootstrap.auth.jwt = Some(jwt))
            .start()
            .await;
        let bed = Self {
            engine,
            gateway,
            issuer,
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
        };
        bed.until_ready().await;
        bed
    }

    async fn until_ready(&self) {
        wait_until("the keys are there", || async {
            let ready = self.gateway.metrics_url("/readyz");
            reqwest::get(ready).await.unwrap().status() == 200
        })
        .await;
    }

    /// A chat with this token, if any; its answer.
    async fn ask(&self, token: Option<&str>) -> reqwest::Response {
        let mut request = self.client.post(self.gateway.url("/v1/chat/completions"));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        request
            .json(&chat("sim", "hello", 3, false))
            .send()
            .await
            .unwrap()
    }

    async fn status(&self, token: &str) -> u16 {
        self.ask(Some(token)).await.status().as_u16()
    }
}

/// The error object of a refusal, which must name what is wrong and hold nothing of the token.
async fn refusal(answer: reqwest::Response, token: &str) -> (String, Value) {
    assert_eq!(answer.status(), 401);
    let challenge = answer.headers()["www-authenticate"]
        .to_str()
        .unwrap()
        .to_owned();
    let text = answer.text().await.unwrap();
    for part in token.split('.').filter(|part| part.len() > 4) {
        assert!(
            !text.contains(part) && !challenge.contains(part),
            "{text} {challenge}"
        );
    }
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["error"]["code"], "invalid_token");
    assert_eq!(value["error"]["type"], "invalid_request_error");
    (challenge, value)
}

#[tokio::test]
async fn a_good_token_opens_and_its_user_is_logged_but_never_the_token() {
    let engine = ScriptedEngine::start(ANSWER, Manner::KeepOpen).await;
    let issuer = Issuer::start().await;
    let gateway = Gateway::builder(routes(engine.addr()))
        .with(|bootstrap| bootstrap.auth.jwt = Some(rules(&issuer)))
        .start()
        .await;
    let token = issuer.token("anna");
    // Refused until the issuer's keys have come: each attempt has a line of its own in the log.
    let attempts = AtomicUsize::new(0);
    wait_until("the token is accepted", || async {
        let attempt = attempts.fetch_add(1, Ordering::Relaxed) + 1;
        let answer = reqwest::Client::new()
            .post(gateway.url("/v1/chat/completions"))
            .header("x-request-id", format!("attempt-{attempt}"))
            .bearer_auth(&token)
            .json(&chat("sim", "hello", 3, false))
            .send();
        answer.await.unwrap().status() == 200
    })
    .await;
    let accepted = format!("attempt-{}", attempts.into_inner());
    let line = gateway.access_line(&accepted).await;
    assert_eq!(line["status_code"], 200);
    assert_eq!(line["user_id"], "anna");
    let secret = token.rsplit('.').next().unwrap();
    assert!(!line.to_string().contains(secret));
    let heads = engine.heads();
    assert!(!heads.is_empty());
    for head in heads {
        let head = head.to_ascii_lowercase();
        assert!(
            !head.contains("authorization") && !head.contains("bearer"),
            "{head}"
        );
    }
    let config = reqwest::get(gateway.admin_url("/debug/config"))
        .await
        .unwrap();
    let config: Value = config.json().await.unwrap();
    assert_eq!(config["auth"]["keys"]["known"], json!(["1 (ES256)"]));
    assert_eq!(config["auth"]["issuer"], ISSUER);
    let explained = reqwest::Client::new()
        .post(gateway.admin_url("/debug/explain"))
        .json(&chat("sim", "hello", 3, false))
        .send()
        .await
        .unwrap();
    assert_eq!(
        explained.status(),
        200,
        "the debug listener asks for no token"
    );
}

#[tokio::test]
async fn a_token_that_is_wrong_is_refused_with_words_and_reaches_no_engine() {
    let bed = Bed::start().await;
    let with = |claim: &str, value: Value| {
        let mut claims = claims("anna");
        claims[claim] = value;
        bed.issuer.sign(&claims)
    };
    let foreign = SigningKey::new();
    let head = json!({"alg": "ES256", "kid": "1"});
    let unsigned = format!(
        "{}.{}.",
        part(&json!({"alg": "none"})),
        part(&claims("anna"))
    );
    let secret = format!(
        "{}.{}.AAAA",
        part(&json!({"alg": "HS256", "kid": "1"})),
        part(&claims("anna"))
    );
    let tokens = [
        ("expired", with("exp", json!(1))),
        ("claims", with("exp", json!("never"))),
        ("not_yet", with("nbf", json!(4_000_000_000_u64))),
        ("from_the_future", with("iat", json!(4_000_000_000_u64))),
        ("issuer", with("iss", json!("https://other.test"))),
        ("audience", with("aud", json!(["other"]))),
        ("signature", foreign.token(&head, &claims("anna"))),
        ("algorithm", unsigned),
        ("algorithm", secret),
        ("malformed", "not-a-token".to_owned()),
    ];
    for (reason, token) in &tokens {
        let (challenge, value) = refusal(bed.ask(Some(token)).await, token).await;
        assert!(
            challenge.contains("error=\"invalid_token\""),
            "{reason}: {challenge}"
        );
        let message = value["error"]["message"].as_str().unwrap();
        assert!(message.contains("token"), "{reason}: {message}");
    }
    let (challenge, _) = refusal(bed.ask(None).await, "").await;
    assert_eq!(challenge, "Bearer realm=\"sluice\"");
    assert_eq!(bed.engine.requests().received, 0);
    bed.gateway.settled().await;
    let metrics = bed.gateway.metrics().await;
    for (reason, count) in [("expired", 1.0), ("algorithm", 2.0), ("missing", 1.0)] {
        let label = format!("reason=\"{reason}\"");
        let found = series_sum(&metrics, "sluice_auth_refusals_total", &[&label]);
        assert_eq!(found, count, "{reason}");
    }
    let label = ["reason=\"unauthenticated\"", "status_code=\"401\""];
    assert_eq!(series_sum(&metrics, "sluice_requests_total", &label), 11.0);
    assert_eq!(bed.status(&bed.issuer.token("anna")).await, 200);
    bed.gateway.settled().await;
}

/// Targets as a client may write them, proper and not.
const TARGETS: [&str; 22] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/models",
    "/v1/models/sim",
    "/v1/anything/else",
    "/v1/chat/completions?x=1",
    "/v1/chat/completions/",
    "//v1/chat/completions",
    "/v1//chat/completions",
    "/./v1/chat/completions",
    "/healthz/../v1/chat/completions",
    "/v1/../v1/chat/completions",
    "/%76%31/chat/completions",
    "/V1/CHAT/COMPLETIONS",
    "/v1/chat/completions%00",
    "/v1",
    "/",
    "/healthz",
    "/readyz",
    "/metrics",
    "/debug/config",
];

#[tokio::test]
async fn no_method_path_or_form_gets_by_without_a_token() {
    let bed = Bed::start().await;
    let body = chat("sim", "hello", 3, false).to_string();
    let host = bed.gateway.address;
    let absolute = [
        format!("http://{host}/v1/chat/completions"),
        format!("http://{host}/v1/models"),
        "*".to_owned(),
    ];
    let targets = TARGETS.iter().map(|target| (*target).to_owned());
    let mut asked = 0;
    for target in targets.chain(absolute) {
        for method in [
            "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY",
        ] {
            for field in [
                "",
                "authorization: Bearer a.b.c\r\n",
                "authorization: Basic YTpi\r\n",
                // Named by `connection`: it ends here, and opens nothing.
                "connection: authorization\r\n",
                "x-forwarded-authorization: Bearer a.b.c\r\nx-original-url: /healthz\r\n",
                "x-http-method-override: OPTIONS\r\norigin: http://a\r\n",
            ] {
                let mut raw = RawClient::connect(host).await;
                let length = body.len();
                let request = format!(
                    "{method} {target} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n\
                     content-length: {length}\r\n{field}\r\n{body}"
                );
                raw.send(request).await.ok();
                let shown = format!("{method} {target} {field:?}");
                let Some(answer) = raw.answer_to(method).await else {
                    panic!("{shown}: no answer");
                };
                // What is no request is refused before anybody asks who sent it.
                let refused = answer.status == 401 || answer.status == 400;
                assert!(refused, "{shown}: {}", answer.line);
                asked += usize::from(answer.status == 401);
            }
        }
    }
    assert!(asked > 900, "{asked}");
    assert_eq!(bed.engine.requests().received, 0);
    // A kept connection and HTTP/2 are asked each time.
    let token = bed.issuer.token("anna");
    let multiplexed = http2();
    for (token, expected) in [
        (Some(&token), 200),
        (None, 401),
        (Some(&token), 200),
        (None, 401),
    ] {
        let mut request = multiplexed.post(bed.gateway.url("/v1/chat/completions"));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request
            .json(&chat("sim", "hello", 3, false))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), expected);
        let (with, without) = (
            bed.status(&bed.issuer.token("b")).await,
            bed.ask(None).await,
        );
        assert_eq!((with, without.status().as_u16()), (200, 401));
    }
    bed.gateway.settled().await;
}

#[tokio::test]
async fn a_rotated_key_is_fetched_at_once_and_made_up_keys_are_not_asked_for_again_and_again() {
    let bed = Bed::start().await;
    let old = bed.issuer.token("anna");
    assert_eq!(bed.status(&old).await, 200);
    let before = bed.issuer.fetches();
    bed.issuer.rotate("2");
    // The very first request with the new key is let in.
    assert_eq!(bed.status(&bed.issuer.token("anna")).await, 200);
    assert_eq!(bed.issuer.fetches(), before + 1);
    assert_eq!(bed.status(&old).await, 401);
    let foreign = SigningKey::new();
    for number in 0..50 {
        let head = json!({"alg": "ES256", "kid": format!("made-up-{number}")});
        let token = foreign.token(&head, &claims("mallory"));
        assert_eq!(bed.status(&token).await, 401);
    }
    assert_eq!(bed.issuer.fetches(), before + 1, "one fetch in ten seconds");
}

#[tokio::test]
async fn the_last_good_keys_outlive_their_issuer() {
    let refresh = Duration::from_secs(1);
    let mut bed = Bed::with(|jwt| jwt.refresh_interval = Some(refresh.into())).await;
    let token = bed.issuer.token("anna");
    assert_eq!(bed.status(&token).await, 200);
    let failures = async |bed: &Bed, more_than: f64| {
        wait_until("a fetch has failed", || async {
            let metrics = bed.gateway.metrics().await;
            let label = ["outcome=\"failed\""];
            series_sum(&metrics, "sluice_auth_key_fetches_total", &label) > more_than
        })
        .await;
    };
    bed.issuer.set_broken(true);
    failures(&bed, 0.0).await;
    assert_eq!(bed.status(&token).await, 200);
    bed.issuer.set_broken(false);
    bed.issuer.stop().await;
    failures(&bed, 1.0).await;
    assert_eq!(bed.status(&token).await, 200);
    let ready = reqwest::get(bed.gateway.metrics_url("/readyz"))
        .await
        .unwrap();
    assert_eq!(ready.status(), 200, "it serves");
    bed.issuer.rotate("2");
    bed.issuer.start_again().await;
    wait_until("the new key is there", || async {
        bed.status(&bed.issuer.token("anna")).await == 200
    })
    .await;
}

#[tokio::test]
async fn without_keys_nobody_is_let_in_and_told_so_until_they_come() {
    let engine = EngineServer::start(EngineOptions::instant("sim")).unwrap();
    let mut issuer = Issuer::start().await;
    issuer.stop().await;
    let gateway = Gateway::builder(routes(engine.addr()))
        .with(|bootstrap| bootstrap.auth.jwt = Some(rules(&issuer)))
        .start()
        .await;
    let ask = |token: String| {
        reqwest::Client::new()
            .post(gateway.url("/v1/chat/completions"))
            .bearer_auth(token)
            .json(&chat("sim", "hello", 3, false))
            .send()
    };
    let answer = ask(issuer.token("anna")).await.unwrap();
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.headers()["retry-after"], "1");
    let value: Value = answer.json().await.unwrap();
    assert_eq!(value["error"]["code"], "auth_unavailable");
    let ready = reqwest::get(gateway.metrics_url("/readyz")).await.unwrap();
    assert_eq!(ready.status(), 503);
    assert!(ready.text().await.unwrap().contains("no keys"));
    let health = reqwest::get(gateway.metrics_url("/healthz")).await.unwrap();
    assert_eq!(health.status(), 200);
    assert_eq!(engine.requests().received, 0);
    issuer.start_again().await;
    wait_until("the keys have come", || async {
        ask(issuer.token("anna")).await.unwrap().status() == 200
    })
    .await;
    let ready = reqwest::get(gateway.metrics_url("/readyz")).await.unwrap();
    assert_eq!(ready.status(), 200);
}

#[tokio::test]
async fn keys_come_by_tls_from_an_issuer_that_is_trusted_and_from_no_other() {
    let engine = EngineServer::start(EngineOptions::instant("sim")).unwrap();
    let issuer = Issuer::start_tls().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("issuer.pem");
    std::fs::write(&file, issuer.certificate()).unwrap();
    // Engines may have any certificate here. Whose keys open the gateway is another matter.
    let start = async |ca_file: Option<&Path>| {
        let mut jwt = rules(&issuer);
        jwt.ca_file = ca_file.map(Path::to_owned);
        Gateway::builder(routes(engine.addr()))
            .with(|bootstrap| {
                bootstrap.auth.jwt = Some(jwt);
                bootstrap.upstream.insecure_skip_verify = true;
            })
            .start()
            .await
    };
    let status = async |gateway: &Gateway| {
        let request = reqwest::Client::new().post(gateway.url("/v1/chat/completions"));
        let request = request.bearer_auth(issuer.token("anna"));
        let body = chat("sim", "hello", 3, false);
        request.json(&body).send().await.unwrap().status().as_u16()
    };
    let trusting = start(Some(&file)).await;
    wait_until("the keys are there", || async {
        status(&trusting).await == 200
    })
    .await;
    let other = start(None).await;
    wait_until("the certificate is refused", || async {
        let config = reqwest::get(other.admin_url("/debug/config"))
            .await
            .unwrap();
        let config: Value = config.json().await.unwrap();
        config["auth"]["keys"]["trouble"].is_string()
    })
    .await;
    assert_eq!(status(&other).await, 503);
    assert_eq!(issuer.fetches(), 1);
}

fn write(file: &Path, text: &str) {
    let new = file.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, file).unwrap();
}

#[tokio::test]
async fn kthenas_auth_block_is_enforced_and_hot() {
    let engine = EngineServer::start(EngineOptions::instant("sim")).unwrap();
    let (first, second) = (Issuer::start().await, Issuer::start().await);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("routerConfiguration.yaml");
    let block = |issuer: &Issuer| {
        let uri = issuer.uri();
        format!("auth:\n  issuer: {ISSUER}\n  audiences: [sluice]\n  jwksUri: {uri}\n")
    };
    write(&file, &block(&first));
    let gateway = Gateway::builder(routes(engine.addr()))
        .with(|bootstrap| bootstrap.source.router_configuration = Some(file.clone()))
        .start()
        .await;
    let status = async |token: Option<String>| {
        let mut request = reqwest::Client::new().post(gateway.url("/v1/chat/completions"));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let body = chat("sim", "hello", 3, false);
        request.json(&body).send().await.unwrap().status().as_u16()
    };
    assert_eq!(status(None).await, 401, "from the first request on");
    wait_until("its tokens open", || async {
        status(Some(first.token("a"))).await == 200
    })
    .await;
    write(&file, &block(&second));
    wait_until("the other's tokens open", || async {
        status(Some(second.token("a"))).await == 200
    })
    .await;
    assert_eq!(status(Some(first.token("a"))).await, 401);
    // A misspelt field must not open the gateway: the edit is refused.
    write(&file, &block(&second).replace("jwksUri", "jwksURL"));
    wait_until("the edit is refused", || async {
        let config = reqwest::get(gateway.admin_url("/debug/config"))
            .await
            .unwrap();
        let config: Value = config.json().await.unwrap();
        config["problems"][0]["path"] == "auth.jwksURL"
    })
    .await;
    assert_eq!(status(None).await, 401);
    assert_eq!(status(Some(second.token("a"))).await, 200);
    std::fs::remove_file(&file).unwrap();
    wait_until("the loss is noticed", || async {
        let config = reqwest::get(gateway.admin_url("/debug/config"))
            .await
            .unwrap();
        let config: Value = config.json().await.unwrap();
        config["problems"][0]["message"]
            .as_str()
            .is_some_and(|told| told.contains("cannot be read"))
    })
    .await;
    assert_eq!(status(None).await, 401);
    write(&file, "scheduler: {}\n");
    wait_until("an edit without `auth` lets everybody in", || async {
        status(None).await == 200
    })
    .await;
    write(&file, &block(&second));
    wait_until("and it is closed again", || async {
        status(None).await == 401
    })
    .await;
}

#[tokio::test]
async fn a_browser_may_ask_first_and_no_engine_hears_of_it() {
    let bed = Bed::start().await;
    let preflight = bed
        .client
        .request(
            reqwest::Method::OPTIONS,
            bed.gateway.url("/v1/chat/completions"),
        )
        .header("origin", "https://app.test")
        .header("access-control-request-method", "POST")
        .send()
        .await
        .unwrap();
    assert_eq!(preflight.status(), 204);
    let plain = bed
        .client
        .request(
            reqwest::Method::OPTIONS,
            bed.gateway.url("/v1/chat/completions"),
        )
        .send()
        .await
        .unwrap();
    assert_eq!(plain.status(), 401);
    assert_eq!(bed.engine.requests().received, 0);
}
