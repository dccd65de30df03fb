//! A step's events as msgpack, field by field as vLLM 0.32 writes them, or as engines of 2025 did.

use rmp::encode as msgpack;

use super::{KvOptions, Namespaces};
use crate::engine::blocks::KvEvent;
use crate::engine::hash;

/// Vec<u8> takes every write.
const WRITES: &str = "a vector takes every write";

/// Consecutive blocks of one sequence, which are one event.
struct Run<'a> {
    hashes: Vec<u64>,
    parent: Option<u64>,
    tokens: Vec<&'a [u32]>,
    salt: u64,
}

enum Event<'a> {
    Stored(Run<'a>),
    Removed(u64),
    Cleared,
}

/// One batch: `[timestamp, events, rank]`.
pub(super) fn batch(
    options: &KvOptions,
    namespaces: &Namespaces,
    timestamp: f64,
    events: &[KvEvent],
) -> Vec<u8> {
    let mut writer = Writer {
        out: Vec::with_capacity(256),
        options,
        namespaces,
    };
    let events = joined(events);
    writer.array(3);
    msgpack::write_f64(&mut writer.out, timestamp).expect(WRITES);
    writer.array(events.len());
    for event in &events {
        writer.event(event);
    }
    writer.number(options.rank.into());
    writer.out
}

fn joined(events: &[KvEvent]) -> Vec<Event<'_>> {
    let mut joined = Vec::new();
    for event in events {
        match event {
            KvEvent::Removed { hash } => joined.push(Event::Removed(*hash)),
            KvEvent::AllCleared => joined.push(Event::Cleared),
            KvEvent::Stored {
                hash,
                parent,
                tokens,
                salt,
            } => match joined.last_mut() {
                Some(Event::Stored(run))
                    if parent.is_some() && run.hashes.last() == parent.as_ref() =>
                {
                    run.hashes.push(*hash);
                    run.tokens.push(tokens);
                }
                _ => joined.push(Event::Stored(Run {
                    hashes: vec![*hash],
                    parent: *parent,
                    tokens: vec![tokens],
                    salt: *salt,
                })),
            },
        }
    }
    joined
}

struct Writer<'a> {
    out: Vec<u8>,
    options: &'a KvOptions,
    namespaces: &'a Namespaces,
}

impl Writer<'_> {
    fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Cleared => self.head("AllBlocksCleared", 0),
            Event::Removed(hash) => {
                self.head("BlockRemoved", 3);
                self.key("block_hashes");
                self.array(1);
                self.hash(*hash);
                self.key("medium");
                self.text("GPU");
                self.key("group_idx");
                self.number(0);
            }
            Event::Stored(run) => self.stored(run),
        }
    }

    fn stored(&mut self, run: &Run<'_>) {
        let namespace = self.namespaces.of(run.salt);
        self.head("BlockStored", 10);
        self.key("block_hashes");
        self.array(run.hashes.len());
        for &hash in &run.hashes {
            self.hash(hash);
        }
        self.key("parent_block_hash");
        match run.parent {
            Some(parent) => self.hash(parent),
            None => self.nil(),
        }
        self.key("token_ids");
        self.array(run.tokens.iter().map(|tokens| tokens.len()).sum());
        for &token in run.tokens.iter().copied().flatten() {
            self.number(token.into());
        }
        self.key("block_size");
        self.number(run.tokens[0].len() as u64);
        self.key("lora_id");
        match &namespace.lora {
            // vLLM numbers adapters from 1 as they are loaded: any number but 0 will do, names are what counts.
            Some(_) => self.number(1),
            None => self.nil(),
        }
        self.key("medium");
        self.text("GPU");
        self.key("lora_name");
        self.text_or_nil(namespace.lora.as_deref());
        self.key("extra_keys");
        self.array(run.hashes.len());
        for index in 0..run.hashes.len() {
            // A salt is in a sequence's first block alone.
            let salt = namespace
                .cache_salt
                .as_deref()
                .filter(|_| index == 0 && run.parent.is_none());
            self.extra_keys(namespace.lora.as_deref(), salt);
        }
        self.key("group_idx");
        self.number(0);
        self.key("kv_cache_spec_kind");
        self.text("full_attention");
    }

    fn extra_keys(&mut self, lora: Option<&str>, salt: Option<&str>) {
        let keys: Vec<&str> = lora.into_iter().chain(salt).collect();
        if keys.is_empty() {
            return self.nil();
        }
        self.array(keys.len());
        for key in keys {
            self.text(key);
        }
    }

    /// Begins an event of so many fields besides its type.
    fn head(&mut self, kind: &str, fields: usize) {
        match self.options.positional {
            true => self.array(fields + 1),
            false => {
                msgpack::write_map_len(&mut self.out, fields as u32 + 1).expect(WRITES);
                self.text("type");
            }
        }
        self.text(kind);
    }

    fn key(&mut self, key: &str) {
        if !self.options.positional {
            self.text(key);
        }
    }

    fn hash(&mut self, value: u64) {
        let value = match self.options.hash_seed {
            0 => value,
            seed => hash::mix(seed, value),
        };
        if !self.options.hash_bytes {
            return self.number(value);
        }
        // As in vLLM, the integer form is the digest's last 8 bytes.
        let mut digest = [0; 32];
        for (index, word) in digest.chunks_exact_mut(8).enumerate() {
            let word_value = match index {
                3 => value,
                other => hash::mix(value, other as u64),
            };
            word.copy_from_slice(&word_value.to_be_bytes());
        }
        msgpack::write_bin(&mut self.out, &digest).expect(WRITES);
    }

    fn array(&mut self, length: usize) {
        msgpack::write_array_len(&mut self.out, length as u32).expect(WRITES);
    }

    fn number(&mut self, value: u64) {
        msgpack::write_uint(&mut self.out, value).expect(WRITES);
    }

    fn text(&mut self, text: &str) {
        msgpack::write_str(&mut self.out, text).expect(WRITES);
    }

    fn text_or_nil(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.text(text),
            None => self.nil(),
        }
    }

    fn nil(&mut self) {
        msgpack::write_nil(&mut self.out).expect(WRITES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_byte_for_byte_what_vllm_wrote() {
        let captured = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../proxy/tests/fixtures/vllm_kv_events/08.payload.bin"
        );
        let captured = std::fs::read(captured).unwrap();
        // Behind the head of the batch and the marker.
        let timestamp = f64::from_be_bytes(captured[2..10].try_into().unwrap());
        let events = [KvEvent::Stored {
            hash: 17_910_828_115_965_368_986,
            parent: Some(14_437_422_248_659_829_297),
            tokens: vec![578; 32],
            salt: 0,
        }];
        let written = batch(
            &KvOptions::default(),
            &Namespaces::default(),
            timestamp,
            &events,
        );
        assert_eq!(written, captured);
    }
}
