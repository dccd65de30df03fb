//! The simulator's workloads as chats: the same requests at the same times, with text for tokens.
//!
//! A prompt's runs of tokens become messages, whose frames (role and marks) are taken off the texts, so that a prompt
//! has as many tokens on an engine as in the simulator, and a shared beginning ends in the same block. Answers are not
//! written here: the engine's own go into the next turn.

use std::collections::HashMap;
use std::time::Duration;

use sluice_e2e::engine::hash;

use crate::sim::prompt::{Segment, Source};
use crate::sim::workload::{Request, Start, Workload};

/// Tokens before a system prompt's text (three of its mark, two of its role), and behind it.
const SYSTEM_FRAME: (u32, u32) = (5, 3);
/// Tokens around a user's text, and those which make the model answer.
const USER_FRAME: u32 = 13;
/// Tokens behind an answer that has become history.
const ANSWER_END: u32 = 3;

/// Conversations and how they arrive.
#[derive(Clone, Debug, PartialEq)]
pub struct Chats {
    /// Conversations, in the order of their start.
    pub sessions: Vec<Session>,
    /// Conversations at one time; the next one waits until one has ended. None: no bound.
    pub callers: Option<usize>,
}

/// One conversation. Each turn sends all that was said before.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Session {
    /// Earliest start, in engine time.
    pub start: Duration,
    /// The system prompt; none if it has no parts.
    pub system: Text,
    /// Its turns; at least one.
    pub turns: Vec<Turn>,
}

/// A user's message and the answer it asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Turn {
    /// Engine time between the answer before and this message.
    pub think: Duration,
    /// The message.
    pub user: Text,
    /// Length of the answer.
    pub output_tokens: u32,
}

/// A text by its parts, which other texts may share.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Text {
    /// Names and lengths in tokens.
    pub parts: Vec<(u64, u32)>,
}

/// Why a workload cannot be sent as chats.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoChats {
    /// Engines fail or start in it.
    #[error("engines come and go in this workload, which only the simulator can do")]
    Incidents,
    /// A history that is not the turns before.
    #[error("request {0} follows another one but does not begin with its answer")]
    History(usize),
}

impl Chats {
    /// The conversations of a workload.
    ///
    /// # Errors
    /// When it holds what chats cannot express: see [`NoChats`].
    pub fn of(workload: &Workload) -> Result<Self, NoChats> {
        if !workload.incidents.is_empty() || !workload.absent.is_empty() {
            return Err(NoChats::Incidents);
        }
        let mut sessions: Vec<Session> = Vec::new();
        let mut session_of: HashMap<usize, usize> = HashMap::new();
        for (index, request) in workload.requests.iter().enumerate() {
            let number = match request.start {
                Start::At(start) => {
                    sessions.push(Session::begin(start, request));
                    sessions.len() - 1
                }
                Start::After(before, think) => {
                    let number = *session_of.get(&before).ok_or(NoChats::History(index))?;
                    let turn = Turn::next(think, request).ok_or(NoChats::History(index))?;
                    sessions[number].turns.push(turn);
                    number
                }
            };
            session_of.insert(index, number);
        }
        Ok(Self {
            sessions,
            callers: workload.callers,
        })
    }

    /// Requests in all conversations.
    pub fn requests(&self) -> usize {
        let turns = self.sessions.iter().map(|session| session.turns.len());
        turns.sum()
    }
}

impl Session {
    /// All but the last run of a first prompt are the system's.
    fn begin(start: Duration, request: &Request) -> Self {
        let mut parts = parts(&request.prompt);
        let user = parts.pop().into_iter().collect();
        let mut system = Text { parts };
        system.shorten(SYSTEM_FRAME.0, SYSTEM_FRAME.1);
        Self {
            start,
            system,
            turns: vec![Turn::new(Duration::ZERO, user, 0, request)],
        }
    }
}

impl Turn {
    fn new(think: Duration, parts: Vec<(u64, u32)>, answer_end: u32, request: &Request) -> Self {
        let mut user = Text { parts };
        user.shorten(0, USER_FRAME + answer_end);
        Self {
            think,
            user,
            output_tokens: request.output_tokens,
        }
    }

    /// What stands behind the last answer of the prompt; none if there is no answer in it.
    fn next(think: Duration, request: &Request) -> Option<Self> {
        let is_answer = |segment: &Segment| matches!(segment.source, Source::Output(_));
        let last = request.prompt.iter().rposition(is_answer)?;
        let parts = parts(&request.prompt[last + 1..]);
        Some(Self::new(think, parts, ANSWER_END, request))
    }
}

fn parts(segments: &[Segment]) -> Vec<(u64, u32)> {
    let part = |segment: &Segment| match segment.source {
        Source::Text(name) if segment.tokens > 0 => Some((name, segment.tokens)),
        _ => None,
    };
    segments.iter().filter_map(part).collect()
}

impl Text {
    /// Takes tokens off the first and the last part.
    fn shorten(&mut self, first: u32, last: u32) {
        if let Some((_, tokens)) = self.parts.first_mut() {
            *tokens = tokens.saturating_sub(first);
        }
        if let Some((_, tokens)) = self.parts.last_mut() {
            *tokens = tokens.saturating_sub(last);
        }
    }

    /// The text itself: lower-case words, four bytes a token.
    pub fn write(&self) -> String {
        let tokens: u32 = self.parts.iter().map(|(_, tokens)| tokens).sum();
        let mut text = String::with_capacity(tokens as usize * 4);
        for &(name, tokens) in &self.parts {
            let seed = hash::mix(name, 0x6368_6174);
            for index in 0..tokens {
                text.extend(hash::output_text(seed, index).map(char::from));
            }
        }
        text
    }
}
