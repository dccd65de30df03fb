//! Reads one payload of an engine's KV-event publisher: msgpack, as vLLM and SGLang write it.
//!
//! Both encodings: events as maps with a `type` (since vLLM PR 42892) and as positional arrays with the tag first.
//! A batch is `[timestamp, [event...], rank]`, the rank perhaps missing. Read by hand and in one pass, for three
//! reasons: fields come and go between builds, so nothing may depend on their number; a claimed length must not
//! size an allocation; and an error should say where. Nothing recurses, so nesting needs no limit.
//! What arrives from a socket, and in which order, is not of interest here (`subscribe`).

mod event;
mod reader;
mod stored;
#[cfg(test)]
mod tests;

use super::event::KvBatch;
use reader::Reader;

/// Longest payload that is looked at, in bytes.
pub const MAX_PAYLOAD_BYTES: usize = 64 << 20;
/// Events in one batch. An engine that drops its whole cache publishes one per block.
pub const MAX_EVENTS: usize = 1 << 18;
/// Block hashes in one batch.
pub const MAX_BLOCKS: usize = 1 << 20;
/// Tokens in one batch.
pub const MAX_TOKENS: usize = 1 << 23;

/// Why a payload cannot be read. Positions count its bytes from zero.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// It ends inside a value.
    #[error(
        "KV event payload ends at byte {position} where {expected} was expected, was the message cut short?"
    )]
    Truncated {
        /// Where.
        position: usize,
        /// What should stand there.
        expected: &'static str,
    },
    /// A value of another kind.
    #[error(
        "KV event payload has {found} at byte {position} where {expected} was expected, is the engine of a newer version?"
    )]
    Unexpected {
        /// Where.
        position: usize,
        /// What should stand there.
        expected: &'static str,
        /// What does.
        found: &'static str,
    },
    /// More than anyone would publish.
    #[error(
        "KV event payload has more than {limit} {what} (at byte {position}), is its publisher an engine?"
    )]
    TooMuch {
        /// Where the limit was passed.
        position: usize,
        /// Of what there is too much.
        what: &'static str,
        /// How much would do.
        limit: usize,
    },
}

/// What was passed over in a batch that could be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ignored {
    /// Events of unknown types.
    pub events: u32,
    /// Unknown keys, or elements past the known ones, of known events.
    pub fields: u32,
    /// Stores whose tokens or extra keys do not fit the number of their blocks.
    pub inconsistent: u32,
}

/// A payload, read.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// What it says.
    pub batch: KvBatch,
    /// What was passed over.
    pub ignored: Ignored,
}

/// What the batch may still hold.
struct Budget {
    blocks: usize,
    tokens: usize,
}

/// Reads a payload. Every [`Stored`](super::event::Stored) of the result has either no tokens or `block_size` of
/// them per hash, and either no `extra` or one per hash.
///
/// # Errors
/// When it is not msgpack, lacks what a batch must have, has a value of a wrong kind or passes a limit.
pub fn decode(payload: &[u8]) -> Result<Decoded, WireError> {
    if payload.len() > MAX_PAYLOAD_BYTES {
        return Err(WireError::TooMuch {
            position: MAX_PAYLOAD_BYTES,
            what: "bytes",
            limit: MAX_PAYLOAD_BYTES,
        });
    }
    let mut reader = Reader::new(payload);
    let mut left = reader.array("a batch: an array of time, events and rank")?;
    let timestamp = reader.number(&mut left, "a timestamp")?;
    let events_at = reader.position();
    if left == 0 {
        return Err(reader.truncated("the batch's array of events"));
    }
    left -= 1;
    let count = reader.array("the batch's array of events")?;
    if count > MAX_EVENTS {
        return Err(WireError::TooMuch {
            position: events_at,
            what: "events",
            limit: MAX_EVENTS,
        });
    }
    let mut budget = Budget {
        blocks: MAX_BLOCKS,
        tokens: MAX_TOKENS,
    };
    let mut ignored = Ignored::default();
    let mut events = Vec::with_capacity(count.min(reader.left()));
    for _ in 0..count {
        events.extend(event::read(&mut reader, &mut budget, &mut ignored)?);
    }
    let rank = match left {
        0 => None,
        _ => reader.optional_u32("a data-parallel rank or nil")?,
    };
    Ok(Decoded {
        batch: KvBatch {
            timestamp,
            events,
            rank,
        },
        ignored,
    })
}
