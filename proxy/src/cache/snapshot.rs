//! What is known of the endpoints' caches, kept over a restart of the proxy: one file, written at shutdown.
//!
//! Holds the confirmed predictions of each endpoint, hashes and sizes, most recently used first; no text. Not what
//! events reported: engines are asked for that again. A file that is old, damaged or of another version is refused
//! with a reason, and the proxy starts without it.
//!
//! The file, all numbers little-endian:
//!
//! ```text
//! "SLUICEIX"  version u32  seconds since the epoch u64  pools u32
//! pool:       name (u16 length, UTF-8)  endpoints u32
//! endpoint:   address (u16 length, UTF-8)  blocks u32
//! block:      hash u64  size u16 (bytes or tokens)
//! xxh3-64 of all of this u64
//! ```

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

const MAGIC: &[u8; 8] = b"SLUICEIX";
/// To be raised with every change of this format *or of how chains are hashed*.
const VERSION: u32 = 1;
const BLOCK_BYTES: usize = 10;
const HEAD_BYTES: usize = 24;
const SUM_BYTES: usize = 8;

/// How old a snapshot may be at a start, unless said otherwise.
pub const MAX_AGE: Duration = Duration::from_secs(600);

/// Everything that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// When it was taken.
    pub taken: SystemTime,
    /// One per index.
    pub pools: Vec<PoolSnapshot>,
}

/// What is known of one pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSnapshot {
    /// Tells indexes apart: pool and unit. At most 65,535 bytes are kept.
    pub name: String,
    /// Its endpoints.
    pub endpoints: Vec<EndpointSnapshot>,
}

/// What is known of one endpoint; see [`super::index::Index::export`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSnapshot {
    /// Address, as configured; of a pod with its uid, so that it is not taken for its successor.
    pub address: String,
    /// Hash and size of each block, most recently used first.
    pub blocks: Vec<(u64, u32)>,
}

/// Why there is no snapshot.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// The file cannot be read or written.
    #[error(
        "cannot access the cache snapshot {path}; check that its folder exists and is writable"
    )]
    File {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is larger than allowed.
    #[error("the cache snapshot is larger than {limit} bytes; it was written under a higher limit")]
    TooLarge {
        /// The bound.
        limit: usize,
    },
    /// It is not a snapshot, or not whole.
    #[error("the cache snapshot is damaged or something else; the cache is learnt anew")]
    Damaged,
    /// Another version of the program wrote it.
    #[error("the cache snapshot is of version {found}, not {VERSION}; the cache is learnt anew")]
    Version {
        /// Its version.
        found: u32,
    },
    /// It says nothing about now.
    #[error("the cache snapshot is {} s old; engines have moved on since", age.as_secs())]
    Stale {
        /// How old.
        age: Duration,
    },
    /// The clock was set back since.
    #[error("the cache snapshot is from the future; the clock was set back")]
    FromTheFuture,
}

/// The bytes of a snapshot, at most `limit` of them: the most recently used blocks of each endpoint stay, all endpoints
/// cut to the same number of blocks. Endpoints and pools that do not fit even without blocks are left out.
#[must_use]
pub fn encode(snapshot: &Snapshot, limit: usize) -> Vec<u8> {
    let names = |pool: &PoolSnapshot| {
        let addresses = pool
            .endpoints
            .iter()
            .map(|endpoint| endpoint.address.len() + 6);
        pool.name.len() + 6 + addresses.sum::<usize>()
    };
    let mut room = limit.saturating_sub(HEAD_BYTES + SUM_BYTES);
    let pools = snapshot.pools.iter();
    let kept: Vec<_> = pools
        .take_while(|pool| {
            let fits = names(pool) <= room;
            room -= if fits { names(pool) } else { 0 };
            fits
        })
        .collect();
    let blocks = kept.iter().flat_map(|pool| &pool.endpoints);
    let per_endpoint = share(
        blocks.map(|endpoint| endpoint.blocks.len()),
        room / BLOCK_BYTES,
    );

    let mut bytes = Vec::new();
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    let since = snapshot.taken.duration_since(UNIX_EPOCH);
    bytes.extend(since.unwrap_or_default().as_secs().to_le_bytes());
    count(&mut bytes, kept.len());
    for pool in kept {
        text(&mut bytes, &pool.name);
        count(&mut bytes, pool.endpoints.len());
        for endpoint in &pool.endpoints {
            text(&mut bytes, &endpoint.address);
            let blocks = &endpoint.blocks[..endpoint.blocks.len().min(per_endpoint)];
            count(&mut bytes, blocks.len());
            for (hash, size) in blocks {
                bytes.extend(hash.to_le_bytes());
                bytes.extend(u16::try_from(*size).unwrap_or(u16::MAX).to_le_bytes());
            }
        }
    }
    let sum = xxh3_64(&bytes);
    bytes.extend(sum.to_le_bytes());
    bytes
}

/// The largest number to which each can be cut so that all together fit into `room`.
fn share(lengths: impl Iterator<Item = usize>, mut room: usize) -> usize {
    let mut lengths: Vec<_> = lengths.collect();
    lengths.sort_unstable();
    let count = lengths.len();
    for (before, length) in lengths.into_iter().enumerate() {
        let each = room / (count - before);
        if length > each {
            return each;
        }
        room -= length;
    }
    usize::MAX
}

fn count(bytes: &mut Vec<u8>, count: usize) {
    bytes.extend(u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    let end = text.floor_char_boundary(usize::from(u16::MAX));
    bytes.extend((end as u16).to_le_bytes());
    bytes.extend(&text.as_bytes()[..end]);
}

/// Reads a snapshot that is at most `max_age` old.
///
/// # Errors
/// When it is damaged, of another version, or too old.
pub fn decode(bytes: &[u8], now: SystemTime, max_age: Duration) -> Result<Snapshot, SnapshotError> {
    let (body, sum) = bytes.split_last_chunk().ok_or(SnapshotError::Damaged)?;
    if body.get(..MAGIC.len()) != Some(MAGIC) {
        return Err(SnapshotError::Damaged);
    }
    let mut reader = Reader(&body[MAGIC.len()..]);
    let found = reader.u32().ok_or(SnapshotError::Damaged)?;
    if found != VERSION {
        return Err(SnapshotError::Version { found });
    }
    if u64::from_le_bytes(*sum) != xxh3_64(body) {
        return Err(SnapshotError::Damaged);
    }
    let snapshot = reader.snapshot().ok_or(SnapshotError::Damaged)?;
    let age = now.duration_since(snapshot.taken);
    match age {
        Err(_) => Err(SnapshotError::FromTheFuture),
        Ok(age) if age > max_age => Err(SnapshotError::Stale { age }),
        Ok(_) => Ok(snapshot),
    }
}

/// Takes what it reads off the front.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::from(self.u16()?);
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }

    /// So many things as a count says; nothing is reserved for counts that lie.
    fn list<T>(&mut self, mut one: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.u32()?;
        (0..count).map(|_| one(self)).collect()
    }

    fn snapshot(&mut self) -> Option<Snapshot> {
        let taken = UNIX_EPOCH.checked_add(Duration::from_secs(self.u64()?))?;
        let pools = self.list(Self::pool)?;
        self.0.is_empty().then_some(Snapshot { taken, pools })
    }

    fn pool(&mut self) -> Option<PoolSnapshot> {
        Some(PoolSnapshot {
            name: self.text()?,
            endpoints: self.list(Self::endpoint)?,
        })
    }

    fn endpoint(&mut self) -> Option<EndpointSnapshot> {
        Some(EndpointSnapshot {
            address: self.text()?,
            blocks: self.list(|reader| Some((reader.u64()?, u32::from(reader.u16()?))))?,
        })
    }
}

/// Writes a snapshot of at most `limit` bytes: to a file beside it, which then takes its name.
///
/// # Errors
/// When the file cannot be written.
pub fn save(path: &Path, snapshot: &Snapshot, limit: usize) -> Result<(), SnapshotError> {
    let beside = path.with_extension("tmp");
    let write = || {
        let mut file = File::create(&beside)?;
        file.write_all(&encode(snapshot, limit))?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().map_err(|source| failed(path, source))
}

/// Reads a snapshot of at most `limit` bytes and `max_age`; `None` if there is no file.
///
/// # Errors
/// When the file cannot be read, is too large, or does not [`decode`].
pub fn load(
    path: &Path,
    limit: usize,
    now: SystemTime,
    max_age: Duration,
) -> Result<Option<Snapshot>, SnapshotError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed(path, source)),
    };
    let mut bytes = Vec::new();
    let read = file.take(limit as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|source| failed(path, source))?;
    if bytes.len() > limit {
        return Err(SnapshotError::TooLarge { limit });
    }
    decode(&bytes, now, max_age).map(Some)
}

fn failed(path: &Path, source: io::Error) -> SnapshotError {
    SnapshotError::File {
        path: path.display().to_string(),
        source,
    }
}

#[cfg(test)]
mod tests;
