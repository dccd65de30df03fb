//! What goes wrong between programs, on command: networks that are cut ([`Link`]) and an API server that is slow,
//! overrun, forgetful or behind ([`Detour`]).
//!
//! Not for killing or freezing processes: their owners do that.

mod detour;
mod link;

pub use detour::{Detour, Gone, Request};
pub use link::Link;
