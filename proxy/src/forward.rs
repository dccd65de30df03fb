//! Forwarding: one request to one of its candidates, again where that is safe, and the answer back as a stream.
//!
//! [`exchange`] is the seam; [`downstream`] and [`upstream`] implement it on Pingora's sessions and are the only
//! files of this room that know Pingora. [`attempts`] decides about retries, [`relay`] moves the answer.

pub mod attempts;
pub mod budget;
pub mod downstream;
pub mod exchange;
pub mod plan;
pub mod relay;
pub mod upstream;
