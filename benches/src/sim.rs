//! The routing simulator: engines, gateway replicas and their clients in virtual time, so that a policy is judged in
//! a second instead of an hour.
//!
//! Engines are the model that `sluice-engine` serves; load counters, cache index and policies are the gateway's own
//! code, so a simulated gain binds the product. What is written here is the world around them, the workloads and
//! other routers' policies to compare with. Left out: the network, the gateway's own delay, tokenising.

pub mod batch;
mod cache;
pub mod check;
mod ideal;
pub mod plot;
mod policies;
pub(crate) mod prompt;
mod replica;
pub mod report;
mod rivals;
pub mod workload;
mod world;

#[cfg(test)]
mod tests;

pub use cache::IndexKind;
pub use policies::{DEFAULT_POLICIES, UnknownPolicy};
pub use world::Setup;
