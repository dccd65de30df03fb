//! The response side of the OpenAI wire, chunk by chunk as the engine sends: token usage, a count of events, and
//! withholding the usage event the client did not ask for.
//!
//! Nothing here waits for whole events before bytes may pass, except where [`UsageFilter`] says so, and nothing
//! grows with the response. No I/O.

mod count;
mod event;
mod filter;
#[cfg(test)]
mod tests;
mod usage;

pub use self::count::EventCounter;
pub use self::filter::{MAX_HELD_BYTES, UsageFilter};
pub use self::usage::{Usage, UsageScan};
