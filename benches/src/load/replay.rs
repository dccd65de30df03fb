//! Sends chats in real time and notes what came back. With a bound on callers, each takes one conversation after the
//! other; else all begin at their own times. A turn holds the answers that were really streamed before it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

use super::client::{Client, Failure, Streamed};
use super::workload::{Chats, Session};

/// Chats on their way.
#[derive(Debug)]
pub struct Replay {
    client: Client,
    /// Model name in the requests.
    model: String,
    chats: Chats,
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

impl Session {
    /// What stands before the first turn.
    pub(super) fn opening(&self) -> Vec<Message> {
        match self.system.parts.is_empty() {
            true => Vec::new(),
            false => vec![Message::new("system", self.system.write())],
        }
    }
}

impl Replay {
    /// A replay against that client's server.
    pub fn new(client: Client, model: &str, chats: Chats, speed: f64) -> Self {
        Self {
            client,
            model: model.to_owned(),
            chats,
            speed,
            outcomes: Mutex::default(),
        }
    }

    /// Sends everything, and returns all outcomes in the order of sending. A conversation ends with its first failure.
    pub async fn run(self) -> (Chats, Vec<Outcome>) {
        let replay = Arc::new(self);
        let mut tasks = replay.start();
        while tasks.join_next().await.is_some() {}
        let replay = Arc::into_inner(replay).expect("all tasks have ended and dropped theirs");
        let outcomes = replay.outcomes.into_inner();
        let mut outcomes = outcomes.unwrap_or_else(PoisonError::into_inner);
        outcomes.sort_by_key(|outcome| outcome.sent);
        (replay.chats, outcomes)
    }

    /// The callers; as many as conversations where there is no bound.
    fn start(self: &Arc<Self>) -> JoinSet<()> {
        let next = Arc::new(AtomicUsize::new(0));
        let start = tokio::time::Instant::now();
        let caller = |_| {
            let (replay, next) = (self.clone(), next.clone());
            async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(session) = replay.chats.sessions.get(number) else {
                        return;
                    };
                    sleep_until(start + replay.wall(session.start)).await;
                    replay.session(number, session).await;
                }
            }
        };
        let sessions = self.chats.sessions.len();
        let callers = self.chats.callers.unwrap_or(sessions).min(sessions);
        (0..callers).map(caller).collect()
    }

    /// Wall time of a time on the engines' clock.
    fn wall(&self, engine: Duration) -> Duration {
        engine.div_f64(self.speed)
    }

    async fn session(&self, number: usize, session: &Session) {
        let mut messages = session.opening();
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
