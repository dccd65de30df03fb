//! The wire, seen from outside: what any implementation of the seam (`sluice_proxy::forward::exchange`) must do
//! with bytes, connections and framing. Nothing here knows Pingora, so that another engine answers to the same
//! tests.

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

#[path = "conformance/bed.rs"]
mod bed;
#[path = "conformance/bodies.rs"]
mod bodies;
#[path = "conformance/fields.rs"]
mod fields;
#[path = "conformance/framing.rs"]
mod framing;
#[path = "conformance/hygiene.rs"]
mod hygiene;
#[path = "conformance/reuse.rs"]
mod reuse;
