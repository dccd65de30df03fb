//! Prompts as token ids, in process: chat templates, tokenizers, a memo of what was tokenised before, and the
//! threads that do it.
//!
//! Ids exist to find cached prefixes, so nothing here may fail or hold a request: what cannot be tokenised, or
//! not in time, is [`Outcome::Unavailable`] or [`Outcome::Late`] and the byte index answers instead. Nothing is
//! downloaded, and nothing here asks an engine.
//!
//! [`request`] says what of a body is the prompt, [`template`] renders it, [`encode`] gives ids, [`model`] holds
//! the two for one model, [`pool`] is where requests come in, [`check`] holds our ids against the engine's.

pub mod check;
pub mod encode;
pub mod model;
pub mod pool;
pub mod request;
pub mod template;

pub use model::{ModelTokenizer, TokenizerError};
pub use pool::{Late, Outcome, TokenPool, TokenPoolParams};
pub use request::{ApiKind, Reason};
