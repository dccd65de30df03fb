//! One event of a batch: its type, and which of its fields stands where in either encoding.
//!
//! What a field's value means is not decided here (`stored`).

use super::reader::{Reader, Token};
use super::stored::Fields;
use super::{Budget, Ignored, WireError};
use crate::cache::event::KvEvent;

/// The fields that are looked at, of whichever event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Hashes,
    Parent,
    Tokens,
    BlockSize,
    LoraId,
    LoraName,
    Medium,
    ExtraKeys,
    Group,
    SpecKind,
    SlidingWindow,
    Locality,
    CacheSalt,
    /// Known, and of no use for routing.
    Unused,
}

/// In the order of the positional encoding, after the tag.
const STORED: [Field; 11] = [
    Field::Hashes,
    Field::Parent,
    Field::Tokens,
    Field::BlockSize,
    Field::LoraId,
    Field::Medium,
    Field::LoraName,
    Field::ExtraKeys,
    Field::Group,
    Field::SpecKind,
    Field::SlidingWindow,
];
const REMOVED: [Field; 3] = [Field::Hashes, Field::Medium, Field::Group];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Stored,
    Removed,
    Cleared,
}

impl Kind {
    fn of(tag: &str) -> Option<Self> {
        match tag {
            "BlockStored" => Some(Self::Stored),
            "BlockRemoved" => Some(Self::Removed),
            "AllBlocksCleared" => Some(Self::Cleared),
            _ => None,
        }
    }
}

impl Field {
    fn of(key: &str) -> Option<Self> {
        Some(match key {
            "block_hashes" => Self::Hashes,
            "parent_block_hash" => Self::Parent,
            "token_ids" => Self::Tokens,
            "block_size" => Self::BlockSize,
            "lora_id" => Self::LoraId,
            "lora_name" => Self::LoraName,
            "medium" => Self::Medium,
            "extra_keys" => Self::ExtraKeys,
            "group_idx" => Self::Group,
            "kv_cache_spec_kind" => Self::SpecKind,
            "kv_cache_spec_sliding_window" => Self::SlidingWindow,
            "locality" => Self::Locality,
            "cache_salt" => Self::CacheSalt,
            "type" | "ownership" | "session_id" => Self::Unused,
            _ => return None,
        })
    }
}

/// Reads one event; none when its type is unknown or it contradicts itself, which is counted.
pub(super) fn read(
    reader: &mut Reader<'_>,
    budget: &mut Budget,
    ignored: &mut Ignored,
) -> Result<Option<KvEvent>, WireError> {
    const EXPECTED: &str = "an event: a map or an array";
    let position = reader.position();
    let (kind, fields) = match reader.token(EXPECTED)? {
        Token::Map(pairs) => keyed(reader, pairs, budget, ignored)?,
        Token::Array(length) => positional(reader, length, budget, ignored)?,
        other => return Err(Reader::unexpected(position, EXPECTED, other)),
    };
    let event = match kind {
        None => {
            ignored.events += 1;
            return Ok(None);
        }
        Some(Kind::Cleared) => Some(KvEvent::Cleared),
        Some(Kind::Removed) => Some(fields.removed()),
        Some(Kind::Stored) => fields.stored(reader)?.map(KvEvent::Stored),
    };
    ignored.inconsistent += u32::from(event.is_none());
    Ok(event)
}

fn keyed<'a>(
    reader: &mut Reader<'a>,
    pairs: usize,
    budget: &mut Budget,
    ignored: &mut Ignored,
) -> Result<(Option<Kind>, Fields<'a>), WireError> {
    // Before anything is read: keys of an unknown type may hold values of any kind.
    let kind = Kind::of(tag(reader.clone(), pairs)?);
    let mut fields = Fields::default();
    for _ in 0..pairs {
        let key = reader.text("a key of an event")?;
        match (kind, Field::of(key)) {
            (None, _) | (_, Some(Field::Unused)) => {
                reader.skip()?;
            }
            (_, Some(field)) => fields.read(field, reader, budget)?,
            (_, None) => {
                ignored.fields += 1;
                reader.skip()?;
            }
        }
    }
    Ok((kind, fields))
}

/// The value of `type`, which engines write first but need not.
fn tag(mut reader: Reader<'_>, pairs: usize) -> Result<&str, WireError> {
    for _ in 0..pairs {
        if reader.text("a key of an event")? == "type" {
            return reader.text("the type of an event");
        }
        reader.skip()?;
    }
    Err(reader.truncated("the key `type` of an event"))
}

fn positional<'a>(
    reader: &mut Reader<'a>,
    length: usize,
    budget: &mut Budget,
    ignored: &mut Ignored,
) -> Result<(Option<Kind>, Fields<'a>), WireError> {
    if length == 0 {
        return Err(reader.truncated("the type of an event"));
    }
    let kind = Kind::of(reader.text("the type of an event")?);
    let known: &[Field] = match kind {
        Some(Kind::Stored) => &STORED,
        Some(Kind::Removed) => &REMOVED,
        Some(Kind::Cleared) | None => &[],
    };
    let mut fields = Fields::default();
    for index in 0..length - 1 {
        match known.get(index) {
            Some(&field) => fields.read(field, reader, budget)?,
            None => {
                ignored.fields += u32::from(kind.is_some());
                reader.skip()?;
            }
        }
    }
    Ok((kind, fields))
}
