//! Reads what [`super::encode`] wrote. Nothing it says of itself is trusted before its checksum, nor any length ever.

use sluice_config::push::{ResourceType, Upsert};
use xxhash_rust::xxh3::xxh3_64;

use super::{Header, MAGIC, StateError, VERSION, is_kept};

/// The state in these bytes.
///
/// # Errors
/// When they are damaged, or of another version.
pub fn decode(bytes: &[u8]) -> Result<(Header, Vec<Upsert>), StateError> {
    let (body, sum) = bytes.split_last_chunk().ok_or(StateError::Damaged)?;
    if body.get(..MAGIC.len()) != Some(MAGIC) {
        return Err(StateError::Damaged);
    }
    let mut reader = Reader(&body[MAGIC.len()..]);
    // First of all: a newer program may check its sum in another way.
    let found = reader.u32().ok_or(StateError::Damaged)?;
    if found != VERSION {
        return Err(StateError::Version { found });
    }
    if u64::from_le_bytes(*sum) != xxh3_64(body) {
        return Err(StateError::Damaged);
    }
    reader.state().ok_or(StateError::Damaged)
}

/// Takes what it reads off the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (first, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(first)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn length(&mut self) -> Option<usize> {
        usize::try_from(self.u32()?).ok()
    }

    fn text(&mut self) -> Option<String> {
        let length = self.array().map(u16::from_le_bytes)?;
        let text = self.bytes(usize::from(length))?;
        String::from_utf8(text.to_vec()).ok()
    }

    /// So many things as a count says; nothing is reserved for counts that lie.
    fn list<T>(&mut self, mut one: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.u32()?;
        (0..count).map(|_| one(self)).collect()
    }

    fn state(&mut self) -> Option<(Header, Vec<Upsert>)> {
        let header = Header {
            namespaces: self.list(Self::text)?,
            control: self.text()?,
            generation: self.array().map(u64::from_le_bytes)?,
        };
        let resources = self.list(Self::resource)?;
        self.0.is_empty().then_some((header, resources))
    }

    fn resource(&mut self) -> Option<Upsert> {
        let [kind] = self.array()?;
        let kind = *ResourceType::ALL.get(usize::from(kind))?;
        let name = self.text()?;
        let version = self.text()?;
        let length = self.length()?;
        let value = self.bytes(length)?.to_vec();
        is_kept(kind).then_some(Upsert {
            kind,
            name,
            version,
            value,
        })
    }
}
