//! The API as meant: the bootstrap file, resource loading and validation, and compilation into one
//! immutable [`Snapshot`].
//!
//! For: everything between a YAML file or a push stream and the value that a request reads.
//! Not for: sockets, live endpoint state, or any Pingora type.

pub mod auth;
pub mod bootstrap;
mod catalog;
mod check;
mod compile;
mod document;
mod file_source;
mod filters;
mod judge;
mod live;
mod load;
mod path;
pub mod problem;
pub mod push;
pub mod router_configuration;
pub mod scheduling;
mod shape;
pub mod snapshot;
mod validate;
pub mod watch;
mod yaml;

pub use bootstrap::Bootstrap;
pub use catalog::{Applied, Catalog, Update};
pub use check::check;
pub use compile::compile;
pub use document::{DEFAULT_NAMESPACE, Documents, Identity, Kind, Resource};
pub use file_source::FileSource;
pub use filters::{AnyFilter, FilterCheck, FilterSet};
pub use judge::{Judgement, judge};
pub use load::{LoadedDocuments, MAX_FILE_BYTES};
pub use problem::{Problem, Report, Severity, Topic};
pub use router_configuration::RouterConfiguration;
pub use snapshot::Snapshot;
pub use validate::{is_label_key, is_label_value};
