//! How engines are chosen, with simulated engines and whole gateways: by what caches hold, by the policy written,
//! by what engines say of themselves; and that every count goes back.
//!
//! Not for how well it is chosen: the routing simulation measures that.

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

#[path = "routing/bed.rs"]
mod bed;
#[path = "routing/caches.rs"]
mod caches;
#[path = "routing/engines.rs"]
mod engines;
#[path = "routing/policies.rs"]
mod policies;
#[path = "routing/restart.rs"]
mod restart;
#[path = "routing/settled.rs"]
mod settled;
#[path = "routing/tokens.rs"]
mod tokens;
