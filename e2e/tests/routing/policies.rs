//! `spec.scheduling` is hot: an edit changes the policy of new requests, a bad edit changes nothing.

use reqwest::RequestBuilder;
use serde_json::{Value, json};
use sluice_e2e::harness::wait_until;

use crate::bed::{Bed, engine, routes, text, turns};

const SESSION: &str =
    "scheduling:\n  policy: session\n  session: {header: x-session-id, cookie: sid}";

async fn four(extra: &str) -> Bed {
    Bed::new((0..4).map(|_| engine(|_| {})).collect(), extra).await
}

/// Sends `count` requests and says how many each engine got of them.
async fn spread(
    bed: &Bed,
    count: usize,
    body: &Value,
    header: impl Fn(RequestBuilder) -> RequestBuilder,
) -> Vec<u64> {
    let before = bed.received();
    for _ in 0..count {
        bed.ask_as(body, &header).await;
    }
    let after = bed.received().into_iter().zip(before);
    after.map(|(after, before)| after - before).collect()
}

fn engines_used(spread: &[u64]) -> usize {
    spread.iter().filter(|&&count| count > 0).count()
}

#[tokio::test]
async fn an_edit_from_round_robin_to_session_is_in_force_at_once() {
    let bed = four("scheduling: {policy: round-robin}").await;
    let body = turns(&["hello"]);
    let turn = spread(&bed, 8, &body, |request| {
        request.header("x-session-id", "one")
    })
    .await;
    assert_eq!(turn, [2; 4]);

    bed.gateway
        .replace_routes(&routes(&bed.engines, SESSION))
        .await;
    assert_eq!(bed.explain(&body).await["policy"], "session");
    for session in ["one", "two", "three"] {
        let by_header = spread(&bed, 8, &body, |request| {
            request.header("x-session-id", session)
        })
        .await;
        assert_eq!(engines_used(&by_header), 1, "{session}: {by_header:?}");
        let cookie = format!("theme=dark; sid={session}");
        let by_cookie = spread(&bed, 8, &body, |request| request.header("cookie", &cookie)).await;
        // The same name is the same session, wherever it is said.
        assert_eq!(by_cookie, by_header);
        let mut named = body.clone();
        named["user"] = json!(session);
        let by_user = spread(&bed, 8, &named, |request| request).await;
        assert_eq!(by_user, by_header);
    }
    bed.gateway.settled().await;
}

#[tokio::test]
async fn a_policy_that_is_not_known_keeps_the_last_good_in_force() {
    let bed = four(SESSION).await;
    let generation = bed.gateway.generation();
    let bad = routes(&bed.engines, "scheduling: {policy: round-robbin}");
    std::fs::write(bed.gateway.routes_file(), bad).unwrap();
    let problems = || async {
        let url = bed.gateway.admin_url("/debug/config");
        let config: Value = bed
            .client
            .get(url)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        config["problems"].to_string()
    };
    wait_until("the edit is refused", || async {
        problems().await.contains("round-robbin")
    })
    .await;
    let told = problems().await;
    assert!(told.contains("scheduling.policy"), "{told}");
    assert!(told.contains("round-robin"), "{told}");
    assert_eq!(bed.gateway.generation(), generation);
    let body = turns(&["hello"]);
    assert_eq!(bed.explain(&body).await["policy"], "session");
    let stuck = spread(&bed, 8, &body, |request| {
        request.header("x-session-id", "one")
    })
    .await;
    assert_eq!(engines_used(&stuck), 1);
}

#[tokio::test]
async fn kthenas_scheduler_block_routes_and_explains_its_terms() {
    const KTHENA: &str = "\
scheduling:
  policy: kthena
  scheduler:
    pluginConfig:
      - name: least-request
        args: {maxWaitingRequests: 10}
    plugins:
      Filter: {enabled: [least-request]}
      Score:
        enabled:
          - {name: least-request, weight: 1}
          - {name: prefix-cache, weight: 2}";
    let bed = four(KTHENA).await;
    let body = turns(&[&text("kthena", 8_000)]);
    bed.ask(&body).await;
    let warm = bed.received().iter().position(|&count| count == 1).unwrap();
    let explained = bed.explain(&body).await;
    assert_eq!(explained["policy"], "kthena");
    let row = bed.row(&explained, warm);
    let terms = row["termsMs"].as_object().unwrap();
    assert!(terms.contains_key("least-request"), "{row}");
    assert!(terms.contains_key("prefix-cache"), "{row}");
    assert!(!terms.contains_key("gpu-usage"), "{row}");
    let sum: f64 = terms.values().map(|term| term.as_f64().unwrap()).sum();
    assert!(
        (sum - row["costMs"].as_f64().unwrap()).abs() < 1e-9,
        "{row}"
    );
    assert_eq!(row["rank"], 1, "{explained}");
    let after = spread(&bed, 4, &body, |request| request).await;
    assert_eq!(after[warm], 4, "{after:?}");
}
