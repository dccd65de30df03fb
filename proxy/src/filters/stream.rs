//! Runs the chain for one request: opens filters as they are reached, calls hooks in order (response hooks in
//! reverse), awaits what filters wait for, and applies fail policies.
//!
//! Not for deciding when a phase begins: the driver does, see [`super`].

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::Extensions;

use super::{
    BodyView, Candidates, Chain, ChunkStep, Edits, Hooks, LocalReply, Outcome, Phase, ReplyBody,
};
use crate::http::{RequestHead, ResponseHead};

mod run;

use run::{Settled, Slot, State};

/// What the caller gives each stream, as filters draw neither time nor randomness themselves.
#[derive(Debug, Clone, Copy)]
pub struct StreamInfo {
    /// Uniformly random bits, seen by filters as [`super::StreamView::random`].
    pub random: u64,
    /// All waits of all filters together end here; one that does not is a failure of its filter.
    pub deadline: Instant,
}

/// What follows a request phase.
#[derive(Debug, PartialEq)]
#[must_use]
pub enum Flow {
    /// Go on.
    Next,
    /// Answer with this, by way of [`Stream::response_head`].
    Reply(LocalReply),
}

/// What follows the response-head phase.
#[derive(Debug, PartialEq)]
#[must_use]
pub enum ResponseFlow {
    /// Send the head, then the body it belongs to.
    Next,
    /// Send the head, which describes this answer now, and this in place of the body.
    Replace(ReplyBody),
}

/// The filters of one request.
///
/// Every future it hands out may be dropped at any point. It is `Send`, not `Sync`: hold it by value or `&mut`.
pub struct Stream {
    chain: Arc<Chain>,
    slots: Vec<Slot>,
    /// Slots from here on are not opened before the body: a filter answered [`super::Step::Stop`] to the head.
    held_from: usize,
    extensions: Extensions,
    edits: Edits,
    info: StreamInfo,
}

impl Stream {
    /// The filters of one request; none is opened yet.
    pub fn new(chain: &Arc<Chain>, info: StreamInfo) -> Self {
        let mut slots = Vec::new();
        slots.resize_with(chain.len(), Slot::default);
        Self {
            chain: Arc::clone(chain),
            held_from: slots.len(),
            slots,
            extensions: Extensions::new(),
            edits: Edits::default(),
            info,
        }
    }

    /// Opens the filters in order and shows them the request's head.
    pub async fn request_head(&mut self, head: &mut RequestHead) -> Flow {
        if self.slots.is_empty() {
            return Flow::Next;
        }
        self.enter_pending(head).await
    }

    /// Switches to a route's chain. Filters it disables or replaces are done (with the default [`Outcome`]);
    /// replacements are opened and shown the head, in order; all others keep their state.
    pub async fn enter_route(&mut self, chain: &Arc<Chain>, head: &mut RequestHead) -> Flow {
        if Arc::ptr_eq(&self.chain, chain) {
            return Flow::Next;
        }
        self.switch(chain);
        self.enter_pending(head).await
    }

    /// Shows the filters the request's whole body, and the head to those that a [`super::Step::Stop`] kept from it.
    /// To be called for requests without a body too. Edits are then in [`Self::take_edits`].
    pub async fn request_body(&mut self, head: &mut RequestHead, body: &BodyView<'_>) -> Flow {
        if self.held_from < self.slots.len() {
            return self.held_request(head, body).await;
        }
        for position in 0..self.chain.lists.request_body.len() {
            let index = self.chain.lists.request_body[position];
            match self.body_hook(index, head, body).await {
                Settled::Next => {}
                Settled::Stop => break,
                Settled::Reply(reply) => return Flow::Reply(reply),
            }
        }
        Flow::Next
    }

    /// What the filters asked to change in the body; takes it.
    pub fn take_edits(&mut self) -> Edits {
        std::mem::take(&mut self.edits)
    }

    /// Lets the filters choose the target and remove or score endpoints.
    pub fn candidates(&mut self, head: &RequestHead, candidates: &mut Candidates) -> Flow {
        for position in 0..self.chain.lists.candidates.len() {
            let index = self.chain.lists.candidates[position];
            let called = self.call(index, |filter, cx| {
                filter.on_candidates(cx, head, candidates)
            });
            if let Some(Err(error)) = called
                && let Some(reply) = self.fail(index, error)
            {
                return Flow::Reply(reply);
            }
        }
        Flow::Next
    }

    /// Shows the filters the head of one try, on its way to `endpoint`.
    pub fn attempt(&mut self, attempt: &mut RequestHead, endpoint: &str) -> Flow {
        for position in 0..self.chain.lists.attempt.len() {
            let index = self.chain.lists.attempt[position];
            let called = self.call(index, |filter, cx| filter.on_attempt(cx, attempt, endpoint));
            if let Some(Err(error)) = called
                && let Some(reply) = self.fail(index, error)
            {
                return Flow::Reply(reply);
            }
        }
        Flow::Next
    }

    /// Shows the entered filters, in reverse, the head about to be sent to the client. A filter that replies here
    /// (or fails closed) replaces head and body; the filters before it in the chain see the replacement.
    pub async fn response_head(&mut self, response: &mut ResponseHead) -> ResponseFlow {
        let mut flow = ResponseFlow::Next;
        for position in 0..self.chain.lists.response_head.len() {
            let index = self.chain.lists.response_head[position];
            let called = self.call(index, |filter, cx| filter.on_response_head(cx, response));
            let Some(step) = called else { continue };
            match self
                .settle(index, step, Phase::ResponseHead(response))
                .await
            {
                Settled::Next => {}
                Settled::Stop => break,
                Settled::Reply(reply) => {
                    let (head, body) = reply.into_parts();
                    *response = head;
                    flow = ResponseFlow::Replace(body);
                }
            }
        }
        flow
    }

    /// Shows the entered filters, in reverse, a piece of an engine's body, to be sent when the answer is
    /// [`ChunkStep::Pass`]. At the end of the body it must be called once with `last` set (and an empty chunk if
    /// need be), so that what is held back comes out. Not for local replies.
    pub fn response_chunk(&mut self, chunk: &mut Bytes, last: bool) -> ChunkStep {
        for position in 0..self.chain.lists.response_chunk.len() {
            let index = self.chain.lists.response_chunk[position];
            match self.chunk_hook(index, chunk, last) {
                ChunkStep::Pass => {}
                other => return other,
            }
        }
        ChunkStep::Pass
    }

    /// Would any filter of this request be called in this hook? Spares the driver building views for nobody.
    /// Asked after the request phases, about one hook that follows them; others are answered with `false`.
    pub fn wants(&self, hook: Hooks) -> bool {
        let lists = &self.chain.lists;
        let list = match hook {
            Hooks::CANDIDATES => &lists.candidates,
            Hooks::ATTEMPT => &lists.attempt,
            Hooks::RESPONSE_HEAD => &lists.response_head,
            Hooks::RESPONSE_CHUNK => &lists.response_chunk,
            _ => return false,
        };
        list.iter()
            .any(|index| self.slots[*index].state == State::Active)
    }

    /// Tells every opened filter how the request ended. Later calls do nothing.
    pub fn done(&mut self, outcome: &Outcome) {
        for slot in self.slots.iter_mut().rev() {
            slot.close(outcome);
        }
    }

    /// Typed data the filters share along this stream.
    pub fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// As [`Self::extensions`], for the driver to leave facts there.
    pub fn extensions_mut(&mut self) -> &mut Extensions {
        &mut self.extensions
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.done(&Outcome::default());
    }
}

#[cfg(test)]
mod tests;
