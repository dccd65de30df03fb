//! Candidates for tests, and a fleet that requests are dispatched to one after another.

use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::{CandidateView, Policy, RequestView};
use crate::endpoints::load::Load;

const ADDRESSES: [&str; 16] = [
    "10.0.0.1:8000",
    "10.0.0.2:8000",
    "10.0.0.3:8000",
    "10.0.0.4:8000",
    "10.0.0.5:8000",
    "10.0.0.6:8000",
    "10.0.0.7:8000",
    "10.0.0.8:8000",
    "10.0.0.9:8000",
    "10.0.0.10:8000",
    "10.0.0.11:8000",
    "10.0.0.12:8000",
    "10.0.0.13:8000",
    "10.0.0.14:8000",
    "10.0.0.15:8000",
    "10.0.0.16:8000",
];

/// Candidates with addresses of their own and this many requests in flight each.
pub(super) fn with_in_flight(in_flight: &[u32]) -> Vec<CandidateView<'static>> {
    (in_flight.iter().zip(ADDRESSES))
        .map(|(&in_flight, address)| CandidateView {
            address,
            load: Load {
                in_flight,
                ..Load::default()
            },
            ..CandidateView::default()
        })
        .collect()
}

/// A request on its way, with the times of its first token and its end.
struct Flight {
    endpoint: usize,
    uncached: u64,
    context: u64,
    first_token_ms: f64,
    end_ms: f64,
    started: bool,
}

/// Endpoints that prefill one request after another and decode at the speed of a step.
pub(super) struct Fleet {
    pub(super) candidates: Vec<CandidateView<'static>>,
    /// What the requests have in common, and an endpoint holds once one was sent there.
    pub(super) prefix_tokens: u32,
    /// When each has prefilled what it has.
    free_ms: Vec<f64>,
    flights: Vec<Flight>,
}

impl Fleet {
    /// So many of the default speed, for requests that have `prefix_tokens` in common.
    pub(super) fn equal(count: usize, prefix_tokens: u32) -> Self {
        Self {
            candidates: with_in_flight(&vec![0; count]),
            prefix_tokens,
            free_ms: vec![0.0; count],
            flights: Vec::new(),
        }
    }

    /// Makes everything there take `factor` times as long.
    pub(super) fn slow_down(&mut self, endpoint: usize, factor: f64) {
        let speed = &mut self.candidates[endpoint].constants;
        for constant in [
            &mut speed.step_ms,
            &mut speed.token_ms,
            &mut speed.context_ms,
            &mut speed.attention_ms,
        ] {
            *constant *= factor;
        }
    }

    /// Sends `count` requests, one every `gap_ms`, where `policy` says. How many went where.
    pub(super) fn dispatch(
        &mut self,
        policy: &dyn Policy,
        request: &RequestView<'_>,
        count: u32,
        gap_ms: f64,
    ) -> Vec<u32> {
        let mut random = SmallRng::seed_from_u64(5);
        let mut dispatched = vec![0; self.candidates.len()];
        for number in 0..count {
            let now = f64::from(number) * gap_ms;
            self.settle(now);
            let best = policy.rank(request, &self.candidates, &mut random)[0].index;
            dispatched[best] += 1;
            self.send(best, request, now);
        }
        dispatched
    }

    fn send(&mut self, endpoint: usize, request: &RequestView<'_>, now: f64) {
        let candidate = &mut self.candidates[endpoint];
        let uncached = u64::from(request.prompt_tokens - candidate.cached_tokens);
        let context = u64::from(request.prompt_tokens);
        candidate.load.in_flight += 1;
        candidate.load.pending_tokens += uncached;
        candidate.load.context_tokens += context;
        candidate.cached_tokens = self.prefix_tokens;
        let speed = candidate.constants;
        let prefill = uncached as f64 * speed.token_ms + speed.step_ms;
        let first_token_ms = self.free_ms[endpoint].max(now) + prefill;
        self.free_ms[endpoint] = first_token_ms;
        let step = speed.step_ms + speed.context_ms * candidate.load.context_tokens as f64;
        self.flights.push(Flight {
            endpoint,
            uncached,
            context,
            first_token_ms,
            end_ms: first_token_ms + request.output_tokens * step,
            started: false,
        });
    }

    fn settle(&mut self, now: f64) {
        let candidates = &mut self.candidates;
        self.flights.retain_mut(|flight| {
            let load = &mut candidates[flight.endpoint].load;
            if !flight.started && flight.first_token_ms <= now {
                flight.started = true;
                load.pending_tokens -= flight.uncached;
            }
            if flight.end_ms > now {
                return true;
            }
            load.in_flight -= 1;
            load.context_tokens -= flight.context;
            false
        });
    }
}

/// Which candidate a policy puts first for a prompt of 1,000 tokens, by tokens cached and requests in flight.
pub(super) fn best(policy: &dyn Policy, cached: &[u32], in_flight: &[u32]) -> usize {
    let mut candidates = with_in_flight(in_flight);
    for (candidate, &cached) in candidates.iter_mut().zip(cached) {
        candidate.cached_tokens = cached;
    }
    let request = RequestView {
        prompt_tokens: 1000,
        ..RequestView::default()
    };
    let mut random = SmallRng::seed_from_u64(1);
    policy.rank(&request, &candidates, &mut random)[0].index
}
