//! What the simulated engine publishes is what it computes, in every encoding, and what its API tells beforehand.

use std::collections::HashSet;

use serde_json::{Value, json};
use sluice_e2e::engine::{EngineOptions, EngineServer, KvOptions};
use sluice_e2e::harness::client;
use sluice_proxy::cache::event::EngineHash;

use super::model::{
    BLOCK_TOKENS, Blocks, complete, discovered, engine, follow, followers, load, post, with_replay,
};

/// All blocks that the engine holds, by a follower that begins afresh.
async fn blocks(engine: &EngineServer) -> Blocks {
    let followed = follow(&followers(), &discovered(engine).await);
    followed.is_live().await;
    followed.model.blocks()
}

/// Tokens of a block with all before it.
fn prefix(blocks: &Blocks, hash: EngineHash) -> Vec<u32> {
    let block = &blocks[&hash];
    let mut tokens = match block.parent {
        Some(parent) => prefix(blocks, parent),
        None => Vec::new(),
    };
    tokens.extend(&block.tokens);
    tokens
}

#[tokio::test(flavor = "multi_thread")]
async fn every_encoding_tells_the_same() {
    let mut told = Vec::new();
    for (positional, hash_bytes) in [(false, false), (true, false), (false, true)] {
        let engine = engine(KvOptions {
            positional,
            hash_bytes,
            ..with_replay()
        });
        load(&engine, 25).await;
        let blocks = blocks(&engine).await;
        let contents: HashSet<_> = blocks.keys().map(|&hash| prefix(&blocks, hash)).collect();
        assert_eq!(contents.len(), blocks.len());
        told.push(contents);
    }
    assert!(told[0] == told[1] && told[0] == told[2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tokens_of_a_chat_are_those_told_beforehand() {
    let engine = engine(with_replay());
    let chat = json!({"messages": [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "hello there"}]},
    ], "max_tokens": 1});
    let rendered = post(&engine, "/v1/chat/completions/render", chat.clone()).await;
    let tokenized = post(&engine, "/tokenize", chat.clone()).await;
    assert_eq!(rendered["token_ids"], tokenized["tokens"]);
    let usage = post(&engine, "/v1/chat/completions", chat).await["usage"].clone();
    let tokens: Vec<u32> = serde_json::from_value(tokenized["tokens"].clone()).unwrap();
    assert_eq!(usage["prompt_tokens"], tokens.len());
    let blocks = blocks(&engine).await;
    let longest = blocks
        .keys()
        .map(|&hash| prefix(&blocks, hash))
        .max_by_key(Vec::len)
        .unwrap();
    assert_eq!(longest.len(), tokens.len() / BLOCK_TOKENS * BLOCK_TOKENS);
    assert!(tokens.starts_with(&longest));
}

#[tokio::test(flavor = "multi_thread")]
async fn adapters_and_salts_are_told_with_their_blocks() {
    let engine = engine(with_replay());
    let prompt = "the same prompt for all of them, please";
    for (model, salt) in [
        ("tiny", None),
        ("ada", None),
        ("tiny", Some("s")),
        ("ada", Some("s")),
    ] {
        let body = json!({"model": model, "prompt": prompt, "cache_salt": salt, "max_tokens": 1});
        post(&engine, "/v1/completions", body).await;
    }
    let blocks = blocks(&engine).await;
    let first: Vec<_> = blocks
        .values()
        .filter(|block| block.parent.is_none())
        .collect();
    assert_eq!(first.len(), 4);
    let adapters = first
        .iter()
        .filter(|block| block.lora.as_deref() == Some("ada"));
    assert_eq!(adapters.count(), 2);
    let salted = blocks.values().filter(|block| block.extra != 0);
    assert_eq!(salted.count(), 2, "a salt is in the first block alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_without_events_names_no_sources() {
    let engine = EngineServer::start(EngineOptions::instant("tiny")).unwrap();
    complete(&engine, "quiet").await;
    let url = format!("{}/kv_event_sources", engine.url());
    let answer: Value = client::http1()
        .get(url)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(answer, json!({}));
}
