//! Sends a workload in real time and notes what came back. Closed: callers take one conversation after the other.
//! Open: conversations begin at their own times. A turn holds the answers that were really streamed before it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

use super::client::{Client, Failure, Streamed};
use super::workload::{Arrival, Session, Workload};

/// One workload on its way.
#[derive(Debug)]
pub struct Replay {
    client: Client,
    /// Model name in the requests.
    model: String,
    workload: Workload,
    /// Engine seconds in one second of the wall clock.
    speed: f64,
    /// Locked without awaiting, once a request.
    outcomes: Mutex<Vec<Outcome>>,
}

/// One request. Times are of the wall clock.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Number of its conversation.
    pub session: usize,
    /// Number of its turn.
    pub turn: usize,
    /// When it was sent.
    pub sent: Instant,
    /// From there to the first text, if there was any.
    pub first: Option<Duration>,
    /// From there to the end.
    pub total: Duration,
    /// The answer's text, or why there is no whole answer.
    pub answer: Result<String, Failure>,
}

#[derive(Serialize)]
struct ChatRequest<'a> {
    model: &'a str,
    messages: &'a [Message],
    max_tokens: u32,
    stream: bool,
}

/// A message of a chat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: &'static str,
    /// Its text.
    pub content: String,
}

impl Message {
    /// A message.
    pub fn new(role: &'static str, content: String) -> Self {
        Self { role, content }
    }
}

impl Replay {
    /// A replay against that client's server.
    pub fn new(client: Client, model: &str, workload: Workload, speed: f64) -> Self {
        Self {
            client,
            model: model.to_owned(),
            workload,
            speed,
            outcomes: Mutex::default(),
        }
    }

    /// Sends everything, and returns all outcomes in the order of sending. A conversation ends with its first failure.
    pub async fn run(self) -> (Workload, Vec<Outcome>) {
        let replay = Arc::new(self);
        let mut tasks = match replay.workload.arrival {
            Arrival::Closed { callers, ramp } => replay.closed(callers, ramp),
            Arrival::Open => replay.open(),
        };
        while tasks.join_next().await.is_some() {}
        let replay = Arc::into_inner(replay).expect("all tasks have ended and dropped theirs");
        let mut outcomes = replay
            .outcomes
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        outcomes.sort_by_key(|outcome| outcome.sent);
        (replay.workload, outcomes)
    }

    /// Wall time of a time on the engines' clock.
    fn wall(&self, engine: Duration) -> Duration {
        engine.div_f64(self.speed)
    }

    fn closed(self: &Arc<Self>, callers: usize, ramp: Duration) -> JoinSet<()> {
        let next = Arc::new(AtomicUsize::new(0));
        let start = tokio::time::Instant::now();
        let caller = |number: usize| {
            let (replay, next) = (self.clone(), next.clone());
            async move {
                sleep_until(start + replay.wall(ramp) * number as u32).await;
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(session) = replay.workload.sessions.get(number) else {
                        return;
                    };
                    replay.session(number, session).await;
                }
            }
        };
        (0..callers.min(self.workload.sessions.len()))
            .map(caller)
            .collect()
    }

    fn open(self: &Arc<Self>) -> JoinSet<()> {
        let start = tokio::time::Instant::now();
        let session = |number: usize| {
            let replay = self.clone();
            async move {
                let session = &replay.workload.sessions[number];
                sleep_until(start + replay.wall(session.start)).await;
                replay.session(number, session).await;
            }
        };
        (0..self.workload.sessions.len()).map(session).collect()
    }

    async fn session(&self, number: usize, session: &Session) {
        let mut messages = vec![Message::new("system", session.system.write())];
        for (index, turn) in session.turns.iter().enumerate() {
            sleep(self.wall(turn.think)).await;
            messages.push(Message::new("user", turn.user.write()));
            let body = self.body(&messages, turn.output_tokens);
            let sent = Instant::now();
            let result = self.client.chat(body, turn.output_tokens).await;
            let outcome = Outcome::new(number, index, sent, result);
            let answer = outcome.answer.clone();
            self.outcomes
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(outcome);
            match answer {
                Ok(text) => messages.push(Message::new("assistant", text)),
                Err(_) => return,
            }
        }
    }

    fn body(&self, messages: &[Message], max_tokens: u32) -> String {
        let request = ChatRequest {
            model: &self.model,
            messages,
            max_tokens,
            stream: true,
        };
        serde_json::to_string(&request).expect("strings and numbers are JSON")
    }
}

impl Outcome {
    fn new(session: usize, turn: usize, sent: Instant, result: Result<Streamed, Failure>) -> Self {
        let first = result.as_ref().ok().and_then(|streamed| streamed.first);
        Self {
            session,
            turn,
            sent,
            first: first.map(|first| first - sent),
            total: sent.elapsed(),
            answer: result.map(|streamed| streamed.answer.text),
        }
    }
}
