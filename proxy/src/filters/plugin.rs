//! What a filter implements: the shared plugin, the per-request filter, and the words they answer with.
//!
//! Not for running them: see [`super::Stream`].

use std::any::Any;
use std::fmt;
use std::ops::BitOr;

use bytes::Bytes;
use futures::future::BoxFuture;

use super::{BodyView, Candidates, LocalReply, Outcome, StreamView};
use crate::http::{RequestHead, ResponseHead};

/// A set of hooks. A filter is called only in hooks its plugin names.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Hooks(u8);

impl Hooks {
    /// No hook besides `on_done`, which every opened filter gets.
    pub const NONE: Self = Self(0);
    /// [`StreamFilter::on_request_head`].
    pub const REQUEST_HEAD: Self = Self(1);
    /// [`StreamFilter::on_request_body`].
    pub const REQUEST_BODY: Self = Self(1 << 1);
    /// [`StreamFilter::on_candidates`].
    pub const CANDIDATES: Self = Self(1 << 2);
    /// [`StreamFilter::on_attempt`].
    pub const ATTEMPT: Self = Self(1 << 3);
    /// [`StreamFilter::on_response_head`].
    pub const RESPONSE_HEAD: Self = Self(1 << 4);
    /// [`StreamFilter::on_response_chunk`].
    pub const RESPONSE_CHUNK: Self = Self(1 << 5);

    /// Are all hooks of `other` in this set?
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets; usable in constants.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOr for Hooks {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (Self::REQUEST_HEAD, "request_head"),
            (Self::REQUEST_BODY, "request_body"),
            (Self::CANDIDATES, "candidates"),
            (Self::ATTEMPT, "attempt"),
            (Self::RESPONSE_HEAD, "response_head"),
            (Self::RESPONSE_CHUNK, "response_chunk"),
        ];
        f.debug_set()
            .entries(
                names
                    .iter()
                    .filter(|(hook, _)| self.contains(*hook))
                    .map(|(_, name)| name),
            )
            .finish()
    }
}

/// The shared half of a filter: immutable, built once from configuration.
pub trait Plugin: Send + Sync {
    /// The configuration's `type`, such as `cors`.
    fn kind(&self) -> &'static str;

    /// The hooks its stream filters implement; the same set for the life of the plugin.
    fn hooks(&self) -> Hooks;

    /// Opens the filter for one request, or `None` when this request does not interest it: then it costs
    /// nothing further. `head` is what earlier filters of the chain left.
    fn open(&self, head: &RequestHead) -> Option<Box<dyn StreamFilter>>;
}

/// One filter in one request. State is plain fields; every method has a default that does nothing.
///
/// Once a method has failed, only [`Self::on_done`] is called any more.
pub trait StreamFilter: Send {
    /// The request's head, before routing. Edits reach routing and the engine.
    fn on_request_head(
        &mut self,
        _cx: &mut StreamView<'_>,
        _head: &mut RequestHead,
    ) -> Result<Step, FilterError> {
        Ok(Step::Next)
    }

    /// The whole request body, once, after routing. [`StreamView::replace_body`] replaces it.
    fn on_request_body(
        &mut self,
        _cx: &mut StreamView<'_>,
        _head: &mut RequestHead,
        _body: &BodyView<'_>,
    ) -> Result<Step, FilterError> {
        Ok(Step::Next)
    }

    /// May pin the target, and remove or score endpoints.
    fn on_candidates(
        &mut self,
        _cx: &mut StreamView<'_>,
        _head: &RequestHead,
        _candidates: &mut Candidates,
    ) -> Result<(), FilterError> {
        Ok(())
    }

    /// The head about to be sent to `endpoint` (`host:port`), once per try. Edits last for this try only.
    fn on_attempt(
        &mut self,
        _cx: &mut StreamView<'_>,
        _attempt: &mut RequestHead,
        _endpoint: &str,
    ) -> Result<(), FilterError> {
        Ok(())
    }

    /// The head about to be sent to the client, of whatever origin.
    fn on_response_head(
        &mut self,
        _cx: &mut StreamView<'_>,
        _response: &mut ResponseHead,
    ) -> Result<Step, FilterError> {
        Ok(Step::Next)
    }

    /// A piece of an engine's body, which may be edited; `last` when nothing follows (`chunk` may be empty then).
    fn on_response_chunk(
        &mut self,
        _cx: &mut StreamView<'_>,
        _chunk: &mut Bytes,
        _last: bool,
    ) -> ChunkStep {
        ChunkStep::Pass
    }

    /// The future of [`Step::Wait`] has ended. `phase` is the hook that waited, with what it may edit.
    fn on_resume(
        &mut self,
        _cx: &mut StreamView<'_>,
        _phase: Phase<'_>,
        _resumed: Resumed,
    ) -> Result<Step, FilterError> {
        Ok(Step::Next)
    }

    /// The request is over, however it ended. Called exactly once for each opened filter.
    fn on_done(&mut self, _outcome: &Outcome) {}
}

/// What follows a hook.
pub enum Step {
    /// Go on with the next filter.
    Next,
    /// Answer the request with this. The reply passes the response-head hooks of the filters entered so far.
    Reply(LocalReply),
    /// Do not go on to the next filter yet, but keep the body coming. From the request-head hook: later filters
    /// see the head only after this filter has seen the body. From the others, after which nothing comes: the
    /// rest of the chain is left out in this hook.
    Stop,
    /// Wait for this future (within the stream's deadline), then call [`StreamFilter::on_resume`]. It borrows
    /// nothing of the stream, so no lock or borrow crosses an await.
    Wait(BoxFuture<'static, Resumed>),
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Next => f.write_str("Next"),
            Self::Reply(reply) => f.debug_tuple("Reply").field(reply).finish(),
            Self::Stop => f.write_str("Stop"),
            Self::Wait(_) => f.write_str("Wait"),
        }
    }
}

/// What follows a response chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum ChunkStep {
    /// Send what is in the chunk now.
    Pass,
    /// Send nothing yet. The chain keeps what is in the chunk, and the next call sees it followed by the next
    /// chunk; at the last chunk it means [`Self::Pass`], as nothing would release it.
    Hold,
    /// Cut the response.
    Abort,
}

/// The hook that waited, and what it may edit when resumed.
#[derive(Debug)]
pub enum Phase<'a> {
    /// In [`StreamFilter::on_request_head`].
    RequestHead(&'a mut RequestHead),
    /// In [`StreamFilter::on_request_body`].
    RequestBody(&'a mut RequestHead, &'a BodyView<'a>),
    /// In [`StreamFilter::on_response_head`].
    ResponseHead(&'a mut ResponseHead),
}

impl Phase<'_> {
    /// The same phase for a shorter time, so that it can be given away once per resumption.
    pub(super) fn reborrow(&mut self) -> Phase<'_> {
        match self {
            Self::RequestHead(head) => Phase::RequestHead(head),
            Self::RequestBody(head, body) => Phase::RequestBody(head, body),
            Self::ResponseHead(response) => Phase::ResponseHead(response),
        }
    }
}

/// What a waited-for future brought: a value of the filter's choosing.
pub struct Resumed(Box<dyn Any + Send>);

impl Resumed {
    /// Carries `value` to [`StreamFilter::on_resume`].
    pub fn new<T: Any + Send>(value: T) -> Self {
        Self(Box::new(value))
    }

    /// The value, when it is a `T`.
    ///
    /// # Errors
    /// [`FilterError::WrongResume`] when it is not.
    pub fn take<T: Any>(self) -> Result<T, FilterError> {
        self.0
            .downcast()
            .map(|value| *value)
            .map_err(|_| FilterError::WrongResume)
    }
}

impl fmt::Debug for Resumed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resumed")
    }
}

/// Why a filter failed. What then happens to the request is the filter's `failPolicy`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// The filter says so.
    #[error("{0}")]
    Failed(String),
    /// What it waited for did not come before the stream's deadline.
    #[error("waited past the deadline")]
    Timeout,
    /// It was resumed with a value of a type it did not expect: an error in the filter.
    #[error("resumed with a value of another type")]
    WrongResume,
    /// It named a candidate that does not exist: an error in the filter.
    #[error("there is no {what} {index} among the candidates")]
    NoSuchCandidate {
        /// `endpoint` or `target`.
        what: &'static str,
        /// The index it gave.
        index: usize,
    },
    /// It gave an endpoint a score that is not a finite number: an error in the filter.
    #[error("the score of endpoint {0} is not finite")]
    BadScore(usize),
    /// It held back more of a response than one stream may.
    #[error("held back more than {limit} bytes of a response")]
    HeldTooMuch {
        /// The limit in bytes.
        limit: usize,
    },
}

impl FilterError {
    /// A failure in the filter's own words: lower case, no full stop, with what to do.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed(message.into())
    }
}
