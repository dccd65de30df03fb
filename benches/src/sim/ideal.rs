//! The ideal hit rate: what one engine with endless memory would find cached, were requests sent one after another.
//!
//! A bound for routing over finite engines; simultaneous requests of one prefix may not reach it.

use std::collections::HashSet;

use sluice_e2e::engine::hash;

use super::prompt::{self, Segment};
use super::workload::Workload;

/// Share of all prompt tokens that one endless cache would hold, in the workload's nominal order.
pub(super) fn hit_rate(workload: &Workload) -> f64 {
    let block = workload
        .engines
        .first()
        .map_or(64, |profile| profile.block_tokens);
    let mut known = HashSet::new();
    let (mut hits, mut total) = (0, 0);
    for request in &workload.requests {
        let answer = Segment::output(request.output_seed, request.output_tokens);
        let mut tokens = prompt::tokens(&request.prompt);
        let prompt_tokens = tokens.len();
        // The last token generated is never computed, so its block is not full.
        tokens.extend(prompt::tokens(&[answer]));
        tokens.pop();
        let mut parent = block as u64;
        let (mut found, mut broken) = (0, false);
        for run in tokens.chunks_exact(block) {
            parent = hash::chain(parent, run.iter().copied());
            broken |= known.insert(parent);
            found += usize::from(!broken);
        }
        // The last prompt token is always computed.
        hits += (found * block).min((prompt_tokens - 1) / block * block);
        total += prompt_tokens;
    }
    hits as f64 / total.max(1) as f64
}
