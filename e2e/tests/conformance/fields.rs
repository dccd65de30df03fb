//! Header fields: what passes, what must not, and what the gateway adds.

use serde_json::Value;
use sluice_e2e::harness::{Manner, RawClient, ScriptedEngine};

use crate::bed::{Bed, CHAT, LANES, Wire, chat, echo_request, gateway, seen_headers};

#[tokio::test]
async fn hop_by_hop_and_nominated_fields_of_a_client_stay_here() {
    let bed = Bed::h1().await;
    let mut raw = bed.raw().await;
    raw.send(echo_request(
        "connection: keep-alive, X-Secret\r\nx-secret: 1\r\nkeep-alive: timeout=5\r\n\
         proxy-connection: keep-alive\r\nproxy-authorization: Basic eA==\r\nte: trailers\r\n\
         trailer: x-t\r\nx-public: 1\r\nauthorization: Bearer key\r\n",
    ))
    .await
    .unwrap();
    let answer = raw.answer().await.expect("an answer");
    let mut seen = seen_headers(&answer.json());
    seen.sort();
    let expected = [
        "authorization",
        "content-length",
        "content-type",
        "host",
        "traceparent",
        "x-echo",
        "x-public",
        "x-request-id",
    ];
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn hop_by_hop_and_nominated_fields_of_an_engine_stay_there() {
    let engine = ScriptedEngine::start(
        "HTTP/1.1 200 OK\r\nconnection: keep-alive, x-secret\r\nx-secret: 1\r\nkeep-alive: timeout=5\r\n\
         proxy-authenticate: Basic\r\nx-public: 1\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n\
         content-type: application/x-odd; q=1\r\ncontent-length: 2\r\n\r\nok",
        Manner::KeepOpen,
    )
    .await;
    let gateway = gateway(engine.addr(), Wire::H1).await;
    let mut raw = RawClient::connect(gateway.address).await;
    raw.send(echo_request("")).await.unwrap();
    let answer = raw.answer().await.expect("an answer");
    for gone in ["x-secret", "keep-alive", "proxy-connection"] {
        assert_eq!(answer.header(gone), None, "{gone}");
    }
    assert_eq!(answer.header("x-public").as_deref(), Some("1"));
    assert_eq!(answer.header("set-cookie").as_deref(), Some("a=1, b=2"));
    assert_eq!(
        answer.header("content-type").as_deref(),
        Some("application/x-odd; q=1")
    );
    assert_eq!(answer.header("connection").as_deref(), Some("keep-alive"));
}

#[tokio::test]
async fn a_request_id_is_kept_or_made_and_comes_back() {
    for (client, upstream) in LANES {
        let bed = Bed::start(client, upstream).await;
        let given = bed
            .post(CHAT)
            .header("x-request-id", "mine-1")
            .header("x-echo", "sha256");
        let answer = given.body(chat()).send().await.unwrap();
        assert_eq!(answer.headers()["x-request-id"], "mine-1");
        let seen: Value = answer.json().await.unwrap();
        assert_eq!(seen["headers"]["x-request-id"], "mine-1");

        let answer = bed
            .post(CHAT)
            .header("x-echo", "sha256")
            .body(chat())
            .send()
            .await
            .unwrap();
        assert_eq!(answer.headers().get_all("x-request-id").iter().count(), 1);
        let made = answer.headers()["x-request-id"]
            .to_str()
            .unwrap()
            .to_owned();
        assert_eq!(made.len(), 36, "{made}");
        let seen: Value = answer.json().await.unwrap();
        assert_eq!(seen["headers"]["x-request-id"], made);
        assert_eq!(bed.gateway.access_line(&made).await["status_code"], 200);
    }
}

#[tokio::test]
async fn a_trace_is_kept_or_begun() {
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    for (client, upstream) in LANES {
        let bed = Bed::start(client, upstream).await;
        let given = bed
            .post(CHAT)
            .header("x-echo", "sha256")
            .header("traceparent", parent);
        let given = given
            .header("tracestate", "a=1")
            .body(chat())
            .send()
            .await
            .unwrap();
        let seen: Value = given.json().await.unwrap();
        assert_eq!(seen["headers"]["traceparent"], parent);
        assert_eq!(seen["headers"]["tracestate"], "a=1");

        let begun = bed
            .post(CHAT)
            .header("x-echo", "sha256")
            .body(chat())
            .send()
            .await
            .unwrap();
        let seen: Value = begun.json().await.unwrap();
        let begun = seen["headers"]["traceparent"].as_str().unwrap();
        assert!(begun.starts_with("00-") && begun.len() == 55, "{begun}");
    }
}

#[tokio::test]
async fn the_engine_sees_its_own_name_as_host() {
    for (client, upstream) in LANES {
        let bed = Bed::start(client, upstream).await;
        let answer = bed
            .post(CHAT)
            .header("x-echo", "sha256")
            .body(chat())
            .send()
            .await
            .unwrap();
        let seen: Value = answer.json().await.unwrap();
        // HTTP/2 has no host field: the authority takes its place, and the simulator does not show it.
        let host = seen["headers"].get("host").and_then(Value::as_str);
        let expected = bed.engine.addr().to_string();
        assert_eq!(host, (upstream == Wire::H1).then_some(expected.as_str()));
    }
}

#[tokio::test]
async fn an_absolute_target_is_served_as_its_path() {
    let bed = Bed::h1().await;
    let body = chat();
    let mut raw = bed.raw().await;
    raw.send(format!(
        "POST http://gateway{CHAT}?a=b%20c HTTP/1.1\r\nhost: gateway\r\nx-echo: sha256\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ))
    .await
    .unwrap();
    let answer = raw.answer().await.expect("an answer");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["target"], format!("{CHAT}?a=b%20c"));
    assert_eq!(
        answer.json()["headers"]["host"],
        bed.engine.addr().to_string()
    );
}

#[tokio::test]
async fn the_targets_query_and_escapes_pass_unchanged() {
    for (client, upstream) in LANES {
        let bed = Bed::start(client, upstream).await;
        let target = "/v1/x%2Fy/z?q=%00&a=b%26c&empty=";
        let answer = bed
            .post(target)
            .header("x-echo", "sha256")
            .body(chat())
            .send()
            .await
            .unwrap();
        let seen: Value = answer.json().await.unwrap();
        assert_eq!(seen["target"], target, "{client:?} to {upstream:?}");
    }
}

#[tokio::test]
async fn fields_that_steer_gateways_never_come_from_clients() {
    let internal = [
        "x-sluice-endpoint",
        "x-sluice-anything",
        "x-gateway-destination-endpoint",
        "x-prefiller-host-port",
        "x-data-parallel-host-port",
        "x-gateway-model-name-rewrite",
        "x-gateway-inference-fairness-id",
    ];
    for (client, upstream) in LANES {
        let bed = Bed::start(client, upstream).await;
        let mut request = bed.post(CHAT).header("x-echo", "sha256").body(chat());
        for name in internal {
            request = request.header(name, "10.0.0.1:1");
        }
        let answer = request.header("authorization", "Bearer k").send().await;
        let seen: Value = answer.unwrap().json().await.unwrap();
        for name in internal {
            assert!(seen["headers"].get(name).is_none(), "{name}");
        }
        assert_eq!(seen["headers"]["authorization"], "Bearer k");
    }
}
