//! Forwarding: one request to one of its candidates, again where that is safe, and the answer back as a stream.
//!
//! [`exchange`] is the seam: above it nobody knows Pingora. [`downstream`] implements it on Pingora's sessions,
//! [`upstream`] on its connections. [`attempts`] decides about retries by a [`plan`], [`relay`] moves the answer.

pub mod attempts;
pub mod budget;
pub mod downstream;
pub mod exchange;
mod h1;
pub mod h1_client;
pub mod link;
pub mod plan;
pub mod relay;
mod request;
pub mod upstream;
