//! The push over loopback, with gateways that speak it by tonic's client and Envoy's own messages.

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

#[path = "push/bed.rs"]
mod bed;
#[path = "push/faults.rs"]
mod faults;
#[path = "push/gateway.rs"]
mod gateway;
#[path = "push/protocol.rs"]
mod protocol;
#[path = "push/replicas.rs"]
mod replicas;
#[path = "push/security.rs"]
mod security;
