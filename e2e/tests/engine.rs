//! The engine simulator against real clients: reqwest where HTTP is meant, raw sockets where bytes are.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

#[path = "engine/api.rs"]
mod api;
#[path = "engine/client.rs"]
mod client;
#[path = "engine/faults.rs"]
mod faults;
#[path = "engine/lifecycle.rs"]
mod lifecycle;
#[path = "engine/surfaces.rs"]
mod surfaces;
