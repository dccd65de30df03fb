//! Engines that publish KV events, and followers that keep up with them: what a follower holds in the end is what one
//! that lost nothing holds, whatever was lost, restarted or sent by strangers in between.

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

#[path = "kv_events/convergence.rs"]
mod convergence;
#[path = "kv_events/engine.rs"]
mod engine;
#[path = "kv_events/hostile.rs"]
mod hostile;
#[path = "kv_events/model.rs"]
mod model;
