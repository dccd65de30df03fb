//! What is sent: conversations with shared beginnings, decided by a seed alone.
//!
//! Lengths are in tokens of the simulated engine (four bytes of text) and hold a message's frame, so that a system
//! prompt of 4,096 tokens fills 32 blocks of 128 exactly. No clock and no I/O: texts are written out when they are sent.

mod kinds;

use std::time::Duration;

use sluice_e2e::engine::hash;

pub use kinds::{Kind, Scale};

/// Tokens around a system prompt: three before the role, two of the role, three behind the text.
const SYSTEM_FRAME: u32 = 8;
/// Tokens around a user's text, and those which make the model answer.
const USER_FRAME: u32 = 13;

/// Conversations and how they arrive.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Conversations, in the order of their start.
    pub sessions: Vec<Session>,
    /// How they arrive.
    pub arrival: Arrival,
}

/// When conversations begin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arrival {
    /// So many callers, each with one conversation at a time; they come up with `ramp` between them.
    Closed {
        /// Callers.
        callers: usize,
        /// Engine time between the first requests of two callers.
        ramp: Duration,
    },
    /// At each session's own time, whatever the answers.
    Open,
}

/// One conversation. Each turn sends all that was said before.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// Start in engine time, in an open arrival.
    pub start: Duration,
    /// The system prompt.
    pub system: Text,
    /// Its turns; at least one.
    pub turns: Vec<Turn>,
}

/// A user's message and the answer it asks for.
#[derive(Clone, Debug, PartialEq)]
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
    /// Seeds and lengths in tokens.
    pub parts: Vec<(u64, u32)>,
}

impl Workload {
    /// Requests in all conversations.
    pub fn requests(&self) -> usize {
        self.sessions
            .iter()
            .map(|session| session.turns.len())
            .sum()
    }
}

impl Text {
    fn system(parts: &[(u64, u32)]) -> Self {
        Self::framed(parts, SYSTEM_FRAME)
    }

    fn user(seed: u64, tokens: u32) -> Self {
        Self::framed(&[(seed, tokens)], USER_FRAME)
    }

    /// The frame is taken from both ends: what stands before the text (five tokens of eight) from the first part, so
    /// that a shared beginning ends where its length says.
    fn framed(parts: &[(u64, u32)], frame: u32) -> Self {
        let mut parts = parts.to_vec();
        let before = if parts.len() > 1 { frame.min(5) } else { 0 };
        if let Some((_, tokens)) = parts.first_mut() {
            *tokens = tokens.saturating_sub(before);
        }
        if let Some((_, tokens)) = parts.last_mut() {
            *tokens = tokens.saturating_sub(frame - before);
        }
        Self { parts }
    }

    /// The text itself: lower-case words, four bytes a token.
    pub fn write(&self) -> String {
        let tokens: u32 = self.parts.iter().map(|(_, tokens)| tokens).sum();
        let mut text = String::with_capacity(tokens as usize * 4);
        for &(seed, tokens) in &self.parts {
            for index in 0..tokens {
                text.extend(hash::output_text(seed, index).map(char::from));
            }
        }
        text
    }
}
