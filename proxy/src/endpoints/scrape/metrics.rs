//! Reads an engine's `/metrics` page as it arrives and keeps only what routing uses.
//!
//! Bounded: a page of any size costs one line of memory and a few numbers, and is read no further than
//! [`MAX_PAGE_BYTES`]. Pure: the bytes come in, [`EngineReport`] comes out. Nothing in a page can do more than make a
//! value missing.

use std::collections::HashSet;

use sluice_crds::networking::InferenceEngine;

use super::line;
use super::names::{Family, Over, Signal, families};

/// Bytes of a page that are read; what follows is cut off.
pub const MAX_PAGE_BYTES: usize = 8 << 20;
/// A longer line is passed over.
const MAX_LINE_BYTES: usize = 64 << 10;
/// Ranks of one engine that are told apart.
const MAX_RANKS: usize = 256;
/// Adapter names kept.
const MAX_ADAPTERS: usize = 1024;

/// What an engine said of itself. `None` is not known: neutral, never zero.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EngineReport {
    /// Requests running, all ranks.
    pub running: Option<f64>,
    /// Requests waiting, all ranks.
    pub waiting: Option<f64>,
    /// Share of the KV cache in use, 0 to 1, at the fullest rank.
    pub kv_usage: Option<f64>,
    /// Tokens that the KV cache holds, all ranks.
    pub kv_tokens: Option<f64>,
    /// Tokens of a KV cache block.
    pub block_size: Option<f64>,
    /// Prompt tokens found in the cache since the engine began.
    pub prefix_hits: Option<f64>,
    /// Prompt tokens looked up since the engine began.
    pub prefix_queries: Option<f64>,
    /// Share of prompt tokens found in the cache, where the engine tells only this.
    pub prefix_hit_rate: Option<f64>,
    /// Adapters.
    pub loras: LoraReport,
    /// Series of wanted families with a value that cannot be, such as NaN.
    pub rejected: u32,
    /// The page was too long, or a line of it: not everything was read.
    pub cut: bool,
}

/// An engine's word on its adapters.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LoraReport {
    /// Adapters of running requests.
    pub running: Vec<Box<str>>,
    /// Adapters of waiting requests.
    pub waiting: Vec<Box<str>>,
    /// Adapters loaded, where only their number is told.
    pub used: Option<f64>,
    /// Adapters that can be active at once.
    pub max: Option<f64>,
    /// The engine's time stamp of the newest statement on names, 0 when there is none.
    pub stamp: f64,
}

/// A page being read.
#[derive(Debug)]
pub struct PageReader {
    families: &'static [Family],
    values: Vec<Vec<Rank>>,
    config: CacheConfig,
    report: EngineReport,
    /// The beginning of a line whose end has not arrived.
    partial: Vec<u8>,
    /// Within a line that is too long.
    skipping: bool,
    read: usize,
}

#[derive(Debug)]
struct Rank {
    labels: u64,
    value: f64,
}

/// Sizes told in labels, summed over ranks where they add up.
#[derive(Debug, Default)]
struct CacheConfig {
    seen: HashSet<u64>,
    tokens: f64,
    block_size: Option<f64>,
}

impl PageReader {
    /// For a page of this engine.
    pub fn new(engine: InferenceEngine) -> Self {
        let families = families(engine);
        Self {
            families,
            values: families.iter().map(|_| Vec::new()).collect(),
            config: CacheConfig::default(),
            report: EngineReport::default(),
            partial: Vec::new(),
            skipping: false,
            read: 0,
        }
    }

    /// Takes the next piece; false when no more is wanted.
    pub fn push(&mut self, piece: &[u8]) -> bool {
        let room = MAX_PAGE_BYTES - self.read;
        if piece.len() > room {
            self.report.cut = true;
        }
        let mut rest = &piece[..piece.len().min(room)];
        self.read += rest.len();
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (line, after) = (&rest[..end], &rest[end + 1..]);
            rest = after;
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            if self.partial.is_empty() {
                self.line(line);
            } else {
                let mut whole = std::mem::take(&mut self.partial);
                whole.extend_from_slice(line);
                self.line(&whole);
                whole.clear();
                self.partial = whole;
            }
        }
        self.keep(rest);
        !self.report.cut
    }

    /// What the page said.
    pub fn finish(mut self) -> EngineReport {
        if !self.report.cut {
            let last = std::mem::take(&mut self.partial);
            self.line(&last);
        }
        self.report.running = self.value(Signal::Running);
        self.report.waiting = self.value(Signal::Waiting);
        self.report.kv_usage = self.value(Signal::KvUsage);
        self.report.prefix_hits = self.value(Signal::PrefixHits);
        self.report.prefix_queries = self.value(Signal::PrefixQueries);
        self.report.prefix_hit_rate = self.value(Signal::PrefixHitRate);
        self.report.loras.used = self.value(Signal::LoraUsed);
        self.report.loras.max = self.report.loras.max.or(self.value(Signal::LoraMax));
        self.report.block_size = positive(self.value(Signal::BlockSize)).or(self.config.block_size);
        let blocks = self.value(Signal::Blocks).zip(self.report.block_size);
        self.report.kv_tokens = positive(self.value(Signal::KvTokens))
            .or(positive(blocks.map(|(blocks, size)| blocks * size)))
            .or(positive(Some(self.config.tokens)));
        self.report
    }

    fn keep(&mut self, rest: &[u8]) {
        if self.skipping {
            return;
        }
        if self.partial.len() + rest.len() > MAX_LINE_BYTES {
            self.partial = Vec::new();
            self.skipping = true;
            self.report.cut = true;
            return;
        }
        self.partial.extend_from_slice(rest);
    }

    fn line(&mut self, line: &[u8]) {
        let Some((name, rest)) = line::name(line) else {
            return;
        };
        let families = self.families;
        let mut refused = false;
        for (index, family) in families.iter().enumerate() {
            if family.name.as_bytes() != name {
                continue;
            }
            let Some((labels, value)) = line::sample(rest) else {
                refused = true;
                continue;
            };
            if let Some((label, wanted)) = family.only
                && line::label(labels, label).is_none_or(|found| found != wanted)
            {
                continue;
            }
            match family.signal {
                Signal::LoraInfo => self.report.loras.read(labels, value),
                Signal::CacheConfig => self.config.read(labels),
                signal if signal.is_share() && value > 1.05 => refused = true,
                signal if signal.is_share() => self.add(index, labels, value.min(1.0)),
                _ => self.add(index, labels, value),
            }
        }
        self.report.rejected += u32::from(refused);
    }

    /// Repeats within one rank are one value, the largest.
    fn add(&mut self, family: usize, labels: &[u8], value: f64) {
        let ranks = &mut self.values[family];
        let labels = rank(labels);
        match ranks.iter().position(|rank| rank.labels == labels) {
            Some(known) => ranks[known].value = ranks[known].value.max(value),
            None if ranks.len() < MAX_RANKS => ranks.push(Rank { labels, value }),
            None => self.report.cut = true,
        }
    }

    fn value(&self, signal: Signal) -> Option<f64> {
        let told = self.families.iter().zip(&self.values);
        let (_, ranks) = told
            .clone()
            .find(|(family, ranks)| family.signal == signal && !ranks.is_empty())?;
        let values = ranks.iter().map(|rank| rank.value);
        Some(match signal.over() {
            Over::Sum => values.sum(),
            Over::Max => values.fold(0.0, f64::max),
        })
    }
}

/// What tells data-parallel ranks, and models served side by side, from mere repeats.
fn rank(labels: &[u8]) -> u64 {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    for name in ["engine", "dp_rank", "model_name", "model"] {
        hash.update(line::label(labels, name).unwrap_or_default().as_bytes());
        hash.update(&[0xff]);
    }
    hash.digest()
}

fn positive(value: Option<f64>) -> Option<f64> {
    value.filter(|value| *value > 0.0)
}

impl CacheConfig {
    /// vLLM: `block_size`, `num_gpu_blocks`, lately `kv_cache_size_tokens`. SGLang: `page_size`, `num_pages`.
    fn read(&mut self, labels: &[u8]) {
        if self.seen.len() >= MAX_RANKS || !self.seen.insert(rank(labels)) {
            return;
        }
        // Not known yet is written as `None`.
        let number = |name| {
            let text = line::label(labels, name)?;
            text.parse::<f64>()
                .ok()
                .filter(|number| (1.0..1e15).contains(number))
        };
        let size = number("block_size").or(number("page_size"));
        let blocks = number("num_gpu_blocks").or(number("num_pages"));
        let product = blocks.zip(size).map(|(blocks, size)| blocks * size);
        self.tokens += number("kv_cache_size_tokens").or(product).unwrap_or(0.0);
        self.block_size = self.block_size.or(size);
    }
}

impl LoraReport {
    /// The series of a family of which each value is the time of its statement: the newest holds.
    fn read(&mut self, labels: &[u8], stamp: f64) {
        if stamp < self.stamp {
            return;
        }
        let names = |label| match line::label(labels, label) {
            Some(text) => text
                .split(',')
                .map(str::trim)
                .filter(|name| !name.is_empty())
                .take(MAX_ADAPTERS)
                .map(Box::from)
                .collect(),
            None => Vec::new(),
        };
        self.stamp = stamp;
        self.running = names("running_lora_adapters");
        self.waiting = names("waiting_lora_adapters");
        let max = line::label(labels, "max_lora").and_then(|text| text.parse::<f64>().ok());
        self.max = max.filter(|max| max.is_finite() && *max >= 0.0);
    }
}

#[cfg(test)]
mod tests;
