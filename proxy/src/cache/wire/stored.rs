//! What the fields of an event mean, whichever encoding they came in.
//!
//! Sources: vLLM 0.32 `vllm/distributed/kv_events.py`, SGLang 0.5.23 `srt/disaggregation/kv_events.py`.

use xxhash_rust::xxh3::xxh3_64;

use super::event::Field;
use super::reader::{Reader, Token, too_large};
use super::{Budget, MAX_BLOCKS, MAX_TOKENS, WireError};
use crate::cache::chain::extra_digest;
use crate::cache::event::{EngineHash, KvEvent, Medium, Stored};

/// The values of one event.
#[derive(Debug, Default)]
pub(super) struct Fields<'a> {
    hashes: Vec<EngineHash>,
    parent: Option<EngineHash>,
    tokens: Vec<u32>,
    block_size: u32,
    lora_id: Option<String>,
    lora_name: Option<&'a str>,
    medium: Option<&'a str>,
    /// Where the extra keys begin: they are read last, since the adapter's name must be known.
    extra_keys: Option<usize>,
    group: Option<u32>,
    spec_kind: Option<&'a str>,
    sliding_window: Option<u32>,
    locality: Option<&'a str>,
    cache_salt: Option<&'a str>,
}

impl<'a> Fields<'a> {
    pub(super) fn read(
        &mut self,
        field: Field,
        reader: &mut Reader<'a>,
        budget: &mut Budget,
    ) -> Result<(), WireError> {
        match field {
            Field::Hashes => self.hashes = hashes(reader, budget)?,
            Field::Parent => self.parent = hash(reader, "a parent's hash or nil")?,
            Field::Tokens => self.tokens = tokens(reader, budget)?,
            Field::BlockSize => {
                self.block_size = reader.optional_u32("a block size")?.unwrap_or(0);
            }
            Field::LoraId => self.lora_id = lora_id(reader)?,
            Field::LoraName => self.lora_name = reader.optional_text("an adapter's name or nil")?,
            Field::Medium => self.medium = reader.optional_text("a medium or nil")?,
            Field::ExtraKeys => {
                self.extra_keys = Some(reader.position());
                reader.skip()?;
            }
            Field::Group => self.group = reader.optional_u32("a cache group or nil")?,
            Field::SpecKind => self.spec_kind = reader.optional_text("a kind of cache or nil")?,
            Field::SlidingWindow => {
                self.sliding_window = reader.optional_u32("a sliding window or nil")?;
            }
            Field::Locality => self.locality = reader.optional_text("a locality or nil")?,
            Field::CacheSalt => self.cache_salt = reader.optional_text("a cache salt or nil")?,
            Field::Unused => {
                reader.skip()?;
            }
        }
        Ok(())
    }

    fn place(&self) -> Medium {
        match (self.locality, self.medium) {
            (Some("REMOTE"), _) => Medium::Storage,
            (_, None | Some("GPU" | "NPU" | "XPU" | "TPU" | "HPU" | "HBM" | "DEVICE")) => {
                Medium::Device
            }
            (_, Some("CPU" | "CPU_PINNED" | "HOST" | "DRAM")) => Medium::Host,
            _ => Medium::Storage,
        }
    }

    pub(super) fn removed(self) -> KvEvent {
        KvEvent::Removed {
            medium: self.place(),
            hashes: self.hashes,
            group: self.group,
        }
    }

    /// None when the numbers of blocks, tokens and extra keys contradict each other.
    pub(super) fn stored(self, reader: &Reader<'a>) -> Result<Option<Stored>, WireError> {
        let fits = self.hashes.len().checked_mul(self.block_size as usize);
        if !self.tokens.is_empty() && fits != Some(self.tokens.len()) {
            return Ok(None);
        }
        let Some(extra) = self.extra(reader)? else {
            return Ok(None);
        };
        Ok(Some(Stored {
            medium: self.place(),
            partial_attention: self.partial_attention(),
            // Old builds name an adapter by its number alone: it cannot be matched, but must not look like the base.
            lora: self.lora_name.map(str::to_owned).or(self.lora_id),
            hashes: self.hashes,
            parent: self.parent,
            tokens: self.tokens,
            block_size: self.block_size,
            group: self.group,
            extra,
        }))
    }

    /// A kind that keeps the whole context gives credit, whatever window it has; an unknown one does not.
    fn partial_attention(&self) -> bool {
        match self.spec_kind {
            Some("full_attention" | "mla_attention" | "sink_full_attention") => false,
            Some(_) => true,
            None => self.sliding_window.is_some(),
        }
    }

    /// One digest per block, or none at all when all are zero; none in the other sense when the count is wrong.
    fn extra(&self, reader: &Reader<'a>) -> Result<Option<Vec<u64>>, WireError> {
        // A salt holds for a whole sequence, and is in its first block: the others follow from that one.
        let salt = self.cache_salt.filter(|_| self.parent.is_none());
        let mut digests = Vec::new();
        if let Some(position) = self.extra_keys {
            let mut reader = reader.at(position);
            let count = reader.optional_array("extra keys: an array per block, or nil")?;
            if count != 0 && count != self.hashes.len() {
                return Ok(None);
            }
            for index in 0..count {
                let salt = salt.filter(|_| index == 0);
                digests.push(block_digest(&mut reader, self.lora_name, salt)?);
            }
        }
        if digests.is_empty() && salt.is_some() && !self.hashes.is_empty() {
            digests.resize(self.hashes.len(), 0);
            digests[0] = extra_digest(&[salt.unwrap_or_default()]);
        }
        if digests.iter().all(|&digest| digest == 0) {
            digests.clear();
        }
        Ok(Some(digests))
    }
}

fn hash(reader: &mut Reader<'_>, expected: &'static str) -> Result<Option<EngineHash>, WireError> {
    let position = reader.position();
    Ok(Some(EngineHash(match reader.token(expected)? {
        Token::Nil => return Ok(None),
        Token::Unsigned(value) => value,
        Token::Signed(value) => value as u64,
        Token::Binary(bytes) | Token::Text(bytes) => xxh3_64(bytes),
        other => return Err(Reader::unexpected(position, expected, other)),
    })))
}

fn hashes(reader: &mut Reader<'_>, budget: &mut Budget) -> Result<Vec<EngineHash>, WireError> {
    const EXPECTED: &str = "a block's hash: an integer or bytes";
    let position = reader.position();
    let count = reader.array("an array of block hashes")?;
    budget.blocks = budget.blocks.checked_sub(count).ok_or(WireError::TooMuch {
        position,
        what: "blocks",
        limit: MAX_BLOCKS,
    })?;
    let mut hashes = Vec::with_capacity(count.min(reader.left()));
    for _ in 0..count {
        let position = reader.position();
        let found = hash(reader, EXPECTED)?;
        hashes.push(found.ok_or(Reader::unexpected(position, EXPECTED, Token::Nil))?);
    }
    Ok(hashes)
}

fn tokens(reader: &mut Reader<'_>, budget: &mut Budget) -> Result<Vec<u32>, WireError> {
    let position = reader.position();
    let count = reader.optional_array("an array of token ids")?;
    budget.tokens = budget.tokens.checked_sub(count).ok_or(WireError::TooMuch {
        position,
        what: "tokens",
        limit: MAX_TOKENS,
    })?;
    let mut tokens = Vec::with_capacity(count.min(reader.left()));
    for _ in 0..count {
        tokens.push(token_id(reader)?);
    }
    Ok(tokens)
}

/// A token, or the first of a pair: SGLang's EAGLE mode publishes each token with the one after it.
fn token_id(reader: &mut Reader<'_>) -> Result<u32, WireError> {
    const EXPECTED: &str = "a token id of at most 32 bits, or a pair of them";
    let position = reader.position();
    match reader.token(EXPECTED)? {
        Token::Unsigned(id) => u32::try_from(id).map_err(|_| too_large(position, EXPECTED)),
        Token::Array(2) => {
            let first = reader.position();
            let id = match reader.token(EXPECTED)? {
                Token::Unsigned(id) => u32::try_from(id).map_err(|_| too_large(first, EXPECTED))?,
                other => return Err(Reader::unexpected(first, EXPECTED, other)),
            };
            reader.skip()?;
            Ok(id)
        }
        other => Err(Reader::unexpected(position, EXPECTED, other)),
    }
}

fn lora_id(reader: &mut Reader<'_>) -> Result<Option<String>, WireError> {
    const EXPECTED: &str = "an adapter's id or nil";
    let position = reader.position();
    match reader.token(EXPECTED)? {
        Token::Nil => Ok(None),
        Token::Unsigned(id) => Ok(Some(format!("#{id}"))),
        Token::Text(id) => Ok(Some(String::from_utf8_lossy(id).into_owned())),
        other => Err(Reader::unexpected(position, EXPECTED, other)),
    }
}

/// Digest of one block's extra keys without the adapter's name; zero when nothing is left.
fn block_digest(
    reader: &mut Reader<'_>,
    adapter: Option<&str>,
    salt: Option<&str>,
) -> Result<u64, WireError> {
    let count = reader.optional_array("a block's extra keys: an array or nil")?;
    let mut parts = Vec::with_capacity(count.min(8));
    // Only once: a salt may be the same word.
    let mut adapter = adapter.map(str::as_bytes);
    for _ in 0..count {
        let mut peek = reader.clone();
        let whole = reader.skip()?;
        match peek.token("an extra key")? {
            Token::Text(text) if adapter == Some(text) => adapter = None,
            Token::Text(bytes) | Token::Binary(bytes) => parts.push(bytes),
            Token::Nil => {}
            _ => parts.push(whole),
        }
    }
    parts.extend(salt.map(str::as_bytes));
    Ok(if parts.is_empty() {
        0
    } else {
        extra_digest(&parts)
    })
}
