//! The last good pushed state as a file, from which a gateway serves when it starts while its control loop is away.
//!
//! Holds documents, endpoints and other gateways as they came, each with its version; never a Secret. A file that is
//! damaged, of a newer program, or written for other namespaces is refused with a reason.
//!
//! The file, all numbers little-endian:
//!
//! ```text
//! "SLUICEPS"  version u32
//! namespaces (u32 count of texts)  control (text)  generation u64
//! resources u32
//! resource:   type u8  name (text)  version (text)  value (u32 length, bytes)
//! xxh3-64 of all of this u64
//! text:       u16 length, UTF-8
//! ```

mod read;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sluice_config::push::{ResourceType, Upsert};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

pub use self::read::decode;

const MAGIC: &[u8; 8] = b"SLUICEPS";
/// To be raised with every change of this format, or of the messages that old programs would misread.
const VERSION: u32 = 1;
/// Largest file that is read, in bytes.
const MAX_BYTES: u64 = 512 << 20;

/// What a file says beside its resources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    /// Namespaces that were asked for.
    pub namespaces: Vec<String>,
    /// Who pushed the state.
    pub control: String,
    /// Which state of that it is.
    pub generation: u64,
}

/// One resource, to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its version on the stream.
    pub version: String,
    /// The encoded message.
    pub value: Vec<u8>,
}

/// Why there is no state.
#[derive(Debug, Error)]
pub enum StateError {
    /// The file cannot be read or written.
    #[error("cannot access {path}: {source}; check that its folder exists and is writable")]
    File {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not such a file, or not whole.
    #[error("it is damaged or something else")]
    Damaged,
    /// Another version of the program wrote it.
    #[error("it is of format {found}, this program reads {VERSION}")]
    Version {
        /// Its version.
        found: u32,
    },
    /// It was written with another `source.push.namespaces`.
    #[error("it was written for other namespaces ({found})")]
    Foreign {
        /// Those.
        found: String,
    },
    /// It is larger than any state.
    #[error("it is larger than {} MiB", MAX_BYTES >> 20)]
    TooLarge,
}

/// The bytes of a state.
pub fn encode<'a>(
    header: &Header,
    resources: impl ExactSizeIterator<Item = (ResourceType, &'a str, &'a Stored)>,
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 << 20);
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    count(&mut bytes, header.namespaces.len());
    for namespace in &header.namespaces {
        text(&mut bytes, namespace);
    }
    text(&mut bytes, &header.control);
    bytes.extend(header.generation.to_le_bytes());
    count(&mut bytes, resources.len());
    for (kind, name, stored) in resources {
        bytes.push(kind as u8);
        text(&mut bytes, name);
        text(&mut bytes, &stored.version);
        count(&mut bytes, stored.value.len());
        bytes.extend(&stored.value);
    }
    let sum = xxh3_64(&bytes);
    bytes.extend(sum.to_le_bytes());
    bytes
}

fn count(bytes: &mut Vec<u8>, count: usize) {
    bytes.extend(u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    let end = text.floor_char_boundary(usize::from(u16::MAX));
    bytes.extend((end as u16).to_le_bytes());
    bytes.extend(&text.as_bytes()[..end]);
}

/// Writes bytes to a file beside it, which then takes its name: whoever reads finds the one or the other, whole. On disk
/// when this returns.
///
/// # Errors
/// When the file cannot be written.
pub fn save(path: &Path, bytes: &[u8]) -> Result<(), StateError> {
    let beside = beside(path);
    let write = || {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        // Else the new name may be lost with the power, though the bytes are there.
        match path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
        {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    };
    write().map_err(|source| failed(path, source))
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

/// Reads a state that was written for these namespaces; `None` if there is no file.
///
/// # Errors
/// When the file cannot be read or does not [`decode`].
pub fn load(
    path: &Path,
    namespaces: &[String],
) -> Result<Option<(Header, Vec<Upsert>)>, StateError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed(path, source)),
    };
    let mut bytes = Vec::new();
    let read = file.take(MAX_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|source| failed(path, source))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(StateError::TooLarge);
    }
    let (header, resources) = decode(&bytes)?;
    if header.namespaces != namespaces {
        let found = match header.namespaces.as_slice() {
            [] => "all".to_owned(),
            some => some.join(", "),
        };
        return Err(StateError::Foreign { found });
    }
    Ok(Some((header, resources)))
}

fn failed(path: &Path, source: io::Error) -> StateError {
    StateError::File {
        path: path.display().to_string(),
        source,
    }
}

/// Is it kept on disk?
pub fn is_kept(kind: ResourceType) -> bool {
    !matches!(kind, ResourceType::Secret | ResourceType::Batch)
}

/// Resources by type and name.
pub type StoredResources = std::collections::BTreeMap<(ResourceType, Arc<str>), Arc<Stored>>;

#[cfg(test)]
mod tests;
