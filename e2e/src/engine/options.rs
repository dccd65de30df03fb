//! What a simulated engine is started with.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::fault::FaultRule;
use super::kv::KvOptions;
use super::profile::Profile;

/// Settings of an [`EngineServer`](super::EngineServer).
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Base models served, all by the same weights; the first one is the parent of the LoRA adapters.
    pub models: Vec<String>,
    /// LoRA adapters loaded at the start.
    pub loras: Vec<String>,
    /// How many adapters `vllm:lora_requests_info` claims may run at once.
    pub max_loras: usize,
    /// Tokenises as this model does: a folder or a `tokenizer.json`. By default four bytes are a token.
    pub tokenizer: Option<PathBuf>,
    /// Costs and capacities.
    pub profile: Profile,
    /// Engine seconds in one second of the wall clock.
    pub speed: f64,
    /// Decides the generated text.
    pub seed: u64,
    /// Longest prompt plus output, in tokens.
    pub max_model_len: usize,
    /// Faults of requests that name none themselves; the first that its probability lets through applies.
    pub faults: Vec<FaultRule>,
    /// Tokens in one streamed event.
    pub tokens_per_event: u32,
    /// A fixed time between the events of a stream, in place of the profile's step times.
    pub event_interval: Option<Duration>,
    /// Worker threads; with one, everything runs on a single thread.
    pub threads: usize,
    /// Publishes KV events; costs nothing when it does not.
    pub kv_events: Option<KvOptions>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            models: vec!["tiny".to_owned()],
            loras: Vec::new(),
            max_loras: 4,
            tokenizer: None,
            profile: Profile::H8B,
            speed: 1.0,
            seed: 0,
            max_model_len: 131_072,
            faults: Vec::new(),
            tokens_per_event: 1,
            event_interval: None,
            threads: 1,
            kv_events: None,
        }
    }
}

impl EngineOptions {
    /// An engine that answers at once, under one model name.
    pub fn instant(model: &str) -> Self {
        Self {
            models: vec![model.to_owned()],
            profile: Profile::INSTANT,
            ..Self::default()
        }
    }
}
