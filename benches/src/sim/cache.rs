//! What a replica knows of engines' caches.

use std::collections::HashMap;

use sluice_e2e::engine::{KvEvent, hash};

/// Where the knowledge comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexKind {
    /// KV events, united with prompts just dispatched.
    Hybrid,
    /// KV events alone.
    Events,
    /// Prompts dispatched, as far as the engine's memory goes.
    Approximate,
    /// Prompts dispatched, for ever.
    Unbounded,
}

pub(crate) struct Cache {
    kind: IndexKind,
    block: usize,
    stored: HashMap<u64, u64>,
    in_flight: HashMap<u64, Vec<u16>>,
    engines: usize,
}

pub(crate) type Chain = Vec<u64>;

impl Cache {
    pub(crate) fn new(kind: IndexKind, block: usize, engines: usize) -> Self {
        Self { kind, block, stored: HashMap::new(), in_flight: HashMap::new(), engines }
    }
    pub(crate) fn chain(&self, tokens: &[u32]) -> Chain {
        let mut parent = hash::mix(0, self.block as u64);
        tokens.chunks_exact(self.block).map(|block| { parent = hash::chain(parent, block.iter().copied()); parent }).collect()
    }
    pub(crate) fn cached(&self, chain: &Chain, prompt: u32) -> Vec<u32> {
        let mut result = vec![0; self.engines];
        for (engine, cached) in result.iter_mut().enumerate() {
            let blocks = chain.iter().take_while(|hash| {
                self.stored.get(hash).is_some_and(|set| set & (1 << engine) != 0)
                    || self.in_flight.get(hash).is_some_and(|set| set[engine] > 0)
            }).count();
            *cached = ((blocks * self.block) as u32).min(prompt.saturating_sub(1));
        }
        result
    }
    pub(crate) fn dispatched(&mut self, engine: usize, chain: &Chain) {
        if self.kind == IndexKind::Events { return; }
        for hash in chain {
            self.in_flight.entry(*hash).or_insert_with(|| vec![0; self.engines])[engine] += 1;
        }
    }
    pub(crate) fn confirmed(&mut self, engine: usize, chain: &Chain) {
        if self.kind == IndexKind::Events { return; }
        for hash in chain {
            if let Some(set) = self.in_flight.get_mut(hash) {
                set[engine] -= 1;
                if set.iter().all(|count| *count == 0) { self.in_flight.remove(hash); }
            }
            if matches!(self.kind, IndexKind::Approximate | IndexKind::Unbounded) { *self.stored.entry(*hash).or_default() |= 1 << engine; }
        }
    }
    pub(crate) fn withdrawn(&mut self, engine: usize, chain: &Chain) {
        if self.kind == IndexKind::Events { return; }
        for hash in chain {
            if let Some(set) = self.in_flight.get_mut(hash) {
                set[engine] -= 1;
                if set.iter().all(|count| *count == 0) { self.in_flight.remove(hash); }
            }
        }
    }
    pub(crate) fn apply(&mut self, engine: usize, events: &[KvEvent]) {
        if matches!(self.kind, IndexKind::Approximate | IndexKind::Unbounded) { return; }
        for event in events {
            match event {
                KvEvent::Stored { hash, .. } => *self.stored.entry(*hash).or_default() |= 1 << engine,
                KvEvent::Removed { hash } => {
                    if let Some(set) = self.stored.get_mut(hash) {
                        *set &= !(1 << engine);
                        if *set == 0 { self.stored.remove(hash); }
                    }
                }
                KvEvent::AllCleared => self.restarted(engine),
            }
        }
    }
    pub(crate) fn restarted(&mut self, engine: usize) {
        self.stored.retain(|_, set| { *set &= !(1 << engine); *set != 0 });
        self.in_flight.retain(|_, set| { set[engine] = 0; set.iter().any(|count| *count > 0) });
    }
}
