//! What a replica knows of engines' caches: the gateway's own index, fed by events, by dispatches or by both.

use std::sync::Arc;
use std::time::Duration;

use sluice_e2e::engine::{self, Profile};
use sluice_proxy::cache::budget::IndexBudget;
use sluice_proxy::cache::chain::{Chain, token_seed};
use sluice_proxy::cache::event::{EngineHash, KvEvent, Medium, Stored};
use sluice_proxy::cache::index::{Index, Slot};

/// Where the knowledge comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum IndexKind {
    /// KV events, united with prompts just dispatched.
    Hybrid,
    /// KV events alone.
    Events,
    /// Prompts dispatched, as far as the engine's memory goes.
    Approximate,
    /// Prompts dispatched, as far as memory here goes: what gateways keep that do not know engines' memory.
    Unbounded,
}

/// Bytes for one replica's index: plenty, since its bound is measured elsewhere.
const BUDGET_BYTES: usize = 1 << 30;
/// How often the index is told of time passing.
const TICK: Duration = Duration::from_secs(1);

pub(crate) struct Cache {
    kind: IndexKind,
    budget: Arc<IndexBudget>,
    index: Index,
    slots: Vec<Slot>,
    block: u32,
    now: Duration,
}

impl Cache {
    pub(crate) fn new(kind: IndexKind, engines: &[Profile]) -> Self {
        let budget = IndexBudget::in_virtual_time(BUDGET_BYTES);
        let index = Index::new(Arc::clone(&budget));
        let slots = engines.iter().map(|profile| {
            let slot = index.attach().expect("an index has a thousand slots");
            if kind != IndexKind::Unbounded {
                index.set_capacity(slot, profile.kv_tokens as u64);
            }
            index.set_reported(slot, matches!(kind, IndexKind::Hybrid | IndexKind::Events));
            slot
        });
        Self {
            kind,
            slots: slots.collect(),
            block: engines.first().map_or(64, |profile| profile.block_tokens) as u32,
            now: Duration::ZERO,
            budget,
            index,
        }
    }

    /// Lets time pass until `now`.
    pub(crate) fn advance(&mut self, now: Duration) {
        if now >= self.now + TICK {
            self.budget.advance(now - self.now);
            self.now = now;
            self.index.expire();
        }
    }

    pub(crate) fn chain(&self, tokens: &[u32]) -> Chain {
        Chain::of_tokens(token_seed(None), tokens, self.block)
    }

    /// Tokens of the prompt that each engine is believed to hold; the last token is always computed.
    pub(crate) fn cached(&self, chain: &Chain) -> Vec<u32> {
        let matched = self.index.matched(chain);
        let most = (chain.length().max(1) - 1) / self.block * self.block;
        let tokens = |slot: &Slot| chain.covered(matched.blocks(*slot) as usize).min(most);
        self.slots.iter().map(tokens).collect()
    }

    pub(crate) fn dispatched(&self, engine: usize, chain: &Chain) {
        if self.kind != IndexKind::Events {
            self.index.dispatched(self.slots[engine], chain);
        }
    }

    pub(crate) fn confirmed(&self, engine: usize, chain: &Chain) {
        if self.kind != IndexKind::Events {
            self.index.confirmed(self.slots[engine], chain);
        }
    }

    pub(crate) fn withdrawn(&self, engine: usize, chain: &Chain) {
        if self.kind != IndexKind::Events {
            self.index.withdrawn(self.slots[engine], chain);
        }
    }

    pub(crate) fn apply(&self, engine: usize, events: &[KvEvent]) {
        if matches!(self.kind, IndexKind::Hybrid | IndexKind::Events) {
            for event in events {
                self.index.apply(self.slots[engine], event);
            }
        }
    }

    /// The engine lost its cache.
    pub(crate) fn restarted(&self, engine: usize) {
        self.index.clear(self.slots[engine]);
    }
}

/// A step's events as its publisher would batch them: runs of consecutive blocks, removals together.
pub(crate) fn batch(events: Vec<engine::KvEvent>, block: usize) -> Vec<KvEvent> {
    let mut batch: Vec<KvEvent> = Vec::new();
    for event in events {
        match (event, batch.last_mut()) {
            (
                engine::KvEvent::Stored {
                    hash,
                    parent,
                    tokens,
                    ..
                },
                Some(KvEvent::Stored(run)),
            ) if parent.is_some() && parent == run.hashes.last().map(|last| last.0) => {
                run.hashes.push(EngineHash(hash));
                run.tokens.extend(tokens);
            }
            (
                engine::KvEvent::Stored {
                    hash,
                    parent,
                    tokens,
                    ..
                },
                _,
            ) => batch.push(KvEvent::Stored(Stored {
                hashes: vec![EngineHash(hash)],
                parent: parent.map(EngineHash),
                tokens,
                block_size: block as u32,
                lora: None,
                medium: Medium::Device,
                group: None,
                partial_attention: false,
                extra: Vec::new(),
            })),
            (engine::KvEvent::Removed { hash }, Some(KvEvent::Removed { hashes, .. })) => {
                hashes.push(EngineHash(hash));
            }
            (engine::KvEvent::Removed { hash }, _) => batch.push(KvEvent::Removed {
                hashes: vec![EngineHash(hash)],
                medium: Medium::Device,
                group: None,
            }),
            (engine::KvEvent::AllCleared, _) => batch.push(KvEvent::Cleared),
        }
    }
    batch
}
