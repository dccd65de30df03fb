//! The API as meant: the bootstrap file, resource loading and validation, and compilation into one
//! immutable [`Snapshot`].
//!
//! For: everything between a YAML file (later: a push stream) and the value that a request reads.
//! Not for: sockets, live endpoint state, or any Pingora type.

pub mod bootstrap;
pub mod snapshot;

pub use bootstrap::Bootstrap;
pub use snapshot::Snapshot;
