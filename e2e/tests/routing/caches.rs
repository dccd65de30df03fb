//! Turns of a session go where the turns before are cached, and a new prefix is not computed everywhere at once.

use serde_json::Value;
use sluice_e2e::engine::{EngineServer, Profile};
use sluice_e2e::harness::client::{chat, http1, post, read};
use tokio::task::JoinSet;

use crate::bed::{Bed, engine, text, turns, words};

#[tokio::test]
async fn a_second_turn_goes_to_the_warm_engine_and_explain_says_why() {
    let bed = Bed::new(vec![engine(|_| {}), engine(|_| {})], "").await;
    let first = text("first", 8_000);
    let reply = words(&bed.ask(&turns(&[&first])).await);
    let warm = bed.received().iter().position(|&count| count == 1).unwrap();
    let second = turns(&[&first, &reply, "go on"]);

    let explained = bed.explain(&second).await;
    assert_eq!(explained["policy"], "mtl");
    assert_eq!(explained["endpoint"], bed.engines[warm].addr().to_string());
    let (held, cold) = (
        bed.row(&explained, warm),
        bed.row(&explained, 1 - warm).clone(),
    );
    assert_eq!((&held["rank"], &cold["rank"]), (&1.into(), &2.into()));
    assert_eq!(cold["cachedTokens"], 0);
    let (cached, prompt) = (number(held, "cachedTokens"), number(held, "promptTokens"));
    assert!(cached > 0.8 * prompt && cached <= prompt, "{held}");
    assert_eq!(number(held, "uncachedTokens"), prompt - cached);
    for row in [held, &cold] {
        let terms = row["termsMs"].as_object().unwrap();
        let sum: f64 = terms.values().map(|term| term.as_f64().unwrap()).sum();
        let cost = number(row, "costMs");
        assert!((sum - cost).abs() <= 1e-9 * cost.abs().max(1.0), "{row}");
    }
    assert!(number(held, "costMs") < number(&cold, "costMs"));

    bed.ask(&second).await;
    assert_eq!(bed.received()[warm], 2);
    assert_eq!(bed.received()[1 - warm], 0);
    bed.gateway.settled().await;
}

fn number(row: &Value, name: &str) -> f64 {
    row[name].as_f64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_prefix_that_many_bring_at_once_is_prefilled_once_or_twice() {
    let paced = || {
        engine(|options| {
            options.profile = Profile::H8B;
            options.speed = 5.0;
        })
    };
    let bed = Bed::new((0..4).map(|_| paced()).collect(), "").await;
    let prefix = text("shared", 80_000);
    let mut clients = JoinSet::new();
    for number in 0..32 {
        let (url, prompt) = (bed.gateway.url(""), format!("{prefix} question {number}"));
        clients.spawn(async move {
            let body = chat("sim", &prompt, 4, true);
            read(post(&http1(), &url, "x", None, &body).await.unwrap()).await
        });
    }
    for answer in clients.join_all().await {
        assert_eq!((answer.status, answer.complete), (200, true));
    }
    let prefilled = |engine: &EngineServer| {
        let gauges = engine.gauges();
        (gauges.prefix_queries - gauges.prefix_hits) as usize
    };
    let computed: Vec<usize> = bed.engines.iter().map(prefilled).collect();
    // Four bytes are a token of the simulator.
    let whole = computed.iter().filter(|&&count| count > 15_000).count();
    assert!((1..=2).contains(&whole), "{computed:?}");
    bed.gateway.settled().await;
}
