//! Workloads C, D and E: conversations whose every turn carries all turns before it. The next turn comes a while
//! after the last one's end, so a slow fleet is asked less.

use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::StdRng};
use sluice_e2e::engine::{Profile, hash};

use super::steady::exponential;
use super::{Request, Start, Workload, fleet};
use crate::sim::prompt::{Segment, length};

/// The shape of a workload of sessions.
#[derive(Debug, Clone, Copy)]
pub struct Sessions {
    /// Different system prompts; popularity falls with rank (Zipf, exponent one).
    pub systems: u64,
    /// Tokens of a system prompt.
    pub system_tokens: u32,
    /// Tokens, fewest and most, that a session brings with its first question, besides the question.
    pub context_tokens: (u32, u32),
    /// Tokens, fewest and most, of a question.
    pub question_tokens: (u32, u32),
    /// Mean tokens of an answer, exponential, 20 to four times the mean.
    pub answer_tokens: f64,
    /// Turns, fewest and most.
    pub turns: (u32, u32),
    /// Mean seconds between a turn's end and the next, exponential.
    pub think_seconds: f64,
    /// New sessions a second, Poisson.
    pub sessions_per_second: f64,
    /// Seconds during which sessions begin.
    pub seconds: f64,
    /// The histories of live sessions fit the engines' memory.
    pub fits_memory: bool,
}

impl Sessions {
    /// Workload C: chat with twenty system prompts.
    pub const CHAT: Self = Self {
        systems: 20,
        system_tokens: 4096,
        context_tokens: (0, 0),
        question_tokens: (100, 2300),
        answer_tokens: 320.0,
        turns: (2, 14),
        think_seconds: 10.0,
        sessions_per_second: 2.5,
        seconds: 300.0,
        fits_memory: true,
    };

    /// The same at a lower rate, for comparing numbers of router replicas.
    pub const CHAT_LIGHT: Self = Self {
        sessions_per_second: 2.0,
        ..Self::CHAT
    };

    /// Workload D: the same with one system prompt.
    pub const ONE_HEADER: Self = Self {
        systems: 1,
        system_tokens: 6144,
        ..Self::CHAT
    };

    /// Workload E: coding agents with long first contexts, more of them than the engines can serve.
    pub const AGENTS: Self = Self {
        systems: 4,
        system_tokens: 8192,
        context_tokens: (12_000, 32_000),
        question_tokens: (200, 2_000),
        answer_tokens: 300.0,
        turns: (6, 20),
        think_seconds: 4.0,
        sessions_per_second: 0.9,
        seconds: 300.0,
        fits_memory: false,
    };

    /// The sessions of one seed.
    pub fn workload(&self, seed: u64) -> Workload {
        let mut random = StdRng::seed_from_u64(seed);
        let mut turns = Vec::new();
        let (mut time, mut session) = (0.0, 0);
        while time < self.seconds {
            turns.extend(self.session(&mut random, time, session));
            time += exponential(&mut random, 1.0 / self.sessions_per_second);
            session += 1;
        }
        Workload {
            name: String::new(),
            engines: fleet(Profile::H8B, 8),
            absent: Vec::new(),
            requests: in_order(turns),
            callers: None,
            incidents: Vec::new(),
            fits_memory: self.fits_memory,
        }
    }

    fn session(&self, random: &mut StdRng, start: f64, session: u64) -> Vec<Turn> {
        let system = zipf(random, self.systems);
        let mut history = vec![Segment::text(system, self.system_tokens)];
        let context = random.random_range(self.context_tokens.0..=self.context_tokens.1);
        if context > 0 {
            history.push(Segment::text(hash::mix(session, 1), context));
        }
        let count = random.random_range(self.turns.0..=self.turns.1);
        let mut nominal = start;
        let mut turns = Vec::new();
        for turn in 0..u64::from(count) {
            let question = random.random_range(self.question_tokens.0..=self.question_tokens.1);
            let answer =
                exponential(random, self.answer_tokens).clamp(20.0, 4.0 * self.answer_tokens);
            let wait = exponential(random, self.think_seconds);
            let name = hash::mix(session, 2 + turn);
            history.push(Segment::text(name, question));
            turns.push(Turn {
                nominal,
                wait: if turn == 0 { start } else { wait },
                follows: turn > 0,
                request: Request {
                    start: Start::At(Duration::ZERO),
                    prompt: history.clone(),
                    output_tokens: answer as u32,
                    output_seed: name,
                    session,
                },
            });
            history.push(Segment::output(name, answer as u32));
            nominal += wait + SECONDS_PER_ANSWER_TOKEN * answer;
        }
        debug_assert!(length(&history) < 200_000, "a session fits an engine");
        turns
    }
}

/// Only for the nominal order of requests.
const SECONDS_PER_ANSWER_TOKEN: f64 = 0.02;

struct Turn {
    nominal: f64,
    wait: f64,
    follows: bool,
    request: Request,
}

/// All turns in their nominal order, each pointing at the one before it in its session.
fn in_order(mut turns: Vec<Turn>) -> Vec<Request> {
    turns.sort_by(|a, b| a.nominal.total_cmp(&b.nominal));
    let mut last = std::collections::HashMap::new();
    turns
        .into_iter()
        .enumerate()
        .map(|(index, turn)| {
            let mut request = turn.request;
            let wait = Duration::from_secs_f64(turn.wait);
            let before = last.insert(request.session, index);
            request.start = match before.filter(|_| turn.follows) {
                Some(before) => Start::After(before, wait),
                None => Start::At(wait),
            };
            request
        })
        .collect()
}

/// A rank below `count`, the first twice as likely as the second, thrice as likely as the third.
fn zipf(random: &mut StdRng, count: u64) -> u64 {
    let total: f64 = (1..=count).map(|rank| 1.0 / rank as f64).sum();
    let mut point = random.random::<f64>() * total;
    for rank in 1..count {
        point -= 1.0 / rank as f64;
        if point < 0.0 {
            return rank - 1;
        }
    }
    count - 1
}
