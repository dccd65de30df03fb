//! Kthena's scheduler with least-request and one of its two cache plug-ins, weight one each, as its benchmark ran
//! and today's code works.
//!
//! Scores are whole numbers from 0 to 100. Both plug-ins see the first 2,048 tokens. The prefix plug-in learns a
//! prompt when its answer is complete; the other is given the engines' true cache contents. Running and waiting are
//! a second old at most. Where its filter would leave no engine, Kthena refuses the request; here all stay.

use std::collections::HashMap;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use sluice_e2e::engine::hash;
use sluice_proxy::schedule::CandidateView;

use super::least;
use crate::sim::cache::IndexKind;
use crate::sim::replica::{Arrival, Knowledge, Router};

const HORIZON_TOKENS: u32 = 2048;
/// 64 bytes of text.
const BLOCK_TOKENS: usize = 16;
const BLOCKS: usize = 128;
/// Hashes that the prefix plug-in keeps for each engine, least recently used go first.
const HASHES: usize = 50_000;
/// Holders that the prefix plug-in looks for.
const TOP: usize = 5;
const MAX_WAITING: f64 = 10.0;

pub(super) struct Kthena {
    /// Of the prefix plug-in, if that is the one.
    learned: Option<Learned>,
}

#[derive(Default)]
struct Learned {
    /// Hashes of each engine with the time of their last use.
    engines: Vec<HashMap<u64, u64>>,
    /// Hashes of requests not yet answered.
    open: HashMap<usize, Vec<u64>>,
    now: u64,
}

impl Kthena {
    pub(super) fn prefix() -> Self {
        Self {
            learned: Some(Learned::default()),
        }
    }

    pub(super) fn kvcache() -> Self {
        Self { learned: None }
    }
}

impl Router for Kthena {
    fn choose(
        &mut self,
        arrival: &Arrival<'_>,
        candidates: &[CandidateView<'_>],
        random: &mut SmallRng,
    ) -> Option<usize> {
        let few_wait = |one: &CandidateView<'_>| one.reported.waiting.unwrap_or(0.0) < MAX_WAITING;
        let able = |one: &CandidateView<'_>| one.excluded.is_none();
        let filter = candidates.iter().any(|one| able(one) && few_wait(one));
        let kept = |one: &CandidateView<'_>| able(one) && (!filter || few_wait(one));
        let most = candidates
            .iter()
            .filter(|one| kept(one))
            .map(requests)
            .fold(0.0, f64::max);
        let matches = match &mut self.learned {
            Some(learned) => learned.scores(arrival, candidates.len(), random),
            None => candidates
                .iter()
                .map(|one| true_score(arrival, one))
                .collect(),
        };
        least(candidates, random, |index, candidate| {
            if !kept(candidate) {
                return f64::MAX;
            }
            let load = match most > 0.0 {
                true => ((most - requests(candidate)) / most * 100.0).floor(),
                false => 100.0,
            };
            -(load + matches[index])
        })
    }

    fn knowledge(&self) -> Knowledge {
        Knowledge {
            index: IndexKind::Events,
            poll: Some(Duration::from_secs(1)),
        }
    }

    fn dispatched(&mut self, arrival: &Arrival<'_>, _: usize) {
        if let Some(learned) = &mut self.learned {
            learned.open.insert(arrival.id, blocks(arrival.tokens));
        }
    }

    fn finished(&mut self, id: usize, engine: usize) {
        if let Some(learned) = &mut self.learned {
            learned.answered(id, engine);
        }
    }
}

/// Its measure of load: in flight, and a hundred for each that does not run as far as is known.
fn requests(candidate: &CandidateView<'_>) -> f64 {
    let in_flight = f64::from(candidate.load.in_flight);
    let running = candidate.reported.running.unwrap_or(0.0);
    in_flight + 100.0 * (in_flight - running).max(0.0)
}

/// kvcache-aware: consecutive blocks held, of those within the horizon.
fn true_score(arrival: &Arrival<'_>, candidate: &CandidateView<'_>) -> f64 {
    let horizon = arrival.view.prompt_tokens.clamp(1, HORIZON_TOKENS);
    let held = candidate.cached_tokens.min(horizon);
    (f64::from(held) / f64::from(horizon) * 100.0).floor()
}

fn blocks(tokens: &[u32]) -> Vec<u64> {
    let mut parent = 1;
    let blocks = tokens.chunks(BLOCK_TOKENS).take(BLOCKS).map(|block| {
        parent = hash::chain(parent, block.iter().copied());
        parent
    });
    blocks.collect()
}

impl Learned {
    /// The first holders met from the end of the prompt backwards, five at most, those of one block in the order of
    /// a Go map, which is chance; others get nothing.
    fn scores(&mut self, arrival: &Arrival<'_>, engines: usize, random: &mut SmallRng) -> Vec<f64> {
        self.engines.resize_with(engines, HashMap::new);
        let hashes = blocks(arrival.tokens);
        let mut scores = vec![0.0; engines];
        let mut found = 0;
        let mut order: Vec<usize> = (0..engines).collect();
        order.shuffle(random);
        for (index, hash) in hashes.iter().enumerate().rev() {
            for &engine in &order {
                if found < TOP && scores[engine] == 0.0 && self.engines[engine].contains_key(hash) {
                    scores[engine] = ((index + 1) as f64 / hashes.len() as f64 * 100.0).floor();
                    found += 1;
                }
            }
            if found == TOP.min(engines) {
                break;
            }
        }
        scores
    }

    fn answered(&mut self, id: usize, engine: usize) {
        let Some(hashes) = self.open.remove(&id) else {
            return;
        };
        self.now += 1;
        let held = &mut self.engines[engine];
        held.extend(hashes.into_iter().map(|hash| (hash, self.now)));
        if held.len() > HASHES {
            // A tenth at once, so that looking for the oldest is rare.
            let mut ages: Vec<u64> = held.values().copied().collect();
            let (_, &mut oldest, _) = ages.select_nth_unstable(HASHES / 10);
            held.retain(|_, age| *age > oldest);
        }
    }
}
