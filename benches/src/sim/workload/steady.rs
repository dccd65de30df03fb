//! Open loops of a steady rate, each for one question: short prompts without sharing (G), one prefix that takes most
//! of the traffic, a slow engine among fast ones, an engine that dies, a fleet that grows.

use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::StdRng};
use sluice_e2e::engine::{Profile, hash};

use super::{Incident, Request, Start, Workload, fleet};
use crate::sim::prompt::Segment;

/// A draw from an exponential distribution.
pub(super) fn exponential(random: &mut StdRng, mean: f64) -> f64 {
    -random.random::<f64>().max(1e-12).ln() * mean
}

/// Groups of requests with a system prompt each.
struct Groups {
    count: u64,
    /// Share of the traffic of the first group; the others divide the rest evenly.
    first: f64,
    system: u32,
    question: (u32, u32),
    answer: f64,
    per_second: f64,
    seconds: f64,
}

const MANY: Groups = Groups {
    count: 100,
    first: 0.01,
    system: 4096,
    question: (100, 900),
    answer: 250.0,
    per_second: 20.0,
    seconds: 240.0,
};

impl Groups {
    fn requests(&self, seed: u64) -> Vec<Request> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut time = exponential(&mut random, 1.0 / self.per_second);
        let mut requests = Vec::new();
        while time < self.seconds {
            let group = match random.random::<f64>() < self.first {
                true => 0,
                false => random.random_range(1..self.count.max(2)),
            };
            let question = random.random_range(self.question.0..=self.question.1);
            let answer = exponential(&mut random, self.answer).clamp(10.0, 4.0 * self.answer);
            let name = hash::mix(requests.len() as u64, 3);
            requests.push(Request {
                start: Start::At(Duration::from_secs_f64(time)),
                prompt: vec![
                    Segment::text(group, self.system),
                    Segment::text(name, question),
                ],
                output_tokens: answer as u32,
                output_seed: name,
                session: name,
            });
            time += exponential(&mut random, 1.0 / self.per_second);
        }
        requests
    }

    fn on(&self, engines: Vec<Profile>, seed: u64) -> Workload {
        Workload {
            name: String::new(),
            engines,
            absent: Vec::new(),
            requests: self.requests(seed),
            callers: None,
            incidents: Vec::new(),
            fits_memory: true,
        }
    }
}

/// Workload G: lengths and rate like Azure's conversation trace of 2023 at ten times its speed (log-normal prompts of
/// 1,155 tokens on average and 2,735 at the 90th percentile, answers of 211, 55 requests a second), nothing shared.
pub(super) fn short_prompts(seed: u64) -> Workload {
    let mut random = StdRng::seed_from_u64(seed);
    let mut time = 0.0;
    let requests = (0..12_000)
        .map(|name| {
            time += exponential(&mut random, 1.0 / 55.3);
            // Log-normal by Box and Muller; sigma 1 and median 700 give the mean and about the percentile.
            let normal = (-2.0 * random.random::<f64>().max(1e-12).ln()).sqrt()
                * (std::f64::consts::TAU * random.random::<f64>()).cos();
            let prompt = (700.0 * normal.exp()).clamp(4.0, 14_000.0);
            let answer = exponential(&mut random, 211.0).clamp(7.0, 1000.0);
            Request {
                start: Start::At(Duration::from_secs_f64(time)),
                prompt: vec![Segment::text(name, prompt as u32)],
                output_tokens: answer as u32,
                output_seed: name,
                session: name,
            }
        })
        .collect();
    Workload {
        requests,
        ..MANY.on(fleet(Profile::H8B, 8), seed)
    }
}

/// One group of a hundred takes 80 % of the traffic.
pub(super) fn hot_prefix(seed: u64) -> Workload {
    let hot = Groups {
        first: 0.8,
        per_second: 40.0,
        ..MANY
    };
    hot.on(fleet(Profile::H8B, 8), seed)
}

/// Eight engines, one at half the speed of the others.
pub(super) fn mixed_hardware(seed: u64) -> Workload {
    let mut engines = fleet(Profile::H8B, 8);
    engines[0] = at_half_speed(&engines[0]);
    let busy = Groups {
        per_second: 35.0,
        ..MANY
    };
    busy.on(engines, seed)
}

fn at_half_speed(profile: &Profile) -> Profile {
    Profile {
        weights_ms: profile.weights_ms * 2.0,
        token_us: profile.token_us * 2.0,
        prefill_attention_us: profile.prefill_attention_us * 2.0,
        decode_attention_us: profile.decode_attention_us * 2.0,
        base_ms: profile.base_ms * 2.0,
        sequence_us: profile.sequence_us * 2.0,
        ..profile.clone()
    }
}

/// Six engines; one dies after 80 s and comes back cold 20 s later.
pub(super) fn churn(seed: u64) -> Workload {
    Workload {
        incidents: vec![
            (Duration::from_secs(80), Incident::Kill(2)),
            (Duration::from_secs(100), Incident::Start(2)),
        ],
        ..MANY.on(fleet(Profile::H8B, 6), seed)
    }
}

/// Three engines become six after 80 s.
pub(super) fn scale(seed: u64) -> Workload {
    let incidents = (3..6).map(|engine| (Duration::from_secs(80), Incident::Start(engine)));
    Workload {
        absent: vec![3, 4, 5],
        incidents: incidents.collect(),
        ..MANY.on(fleet(Profile::H8B, 6), seed)
    }
}
