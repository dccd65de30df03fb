//! One attempt's claim on an endpoint, from its dispatch to its end: load, cache entry and measurements, all settled
//! by dropping it.
//!
//! Streams tell when their first token came and how they went on. An answer in one piece tells neither: its prompt
//! counts as pending for as long as its prefill should take, and its time is learned from as a whole.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cache::members::{Claim, Found};
use crate::endpoints::load::{Reservation, Work};
use crate::endpoints::observe::Observation;
use crate::endpoints::{Endpoint, Member};
use crate::serving::Pool;
use crate::telemetry::metrics::GaugeGuard;

/// See the module.
pub struct Flight {
    endpoint: Arc<Endpoint>,
    reservation: Reservation,
    claim: Claim,
    observation: Observation,
    _gauge: GaugeGuard,
    /// Kthena's count of the same, where it is exported.
    _also: Option<GaugeGuard>,
    /// Output tokens counted into the load.
    tokens: u32,
    started: bool,
}

impl Flight {
    /// The request leaves for the member now.
    pub fn dispatch(pool: &Pool, member: &Member, found: &Arc<Found>, work: Work) -> Self {
        let endpoint = Arc::clone(&member.endpoint);
        let before = endpoint.load.load();
        Self {
            observation: endpoint.stats.dispatched(before, work, Instant::now()),
            reservation: endpoint.load.reserve(work),
            claim: member.cache.dispatched(found),
            _gauge: pool.metrics.in_flight(),
            _also: None,
            endpoint,
            tokens: 0,
            started: false,
        }
    }

    /// The same, and counted by `gauge` too until it ends.
    pub fn counted(self, gauge: Option<GaugeGuard>) -> Self {
        Self {
            _also: gauge,
            ..self
        }
    }

    /// Who serves it.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// When its prompt should have been prefilled, by what is known of the endpoint.
    pub fn expected_prefill(&self) -> Duration {
        let expected_ms = self.observation.expected_ms(&self.endpoint.constants());
        Duration::try_from_secs_f64(expected_ms / 1e3).unwrap_or(Duration::MAX)
    }

    /// Its prompt is taken to have been prefilled, though no token was seen.
    pub fn prefilled(&mut self) {
        self.reservation.first_token();
    }

    /// `tokens` of the stream have come so far, the last at `now`.
    pub fn streamed(&mut self, tokens: u64, now: Instant) {
        if !std::mem::replace(&mut self.started, true) {
            self.reservation.first_token();
            self.claim.confirm();
            let load = self.endpoint.load.load();
            self.endpoint
                .stats
                .first_token(&mut self.observation, load, now);
        }
        let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
        let more = tokens.saturating_sub(self.tokens);
        if more > 0 {
            self.reservation.generated(more);
            self.tokens = tokens;
        }
    }

    /// The answer ended at `now`, with `tokens` of output as the engine counted them, or as seen.
    pub fn finished(&mut self, tokens: Option<u64>, now: Instant) {
        self.claim.confirm();
        let tokens = tokens.map_or(self.tokens, |n| u32::try_from(n).unwrap_or(u32::MAX));
        let load = self.endpoint.load.load();
        self.endpoint
            .stats
            .finished(self.observation, tokens, load, now);
    }
}
