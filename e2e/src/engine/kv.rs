//! Publishes the model's cache events as vLLM 0.32 does: three ZeroMQ frames (topic, number, msgpack), and a ROUTER
//! that replays the last 10,000 batches.
//!
//! By the `zeromq` crate, while the proxy speaks ZMTP by itself: the two check each other. Which events there are is
//! the model's business.

mod encode;
mod publisher;
mod replay;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};
use tokio::sync::mpsc;

pub(crate) use publisher::Publisher;

use super::blocks::KvEvent;
use super::hash;

/// How many (adapter, salt) pairs are remembered by name.
const MAX_NAMESPACES: usize = 65_536;

/// How a simulated engine publishes its KV events.
#[derive(Clone, Debug, PartialEq)]
pub struct KvOptions {
    /// `tcp://HOST:PORT` is bound, port 0 to a free one; `connect:tcp://HOST:PORT` connects to a router that bound it.
    /// (vLLM binds what holds `*` or `::` and connects otherwise; its `GET /kv_event_sources` is answered alike.)
    pub endpoint: String,
    /// Where batches can be asked for again; always bound.
    pub replay: Option<String>,
    /// First frame of every message.
    pub topic: String,
    /// Events as positional arrays, as engines of 2025 wrote them.
    pub positional: bool,
    /// Hashes as 32 bytes, not as integers.
    pub hash_bytes: bool,
    /// Engines with different seeds name the same tokens by different hashes.
    pub hash_seed: u64,
    /// Data-parallel rank in every batch.
    pub rank: u32,
    /// Share of the batches that are not sent, though numbered and replayed.
    pub drop: f64,
}

impl Default for KvOptions {
    fn default() -> Self {
        Self {
            endpoint: "tcp://127.0.0.1:0".to_owned(),
            replay: None,
            topic: String::new(),
            positional: false,
            hash_bytes: false,
            hash_seed: 0,
            rank: 0,
            drop: 0.0,
        }
    }
}

/// A change of the publisher's behaviour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum KvFault {
    /// This share of the batches is not sent from now on.
    Drop(f64),
    /// Batches are numbered and kept, but none is sent; or no longer so.
    Silence(bool),
    /// Numbers begin again at 0 and nothing can be replayed, as after a restart of the engine's process.
    Restart,
}

/// What the publisher is told.
pub(crate) enum KvCommand {
    /// Changes of the prefix cache, of one step.
    Publish(Vec<KvEvent>),
    /// Misbehave.
    Fault(KvFault),
}

/// The names behind a block's salt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Namespace {
    pub(crate) lora: Option<String>,
    pub(crate) cache_salt: Option<String>,
}

impl Namespace {
    /// The salt that keeps blocks of this adapter and salt apart from all others.
    pub(crate) fn salt(&self) -> u64 {
        let salt = match &self.lora {
            Some(lora) => hash::bytes(1, lora.as_bytes()),
            None => 0,
        };
        match &self.cache_salt {
            Some(cache_salt) => hash::bytes(salt, cache_salt.as_bytes()),
            None => salt,
        }
    }
}

/// Names of salts, for events: the model knows them as numbers only.
#[derive(Debug, Default)]
pub(crate) struct Namespaces {
    /// Held without awaiting.
    names: Mutex<HashMap<u64, Namespace>>,
}

impl Namespaces {
    pub(crate) fn remember(&self, namespace: Namespace) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() < MAX_NAMESPACES {
            names.entry(namespace.salt()).or_insert(namespace);
        }
    }

    fn of(&self, salt: u64) -> Namespace {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.get(&salt).cloned().unwrap_or_default()
    }
}

/// A running publisher, as the rest of the engine sees it.
#[derive(Debug)]
pub(crate) struct KvHandle {
    options: KvOptions,
    /// As bound, with real ports.
    endpoint: String,
    replay: Option<String>,
    pub(crate) namespaces: std::sync::Arc<Namespaces>,
    commands: mpsc::UnboundedSender<KvCommand>,
}

impl KvHandle {
    /// For the driver, which sends a step's events.
    pub(crate) fn sender(&self) -> mpsc::UnboundedSender<KvCommand> {
        self.commands.clone()
    }

    pub(crate) fn fault(&self, fault: KvFault) {
        // An error means that the engine is stopping.
        let _ = self.commands.send(KvCommand::Fault(fault));
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(crate) fn replay(&self) -> Option<&str> {
        self.replay.as_deref()
    }

    /// The answer to `GET /kv_event_sources`.
    pub(crate) fn sources(&self) -> Value {
        json!({self.options.rank.to_string(): {
            "enable_kv_cache_events": true, "publisher": "zmq", "endpoint": self.endpoint,
            "replay_endpoint": self.replay, "buffer_steps": publisher::BUFFER_STEPS, "hwm": 100_000,
            "max_queue_size": 100_000, "topic": self.options.topic,
        }})
    }
}
