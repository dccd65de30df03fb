//! The gateway's side of the push protocol as a state machine: responses in, batches out, and the answers to them once
//! they are in force. Pure: it knows no socket, no clock and no configuration.
//!
//! What is wrong with single resources is refused by name and the rest goes on. Only what cannot be held, or is no
//! conversation at all, ends the stream. The protocol's words are in `sluice_config::push`.

mod collect;
mod requests;

use std::collections::BTreeSet;
use std::sync::Arc;

use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse,
};
use sluice_config::push::{Batch, BatchMessage, Refusal, ResourceType};

use self::collect::Collecting;
pub use self::collect::TooMuch;
pub use self::requests::NodeParams;

/// What is in force when a stream begins.
#[derive(Debug, Default)]
pub struct Known {
    /// Name and version of each resource, by type in the order of [`ResourceType::ALL`].
    pub versions: [Vec<(String, String)>; ResourceType::ALL.len()],
    /// Secrets that are needed.
    pub wanted_secrets: Arc<BTreeSet<String>>,
}

/// One stream's state.
#[derive(Debug)]
pub struct Client {
    collecting: Collecting,
    /// Secrets that were asked for on this stream.
    secrets: BTreeSet<String>,
}

/// A batch that has come whole.
#[derive(Debug)]
pub struct Collected {
    /// To be put into force.
    pub batch: Batch,
    /// What it says of itself.
    pub end: BatchMessage,
    /// To be given back to [`Client::settle`].
    pub receipts: Receipts,
}

/// The responses that a batch came in, to be answered.
#[derive(Debug)]
pub struct Receipts(Collecting);

impl Client {
    /// A new stream, and its first requests: all types, with what is known of each.
    pub fn start(node: &NodeParams, known: &Known) -> (Self, Vec<DeltaDiscoveryRequest>) {
        let requests = requests::first(node, known);
        let client = Self {
            collecting: Collecting::default(),
            secrets: (*known.wanted_secrets).clone(),
        };
        (client, requests)
    }

    /// Takes a response; gives the batch that it ends.
    ///
    /// # Errors
    /// When there is more than can be held: the stream is to be ended.
    pub fn take(&mut self, response: DeltaDiscoveryResponse) -> Result<Option<Collected>, TooMuch> {
        self.collecting.take(response)?;
        let Some(end) = self.collecting.end.take() else {
            return Ok(None);
        };
        let mut collecting = std::mem::take(&mut self.collecting);
        Ok(Some(Collected {
            batch: std::mem::take(&mut collecting.batch),
            end,
            receipts: Receipts(collecting),
        }))
    }

    /// A batch has begun and not ended.
    pub fn is_collecting(&self) -> bool {
        !self.collecting.is_empty()
    }

    /// The batch is in force: answers to all its responses, and a change of the Secrets asked for if others are needed.
    pub fn settle(
        &mut self,
        receipts: Receipts,
        batch: &Batch,
        refusals: &[Refusal],
        wanted: &BTreeSet<String>,
    ) -> Vec<DeltaDiscoveryRequest> {
        let mut requests = receipts.0.answers(batch, refusals);
        requests.extend(requests::secrets(&self.secrets, wanted));
        self.secrets.clone_from(wanted);
        requests
    }
}

#[cfg(test)]
mod tests;
