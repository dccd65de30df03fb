//! KV-cache events of inference engines, as meant: one form for both encodings of vLLM and SGLang.
//!
//! Not for the wire (`wire`) nor for what the events do to an index.

/// An engine's name for a block, opaque: 64-bit hashes as they are (signed ones by their bits), longer ones reduced
/// to 64 bits by xxh3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EngineHash(pub u64);

/// Where a block lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Medium {
    /// The accelerator's memory; also when an old engine does not say.
    Device,
    /// Host memory.
    Host,
    /// Disk, remote storage and whatever else is slower.
    Storage,
}

/// One change of an engine's cache.
#[derive(Debug, Clone, PartialEq)]
pub enum KvEvent {
    /// Blocks can be found from now on.
    Stored(Stored),
    /// Blocks are gone from one medium.
    Removed {
        /// Which.
        hashes: Vec<EngineHash>,
        /// From where.
        medium: Medium,
        /// Of which KV cache group, in models with several.
        group: Option<u32>,
    },
    /// The whole cache is gone.
    Cleared,
}

/// A run of consecutive blocks of one sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// In order.
    pub hashes: Vec<EngineHash>,
    /// The block before the first; `None` at the start of a sequence.
    pub parent: Option<EngineHash>,
    /// Tokens of all blocks; may be empty for stores to slower media.
    pub tokens: Vec<u32>,
    /// Tokens in a block.
    pub block_size: u32,
    /// LoRA adapter.
    pub lora: Option<String>,
    /// Where to.
    pub medium: Medium,
    /// Of which KV cache group, in models with several.
    pub group: Option<u32>,
    /// Attention of that group is not full (sliding window, mamba): no prefix credit by itself.
    pub partial_attention: bool,
    /// What else tells the blocks apart, one entry per block or none at all: digest of salt, multimodal ids and
    /// so on, without the adapter's name. Zero where a block has nothing.
    pub extra: Vec<u64>,
}

/// One message of a publisher.
#[derive(Debug, Clone, PartialEq)]
pub struct KvBatch {
    /// Seconds since the epoch, by the engine's clock.
    pub timestamp: f64,
    /// In order.
    pub events: Vec<KvEvent>,
    /// Data-parallel rank that it speaks of.
    pub rank: Option<u32>,
}
