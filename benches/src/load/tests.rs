use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sluice_e2e::engine::{EngineOptions, EngineServer, Profile, tokens};

use super::answer::Answer;
use super::client::{Client, Failure};
use super::engines::{self, Counts, imbalance};
use super::ideal::IdealCache;
use super::replay::{Outcome, Replay};
use super::summary::Summary;
use super::workload::{Chats, NoChats, Session, Text, Turn};
use crate::sim::prompt;
use crate::sim::workload::{Options, Workload};

fn workload(name: &str, seed: u64, requests: usize) -> Workload {
    let options = Options {
        limit: Some(requests),
        ..Options::default()
    };
    Workload::named(name, seed, &options).unwrap()
}

fn chats(name: &str, seed: u64, requests: usize) -> Chats {
    Chats::of(&workload(name, seed, requests)).unwrap()
}

/// Tokens of a conversation's prompts, turn by turn, as the engine counts them; answers are of one letter.
fn prompts(session: &Session) -> Vec<Vec<u32>> {
    let mut history = Vec::new();
    let say =
        |role, text: String, tokens: &mut _| tokens::encode_message(role, &text.into(), tokens);
    if !session.system.parts.is_empty() {
        say("system", session.system.write(), &mut history);
    }
    let turn = |turn: &Turn| {
        say("user", turn.user.write(), &mut history);
        let mut prompt = history.clone();
        tokens::encode_answer_header(&mut prompt);
        let answer = "a".repeat(turn.output_tokens as usize * tokens::BYTES);
        say("assistant", answer, &mut history);
        prompt
    };
    session.turns.iter().map(turn).collect()
}

#[test]
fn a_seed_decides_the_chats() {
    for name in ["A-long", "C"] {
        assert_eq!(chats(name, 1, 50).requests(), 50);
        assert_eq!(chats(name, 1, 50), chats(name, 1, 50));
        assert_ne!(chats(name, 1, 50), chats(name, 2, 50));
    }
}

#[test]
fn prompts_are_as_long_on_an_engine_as_in_the_simulator() {
    for name in ["A-long", "A-long-2k", "A-8k-2k", "C", "D"] {
        let workload = workload(name, 1, 40);
        let simulated = workload
            .requests
            .iter()
            .map(|request| prompt::length(&request.prompt) as usize);
        let chats = Chats::of(&workload).unwrap();
        let real = chats.sessions.iter().flat_map(prompts);
        let mut lengths: [Vec<usize>; 2] = [
            simulated.collect(),
            real.map(|prompt| prompt.len()).collect(),
        ];
        lengths.iter_mut().for_each(|lengths| lengths.sort());
        assert_eq!(lengths[0], lengths[1], "{name}");
    }
}

#[test]
fn chats_share_what_the_workload_shares() {
    let workload = workload("A-long-2k", 1, 60);
    let chats = Chats::of(&workload).unwrap();
    let shared = |left: &[u32], right: &[u32]| {
        left.iter()
            .zip(right)
            .take_while(|(left, right)| left == right)
            .count()
    };
    let simulated: Vec<_> = workload
        .requests
        .iter()
        .map(|request| prompt::tokens(&request.prompt))
        .collect();
    let real: Vec<_> = chats
        .sessions
        .iter()
        .map(|session| prompts(session).remove(0))
        .collect();
    for other in 1..real.len() {
        let (expected, found) = (
            shared(&simulated[0], &simulated[other]),
            shared(&real[0], &real[other]),
        );
        // Behind a shared system prompt both go on with the mark of a user's message, four tokens of frame.
        assert!(
            found == expected || found == expected + 4,
            "{found}, not {expected}"
        );
    }
}

#[test]
fn what_chats_cannot_express_is_refused() {
    let churn = workload("churn", 1, 10);
    assert_eq!(Chats::of(&churn), Err(NoChats::Incidents));
    let mut sessions = workload("C", 1, 60);
    let follows = sessions
        .requests
        .iter()
        .position(|request| request.prompt.len() > 2)
        .unwrap();
    sessions.requests[follows].prompt.truncate(1);
    assert_eq!(Chats::of(&sessions), Err(NoChats::History(follows)));
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
fn small(callers: Option<usize>) -> Chats {
    let turn = |name| Turn {
        think: Duration::from_millis(1),
        user: Text {
            parts: vec![(name, 19)],
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
    Chats {
        sessions: vec![session(vec![turn(2), turn(3)]), session(vec![turn(4)])],
        callers,
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
    let replay = Replay::new(client(address), "tiny", small(Some(1)), 1000.0);
    let (chats, outcomes) = replay.run().await;
    let counts = engines::counts(&[address]).await.unwrap();
    let summary = Summary::new(&chats, &outcomes, &counts, 1000.0, 16);
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
    let replay = Replay::new(client(engine.addr()), "tiny", small(None), 1000.0);
    let (chats, outcomes) = replay.run().await;
    let summary = Summary::new(&chats, &outcomes, &[], 1000.0, 16);
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
    let summary = Summary::new(&small(None), &outcomes, &[], 4.0, 16);
    assert_eq!(
        (summary.e2e_p50_s, summary.e2e_p90_s, summary.e2e_p99_s),
        (2.0, 3.6, 4.0)
    );
    assert_eq!((summary.ttft_mean_s, summary.req_per_s), (1.1, 2.5));
}
