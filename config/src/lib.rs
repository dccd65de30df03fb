//! The API as meant: the bootstrap file, resource loading and validation, and compilation into one
//! immutable [`Snapshot`].
//!
//! For: everything between a YAML file (later: a push stream) and the value that a request reads.
//! Not for: sockets, live endpoint state, or any Pingora type.

pub mod bootstrap;
mod filters;
mod path;
pub mod problem;
mod shape;
pub mod snapshot;
mod yaml;

pub use bootstrap::Bootstrap;
pub use filters::{AnyFilter, FilterCheck, FilterSet};
pub use problem::{Problem, Report, Severity};
pub use snapshot::Snapshot;
