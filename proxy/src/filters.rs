//! The filter chain: the extension seam of the gateway.
//!
//! The model is Proxy-Wasm's, for native code: a shared [`Plugin`] is built once from configuration and opens
//! one [`StreamFilter`] per request; hooks are synchronous and return a [`Step`]; a filter that must wait for
//! something hands over a future that borrows nothing, and is resumed with its result. The [`Chain`] is compiled
//! at load into one index list per hook, so a filter costs nothing in hooks it does not implement, and an empty
//! chain costs one length check per hook and no allocation.
//!
//! The life of one request, as its driver calls it on [`Stream`]:
//!
//! 1. [`Stream::request_head`], before routing, with the gateway-wide chain.
//! 2. [`Stream::enter_route`], once the body is read and the route is known.
//! 3. [`Stream::request_body`], then [`Stream::take_edits`].
//! 4. [`Stream::candidates`], then [`Stream::attempt`] for every try.
//! 5. [`Stream::response_head`] for whatever is answered: an engine's response, a filter's reply, or the
//!    gateway's own error. [`Stream::response_chunk`] only for engines' bodies.
//! 6. [`Stream::done`]; a stream dropped without it counts as aborted.
//!
//! Not here: sockets, Pingora types, routing, and the wire form of error objects.

mod canary;
mod candidates;
mod chain;
mod config;
mod cors;
mod headers;
mod plugin;
mod prompt_guard;
mod registry;
mod reply;
mod stream;
mod view;

#[cfg(test)]
mod testing;

pub use candidates::{Candidate, Candidates, TargetView};
pub use chain::{Chain, ChainError, FailureObserver};
pub use plugin::{ChunkStep, FilterError, Hooks, Phase, Plugin, Resumed, Step, StreamFilter};
pub use registry::{Builder, BuiltinFilters, Registry};
pub use reply::{LocalReply, ReplyBody};
pub use stream::{Flow, ResponseFlow, Stream, StreamInfo};
pub use view::{BodyView, Edits, End, Outcome, StreamView, TokenUsage};
