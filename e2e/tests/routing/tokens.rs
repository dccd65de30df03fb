//! With a tokenizer and KV events what an engine holds is known to the token; without either it is known by bytes.

use std::path::{Path, PathBuf};

use serde_json::Value;
use sluice_config::Bootstrap;
use sluice_e2e::engine::{EngineOptions, EngineServer, KvOptions};
use sluice_e2e::harness::client::sample;
use sluice_e2e::harness::wait_until;

use crate::bed::{Bed, engine, text, turns, words};

/// Where the proxy's tests have their tokenizers and templates.
fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../proxy/tests/fixtures")
}

/// A model's folder as Hugging Face lays it out.
fn model(tokenizer: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let copy = |from: String, to: &str| {
        std::fs::copy(fixtures().join(from), folder.path().join(to)).unwrap();
    };
    copy(format!("tokenizers/{tokenizer}.json"), "tokenizer.json");
    copy("templates/qwen-2.5.jinja".into(), "chat_template.jinja");
    folder
}

fn publishing(tokenizer: &Path) -> EngineServer {
    engine(|options: &mut EngineOptions| {
        options.tokenizer = Some(tokenizer.to_owned());
        options.kv_events = Some(KvOptions {
            replay: Some("tcp://127.0.0.1:0".into()),
            ..KvOptions::default()
        });
    })
}

/// Two engines with this tokenizer, and a gateway that has that one and all the time to use it.
async fn bed(engines: &Path, gateway: &Path) -> Bed {
    let extra = format!("tokenizer:\n  path: {}", gateway.display());
    let patient = |bootstrap: &mut Bootstrap| {
        bootstrap.engines.kv_events = true;
        bootstrap.tokenizers.deadline = std::time::Duration::from_secs(10).into();
    };
    let engines = vec![publishing(engines), publishing(engines)];
    Bed::with(engines, &extra, patient).await
}

async fn events_are_followed(bed: &Bed) {
    bed.explained(&turns(&["hello"]), "events are followed", |explained| {
        (0..2).all(|number| bed.row(explained, number)["kvEvents"] == true)
    })
    .await;
}

/// What `/debug/endpoints` says of KV events, engine by engine.
async fn followed(bed: &Bed) -> Vec<Value> {
    let url = bed.gateway.admin_url("/debug/endpoints");
    let told = bed.client.get(url).send().await.unwrap();
    let told: Value = told.json().await.unwrap();
    let endpoints = told["pools"][0]["endpoints"].as_array().unwrap();
    endpoints
        .iter()
        .map(|endpoint| endpoint["kvEvents"].clone())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_tokens_are_those_that_the_engine_then_finds() {
    let model = model("byte-level");
    let bed = bed(model.path(), model.path()).await;
    events_are_followed(&bed).await;
    let first = text("followed", 8_000);
    let answer = bed.ask(&turns(&[&first])).await;
    let counted = answer.json()["usage"]["prompt_tokens"].as_u64().unwrap();
    let held = |count: u64| {
        let bed = &bed;
        async move {
            followed(bed)
                .await
                .iter()
                .any(|one| one["events"].as_u64() >= Some(count))
        }
    };
    wait_until("the events have come", || held(1)).await;
    let warm = warm(&bed);
    let second = turns(&[&first, &words(&answer), "and then?"]);
    // To its last full block: an event is taken in part by part. What the answer's tokens fill is no part of the next
    // turn, whose words are tokenised anew.
    wait_until("the prompt is known to be held", || async {
        bed.cached(&second).await[warm] + 16 > counted
    })
    .await;
    let explained = bed.explain(&second).await;
    let row = bed.row(&explained, warm);
    assert_eq!(
        (&row["kvEvents"], &row["rank"]),
        (&true.into(), &1.into()),
        "{explained}"
    );
    assert_eq!(bed.cached(&second).await[1 - warm], 0);
    let usage = bed.ask(&second).await.json()["usage"].clone();
    assert_eq!(row["promptTokens"], usage["prompt_tokens"], "{usage}");
    assert_eq!(
        row["cachedTokens"], usage["prompt_tokens_details"]["cached_tokens"],
        "{usage}"
    );
    assert!(row["cachedTokens"].as_u64() > Some(1_000), "{row}");

    let metrics = bed.gateway.metrics().await;
    assert!(metrics.contains("sluice_kv_events_live{"), "{metrics}");
    assert!(metrics.contains("sluice_cache_index_pairs{"), "{metrics}");

    wait_until("the engine can forget", || async {
        bed.engines[warm].reset_prefix_cache()
    })
    .await;
    // As vLLM, the engine tells with its next step.
    let url = format!("{}/v1/completions", bed.engines[warm].url());
    let step = serde_json::json!({"model": "sim", "prompt": "unrelated", "max_tokens": 1});
    let stepped = bed.client.post(url).json(&step).send().await.unwrap();
    assert_eq!(stepped.status(), 200);
    wait_until("the gateway knows", || async {
        bed.cached(&second).await == [0, 0]
    })
    .await;
    bed.gateway.settled().await;
}

/// The engine that has served a chat: `/tokenize` counts as received too.
fn warm(bed: &Bed) -> usize {
    let metrics: Vec<u64> = bed
        .engines
        .iter()
        .map(|engine| engine.gauges().prefix_queries)
        .collect();
    metrics.iter().position(|&queries| queries > 0).unwrap()
}

/// Two engines whose events are followed by a gateway without a tokenizer.
async fn untold(change: impl FnOnce(&mut Bootstrap)) -> Bed {
    let publishing = || {
        engine(|options: &mut EngineOptions| {
            options.kv_events = Some(KvOptions {
                replay: Some("tcp://127.0.0.1:0".into()),
                ..KvOptions::default()
            });
        })
    };
    let follow = |bootstrap: &mut Bootstrap| {
        bootstrap.engines.kv_events = true;
        change(bootstrap);
    };
    let bed = Bed::with(vec![publishing(), publishing()], "", follow).await;
    events_are_followed(&bed).await;
    bed
}

/// No tokenizer here: the engine that serves a turn is asked for its tokens, and the next turn begins with them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_tokenizer_the_engine_tells_the_tokens_of_the_turn_before() {
    let bed = untold(|_| {}).await;
    let first = text("told", 8_000);
    let answer = bed.ask(&turns(&[&first])).await;
    let counted = answer.json()["usage"]["prompt_tokens"].as_u64().unwrap();
    wait_until("the engine has told", || async {
        let metrics = bed.gateway.metrics().await;
        metrics.contains("sluice_tokenized_prompts_total{outcome=\"told_by_engine\"} 1")
    })
    .await;
    let warm = warm(&bed);
    let second = turns(&[&first, &words(&answer), "and then?"]);
    // All of the turn but its last block, whose end the answer has changed.
    let least = counted - 2 * 16;
    wait_until("the prompt is known to be held", || async {
        bed.cached(&second).await[warm] >= least
    })
    .await;
    let usage = bed.ask(&second).await.json()["usage"].clone();
    let held = usage["prompt_tokens_details"]["cached_tokens"].as_u64();
    assert!(held >= Some(least), "{usage}");
    // What no longer is there is not taken to be, though it was sent there: events tell, by these very tokens.
    let unrelated = serde_json::json!({"model": "sim", "prompt": "unrelated", "max_tokens": 1});
    let url = format!("{}/v1/completions", bed.engines[warm].url());
    wait_until("the engine can forget", || async {
        bed.engines[warm].reset_prefix_cache()
    })
    .await;
    let stepped = bed.client.post(url).json(&unrelated).send().await.unwrap();
    assert_eq!(stepped.status(), 200);
    wait_until("the gateway knows", || async {
        bed.cached(&second).await == [0, 0]
    })
    .await;
    bed.gateway.settled().await;
}

/// While the engine is asked the body is held: where bodies have no room for it, it is not asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_is_not_asked_where_its_prompt_has_no_room() {
    let bed = untold(|bootstrap| bootstrap.limits.body_budget_bytes = 12_000).await;
    bed.ask(&turns(&[&text("crowded", 8_000)])).await;
    bed.gateway.settled().await;
    let metrics = bed.gateway.metrics().await;
    let told = |outcome| sample(&metrics, "sluice_tokenized_prompts_total", &[outcome]);
    assert_eq!(told("outcome=\"engine_busy\""), 1.0, "{metrics}");
    assert_eq!(told("outcome=\"told_by_engine\""), 0.0, "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_models_tokenizer_is_noticed_and_bytes_tell() {
    let (theirs, ours) = (model("metaspace"), model("byte-level"));
    let bed = bed(theirs.path(), ours.path()).await;
    wait_until("the difference is noticed", || async {
        let told = followed(&bed).await;
        told.iter().all(|one| {
            let trouble = one["trouble"].as_str();
            trouble.is_some_and(|trouble| trouble.contains("spec.tokenizer.path"))
        })
    })
    .await;
    let body = turns(&[&text("bytes", 8_000)]);
    bed.ask(&body).await;
    let warm = warm(&bed);
    let explained = bed.explain(&body).await;
    let row = bed.row(&explained, warm);
    assert_eq!((&row["kvEvents"], &row["rank"]), (&false.into(), &1.into()));
    assert!(row["cachedTokens"].as_u64() > Some(1_000), "{row}");
    bed.gateway.settled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_are_switched_off_are_not_believed_any_more() {
    let model = model("byte-level");
    let bed = bed(model.path(), model.path()).await;
    events_are_followed(&bed).await;
    let extra = format!(
        "tokenizer:\n  path: {}\nkvEvents: {{enabled: false}}",
        model.path().display()
    );
    let routes = crate::bed::routes(&bed.engines, &extra);
    bed.gateway.replace_routes(&routes).await;
    bed.explained(&turns(&["hello"]), "events are let go", |explained| {
        (0..2).all(|number| bed.row(explained, number)["kvEvents"] == false)
    })
    .await;
    let body = turns(&[&text("by bytes", 8_000)]);
    bed.ask(&body).await;
    assert!(bed.cached(&body).await[warm(&bed)] > 1_000);
}
