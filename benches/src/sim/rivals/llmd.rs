//! llm-d's blend of normalised scores (precise and approximate) and its newer rule, sticky until saturated.

use std::time::Duration;

use rand::rngs::SmallRng;
use sluice_proxy::schedule::CandidateView;

use super::{least, matched, uncached};
use crate::sim::cache::IndexKind;
use crate::sim::replica::{Arrival, Knowledge, Router};

/// Weighted sum of prefix match, short queue and free KV memory; metrics read every 50 ms.
pub(super) struct Blend {
    prefix: f64,
    queue: f64,
    memory: f64,
    index: IndexKind,
}

impl Blend {
    /// The default weights with KV events.
    pub(super) const PRECISE: Self = Self {
        prefix: 3.0,
        queue: 2.0,
        memory: 2.0,
        index: IndexKind::Hybrid,
    };
    /// The default weights with an index of what was dispatched.
    pub(super) const APPROXIMATE: Self = Self {
        index: IndexKind::Approximate,
        ..Self::PRECISE
    };
    /// The weights of llm-d's published comparison for the approximate index.
    pub(super) const EVEN: Self = Self {
        prefix: 1.0,
        queue: 1.0,
        memory: 1.0,
        index: IndexKind::Approximate,
    };
}

impl Router for Blend {
    fn choose(
        &mut self,
        arrival: &Arrival<'_>,
        candidates: &[CandidateView<'_>],
        random: &mut SmallRng,
    ) -> Option<usize> {
        let waiting = |one: &CandidateView<'_>| one.reported.waiting.unwrap_or(0.0);
        let able = || candidates.iter().filter(|one| one.excluded.is_none());
        let most = able().map(waiting).fold(0.0, f64::max);
        let fewest = able().map(waiting).fold(f64::INFINITY, f64::min);
        least(candidates, random, |_, candidate| {
            let queue = match most > fewest {
                true => (most - waiting(candidate)) / (most - fewest),
                false => 1.0,
            };
            let memory = 1.0 - candidate.reported.kv_usage.unwrap_or(0.0);
            let share = matched(arrival.view.prompt_tokens, candidate);
            -(self.prefix * share + self.queue * queue + self.memory * memory)
        })
    }

    fn knowledge(&self) -> Knowledge {
        Knowledge {
            index: self.index,
            poll: Some(Duration::from_millis(50)),
        }
    }
}

/// Keeps to engines that hold 80 % of the prompt; leaves them only when their pending work exceeds the least by 14 s
/// at the peak prefill rate; among those kept, least pending work.
pub(super) struct Sticky;

const AFFINITY: f64 = 0.8;
const SATURATED_TOKENS: f64 = 20_480.0 * 14.0;

impl Router for Sticky {
    fn choose(
        &mut self,
        arrival: &Arrival<'_>,
        candidates: &[CandidateView<'_>],
        random: &mut SmallRng,
    ) -> Option<usize> {
        let prompt = arrival.view.prompt_tokens;
        let work = |one: &CandidateView<'_>| one.load.pending_tokens as f64 + uncached(prompt, one);
        let able = || candidates.iter().filter(|one| one.excluded.is_none());
        let lightest = able().map(work).fold(f64::INFINITY, f64::min);
        let warm = |one: &CandidateView<'_>| {
            matched(prompt, one) >= AFFINITY && work(one) - lightest <= SATURATED_TOKENS
        };
        let any_warm = able().any(warm);
        least(candidates, random, |_, candidate| {
            match any_warm && !warm(candidate) {
                true => f64::MAX,
                false => work(candidate),
            }
        })
    }
}
