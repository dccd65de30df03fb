//! The data plane: takes OpenAI-style requests, routes them by model to a pool of inference endpoints, and
//! streams the answers back. Knows Pingora, never a Kubernetes client.
//!
//! A request's way, one room per step: [`server`] listens, [`forward`] is the seam to the wire, [`gateway`] is
//! the table of contents, [`http`] checks heads, [`auth`] who may ask, [`openai`] reads bodies, [`filters`] is the extension seam,
//! [`route`] finds the rule, [`schedule`] the endpoint among [`endpoints`], [`telemetry`] tells of it. [`source`]
//! brings configuration in, [`serving`] is what it becomes; [`admin`] shows it.

pub mod admin;
pub mod auth;
pub mod cache;
pub mod check;
pub mod drain;
pub mod endpoints;
pub mod error;
pub mod filters;
pub mod flags;
pub mod forward;
pub mod gateway;
pub mod http;
pub mod limits;
pub mod openai;
pub mod route;
pub mod router_configuration;
pub mod schedule;
pub mod server;
pub mod serving;
pub mod source;
pub mod telemetry;
pub mod tokens;
