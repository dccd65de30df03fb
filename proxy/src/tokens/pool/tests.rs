//! Deadlines, full queues and panics. The threads are held by locks, not by time.

use std::path::Path;

use super::*;

const BYTE_LEVEL: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/fixtures/tokenizers/byte-level.json"
);

fn model() -> Arc<ModelTokenizer> {
    ModelTokenizer::load(Path::new(BYTE_LEVEL)).unwrap()
}

fn pool(queue: usize, deadline: Duration) -> TokenPool {
    TokenPool::new(TokenPoolParams {
        threads: 1,
        queue,
        deadline,
        ..TokenPoolParams::default()
    })
    .unwrap()
}

fn body(text: &str) -> Bytes {
    serde_json::json!({"prompt": text}).to_string().into()
}

fn count(counters: &CountersSnapshot, reason: Reason) -> u64 {
    counters
        .unavailable
        .iter()
        .find(|(known, _)| *known == reason)
        .unwrap()
        .1
}

/// Far beyond any test's length.
const LONG: Duration = Duration::from_secs(600);

#[tokio::test]
async fn ids_come_and_the_second_time_from_the_memo() {
    let (pool, model) = (pool(8, LONG), model());
    let mut seen = Vec::new();
    for _ in 0..2 {
        match pool
            .tokenize(&model, ApiKind::Completions, body("Hello there"))
            .await
        {
            Outcome::Tokens(ids) => seen.push(ids),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen[0], seen[1]);
    let counters = pool.counters();
    assert_eq!(
        (counters.in_time, counters.memo_hits, counters.memo_misses),
        (2, 1, 1)
    );
    assert!(counters.memo_bytes > 0);
}

#[tokio::test]
async fn what_has_no_ids_says_why() {
    let (pool, model) = (pool(8, LONG), model());
    for (kind, text, reason) in [
        (ApiKind::Completions, "{", Reason::Malformed),
        (ApiKind::Chat, "{\"messages\": []}", Reason::NoTemplate),
    ] {
        let outcome = pool
            .tokenize(&model, kind, Bytes::from_static(text.as_bytes()))
            .await;
        assert!(
            matches!(outcome, Outcome::Unavailable(given) if given == reason),
            "{outcome:?}"
        );
        assert_eq!(count(&pool.counters(), reason), 1);
    }
    let large = Bytes::from(vec![b' '; pool.max_body_bytes + 1]);
    let outcome = pool.tokenize(&model, ApiKind::Chat, large).await;
    assert!(
        matches!(outcome, Outcome::Unavailable(Reason::Unsupported)),
        "{outcome:?}"
    );
}

/// A pool without its thread: jobs are taken by the test.
fn idle_pool(queue: usize, deadline: Duration) -> (TokenPool, Receiver<Job>) {
    let (sender, jobs) = sync_channel(queue);
    let shared = Shared {
        memo: Memo::new(1 << 20),
        counters: Counters::default(),
        panicking: AtomicBool::new(false),
    };
    let pool = TokenPool {
        queue: sender,
        shared: Arc::new(shared),
        deadline,
        max_body_bytes: 1 << 20,
        was_full: AtomicBool::new(false),
    };
    (pool, jobs)
}

#[tokio::test(start_paused = true)]
async fn late_ids_still_come() {
    let (pool, jobs) = idle_pool(8, Duration::from_millis(3));
    let model = model();
    let outcome = pool
        .tokenize(&model, ApiKind::Completions, body("Hello"))
        .await;
    let Outcome::Late(late) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(pool.counters().late, 1);
    let job = jobs.try_recv().unwrap();
    job.reply.send(Ok([1, 2].into())).unwrap();
    assert_eq!(late.ids().await, Ok([1, 2].into()));
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_answers_at_once() {
    let (pool, jobs) = idle_pool(1, Duration::from_millis(3));
    let model = model();
    let first = pool
        .tokenize(&model, ApiKind::Completions, body("one"))
        .await;
    assert!(matches!(first, Outcome::Late(_)));
    let before = tokio::time::Instant::now();
    let second = pool
        .tokenize(&model, ApiKind::Completions, body("two"))
        .await;
    assert!(
        matches!(second, Outcome::Unavailable(Reason::QueueFull)),
        "{second:?}"
    );
    assert_eq!(before.elapsed(), Duration::ZERO);
    assert_eq!(count(&pool.counters(), Reason::QueueFull), 1);
    drop(jobs);
    let dead = pool
        .tokenize(&model, ApiKind::Completions, body("three"))
        .await;
    assert!(
        matches!(dead, Outcome::Unavailable(Reason::QueueFull)),
        "{dead:?}"
    );
}

#[test]
fn a_panic_is_a_reason_and_not_the_end() {
    let (pool, _jobs) = idle_pool(1, LONG);
    assert_eq!(
        ids_caught(&pool.shared, || panic!("as the library may")),
        Err(Reason::Panicked)
    );
    assert_eq!(ids_caught(&pool.shared, || Ok([1].into())), Ok([1].into()));
}

#[tokio::test]
async fn a_request_that_goes_away_leaves_the_pool_working() {
    let (pool, model) = (pool(8, Duration::ZERO), model());
    for _ in 0..4 {
        drop(
            pool.tokenize(&model, ApiKind::Completions, body("Hello"))
                .await,
        );
    }
    let outcome = pool
        .tokenize(&model, ApiKind::Completions, body("Hello"))
        .await;
    let ids = match outcome {
        Outcome::Late(late) => late.ids().await.unwrap(),
        Outcome::Tokens(ids) => ids,
        Outcome::Unavailable(reason) => panic!("{reason:?}"),
    };
    assert!(!ids.is_empty());
}
