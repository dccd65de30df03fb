//! Asks a publisher for batches again: a DEALER sends an empty frame and the first number wanted, and gets messages
//! that end with number and payload, the last one without a payload and numbered with all ones.
//!
//! Source: vLLM 0.32 `vllm/distributed/kv_events.py`; old builds send no topic, hence the reading from the end.
//! The engine serves replays between its publications, so each one delays what is live: after a failure the next one
//! waits.

use tokio::time::{Instant, timeout};
use xxhash_rust::xxh3::xxh3_64;

use super::follower::{END, Follower, MAX_MESSAGE_BYTES, backoff, numbered};
use super::sequence::Replayed;
use super::status::count;
use crate::cache::zmtp::{Address, Connection, Received, Role, ZmtpError};

/// How a request for batches ended.
enum Round {
    /// All that the publisher has came.
    Ended,
    /// The publisher is another process than before: what it replayed was not applied.
    Foreign,
    /// Answers were lost on their way: an engine's ROUTER holds 1,000 and drops what a slow reader leaves no room for.
    Cut,
}

impl Follower {
    /// Applies what the publisher's replay has of the batches not applied yet. What is still missing then, stays so.
    pub(super) async fn catch_up(&mut self) {
        let Some(address) = self.replay.clone() else {
            return;
        };
        if self
            .replay_not_before
            .is_some_and(|moment| Instant::now() < moment)
        {
            return;
        }
        count(&self.status.counters.replays, 1);
        let done = timeout(self.params.replay_deadline, self.replay_from(&address)).await;
        if let Ok(Ok(())) = done {
            self.failed_replays = 0;
            self.replay_not_before = None;
            return;
        }
        count(&self.status.counters.failed_replays, 1);
        self.replay_not_before = Some(Instant::now() + backoff(&self.params, self.failed_replays));
        self.failed_replays = self.failed_replays.saturating_add(1);
    }

    async fn replay_from(&mut self, address: &Address) -> Result<(), ZmtpError> {
        let mut is_new = false;
        let mut accepts_holes = false;
        loop {
            let before = self.sequence.next();
            match self.round(address, accepts_holes).await? {
                Round::Ended => return Ok(()),
                Round::Foreign if is_new => {
                    return Err(ZmtpError::Protocol("changed during a replay"));
                }
                Round::Foreign => {
                    is_new = true;
                    self.clear("the publisher is another one");
                }
                Round::Cut => accepts_holes = self.sequence.next() == before,
            }
        }
    }

    /// One request and its answers.
    async fn round(&mut self, address: &Address, accepts_holes: bool) -> Result<Round, ZmtpError> {
        let mut connection = Connection::connect(address, Role::Dealer, MAX_MESSAGE_BYTES).await?;
        let from = self.sequence.replay_from();
        connection.send(&[&[], &from.to_be_bytes()]).await?;
        let mut answered = false;
        loop {
            let parts = match timeout(self.params.replay_silence, connection.receive()).await {
                Ok(received) => match received? {
                    Received::Message(parts) => parts,
                    // A batch that nobody could read; the next one's number shows the hole.
                    Received::Oversize => {
                        count(&self.status.counters.dropped, 1);
                        continue;
                    }
                },
                Err(_) if answered && !accepts_holes => return Ok(Round::Cut),
                Err(_) => return Err(ZmtpError::Late("end of a replay")),
            };
            let [.., number, payload] = parts.as_slice() else {
                return Err(ZmtpError::Protocol("answers a replay with single frames"));
            };
            match numbered(number) {
                Some(END) => {
                    return Ok(match self.sequence.replay_ended() {
                        true => Round::Foreign,
                        false => Round::Ended,
                    });
                }
                Some(number) if answered && !accepts_holes && self.sequence.is_ahead(number) => {
                    return Ok(Round::Cut);
                }
                Some(number) if self.is_foreign(number, payload) => return Ok(Round::Foreign),
                Some(_) => answered = true,
                None => return Err(ZmtpError::Protocol("answers a replay without numbers")),
            }
            tokio::task::yield_now().await;
        }
    }

    /// Applies a replayed batch, unless it is of another process than what was applied before.
    fn is_foreign(&mut self, number: u64, payload: &[u8]) -> bool {
        match self.sequence.replayed(number, xxh3_64(payload)) {
            Replayed::Next => self.apply(number, payload),
            Replayed::Known => {}
            Replayed::Hole => {
                self.clear("the publisher has forgotten batches");
                self.apply(number, payload);
            }
            Replayed::Foreign => return true,
        }
        false
    }
}
