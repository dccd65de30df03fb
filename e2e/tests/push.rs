//! A gateway that follows a control loop: what is pushed is served, what is wrong is refused, pods drain without a loss,
//! and a restart serves from disk. The control loop here does what each test says; the real one is tested on a cluster.

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

#[path = "push/bed.rs"]
mod bed;
#[path = "push/connect.rs"]
mod connect;
#[path = "push/disk.rs"]
mod disk;
#[path = "push/draining.rs"]
mod draining;
#[path = "push/layers.rs"]
mod layers;
#[path = "push/real.rs"]
mod real;
#[path = "push/refused.rs"]
mod refused;
#[path = "push/serves.rs"]
mod serves;
