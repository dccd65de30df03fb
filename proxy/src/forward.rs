//! Forwarding: one request to one of its candidates, again where that is safe, and the answer back as a stream.
//!
//! [`exchange`] is the seam: above it nobody knows Pingora. It is implemented for clients by
//! [`h1_client`] and [`h2_client`], for engines by [`upstream`]. [`attempts`] decides about retries by a [`plan`], [`relay`] moves the answer.

pub mod attempts;
pub mod budget;
pub mod exchange;
mod fields;
pub mod flight;
pub mod h1_client;
mod h1_engine;
pub mod h2_client;
pub mod link;
pub mod plan;
pub mod relay;
mod request;
pub mod upstream;
