//! One publisher's follower: connect, catch up, read, and again when the connection ends.
//!
//! Decides nothing about numbers (`sequence`) and asks for replays elsewhere (`replay`).

use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use tokio::time::{Instant, sleep, timeout};
use xxhash_rust::xxh3::xxh3_64;

use super::sequence::{Live, Resume, Sequence};
use super::status::{Status, SubscriptionState, count};
use super::{EventSink, FollowParams};
use crate::cache::event::KvEvent;
use crate::cache::sources::EventSource;
use crate::cache::wire::{self, MAX_PAYLOAD_BYTES};
use crate::cache::zmtp::{Address, Connection, Listener, Received, Role, ZmtpError};

/// Longest message: a payload, its number and a topic of any reasonable length.
pub(super) const MAX_MESSAGE_BYTES: usize = MAX_PAYLOAD_BYTES + (64 << 10);
/// Marks the end of a replay, in place of a batch's number.
pub(super) const END: u64 = u64::MAX;

pub(super) struct Follower {
    address: Address,
    bind: bool,
    pub(super) replay: Option<Address>,
    sink: Arc<dyn EventSink>,
    pub(super) status: Arc<Status>,
    pub(super) params: FollowParams,
    pub(super) sequence: Sequence,
    /// The source's rank, else that of the last batch: a publisher speaks of one.
    rank: Option<u32>,
    /// Something was applied since all was forgotten.
    dirty: bool,
    live: bool,
    /// Replays that failed in a row, and when the next one may be tried.
    pub(super) failed_replays: u32,
    pub(super) replay_not_before: Option<Instant>,
}

impl Follower {
    pub(super) fn new(
        source: &EventSource,
        address: Address,
        replay: Option<Address>,
        sink: Arc<dyn EventSink>,
        status: Arc<Status>,
        params: FollowParams,
    ) -> Self {
        Self {
            address,
            bind: source.bind,
            replay,
            sink,
            status,
            params,
            sequence: Sequence::default(),
            rank: source.rank,
            dirty: false,
            live: false,
            failed_replays: 0,
            replay_not_before: None,
        }
    }

    /// Follows for ever.
    pub(super) async fn run(mut self) {
        let mut failures = 0;
        let mut unreached_since = Instant::now();
        let mut listener = None;
        loop {
            let lost_at = unreached_since + self.params.lost_after;
            let error = match self.reach(&mut listener, lost_at).await {
                Ok(connection) => {
                    let connected = Instant::now();
                    let error = self.follow(connection).await;
                    unreached_since = Instant::now();
                    // One that was good for a while is tried again at once.
                    if connected.elapsed() > self.params.max_backoff {
                        failures = 0;
                    }
                    self.status
                        .enter(SubscriptionState::Connecting, &error.to_string());
                    error
                }
                Err(error) => error,
            };
            if unreached_since.elapsed() >= self.params.lost_after {
                self.lose(&error);
            }
            sleep(backoff(&self.params, failures)).await;
            failures = failures.saturating_add(1);
        }
    }

    /// A connection, or why there is none. Waits no longer than until the publisher counts as lost.
    async fn reach(
        &self,
        listener: &mut Option<Listener>,
        lost_at: Instant,
    ) -> Result<Connection, ZmtpError> {
        if !self.bind {
            return Connection::connect(&self.address, Role::Subscriber, MAX_MESSAGE_BYTES).await;
        }
        // Kept while the publisher is away, so that it finds the port open. One publisher at a time: a second one
        // waits unaccepted until the first is gone.
        let listener = match listener {
            Some(listener) => listener,
            None => listener.insert(Listener::bind(&self.address).await?),
        };
        let patience = lost_at
            .saturating_duration_since(Instant::now())
            .max(self.params.max_backoff);
        timeout(
            patience,
            Connection::accept(listener, Role::Subscriber, MAX_MESSAGE_BYTES),
        )
        .await
        .map_err(|_| ZmtpError::Late("publisher that connects"))?
    }

    /// Reads until the connection fails.
    async fn follow(&mut self, mut connection: Connection) -> ZmtpError {
        count(&self.status.counters.connections, 1);
        if self.replay.is_some() {
            self.catch_up().await;
        }
        self.set_live(true);
        self.show_state("connected");
        loop {
            match connection.receive().await {
                Ok(Received::Message(parts)) => self.message(&parts).await,
                Ok(Received::Oversize) => count(&self.status.counters.dropped, 1),
                Err(error) => return error,
            }
            // A publisher that floods must not keep the others from the thread.
            tokio::task::yield_now().await;
        }
    }

    async fn message(&mut self, parts: &[Vec<u8>]) {
        match parts {
            [_topic, number, payload] => match numbered(number) {
                Some(number) if number != END => self.batch(number, payload).await,
                _ => count(&self.status.counters.dropped, 1),
            },
            _ => count(&self.status.counters.dropped, 1),
        }
    }

    async fn batch(&mut self, number: u64, payload: &[u8]) {
        let mut meaning = self.sequence.live(number);
        if meaning == Live::Restart {
            self.clear("the publisher began anew");
            meaning = self.sequence.live(number);
        }
        match meaning {
            Live::Next => self.apply(number, payload),
            Live::Known | Live::Restart => {}
            Live::Gap => {
                // One that joins late missed nothing that it could have had.
                count(&self.status.counters.gaps, self.sequence.has_begun().into());
                self.catch_up().await;
                match self.sequence.resume(number) {
                    Resume::Next => self.apply(number, payload),
                    Resume::Known => {}
                    Resume::Hole => {
                        self.clear("batches are missing");
                        self.apply(number, payload);
                    }
                }
            }
        }
    }

    /// Applies a batch that is next. One that cannot be read is a hole of its own.
    pub(super) fn apply(&mut self, number: u64, payload: &[u8]) {
        self.sequence.advance(number, xxh3_64(payload));
        match wire::decode(payload) {
            Ok(decoded) => {
                count(&self.status.counters.batches, 1);
                let ignored = decoded.ignored.events + decoded.ignored.inconsistent;
                count(&self.status.counters.ignored, ignored.into());
                let batch = decoded.batch;
                self.rank = self.rank.or(batch.rank);
                count(&self.status.counters.events, batch.events.len() as u64);
                for event in &batch.events {
                    self.sink.apply(self.rank, event);
                    if *event == KvEvent::Cleared {
                        self.sequence.set_complete();
                    }
                }
                self.dirty |= !batch.events.is_empty();
                self.show_state("batches are complete");
            }
            Err(error) => {
                count(&self.status.counters.decode_errors, 1);
                self.sequence.set_incomplete();
                self.clear(&error.to_string());
            }
        }
    }

    /// Forgets all that the publisher said.
    pub(super) fn clear(&mut self, reason: &str) {
        if std::mem::take(&mut self.dirty) {
            count(&self.status.counters.clears, 1);
            self.sink.clear(self.rank);
        }
        self.show_state(reason);
    }

    fn lose(&mut self, error: &ZmtpError) {
        self.set_live(false);
        self.status
            .enter(SubscriptionState::Lost, &error.to_string());
    }

    fn set_live(&mut self, live: bool) {
        if std::mem::replace(&mut self.live, live) != live {
            self.sink.live(live);
        }
    }

    /// While connected: live, or cold.
    fn show_state(&self, reason: &str) {
        if self.live {
            let state = match self.sequence.is_complete() {
                true => SubscriptionState::Live,
                false => SubscriptionState::Cold,
            };
            self.status.enter(state, reason);
        }
    }
}

/// A batch's number: eight bytes, big-endian.
pub(super) fn numbered(frame: &[u8]) -> Option<u64> {
    frame.try_into().map(u64::from_be_bytes).ok()
}

/// Doubled with each failure, and anything between half and all of that: engines that come back together are not
/// asked together.
pub(super) fn backoff(params: &FollowParams, failures: u32) -> Duration {
    let whole = params
        .min_backoff
        .saturating_mul(1 << failures.min(20))
        .min(params.max_backoff);
    whole.mul_f64(rand::rng().random_range(0.5..=1.0))
}
