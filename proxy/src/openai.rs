//! The OpenAI wire: what a request body says, edits on it, SSE, and error objects.
//!
//! Pure: bytes in, values out. No I/O, no Pingora type, no decision about routing or limits.

pub mod edit;
pub mod multipart;
pub mod scan;
pub mod sse;
