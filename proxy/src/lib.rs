//! The data plane: takes OpenAI-style requests, routes them by model to a pool of inference endpoints, and
//! streams the answers back.
//!
//! The request's way, one room per step: [`http`] (heads and hygiene), [`openai`] (what the body says),
//! [`filters`] (the extension seam). Knows Pingora, never a Kubernetes client.

pub mod filters;
pub mod http;
pub mod openai;
pub mod telemetry;
