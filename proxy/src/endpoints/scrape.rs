//! What engines say of themselves, asked for now and then: load, cache size, adapters.
//!
//! Never needed for correctness: a request is routed by what the gateway counts itself, and a value that is missing
//! or old is neutral. [`metrics`] and [`adapters`] read pages, [`reported`] keeps what they said with its age,
//! [`pacing`] says when to ask again, [`task`] asks, one task per endpoint, so that a dead one delays nobody.

pub mod adapters;
mod line;
pub mod metrics;
mod names;
pub mod pacing;
pub mod reported;
pub mod task;
