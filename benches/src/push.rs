//! What the push from the control loop to gateways costs: the real server in a process of its own, simulated gateways in
//! this one, over loopback.
//!
//! For: time from a change to all gateways, first pushes, reconnect storms, memory. Not for what a gateway makes of a
//! change: the gateways here count what they receive, and keep nothing.

pub mod cluster;
pub mod gateway;
pub mod report;
pub mod scenarios;
pub mod server;
mod wire;
