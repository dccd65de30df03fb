//! Prompts as token ids, in process: chat templates, tokenizers, a memo of what was tokenised before, and the
//! threads that do it.
//!
//! Ids exist to find cached prefixes, so nothing here may fail or hold a request: what cannot be tokenised, or
//! not in time, is [`Outcome::Unavailable`] or [`Outcome::Late`] and the byte index answers instead. Nothing is
//! downloaded, and nothing here asks an engine.

pub mod encode;
pub mod model;
pub mod request;
pub mod template;
