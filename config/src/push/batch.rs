//! A batch as a gateway applies it: what is new, what is gone, and what of it was refused.
//!
//! Not for how it came (responses, nonces): see `sluice-proxy`.

use super::ResourceType;

/// Everything between two ends of batches on the stream. A name stands in it once at most.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// New resources, and new versions of known ones.
    pub upserts: Vec<Upsert>,
    /// Resources that are gone.
    pub removals: Vec<(ResourceType, String)>,
}

/// One resource.
#[derive(Clone, PartialEq, Eq)]
pub struct Upsert {
    /// What it is.
    pub kind: ResourceType,
    /// Its name on the stream.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The encoded message.
    pub value: Vec<u8>,
}

impl std::fmt::Debug for Upsert {
    /// Without the value, which may be a Secret's.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Upsert")
            .field("kind", &self.kind)
            .field("name", &self.name)
            .field("version", &self.version)
            .field("bytes", &self.value.len())
            .finish()
    }
}

/// Why one resource of a batch was refused; there may be several for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Index into [`Batch::upserts`].
    pub item: usize,
    /// Field path; empty for the whole.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub remedy: String,
}
