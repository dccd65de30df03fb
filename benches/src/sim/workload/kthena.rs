//! Workload A: Kthena's published benchmark (`generated-shared-prefix`: groups of prompts with one system prompt
//! each, shuffled, a closed loop), and the same one small step more realistic: a header common to all groups.

use std::time::Duration;

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng, rngs::StdRng};
use sluice_e2e::engine::Profile;

use super::{Request, Start, Workload, fleet};
use crate::sim::prompt::Segment;

/// Requests a second that the load generator sends while callers are free.
const RATE: f64 = 800.0;

#[derive(Clone, Copy)]
struct Shape {
    groups: u64,
    prompts: u64,
    /// Tokens at the beginning of every system prompt that all groups share.
    common: u32,
    system: u32,
    question: u32,
    callers: usize,
    engines: usize,
    fits_memory: bool,
}

const LONG: Shape = Shape {
    groups: 256,
    prompts: 32,
    common: 0,
    system: 4096,
    question: 256,
    callers: 300,
    engines: 3,
    fits_memory: true,
};

fn shape(name: &str) -> Option<Shape> {
    let header = Shape {
        common: 2048,
        ..LONG
    };
    Some(match name {
        "A-long" => LONG,
        "A-short" => Shape {
            system: 256,
            question: 4096,
            ..LONG
        },
        "A-long-2k" => header,
        "A-long-2k-60" => Shape {
            callers: 60,
            ..header
        },
        "A-long-2k-600" => Shape {
            callers: 600,
            ..header
        },
        "A-8k-2k" => Shape {
            groups: 128,
            prompts: 64,
            system: 7936,
            ..header
        },
        "A-1024x8" => Shape {
            groups: 1024,
            prompts: 8,
            fits_memory: false,
            ..LONG
        },
        "A-8x600" => Shape {
            groups: 512,
            prompts: 16,
            callers: 600,
            engines: 8,
            ..LONG
        },
        _ => return None,
    })
}

pub(super) fn named(name: &str, seed: u64) -> Option<Workload> {
    let shape = shape(name)?;
    let mut random = StdRng::seed_from_u64(seed);
    let mut pairs: Vec<(u64, u64)> = (0..shape.groups)
        .flat_map(|group| (0..shape.prompts).map(move |prompt| (group, prompt)))
        .collect();
    pairs.shuffle(&mut random);
    let mut time = 0.0;
    let requests = pairs
        .into_iter()
        .map(|(group, prompt)| {
            time += -random.random::<f64>().max(1e-12).ln() / RATE;
            let name = group * shape.prompts + prompt;
            Request {
                start: Start::At(Duration::from_secs_f64(time)),
                prompt: vec![
                    Segment::text(0, shape.common),
                    Segment::text(1 + group, shape.system - shape.common),
                    Segment::text(1_000_000 + name, shape.question),
                ],
                output_tokens: 128,
                output_seed: name,
                session: name,
            }
        })
        .collect();
    Some(Workload {
        name: name.to_owned(),
        engines: fleet(Profile::K7B, shape.engines),
        absent: Vec::new(),
        requests,
        callers: Some(shape.callers),
        incidents: Vec::new(),
        fits_memory: shape.fits_memory,
    })
}
