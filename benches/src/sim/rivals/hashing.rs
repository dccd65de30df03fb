//! KubeAI's consistent hashing with bounded loads, over the prompt's first characters.

use std::collections::BTreeMap;

use rand::rngs::SmallRng;
use sluice_e2e::engine::hash;
use sluice_proxy::schedule::CandidateView;

use crate::sim::replica::{Arrival, Router};

/// Tokens whose text is about a hundred characters.
const PREFIX_TOKENS: usize = 25;
const VIRTUAL_NODES: u64 = 256;
/// An engine takes a request while it has at most so many times the mean in flight.
const BOUND: f64 = 1.25;

/// CHWBL: walk the ring from the prefix's hash to the first engine that is not overloaded.
#[derive(Default)]
pub(super) struct BoundedLoad {
    ring: BTreeMap<u64, usize>,
}

fn ring(engines: usize) -> BTreeMap<u64, usize> {
    let nodes = (0..engines).flat_map(|engine| {
        (0..VIRTUAL_NODES).map(move |node| (hash::mix(engine as u64 + 1, node), engine))
    });
    nodes.collect()
}

impl Router for BoundedLoad {
    fn choose(
        &mut self,
        arrival: &Arrival<'_>,
        candidates: &[CandidateView<'_>],
        _: &mut SmallRng,
    ) -> Option<usize> {
        if self.ring.is_empty() {
            self.ring = ring(candidates.len());
        }
        let able = || candidates.iter().filter(|one| one.excluded.is_none());
        let in_flight: u32 = able().map(|one| one.load.in_flight).sum();
        // The request itself counts, so that an idle fleet takes it.
        let bound = BOUND * f64::from(in_flight + 1) / able().count().max(1) as f64;
        let prefix = &arrival.tokens[..arrival.tokens.len().min(PREFIX_TOKENS)];
        let key = hash::chain(7, prefix.iter().copied());
        let walk = self.ring.range(key..).chain(self.ring.range(..key));
        let mut walk = walk
            .map(|(_, &engine)| engine)
            .filter(|&engine| candidates[engine].excluded.is_none());
        let first = walk.clone().next();
        walk.find(|&engine| f64::from(candidates[engine].load.in_flight) < bound)
            .or(first)
    }
}
