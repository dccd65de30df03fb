//! What endpoints' KV caches hold: a byte-block prefix index fed at dispatch, and an index of blocks fed by the
//! engines' own KV events.
//!
//! Answers one question: how much of this prompt does each endpoint hold. Chooses nothing.

mod apply;
pub mod budget;
pub mod chain;
mod counts;
pub mod event;
pub mod following;
mod holding;
pub mod index;
pub mod members;
mod nodes;
mod pool;
mod prefix;
pub mod prompt;
mod recency;
mod remembered;
mod reported;
pub mod snapshot;
pub mod sources;
pub mod subscribe;
mod table;
pub mod wire;
mod zmtp;
