//! Tests of the `cors` filter.

use http::HeaderMap;
use serde_json::json;

use super::super::testing::{builtin, info, now, refusal, request, response};
use super::super::{Chain, Flow, ResponseFlow, Stream};
use super::*;

fn chain(config: Value) -> Arc<Chain> {
    builtin("cors", config)
}

fn head(method: Method, headers: &[(&'static str, &'static str)]) -> RequestHead {
    let mut head = request();
    head.method = method;
    for (name, value) in headers {
        head.headers.insert(*name, HeaderValue::from_static(value));
    }
    head
}

/// The answer to a preflight from `origin`, as sent.
fn preflight(config: Value, origin: &'static str) -> HeaderMap {
    let asked = [
        ("origin", origin),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,x-a"),
    ];
    let mut stream = Stream::new(&chain(config), info());
    let flow = now(stream.request_head(&mut head(Method::OPTIONS, &asked)));
    let Flow::Reply(reply) = flow else {
        panic!("expected a reply");
    };
    let (mut answer, _) = reply.into_parts();
    assert_eq!(now(stream.response_head(&mut answer)), ResponseFlow::Next);
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    answer.headers
}

/// The headers of a response that `origin` gets, to which the engine has given these.
fn answer(
    config: Value,
    origin: Option<&'static str>,
    engine: &[(&'static str, &'static str)],
) -> HeaderMap {
    let headers: Vec<_> = origin
        .map(|origin| ("origin", origin))
        .into_iter()
        .collect();
    let mut stream = Stream::new(&chain(config), info());
    let flow = now(stream.request_head(&mut head(Method::POST, &headers)));
    assert_eq!(flow, Flow::Next);
    let mut answer = response();
    for (name, value) in engine {
        answer
            .headers
            .insert(*name, HeaderValue::from_static(value));
    }
    assert_eq!(now(stream.response_head(&mut answer)), ResponseFlow::Next);
    answer.headers
}

fn app() -> Value {
    json!({"allowOrigins": ["https://app.example.com"]})
}

fn vary(headers: &HeaderMap) -> Vec<&HeaderValue> {
    headers.get_all(VARY).iter().collect()
}

#[test]
fn a_preflight_is_answered_without_an_engine() {
    let mut config = app();
    config["maxAge"] = json!(600);
    let headers = preflight(config, "https://app.example.com");
    assert_eq!(
        headers[ACCESS_CONTROL_ALLOW_ORIGIN],
        "https://app.example.com"
    );
    assert_eq!(headers[ACCESS_CONTROL_ALLOW_METHODS], "GET, POST, OPTIONS");
    assert_eq!(
        headers[ACCESS_CONTROL_ALLOW_HEADERS],
        "authorization, content-type"
    );
    assert_eq!(headers[ACCESS_CONTROL_MAX_AGE], "600");
    assert_eq!(
        vary(&headers),
        [
            "origin",
            "access-control-request-method",
            "access-control-request-headers"
        ]
    );
}

#[test]
fn a_preflight_from_another_origin_is_allowed_nothing() {
    let headers = preflight(app(), "https://evil.example");
    let allowing = headers
        .keys()
        .any(|name| name.as_str().starts_with("access-control-"));
    assert!(!allowing, "{headers:?}");
    assert_eq!(vary(&headers)[0], "origin");
}

#[test]
fn any_header_is_allowed_by_echo() {
    let mut config = app();
    config["allowHeaders"] = json!(["*"]);
    config["allowMethods"] = json!(["*"]);
    let headers = preflight(config, "https://app.example.com");
    assert_eq!(headers[ACCESS_CONTROL_ALLOW_HEADERS], "authorization,x-a");
    assert_eq!(headers[ACCESS_CONTROL_ALLOW_METHODS], "POST");
}

#[test]
fn options_that_are_no_preflight_go_on() {
    let mut stream = Stream::new(&chain(app()), info());
    let origin = [("origin", "https://app.example.com")];
    let flow = now(stream.request_head(&mut head(Method::OPTIONS, &origin)));
    assert_eq!(flow, Flow::Next);
    let mut stream = Stream::new(&chain(app()), info());
    let asked = [("access-control-request-method", "POST")];
    let flow = now(stream.request_head(&mut head(Method::OPTIONS, &asked)));
    assert_eq!(flow, Flow::Next);
}

#[test]
fn responses_to_an_allowed_origin_are_marked() {
    let mut config = app();
    config["allowCredentials"] = json!(true);
    config["exposeHeaders"] = json!(["x-request-id"]);
    let headers = answer(config, Some("https://app.example.com"), &[]);
    assert_eq!(
        headers[ACCESS_CONTROL_ALLOW_ORIGIN],
        "https://app.example.com"
    );
    assert_eq!(headers[ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
    assert_eq!(headers[ACCESS_CONTROL_EXPOSE_HEADERS], "x-request-id");
    assert_eq!(vary(&headers), ["origin"]);
}

#[test]
fn responses_to_others_only_say_that_they_vary() {
    for origin in [Some("https://evil.example"), Some("null"), None] {
        let headers = answer(app(), origin, &[]);
        assert_eq!(vary(&headers), ["origin"]);
        assert_eq!(headers.len(), 1, "{headers:?}");
    }
}

#[test]
fn what_an_engine_allows_is_overruled() {
    let engine = [
        ("access-control-allow-origin", "*"),
        ("access-control-allow-credentials", "true"),
        ("vary", "accept"),
    ];
    let headers = answer(app(), Some("https://evil.example"), &engine);
    assert!(!headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
    assert!(!headers.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS));
    assert_eq!(vary(&headers), ["accept", "origin"]);
}

#[test]
fn a_star_allows_every_origin_and_does_not_vary() {
    let headers = answer(
        json!({"allowOrigins": ["*"]}),
        Some("https://any.example"),
        &[],
    );
    assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
    assert!(vary(&headers).is_empty());
}

#[test]
fn origins_match_exactly_or_by_subdomain() {
    let allowed = |pattern: &str, origin: &'static str| {
        let headers = answer(json!({"allowOrigins": [pattern]}), Some(origin), &[]);
        headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN)
    };
    let exact = "https://app.example.com";
    assert!(allowed(exact, "https://app.example.com"));
    assert!(allowed(
        "HTTPS://App.Example.com",
        "https://app.example.com"
    ));
    assert!(!allowed(exact, "http://app.example.com"));
    assert!(!allowed(exact, "https://app.example.com:8443"));
    assert!(!allowed(exact, "https://app.example.com.evil.example"));

    let any_scheme = "*.example.com";
    assert!(allowed(any_scheme, "https://app.example.com"));
    assert!(allowed(any_scheme, "http://a.b.example.com"));
    assert!(!allowed(any_scheme, "https://example.com"));
    assert!(!allowed(any_scheme, "https://.example.com"));
    assert!(!allowed(any_scheme, "https://evilexample.com"));
    assert!(!allowed(any_scheme, "https://evil.example:1/.example.com"));
    assert!(!allowed(any_scheme, "https://user@a.example.com"));
    assert!(!allowed(any_scheme, "app.example.com"));

    let one_scheme = "https://*.example.com:8443";
    assert!(allowed(one_scheme, "https://app.example.com:8443"));
    assert!(!allowed(one_scheme, "http://app.example.com:8443"));
    assert!(!allowed(one_scheme, "https://app.example.com"));
    assert!(allowed("null", "null"));
}

#[test]
fn bad_settings_are_refused_by_name() {
    let refusal = |config| refusal(KIND, config);
    assert!(refusal(json!({})).contains("`allowOrigins`"));
    assert!(refusal(json!({"allowOrigins": []})).starts_with("allowOrigins: is empty"));
    for origin in [
        "https://a.example/",
        "https://a*.example",
        "https://",
        "https://*.*.a",
        "*.",
    ] {
        let error = refusal(json!({"allowOrigins": [origin]}));
        assert!(
            error.starts_with(&format!("allowOrigins: `{origin}`")),
            "{error}"
        );
    }
    assert_eq!(
        refusal(json!({"allowOrigins": ["app.example.com"]})),
        "allowOrigins: `app.example.com` has no scheme, write `https://` before it"
    );
    let star = json!({"allowOrigins": ["*"], "allowCredentials": true});
    assert!(refusal(star).starts_with("allowCredentials: "));
    let with = |field: &str, value: Value| {
        let mut config = app();
        config[field] = value;
        refusal(config)
    };
    assert!(with("allowMethods", json!(["GE T"])).starts_with("allowMethods: `GE T`"));
    assert!(with("allowHeaders", json!([])).starts_with("allowHeaders: is empty"));
    assert!(with("exposeHeaders", json!(["a b"])).starts_with("exposeHeaders: `a b`"));
    assert!(with("maxAge", json!(-1)).starts_with("maxAge: "));
    assert!(with("maxage", json!(1)).contains("`maxage`"));
}
