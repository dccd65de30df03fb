//! The engine simulator as a process: flags in, `listening on http://...` out, until a signal ends it.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser};
use sluice_e2e::engine::{EngineOptions, EngineServer, FaultRule, KvOptions, Profile};

/// An inference engine without a model: vLLM's API, an accelerator's timing, and faults on request.
///
/// Faults (`--fault`, header `x-fault`, `POST /sim/fault`): refuse, hang-before-headers, hang-after-headers,
/// hang-mid-stream:N, reset-mid-stream:N, close-mid-stream:N, status:CODE, garbage, slow-drip:MS, truncated-length,
/// close-delimited, no-usage, single-write, split:N, early-close, keepalive-close, continue-100[:CODE].
#[derive(Debug, Parser)]
struct Flags {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Name of a served model; repeatable.
    #[arg(long = "model", default_value = "tiny")]
    models: Vec<String>,
    /// Name of a LoRA adapter loaded at the start; repeatable.
    #[arg(long = "lora")]
    loras: Vec<String>,
    /// Tokenise as this model does: a folder as Hugging Face lays it out, or a tokenizer.json alone. By default four
    /// bytes are a token.
    #[arg(long, value_name = "PATH")]
    tokenizer: Option<PathBuf>,
    /// Costs and capacities: k7b, h8b, q32, a100-8b or instant.
    #[arg(long, default_value = "h8b", value_parser = profile)]
    profile: Profile,
    /// KV cache in tokens, in place of the profile's.
    #[arg(long)]
    kv_tokens: Option<usize>,
    /// Tokens in a KV block, in place of the profile's.
    #[arg(long)]
    block_tokens: Option<usize>,
    /// Sequences that may run at once, in place of the profile's.
    #[arg(long)]
    max_sequences: Option<usize>,
    /// Engine seconds in one second of the wall clock.
    #[arg(long, default_value_t = 1.0)]
    speed: f64,
    /// Decides the generated text.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Longest prompt plus output, in tokens.
    #[arg(long, default_value_t = 131_072)]
    max_model_len: usize,
    /// Fault of the POST requests that name none: KIND[:ARG][@PROBABILITY]; repeatable, the first to strike counts.
    #[arg(long = "fault")]
    faults: Vec<FaultRule>,
    /// Tokens in one streamed event.
    #[arg(long, default_value_t = 1)]
    tokens_per_event: u32,
    /// A fixed time between a stream's events, in milliseconds, in place of the profile's pace.
    #[arg(long)]
    event_interval_ms: Option<f64>,
    #[command(flatten)]
    kv: KvFlags,
    /// Worker threads.
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

/// KV events over ZeroMQ, as vLLM 0.32 publishes them. `GET /kv_event_sources` says where, with the real ports.
/// `POST /sim/kv {"drop": SHARE, "silent": BOOL, "restart": true}` makes the publisher misbehave.
#[derive(Debug, Args)]
#[command(next_help_heading = "KV events")]
struct KvFlags {
    /// Publish: tcp://HOST:PORT to bind (port 0 takes a free one, host * is every interface) or
    /// connect:tcp://HOST:PORT to connect to a router.
    #[arg(long, value_name = "ENDPOINT")]
    kv_events: Option<String>,
    /// Replay the last 10,000 batches on request, at tcp://HOST:PORT; port 0 takes a free one.
    #[arg(long, value_name = "ENDPOINT", requires = "kv_events")]
    kv_replay: Option<String>,
    /// First frame of every message.
    #[arg(long, default_value = "", requires = "kv_events")]
    kv_topic: String,
    /// Events as positional arrays, as engines of 2025 wrote them.
    #[arg(long, requires = "kv_events")]
    kv_positional: bool,
    /// Hashes as 32 bytes, not as integers.
    #[arg(long, requires = "kv_events")]
    kv_hash_bytes: bool,
    /// Engines with different seeds name the same tokens by different hashes.
    #[arg(long, default_value_t = 0, requires = "kv_events")]
    kv_hash_seed: u64,
    /// Data-parallel rank in every batch.
    #[arg(long, default_value_t = 0, requires = "kv_events")]
    kv_rank: u32,
    /// Share of the batches that are lost on their way, 0 to 1; they can be replayed.
    #[arg(long, default_value_t = 0.0, requires = "kv_events")]
    kv_drop: f64,
}

impl KvFlags {
    fn options(self) -> anyhow::Result<Option<KvOptions>> {
        let Some(endpoint) = self.kv_events else {
            return Ok(None);
        };
        anyhow::ensure!(
            (0.0..=1.0).contains(&self.kv_drop),
            "--kv-drop must be from 0 to 1"
        );
        Ok(Some(KvOptions {
            endpoint,
            replay: self.kv_replay,
            topic: self.kv_topic,
            positional: self.kv_positional,
            hash_bytes: self.kv_hash_bytes,
            hash_seed: self.kv_hash_seed,
            rank: self.kv_rank,
            drop: self.kv_drop,
        }))
    }
}

fn profile(name: &str) -> Result<Profile, String> {
    Profile::named(name).ok_or_else(|| {
        let names: Vec<_> = Profile::ALL.iter().map(|profile| profile.name).collect();
        format!("no such profile, use one of {}", names.join(", "))
    })
}

impl Flags {
    fn options(self) -> anyhow::Result<EngineOptions> {
        let mut profile = self.profile;
        profile.kv_tokens = self.kv_tokens.unwrap_or(profile.kv_tokens);
        profile.block_tokens = self.block_tokens.unwrap_or(profile.block_tokens);
        profile.max_sequences = self.max_sequences.unwrap_or(profile.max_sequences);
        anyhow::ensure!(
            profile.block_tokens > 0,
            "--block-tokens must be at least 1"
        );
        anyhow::ensure!(self.speed > 0.0, "--speed must be above 0");
        let event_interval = self
            .event_interval_ms
            .map(|millis| Duration::try_from_secs_f64(millis / 1e3));
        Ok(EngineOptions {
            listen: self.listen,
            models: self.models,
            loras: self.loras,
            tokenizer: self.tokenizer,
            profile,
            speed: self.speed,
            seed: self.seed,
            max_model_len: self.max_model_len,
            faults: self.faults,
            tokens_per_event: self.tokens_per_event,
            event_interval: event_interval
                .transpose()
                .context("--event-interval-ms must not be negative")?,
            threads: self.threads,
            kv_events: self.kv.options()?,
            ..EngineOptions::default()
        })
    }
}

fn main() -> anyhow::Result<()> {
    let engine = EngineServer::start(Flags::parse().options()?)?;
    // The one line a harness reads; a closed pipe must not end the engine.
    let _ = writeln!(std::io::stdout(), "listening on {}", engine.url());
    loop {
        std::thread::park();
    }
}
