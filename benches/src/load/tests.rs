use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sluice_e2e::engine::{EngineOptions, EngineServer, Profile, tokens};

use super::answer::Answer;
use super::client::{Client, Failure};
use super::engines::{self, Counts, imbalance};
use super::ideal::IdealCache;
use super::replay::{Outcome, Replay};
use super::summary::Summary;
use super::workload::{Arrival, Kind, Scale, Session, Text, Turn, Workload};

fn scale(requests: usize, seed: u64) -> Scale {
    Scale {
        engines: 8,
        requests: Some(requests),
        callers: None,
        seed,
    }
}

/// Tokens of a conversation's first prompt, as the engine counts them.
fn first_prompt(session: &Session) -> Vec<u32> {
    let mut prompt = Vec::new();
    tokens::encode_message("system", &session.system.write().into(), &mut prompt);
    tokens::encode_message("user", &session.turns[0].user.write().into(), &mut prompt);
    tokens::encode_answer_header(&mut prompt);
    prompt
}

fn shared(left: &[u32], right: &[u32]) -> usize {
    left.iter()
        .zip(right)
        .take_while(|(left, right)| left == right)
        .count()
}

#[test]
fn a_seed_decides_the_workload() {
    for kind in Kind::ALL {
        let workload = kind.workload(scale(50, 1));
        assert_eq!(workload.requests(), 50, "{kind}");
        assert_eq!(workload, kind.workload(scale(50, 1)), "{kind}");
        assert_ne!(workload, kind.workload(scale(50, 2)), "{kind}");
    }
}

#[test]
fn fewer_requests_are_the_first_of_the_whole_order() {
    let (few, many) = (
        Kind::Long.workload(scale(50, 1)),
        Kind::Long.workload(scale(80, 1)),
    );
    assert_eq!(few.sessions, many.sessions[..50]);
    let all = Scale {
        requests: None,
        ..scale(0, 1)
    };
    assert_eq!(Kind::Long.workload(all).requests(), 256 * 32);
}

#[test]
fn lengths_hold_the_frames_of_messages() {
    for (kind, length) in [
        (Kind::Long, 4096),
        (Kind::LongHeader, 4096),
        (Kind::EightHeader, 7936),
    ] {
        let workload = kind.workload(scale(400, 1));
        let first = first_prompt(&workload.sessions[0]);
        assert_eq!(first.len(), length + 256, "{kind}");
        let alike = workload.sessions[1..]
            .iter()
            .map(|other| shared(&first, &first_prompt(other)));
        let alike: Vec<usize> = alike.collect();
        // The same group, or not; the frame's own tokens are always the same.
        let header = if kind == Kind::Long { 5 } else { 2048 };
        assert!(
            alike
                .iter()
                .all(|&tokens| [header, length].contains(&tokens) || tokens == length + 4),
            "{kind}: {alike:?}"
        );
        assert!(alike.iter().any(|&tokens| tokens >= length), "{kind}");
    }
}

#[test]
fn sessions_arrive_at_the_rate_of_their_engines_with_2_to_14_turns() {
    let workload = Kind::Sessions.workload(Scale {
        requests: None,
        ..scale(0, 3)
    });
    let turns: Vec<usize> = workload
        .sessions
        .iter()
        .map(|session| session.turns.len())
        .collect();
    assert!(turns.iter().all(|turns| (2..=14).contains(turns)));
    assert!((540..660).contains(&turns.len()), "{}", turns.len());
    assert!(
        workload
            .sessions
            .windows(2)
            .all(|pair| pair[0].start <= pair[1].start)
    );
    let popular = |session: &&Session| session.system == workload.sessions[0].system;
    assert!(workload.sessions.iter().filter(popular).count() > 1);
}

const STREAM: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\
    \"finish_reason\":null}]}\n\n: a comment\r\n\ndata: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"abc \"},\
    \"finish_reason\":null}]}\r\n\r\ndata: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"d\\u00e9 \"},\
    \"finish_reason\":\"length\"}]}\n\ndata: {\"choices\":[],\"usage\":{}}\n\ndata: [DONE]\n\n";

#[test]
fn a_stream_is_read_however_it_is_cut() {
    let mut whole = Answer::default();
    whole.feed(STREAM.as_bytes());
    assert_eq!(whole.text, "abc dé ");
    assert!(whole.complete(2));
    assert!(!whole.complete(3));
    for size in [1, 2, 3, 7, 50] {
        let mut cut = Answer::default();
        for bytes in STREAM.as_bytes().chunks(size) {
            cut.feed(bytes);
        }
        assert_eq!(cut, whole);
    }
}

#[test]
fn an_answer_without_end_or_with_garbage_is_not_complete() {
    let stream = |text: &str| {
        let mut answer = Answer::default();
        answer.feed(text.as_bytes());
        answer
    };
    assert!(!stream(&STREAM.replace("data: [DONE]", "")).complete(2));
    assert!(!stream(&STREAM.replace("\"length\"", "null")).complete(2));
    assert!(!stream(&format!("data: {{\"error\":{{}}}}\n\n{STREAM}")).complete(2));
    assert!(stream(&"x".repeat(2 << 20)).garbage);
}

#[test]
fn the_ideal_cache_finds_what_was_there_but_for_the_last_token() {
    let mut cache = IdealCache::new(4);
    let prompt: Vec<u32> = (0..8).collect();
    cache.take(&prompt, &[100, 101, 102, 103, 104]);
    assert_eq!(cache.rate(), 0.0);
    // The second block would leave no token to compute.
    cache.take(&prompt, &[]);
    assert_eq!(cache.rate(), 4.0 / 16.0);
    // The answer's first four tokens fill a block, its last one does not.
    let next: Vec<u32> = (0..8).chain(100..105).chain([7; 4]).collect();
    cache.take(&next, &[]);
    assert_eq!(cache.rate(), 16.0 / 33.0);
}

#[test]
fn counters_are_read_from_a_metrics_page() {
    let page = "# TYPE vllm:prefix_cache_queries_total counter\nvllm:prefix_cache_queries_total{engine=\"0\"} 100\n\
        vllm:prefix_cache_hits_total{engine=\"0\"} 25\nvllm:prefix_cache_hits_total_more 7\n\
        sluice_engine_busy_seconds_total 1.5\n";
    let counts = Counts::parse(page);
    assert_eq!(
        (counts.queries, counts.hits, counts.busy),
        (100.0, 25.0, 1.5)
    );
    assert_eq!(counts.since(counts), Counts::default());
    assert_eq!(imbalance([1.0, 3.0].into_iter()), 1.5);
    assert_eq!(imbalance([0.0, 0.0].into_iter()), 1.0);
}

/// Two conversations: one of two turns, one of one turn with the same system prompt.
fn small_workload(arrival: Arrival) -> Workload {
    let turn = |seed| Turn {
        think: Duration::from_millis(1),
        user: Text {
            parts: vec![(seed, 19)],
        },
        output_tokens: 33,
    };
    let session = |turns| Session {
        start: Duration::ZERO,
        system: Text {
            parts: vec![(1, 56)],
        },
        turns,
    };
    Workload {
        sessions: vec![session(vec![turn(2), turn(3)]), session(vec![turn(4)])],
        arrival,
    }
}

fn client(server: SocketAddr) -> Client {
    Client::new(server, Duration::from_secs(20))
}

#[tokio::test]
async fn a_replay_sends_the_streamed_answers_again_and_hits_them() {
    let profile = Profile {
        block_tokens: 16,
        ..Profile::INSTANT
    };
    let engine = EngineServer::start(EngineOptions {
        profile,
        ..EngineOptions::default()
    })
    .unwrap();
    let address = engine.addr();
    let arrival = Arrival::Closed {
        callers: 1,
        ramp: Duration::ZERO,
    };
    let replay = Replay::new(client(address), "tiny", small_workload(arrival), 1000.0);
    let (workload, outcomes) = replay.run().await;
    let counts = engines::counts(&[address]).await.unwrap();
    let summary = Summary::new(&workload, &outcomes, &counts, 1000.0, 16);
    assert_eq!(
        (summary.requests, summary.failed, summary.skipped),
        (3, 0, 0)
    );
    assert!(summary.ttft_mean_s > 0.0 && summary.ttft_mean_s <= summary.e2e_mean_s);
    // One caller, one engine with room for all: the real rate is the ideal one. Prompts of 96, 96 + 39 + 32 and 96
    // tokens; hits are the first prompt and its answer (128 = 8 blocks of 135 - 6), and the system prompt.
    assert_eq!(summary.hit_rate, summary.ideal_hit_rate);
    assert!(summary.hit_rate > 0.4, "{}", summary.hit_rate);
    assert_eq!(summary.imbalance, 1.0);
}

#[tokio::test]
async fn a_failure_is_counted_by_kind_and_ends_its_conversation() {
    let faults = vec!["status:503".parse().unwrap()];
    let engine = EngineServer::start(EngineOptions {
        faults,
        ..EngineOptions::instant("tiny")
    })
    .unwrap();
    let replay = Replay::new(
        client(engine.addr()),
        "tiny",
        small_workload(Arrival::Open),
        1000.0,
    );
    let (workload, outcomes) = replay.run().await;
    let summary = Summary::new(&workload, &outcomes, &[], 1000.0, 16);
    assert_eq!(
        (summary.requests, summary.failed, summary.skipped),
        (2, 2, 1)
    );
    assert_eq!(summary.failures.get("status 503"), Some(&2));
}

#[tokio::test]
async fn a_cut_stream_is_a_broken_connection_and_nobody_at_home_a_failed_connect() {
    let faults = vec!["reset-mid-stream:2".parse().unwrap()];
    let engine = EngineServer::start(EngineOptions {
        faults,
        ..EngineOptions::instant("tiny")
    })
    .unwrap();
    let body = r#"{"model":"tiny","messages":[{"role":"user","content":"hi"}],"max_tokens":8,"stream":true}"#;
    let failure = client(engine.addr())
        .chat(body.to_owned(), 8)
        .await
        .unwrap_err();
    assert_eq!(failure, Failure::Broken);
    let address = engine.addr();
    drop(engine);
    let failure = client(address).chat(body.to_owned(), 8).await.unwrap_err();
    assert_eq!(failure, Failure::Connect);
}

#[test]
fn percentiles_are_of_the_nearest_rank_on_the_engines_clock() {
    let sent = Instant::now();
    let outcome = |millis| Outcome {
        session: 1,
        turn: 0,
        sent,
        first: Some(Duration::from_millis(millis / 2)),
        total: Duration::from_millis(millis),
        answer: Ok(String::new()),
    };
    let outcomes: Vec<Outcome> = (1..=10).map(|tenth| outcome(tenth * 100)).collect();
    let summary = Summary::new(&small_workload(Arrival::Open), &outcomes, &[], 4.0, 16);
    assert_eq!(
        (summary.e2e_p50_s, summary.e2e_p90_s, summary.e2e_p99_s),
        (2.0, 3.6, 4.0)
    );
    assert_eq!((summary.ttft_mean_s, summary.req_per_s), (1.1, 2.5));
}
