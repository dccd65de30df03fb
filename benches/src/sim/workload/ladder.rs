//! llm-d's benchmark of precise prefix routing: 150 groups of five prompts, a Poisson ladder from 3 to 60 requests a
//! second after a warm-up, on eight replicas of a 32B model. Twenty seconds a rung.

use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::StdRng};
use sluice_e2e::engine::Profile;

use super::steady::exponential;
use super::{Request, Start, Workload, fleet};
use crate::sim::prompt::Segment;

/// (requests a second, seconds)
const RUNGS: [(f64, f64); 17] = [
    (15.0, 50.0),
    (3.0, 20.0),
    (10.0, 20.0),
    (15.0, 20.0),
    (20.0, 20.0),
    (22.0, 20.0),
    (25.0, 20.0),
    (30.0, 20.0),
    (35.0, 20.0),
    (40.0, 20.0),
    (43.0, 20.0),
    (46.0, 20.0),
    (49.0, 20.0),
    (52.0, 20.0),
    (55.0, 20.0),
    (57.0, 20.0),
    (60.0, 20.0),
];

/// Of the 1,000 tokens asked for, models gave about a quarter.
const OUTPUT_MEAN: f64 = 245.0;

pub(super) fn ladder(seed: u64) -> Workload {
    let mut random = StdRng::seed_from_u64(seed);
    let mut requests = Vec::new();
    let (mut time, mut end) = (0.0, 0.0);
    for (rate, seconds) in RUNGS {
        end += seconds;
        loop {
            let next = time + exponential(&mut random, 1.0 / rate);
            if next > end {
                time = end;
                break;
            }
            time = next;
            let (group, question) = (random.random_range(0..150), random.random_range(0..5));
            let output = exponential(&mut random, OUTPUT_MEAN).clamp(1.0, 1000.0);
            requests.push(Request {
                start: Start::At(Duration::from_secs_f64(time)),
                prompt: vec![
                    Segment::text(group, 6000),
                    Segment::text(1000 + group * 5 + question, 1200),
                ],
                output_tokens: output as u32,
                output_seed: requests.len() as u64,
                session: group * 5 + question,
            });
        }
    }
    Workload {
        name: String::new(),
        engines: fleet(Profile::Q32, 8),
        absent: Vec::new(),
        requests,
        callers: None,
        incidents: Vec::new(),
        fits_memory: true,
    }
}
