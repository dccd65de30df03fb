//! Workloads: which requests come when, on which engines. Built once per seed, the same for every policy.
//!
//! A request starts at a time, or some while after another one has ended (the next turn of a session). A closed loop
//! bounds how many may be in flight. Who answers them is the world's matter.

mod kthena;
mod ladder;
mod sessions;
mod steady;
mod trace;

use std::time::Duration;

use sluice_e2e::engine::Profile;

use super::prompt::Segment;

pub use sessions::Sessions;
pub use trace::TraceError;

/// When a request is sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Start {
    /// That long after the beginning.
    At(Duration),
    /// That long after another request, by its index, has ended.
    After(usize, Duration),
}

/// One request.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// When it is sent.
    pub start: Start,
    /// What it asks.
    pub prompt: Vec<Segment>,
    /// Tokens of its answer.
    pub output_tokens: u32,
    /// Names its answer.
    pub output_seed: u64,
    /// Names its session.
    pub session: u64,
}

/// What befalls an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incident {
    /// It dies with all that it held.
    Kill(usize),
    /// It starts with an empty cache.
    Start(usize),
}

/// Engines and the requests that come to them.
#[derive(Debug, Clone)]
pub struct Workload {
    /// As on the command line.
    pub name: String,
    /// One profile per engine.
    pub engines: Vec<Profile>,
    /// Engines that are down until an incident starts them.
    pub absent: Vec<usize>,
    /// In the order in which they would start if every answer took no time.
    pub requests: Vec<Request>,
    /// Most requests in flight; the others wait outside, and their wait is not counted.
    pub callers: Option<usize>,
    /// What befalls engines, and when.
    pub incidents: Vec<(Duration, Incident)>,
    /// Most of the sharing fits the engines' memory, so that a router can be held to the ideal hit rate.
    pub fits_memory: bool,
}

/// What the command line may change about a workload.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Number of engines.
    pub engines: Option<usize>,
    /// Profile of all engines.
    pub profile: Option<Profile>,
    /// Requests come that many times as fast.
    pub speed: Option<f64>,
    /// At most so many requests.
    pub limit: Option<usize>,
}

/// Why there is no such workload.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    /// The name is unknown.
    #[error("no workload is called {0:?}, choose one of {names}", names = NAMES.join(", "))]
    Unknown(String),
    /// A trace cannot be used.
    #[error(transparent)]
    Trace(#[from] TraceError),
}

/// Every workload by name.
pub const NAMES: [&str; 19] = [
    "A-long",
    "A-short",
    "A-long-2k",
    "A-long-2k-60",
    "A-long-2k-600",
    "A-8k-2k",
    "A-1024x8",
    "A-8x600",
    "B",
    "C",
    "C-light",
    "D",
    "E",
    "G",
    "ladder",
    "hot-prefix",
    "mixed",
    "churn",
    "scale",
];

impl Workload {
    /// The workload of that name.
    ///
    /// # Errors
    /// When there is none of that name or its trace cannot be read.
    pub fn named(name: &str, seed: u64, options: &Options) -> Result<Self, WorkloadError> {
        let mut workload = match name {
            "B" => trace::conversation(seed, options.speed.unwrap_or(2.0))?,
            "C" => Sessions::CHAT.workload(seed),
            "C-light" => Sessions::CHAT_LIGHT.workload(seed),
            "D" => Sessions::ONE_HEADER.workload(seed),
            "E" => Sessions::AGENTS.workload(seed),
            "G" => steady::short_prompts(seed),
            "ladder" => ladder::ladder(seed),
            "hot-prefix" => steady::hot_prefix(seed),
            "mixed" => steady::mixed_hardware(seed),
            "churn" => steady::churn(seed),
            "scale" => steady::scale(seed),
            _ => {
                kthena::named(name, seed).ok_or_else(|| WorkloadError::Unknown(name.to_owned()))?
            }
        };
        workload.name = name.to_owned();
        if name != "B" {
            workload.hasten(options.speed.unwrap_or(1.0));
        }
        workload.adjust(options);
        Ok(workload)
    }

    /// A trace file, `mooncake:FILE` or `azure:FILE`, on eight engines unless told otherwise.
    ///
    /// # Errors
    /// When the file cannot be read or is no such trace.
    pub fn of_trace(source: &str, seed: u64, options: &Options) -> Result<Self, WorkloadError> {
        let mut workload = trace::read(source, seed, options.speed.unwrap_or(1.0))?;
        source.clone_into(&mut workload.name);
        workload.adjust(options);
        Ok(workload)
    }

    fn adjust(&mut self, options: &Options) {
        let count = options.engines.unwrap_or(self.engines.len());
        if let Some(profile) = &options.profile {
            self.engines = vec![in_blocks(profile.clone()); count];
        }
        let last = self.engines.last().cloned();
        if let Some(last) = last {
            self.engines.resize(count, last);
        }
        self.absent.retain(|&engine| engine < count);
        self.incidents.retain(|(_, incident)| match incident {
            Incident::Kill(engine) | Incident::Start(engine) => *engine < count,
        });
        if let Some(limit) = options.limit {
            self.requests.truncate(limit);
        }
    }

    fn hasten(&mut self, speed: f64) {
        for request in &mut self.requests {
            if let Start::At(time) = &mut request.start {
                *time = time.div_f64(speed);
            }
        }
    }
}

/// A profile with blocks of at least 64 tokens: four times fewer to handle, and routing hardly sees the difference.
fn in_blocks(mut profile: Profile) -> Profile {
    profile.block_tokens = profile.block_tokens.max(64);
    profile
}

fn fleet(profile: Profile, count: usize) -> Vec<Profile> {
    vec![in_blocks(profile); count]
}
