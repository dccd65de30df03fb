//! Many runs at once: one workload under several policies, on all cores, in the order asked for.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::policies::{self, UnknownPolicy};
use super::report::Row;
use super::workload::Workload;
use super::world::{self, Setup};

/// One workload under several policies, as it is written to JSON.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// When it was run, in seconds since the epoch.
    pub time: u64,
    /// Name of the workload, or the trace.
    pub workload: String,
    /// Decides chance.
    pub seed: u64,
    /// How many engines.
    pub engines: usize,
    /// Profile of the first engine.
    pub profile: &'static str,
    /// Requests in the workload.
    pub requests: usize,
    /// Gateway replicas.
    pub replicas: usize,
    /// What every router knew of the caches; none: each what it is built for.
    pub index: Option<String>,
    /// How long KV events took, in milliseconds.
    pub event_delay_ms: f64,
    /// Share of KV-event messages lost.
    pub event_loss: f64,
    /// How often replicas told each other their loads, in milliseconds; none: never.
    pub exchange_ms: Option<f64>,
    /// The gateway believed D and Kd to be so many times what they are.
    pub constants_wrong_by: (f64, f64),
    /// It learned constants from answers.
    pub learn: bool,
    /// It began with the constants of any engine.
    pub cold: bool,
    /// Share of prompt tokens that one endless cache would hold.
    pub ideal_hit_rate: f64,
    /// One per policy.
    pub results: Vec<Row>,
}

/// Runs the workload once for each policy.
///
/// # Errors
/// When a policy is unknown; nothing has run then.
pub fn run(
    workload: &Workload,
    setup: &Setup,
    policies: &[String],
) -> Result<Report, UnknownPolicy> {
    for policy in policies {
        policies::named(policy)?;
    }
    let ideal_hit_rate = super::ideal::hit_rate(workload);
    let next = AtomicUsize::new(0);
    let rows = Mutex::new(Vec::new());
    let work = || {
        while let Some(policy) = policies.get(next.fetch_add(1, Ordering::Relaxed)) {
            let place = policies.iter().position(|other| other == policy);
            let start = Instant::now();
            let router = || policies::named(policy).expect("every name was tried above");
            let outcome = world::run(workload, setup, &router);
            let row = Row::of(policy, &outcome, ideal_hit_rate, start.elapsed());
            let mut rows = rows.lock().expect("a run that panics ends the program");
            rows.push((place, row));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads.min(policies.len()) {
            scope.spawn(work);
        }
    });
    let mut rows = rows
        .into_inner()
        .expect("a run that panics ends the program");
    rows.sort_by_key(|(place, _)| *place);
    let time = SystemTime::now().duration_since(UNIX_EPOCH);
    Ok(Report {
        time: time.map_or(0, |time| time.as_secs()),
        workload: workload.name.clone(),
        seed: setup.seed,
        engines: workload.engines.len(),
        profile: workload.engines.first().map_or("", |profile| profile.name),
        requests: workload.requests.len(),
        replicas: setup.replicas,
        index: setup.index.map(|kind| format!("{kind:?}").to_lowercase()),
        event_delay_ms: setup.event_delay.as_secs_f64() * 1e3,
        event_loss: setup.event_loss,
        exchange_ms: setup.exchange.map(|interval| interval.as_secs_f64() * 1e3),
        constants_wrong_by: setup.constants_wrong_by,
        learn: setup.learn,
        cold: setup.cold,
        ideal_hit_rate,
        results: rows.into_iter().map(|(_, row)| row).collect(),
    })
}
