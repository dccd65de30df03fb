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
        let mut foreign = self.replay_once(address).await?;
        if foreign {
            self.clear("the publisher is another one");
            foreign = self.replay_once(address).await?;
        }
        match foreign {
            true => Err(ZmtpError::Protocol("changed during a replay")),
            false => Ok(()),
        }
    }

    /// True when the publisher turns out to be another process than before: what it replayed was not applied.
    async fn replay_once(&mut self, address: &Address) -> Result<bool, ZmtpError> {
        let mut connection = Connection::connect(address, Role::Dealer, MAX_MESSAGE_BYTES).await?;
        let from = self.sequence.replay_from();
        connection.send(&[&[], &from.to_be_bytes()]).await?;
        loop {
            let parts = match connection.receive().await? {
                Received::Message(parts) => parts,
                // A batch that nobody could read; the next one's number shows the hole.
                Received::Oversize => {
                    count(&self.status.counters.dropped, 1);
                    continue;
                }
            };
            let [.., number, payload] = parts.as_slice() else {
                return Err(ZmtpError::Protocol("answers a replay with single frames"));
            };
            match numbered(number) {
                Some(END) => return Ok(self.sequence.replay_ended()),
                Some(number) => {
                    if self.replayed(number, payload) {
                        return Ok(true);
                    }
                }
                None => return Err(ZmtpError::Protocol("answers a replay without numbers")),
            }
            tokio::task::yield_now().await;
        }
    }

    fn replayed(&mut self, number: u64, payload: &[u8]) -> bool {
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
