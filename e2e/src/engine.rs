//! An inference engine without a model: it answers as vLLM does, takes the time an accelerator would take, and fails
//! on request.
//!
//! Two halves. The *model* ([`Engine`], [`Profile`]) is pure: scheduler, KV blocks, prefix cache and step times, for
//! real or virtual time. The *server* ([`EngineServer`]) drives one model in real time behind the OpenAI API over
//! HTTP/1.1 and h2c. One token is four bytes of text, so that byte-hashing and token-hashing routers see the same
//! sharing; output is a function of seed and prompt. It is not a mock of any engine but vLLM's wire behaviour.

mod api;
mod blocks;
mod connection;
mod counters;
mod driver;
mod fault;
pub mod hash;
mod http2;
mod kv;
mod metrics;
mod model;
mod options;
mod profile;
mod reply;
mod sequence;
mod server;
mod shared;
mod stream;
mod timing;
mod tokenizer;
pub mod tokens;

pub use blocks::KvEvent;
pub use counters::RequestCounts;
pub use fault::{Fault, FaultError, FaultRule};
pub use kv::{KvFault, KvOptions};
pub use model::{Engine, Finished, Gauges, StepResult, SubmitError, Token};
pub use options::EngineOptions;
pub use profile::Profile;
pub use reply::Incoming;
pub use sequence::{GenerateRequest, RequestId};
pub use server::{EngineServer, StartError};
pub use timing::Batch;
pub use tokenizer::TokenizingError;
