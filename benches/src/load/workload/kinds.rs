//! The workloads by name: Kthena's published benchmark, the same one step closer to real prompts, and chat sessions.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use sluice_e2e::engine::hash;

use super::{Arrival, Session, Text, Turn, Workload};

/// Callers of the closed workloads, and the time between their first requests (800 a second).
const CALLERS: usize = 300;
const RAMP: Duration = Duration::from_micros(1250);

/// A workload's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Kthena's "long": 256 groups of 32 prompts, 4,096 shared tokens and a question of 256, 128 of answer.
    Long,
    /// The same, half of the system prompt common to all groups.
    LongHeader,
    /// 128 groups of 64 prompts of 8,192 tokens, the question's 256 among them, and 2,048 common to all.
    EightHeader,
    /// Chats: 20 system prompts of 4,096 tokens with skewed popularity, 2 to 14 turns, 10 s of thought
    /// between them, answers of 300 tokens in the mean.
    Sessions,
}

/// How much of a workload.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// Engines behind the router: the rate of sessions follows, 2.5 a second for 8, during four minutes.
    pub engines: usize,
    /// Requests; fewer are the first ones of the whole order. None: all there are.
    pub requests: Option<usize>,
    /// Callers of a closed workload. None: 300.
    pub callers: Option<usize>,
    /// Decides all texts, lengths and times.
    pub seed: u64,
}

/// Shared-prefix prompts of one turn.
struct Groups {
    groups: u64,
    prompts: u64,
    /// Beginning common to all groups, part of `system`.
    header: u32,
    system: u32,
}

impl Kind {
    /// Every workload.
    pub const ALL: [Self; 4] = [
        Self::Long,
        Self::LongHeader,
        Self::EightHeader,
        Self::Sessions,
    ];

    /// Name as typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Long => "A-long",
            Self::LongHeader => "A-long-2k",
            Self::EightHeader => "A-8k-2k",
            Self::Sessions => "C",
        }
    }

    /// Its conversations.
    pub fn workload(self, scale: Scale) -> Workload {
        let groups = |groups, prompts, header, system| {
            let shape = Groups {
                groups,
                prompts,
                header,
                system,
            };
            shape.workload(scale)
        };
        match self {
            Self::Long => groups(256, 32, 0, 4096),
            Self::LongHeader => groups(256, 32, 2048, 4096),
            Self::EightHeader => groups(128, 64, 2048, 8192 - 256),
            Self::Sessions => sessions(scale),
        }
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL
            .into_iter()
            .find(|kind| kind.name().eq_ignore_ascii_case(name));
        found.ok_or_else(|| {
            format!(
                "no such workload, use one of {}",
                Self::ALL.map(Self::name).join(", ")
            )
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

impl Groups {
    fn workload(&self, scale: Scale) -> Workload {
        let mut random = Random::new(scale.seed);
        let count = self.groups * self.prompts;
        let mut order: Vec<u64> = (0..count).collect();
        for last in (1..order.len()).rev() {
            order.swap(last, random.below(last as u64 + 1) as usize);
        }
        order.truncate(scale.requests.unwrap_or(order.len()));
        let sessions = order
            .into_iter()
            .map(|prompt| self.session(scale.seed, prompt));
        Workload {
            sessions: sessions.collect(),
            arrival: Arrival::Closed {
                callers: scale.callers.unwrap_or(CALLERS),
                ramp: RAMP,
            },
        }
    }

    fn session(&self, seed: u64, prompt: u64) -> Session {
        let group = text_seed(seed, 1, prompt / self.prompts);
        let system = match self.header {
            0 => Text::system(&[(group, self.system)]),
            header => Text::system(&[
                (text_seed(seed, 0, 0), header),
                (group, self.system - header),
            ]),
        };
        let user = Text::user(text_seed(seed, 2, prompt), 256);
        Session {
            start: Duration::ZERO,
            system,
            turns: vec![Turn {
                think: Duration::ZERO,
                user,
                output_tokens: 128,
            }],
        }
    }
}

/// Sessions that begin within four minutes, cut to that many requests in the order of their earliest times.
fn sessions(scale: Scale) -> Workload {
    const PROMPTS: u64 = 20;
    const RATE_PER_ENGINE: f64 = 2.5 / 8.0;
    const SECONDS: f64 = 240.0;
    let mut random = Random::new(scale.seed);
    let gap = 1.0 / (RATE_PER_ENGINE * scale.engines as f64);
    let mut all = Vec::new();
    let mut start = random.exponential(gap);
    while start < SECONDS {
        let number = all.len() as u64;
        let prompt = text_seed(scale.seed, 1, zipf(&mut random, PROMPTS));
        let turns = 2 + random.below(13);
        let turns = (0..turns)
            .map(|turn| chat_turn(&mut random, text_seed(scale.seed, 2 + turn, number), turn));
        all.push(Session {
            start: Duration::from_secs_f64(start),
            turns: turns.collect(),
            system: Text::system(&[(prompt, 4096)]),
        });
        start += random.exponential(gap);
    }
    cut(&mut all, scale.requests.unwrap_or(usize::MAX));
    Workload {
        sessions: all,
        arrival: Arrival::Open,
    }
}

fn chat_turn(random: &mut Random, seed: u64, number: u64) -> Turn {
    let think = if number == 0 {
        0.0
    } else {
        random.exponential(10.0)
    };
    Turn {
        think: Duration::from_secs_f64(think),
        user: Text::user(seed, 50 + random.below(501) as u32),
        output_tokens: random.exponential(300.0).clamp(20.0, 1200.0) as u32,
    }
}

/// Keeps the first `requests` in the order in which they would be sent if answers took no time.
fn cut(sessions: &mut Vec<Session>, requests: usize) {
    let mut order: Vec<(Duration, usize)> = Vec::new();
    for (number, session) in sessions.iter().enumerate() {
        let mut time = session.start;
        for turn in &session.turns {
            time += turn.think;
            order.push((time, number));
        }
    }
    order.sort();
    for &(_, number) in order.iter().skip(requests).rev() {
        sessions[number].turns.pop();
    }
    sessions.retain(|session| !session.turns.is_empty());
}

/// A rank below `count`, with probability in proportion to 1 / (rank + 1).
fn zipf(random: &mut Random, count: u64) -> u64 {
    let weight = |rank: u64| 1.0 / (rank + 1) as f64;
    let mut left = random.unit() * (0..count).map(weight).sum::<f64>();
    for rank in 0..count {
        left -= weight(rank);
        if left <= 0.0 {
            return rank;
        }
    }
    count - 1
}

/// Seed of a text: texts are the same exactly when seed, kind and number are.
fn text_seed(seed: u64, kind: u64, number: u64) -> u64 {
    hash::mix(hash::mix(seed, kind), number)
}

/// Random numbers that stay the same whatever libraries do.
struct Random {
    seed: u64,
    drawn: u64,
}

impl Random {
    fn new(seed: u64) -> Self {
        Self {
            seed: hash::mix(seed, u64::MAX),
            drawn: 0,
        }
    }

    fn next(&mut self) -> u64 {
        self.drawn += 1;
        // Twice: one round of consecutive numbers is too regular.
        hash::mix(hash::mix(self.seed, self.drawn), self.seed)
    }

    /// Above 0, at most 1.
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    /// Above 0, exponential with that mean.
    fn exponential(&mut self, mean: f64) -> f64 {
        -self.unit().ln() * mean
    }

    /// Less than `bound`; the bias of the multiplication is far below what a run could show.
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}
