//! The load generator: workloads of chats, a client that sends them in real time, and what it saw of them.
//!
//! For routing, where whole conversations, shared prefixes and the times of first and last token matter. It measures
//! any OpenAI-compatible router in front of simulated engines; overhead of a single request is `overhead/`'s.

pub mod answer;
pub mod client;
pub mod engines;
pub mod ideal;
pub mod lag;
pub mod process;
pub mod replay;
pub mod summary;
pub mod workload;

#[cfg(test)]
mod tests;
