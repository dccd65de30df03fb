//! A follower's blocks in the end, against those of one that begins afresh and reads the whole replay.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use sluice_e2e::engine::{EngineServer, KvFault, KvOptions};
use sluice_e2e::harness::{free_port, wait_until};
use sluice_proxy::cache::subscribe::SubscriptionState;

use super::model::{
    Followed, complete, discovered, engine, follow, followers, load, source, with_replay,
};

/// Waits until the follower holds what one holds that lost nothing.
async fn converges(followed: &Followed, engine: &EngineServer) {
    let reference = follow(&followers(), &discovered(engine).await);
    reference.is_live().await;
    let whole = reference.model.blocks();
    assert!(!whole.is_empty() && whole.len() <= 64, "{}", whole.len());
    wait_until("the follower holds what the engine holds", || async {
        followed.model.blocks() == whole
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn loss_with_replay_converges_on_two_engines() {
    let followers = followers();
    let mut pairs = Vec::new();
    for hash_seed in [1, 2] {
        let engine = engine(KvOptions {
            drop: 0.01,
            hash_seed,
            ..with_replay()
        });
        let followed = follow(&followers, &discovered(&engine).await);
        followed.is_live().await;
        pairs.push((engine, followed));
    }
    for (engine, followed) in &pairs {
        load(engine, 80).await;
        // What is lost last is noticed with the next batch only.
        engine.set_kv_fault(KvFault::Drop(0.0));
        complete(engine, "the last one, which arrives").await;
        converges(followed, engine).await;
        let counts = followed.subscription.counts();
        assert!(
            counts.gaps > 0 && counts.replays > counts.gaps,
            "{counts:?}"
        );
        assert_eq!((counts.failed_replays, counts.clears), (0, 0));
        assert_eq!(followed.subscription.state(), SubscriptionState::Live);
    }
    let [first, second] = [0, 1].map(|index: usize| pairs[index].1.model.blocks());
    assert!(
        first.keys().all(|hash| !second.contains_key(hash)),
        "engines with other seeds name blocks otherwise"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_without_replay_is_forgotten_and_begun_anew() {
    let engine = engine(KvOptions::default());
    let followed = follow(&followers(), &discovered(&engine).await);
    followed.is_live().await;
    load_seen(&followed, &engine, "before").await;
    engine.set_kv_fault(KvFault::Silence(true));
    complete(&engine, "nobody hears of this").await;
    engine.set_kv_fault(KvFault::Silence(false));
    complete(&engine, "but of this").await;
    wait_until("the hole is noticed", || async {
        followed.subscription.counts().clears == 1 && followed.model.blocks().len() == 2
    })
    .await;
    assert_eq!(followed.subscription.state(), SubscriptionState::Cold);
    assert!(followed.model.live.load(SeqCst), "what comes is still true");
    assert!(engine.reset_prefix_cache());
    complete(&engine, "an empty cache is known").await;
    wait_until("all is known again", || async {
        followed.subscription.state() == SubscriptionState::Live
    })
    .await;
}

/// Completes prompts until one is heard of: a subscription takes a moment to arrive at the publisher.
async fn load_seen(followed: &Followed, engine: &EngineServer, prompt: &str) {
    let mut number = 0;
    while followed.model.events.load(SeqCst) == 0 {
        complete(engine, &format!("{prompt} {number}")).await;
        number += 1;
        assert!(number < 10_000, "no event comes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_restarts_is_begun_anew() {
    let at = || format!("tcp://127.0.0.1:{}", free_port());
    let options = KvOptions {
        endpoint: at(),
        replay: Some(at()),
        ..KvOptions::default()
    };
    let first = engine(options.clone());
    let followed = follow(&followers(), &discovered(&first).await);
    followed.is_live().await;
    load(&first, 30).await;
    converges(&followed, &first).await;
    first.stop();
    wait_until("the engine counts as lost", || async {
        followed.subscription.state() == SubscriptionState::Lost
            && !followed.model.live.load(SeqCst)
    })
    .await;
    assert_eq!(followed.model.clears.load(SeqCst), 0, "it may come back");

    let second = engine(KvOptions {
        hash_seed: 7,
        ..options
    });
    load(&second, 50).await;
    converges(&followed, &second).await;
    assert_eq!(followed.model.clears.load(SeqCst), 1);
    assert!(followed.model.live.load(SeqCst));
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_begin_again_on_the_same_connection_clear() {
    let engine = engine(with_replay());
    let followed = follow(&followers(), &discovered(&engine).await);
    followed.is_live().await;
    load_seen(&followed, &engine, "before").await;
    engine.set_kv_fault(KvFault::Restart);
    assert!(engine.reset_prefix_cache());
    complete(&engine, "of a new life").await;
    converges(&followed, &engine).await;
    assert_eq!(followed.model.clears.load(SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_connects_finds_a_follower_that_binds() {
    let port = free_port();
    let mut options = with_replay();
    options.endpoint = format!("connect:tcp://127.0.0.1:{port}");
    let engine = engine(options);
    let discovered = discovered(&engine).await;
    assert!(discovered.bind, "vLLM's rule: no wildcard, so it connects");
    let followed = follow(&followers(), &discovered);
    followed.is_live().await;
    let completed = AtomicUsize::new(0);
    wait_until("every prompt's two blocks are known", || async {
        let number = completed.fetch_add(1, SeqCst);
        if number < 20 {
            complete(&engine, &format!("prompt {number}")).await;
        }
        number >= 20 && followed.model.blocks().len() == 2 * 20
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_lost_after_a_while() {
    let endpoint = format!("tcp://127.0.0.1:{}", free_port());
    let followed = follow(&followers(), &source(&endpoint));
    wait_until("it counts as lost", || async {
        followed.subscription.state() == SubscriptionState::Lost
    })
    .await;
    assert!(!followed.model.live.load(SeqCst));
}
