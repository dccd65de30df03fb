//! Helpers: an index as simple as can be, engines that publish, and followers of them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use sluice_e2e::engine::{EngineOptions, EngineServer, KvOptions, Profile};
use sluice_e2e::harness::{client, wait_until};
use sluice_proxy::cache::event::{EngineHash, KvEvent};
use sluice_proxy::cache::sources::{EventSource, vllm_sources};
use sluice_proxy::cache::subscribe::{EventSink, FollowParams, Followers, Subscription};

pub(crate) const BLOCK_TOKENS: usize = 4;

/// A block as its event told.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Block {
    pub(crate) parent: Option<EngineHash>,
    pub(crate) tokens: Vec<u32>,
    pub(crate) lora: Option<String>,
    pub(crate) extra: u64,
}

pub(crate) type Blocks = HashMap<EngineHash, Block>;

/// Every block that an engine says it has.
#[derive(Debug, Default)]
pub(crate) struct Model {
    blocks: Mutex<Blocks>,
    /// While shut, the sink stands still.
    shut: Mutex<bool>,
    opened: Condvar,
    pub(crate) live: AtomicBool,
    pub(crate) clears: AtomicU64,
    pub(crate) events: AtomicU64,
}

impl Model {
    /// Opens the gate, or shuts it.
    pub(crate) fn set_gate(&self, open: bool) {
        *self.shut.lock().unwrap() = !open;
        self.opened.notify_all();
    }

    pub(crate) fn blocks(&self) -> Blocks {
        self.blocks.lock().unwrap().clone()
    }
}

impl EventSink for Model {
    fn apply(&self, rank: Option<u32>, event: &KvEvent) {
        assert_eq!(rank, Some(0));
        self.events.fetch_add(1, SeqCst);
        drop(
            self.opened
                .wait_while(self.shut.lock().unwrap(), |shut| *shut),
        );
        let mut blocks = self.blocks.lock().unwrap();
        match event {
            KvEvent::Cleared => blocks.clear(),
            KvEvent::Removed { hashes, .. } => {
                hashes.iter().for_each(|hash| drop(blocks.remove(hash)));
            }
            KvEvent::Stored(stored) => {
                let mut parent = stored.parent;
                let size = stored.block_size as usize;
                for (index, &hash) in stored.hashes.iter().enumerate() {
                    let block = Block {
                        parent,
                        tokens: stored.tokens[index * size..(index + 1) * size].to_vec(),
                        lora: stored.lora.clone(),
                        extra: stored.extra.get(index).copied().unwrap_or(0),
                    };
                    blocks.insert(hash, block);
                    parent = Some(hash);
                }
            }
        }
    }

    fn clear(&self, _rank: Option<u32>) {
        self.clears.fetch_add(1, SeqCst);
        self.blocks.lock().unwrap().clear();
    }

    fn live(&self, live: bool) {
        self.live.store(live, SeqCst);
    }
}

/// A follower with its model.
pub(crate) struct Followed {
    pub(crate) model: Arc<Model>,
    pub(crate) subscription: Subscription,
    _followers: Arc<Followers>,
}

pub(crate) fn followers() -> Arc<Followers> {
    let params = FollowParams {
        min_backoff: Duration::from_millis(5),
        max_backoff: Duration::from_millis(100),
        lost_after: Duration::from_millis(300),
        ..FollowParams::default()
    };
    Arc::new(Followers::start(params).unwrap())
}

pub(crate) fn follow(followers: &Arc<Followers>, source: &EventSource) -> Followed {
    let model = Arc::new(Model::default());
    Followed {
        subscription: followers.follow(source, model.clone()).unwrap(),
        model,
        _followers: followers.clone(),
    }
}

impl Followed {
    pub(crate) async fn is_live(&self) {
        wait_until("events come", || async { self.model.live.load(SeqCst) }).await;
    }
}

pub(crate) fn source(endpoint: &str) -> EventSource {
    EventSource {
        rank: Some(0),
        endpoint: endpoint.to_owned(),
        replay: None,
        topic: String::new(),
        block_size: None,
        bind: false,
    }
}

/// Publishes, replays, and holds only 64 blocks, so that it evicts.
pub(crate) fn engine(kv_events: KvOptions) -> EngineServer {
    let profile = Profile {
        kv_tokens: 64 * BLOCK_TOKENS,
        block_tokens: BLOCK_TOKENS,
        ..Profile::INSTANT
    };
    EngineServer::start(EngineOptions {
        profile,
        loras: vec!["ada".to_owned()],
        kv_events: Some(kv_events),
        ..EngineOptions::instant("tiny")
    })
    .unwrap()
}

pub(crate) fn with_replay() -> KvOptions {
    KvOptions {
        replay: Some("tcp://127.0.0.1:0".to_owned()),
        topic: "kv-events".to_owned(),
        ..KvOptions::default()
    }
}

/// What the engine itself says of its publisher.
pub(crate) async fn discovered(engine: &EngineServer) -> EventSource {
    let url = format!("{}/kv_event_sources", engine.url());
    let answer = client::http1().get(url).send().await.unwrap();
    let answer = answer.bytes().await.unwrap();
    let host = engine.addr().ip().to_string();
    vllm_sources(&answer, &host).unwrap().remove(0)
}

/// Posts to the engine and returns its answer.
pub(crate) async fn post(engine: &EngineServer, path: &str, body: Value) -> Value {
    let answer = client::http1()
        .post(format!("{}{path}", engine.url()))
        .json(&body)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    answer.json().await.unwrap()
}

/// Completes one prompt, filled up to two blocks: if it is a new one, a batch is published.
pub(crate) async fn complete(engine: &EngineServer, prompt: &str) {
    let prompt = format!("{prompt:<32}");
    assert_eq!(prompt.len(), 32, "two blocks of four tokens of four bytes");
    let body = json!({"prompt": prompt, "max_tokens": 1});
    post(engine, "/v1/completions", body).await;
}

/// Completes `count` prompts, which share nine blocks by tens and end with a block and an answer of their own: about
/// ten batches each.
pub(crate) async fn load(engine: &EngineServer, count: usize) {
    let client = client::http1();
    for number in 0..count {
        let prompt = format!("{:0144}{number:016}", number / 10);
        let answer = client
            .post(format!("{}/v1/completions", engine.url()))
            .json(&json!({"prompt": prompt, "max_tokens": 40}))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        answer.bytes().await.unwrap();
    }
}
