//! Runs the chain for one request: opens filters as they are reached, calls hooks in order (response hooks in
//! reverse), awaits what filters wait for, and applies fail policies.
//!
//! Not for deciding when a phase begins: the driver does, see [`super`].

use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::{Extensions, StatusCode};
use sluice_config::bootstrap::FailPolicy;

use super::view::StreamView;
use super::{
    BodyView, Candidates, Chain, ChunkStep, Edits, FilterError, Hooks, LocalReply, Outcome, Phase,
    ReplyBody, Step, StreamFilter,
};
use crate::http::{RequestHead, ResponseHead};

/// Most bytes of a response one filter may hold back.
const HELD_LIMIT: usize = 1 << 20;

/// What the caller gives each stream, as filters draw neither time nor randomness themselves.
#[derive(Debug, Clone, Copy)]
pub struct StreamInfo {
    /// Uniformly random bits, seen by filters as [`StreamView::random`].
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
    /// Slots from here on are not opened before the body: a filter answered [`Step::Stop`] to the head.
    held_from: usize,
    extensions: Extensions,
    edits: Edits,
    info: StreamInfo,
}

#[derive(Default)]
struct Slot {
    state: State,
    /// Kept after a failure too, for `on_done`.
    filter: Option<Box<dyn StreamFilter>>,
    /// Response bytes it holds back.
    held: BytesMut,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not reached yet.
    #[default]
    Pending,
    /// Entered.
    Active,
    /// Disabled, not interested, or failed.
    Off,
}

/// How one filter's part of a phase ended, its waits included.
enum Settled {
    Next,
    Stop,
    Reply(LocalReply),
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

    /// Shows the filters the request's whole body, and the head to those that a [`Step::Stop`] kept from it.
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

    /// Enters, in order, what is pending and not held.
    async fn enter_pending(&mut self, head: &mut RequestHead) -> Flow {
        for index in 0..self.held_from {
            match self.enter(index, head).await {
                Settled::Next => {}
                Settled::Stop => {
                    self.held_from = index + 1;
                    break;
                }
                Settled::Reply(reply) => return Flow::Reply(reply),
            }
        }
        Flow::Next
    }

    /// The body phase after a [`Step::Stop`]: each filter gets the head, if it has not seen it, then the body.
    async fn held_request(&mut self, head: &mut RequestHead, body: &BodyView<'_>) -> Flow {
        self.held_from = self.slots.len();
        for index in 0..self.slots.len() {
            // A second `Stop` on the head changes nothing: the body comes at once.
            if let Settled::Reply(reply) = self.enter(index, head).await {
                return Flow::Reply(reply);
            }
            if !self.chain.entries[index]
                .hooks()
                .contains(Hooks::REQUEST_BODY)
            {
                continue;
            }
            match self.body_hook(index, head, body).await {
                Settled::Next => {}
                Settled::Stop => break,
                Settled::Reply(reply) => return Flow::Reply(reply),
            }
        }
        Flow::Next
    }

    /// Opens a pending filter and shows it the head; nothing for one already reached.
    async fn enter(&mut self, index: usize, head: &mut RequestHead) -> Settled {
        let slot = &mut self.slots[index];
        if slot.state != State::Pending {
            return Settled::Next;
        }
        let plugin = self.chain.entries[index].plugin.as_ref();
        slot.filter = plugin.and_then(|plugin| plugin.open(head));
        if slot.filter.is_none() {
            slot.state = State::Off;
            return Settled::Next;
        }
        slot.state = State::Active;
        if !self.chain.entries[index]
            .hooks()
            .contains(Hooks::REQUEST_HEAD)
        {
            return Settled::Next;
        }
        match self.call(index, |filter, cx| filter.on_request_head(cx, head)) {
            None => Settled::Next,
            Some(step) => self.settle(index, step, Phase::RequestHead(head)).await,
        }
    }

    async fn body_hook(
        &mut self,
        index: usize,
        head: &mut RequestHead,
        body: &BodyView<'_>,
    ) -> Settled {
        let replaced = self.edits.body.clone();
        let body = &BodyView {
            bytes: replaced.as_ref().unwrap_or(body.bytes),
            ..*body
        };
        match self.call(index, |filter, cx| filter.on_request_body(cx, head, body)) {
            None => Settled::Next,
            Some(step) => {
                let phase = Phase::RequestBody(head, body);
                self.settle(index, step, phase).await
            }
        }
    }

    /// Follows a step to its end: awaits and resumes as often as the filter waits, and turns a failure into
    /// what its policy says.
    async fn settle(
        &mut self,
        index: usize,
        mut step: Result<Step, FilterError>,
        mut phase: Phase<'_>,
    ) -> Settled {
        loop {
            let waited = match step {
                Ok(Step::Next) => return Settled::Next,
                Ok(Step::Stop) => return Settled::Stop,
                Ok(Step::Reply(reply)) => return Settled::Reply(reply),
                Ok(Step::Wait(future)) => {
                    tokio::time::timeout_at(self.info.deadline.into(), future).await
                }
                Err(error) => {
                    return self
                        .fail(index, error)
                        .map_or(Settled::Next, Settled::Reply);
                }
            };
            step = match waited {
                Err(_) => Err(FilterError::Timeout),
                Ok(resumed) => self
                    .call(index, |filter, cx| {
                        filter.on_resume(cx, phase.reborrow(), resumed)
                    })
                    .unwrap_or(Ok(Step::Next)),
            };
        }
    }

    fn chunk_hook(&mut self, index: usize, chunk: &mut Bytes, last: bool) -> ChunkStep {
        let slot = &mut self.slots[index];
        if !slot.held.is_empty() {
            slot.held.extend_from_slice(chunk);
            *chunk = std::mem::take(&mut slot.held).freeze();
        }
        let called = self.call(index, |filter, cx| {
            filter.on_response_chunk(cx, chunk, last)
        });
        match called {
            Some(ChunkStep::Abort) => ChunkStep::Abort,
            Some(ChunkStep::Hold) if !last => self.hold(index, chunk),
            _ => ChunkStep::Pass,
        }
    }

    /// Keeps `chunk` for the filter's next call. Over the limit the filter has failed, and what it held goes out
    /// if its policy is open.
    fn hold(&mut self, index: usize, chunk: &mut Bytes) -> ChunkStep {
        if chunk.len() > HELD_LIMIT {
            let error = FilterError::HeldTooMuch { limit: HELD_LIMIT };
            return match self.fail(index, error) {
                Some(_) => ChunkStep::Abort,
                None => ChunkStep::Pass,
            };
        }
        self.slots[index].held = BytesMut::from(std::mem::take(chunk));
        ChunkStep::Hold
    }

    /// Calls an entered filter; `None` when the slot holds none.
    fn call<R>(
        &mut self,
        index: usize,
        hook: impl FnOnce(&mut dyn StreamFilter, &mut StreamView<'_>) -> R,
    ) -> Option<R> {
        let slot = &mut self.slots[index];
        if slot.state != State::Active {
            return None;
        }
        let mut view = StreamView {
            extensions: &mut self.extensions,
            random: self.info.random,
            edits: &mut self.edits,
        };
        slot.filter
            .as_mut()
            .map(|filter| hook(filter.as_mut(), &mut view))
    }

    /// The one place where a filter's failure becomes a reply, or is passed over.
    fn fail(&mut self, index: usize, error: FilterError) -> Option<LocalReply> {
        self.slots[index].state = State::Off;
        let entry = &self.chain.entries[index];
        tracing::warn!(filter = %entry.name, %error, policy = ?entry.fail_policy, "filter failed");
        if let Some(observer) = &self.chain.observer {
            observer.filter_failed(&entry.name, &error, entry.fail_policy);
        }
        match entry.fail_policy {
            FailPolicy::Open => None,
            // The error's text may quote what is behind the gateway: it goes to the log, not to the client.
            FailPolicy::Closed => Some(LocalReply::error(
                StatusCode::INTERNAL_SERVER_ERROR,
                "filter_error",
                format!("filter `{}` failed", entry.name),
            )),
        }
    }

    /// Takes over the places of another chain: a place whose plugin differs is closed and pending again.
    fn switch(&mut self, chain: &Arc<Chain>) {
        let all_entered = self.held_from == self.slots.len();
        let places = self.slots.len().max(chain.len());
        self.slots.resize_with(places, Slot::default);
        for (index, slot) in self.slots.iter_mut().enumerate() {
            if !same_plugin(&self.chain, chain, index) {
                slot.close(&Outcome::default());
                *slot = Slot::default();
            }
        }
        self.slots.truncate(chain.len());
        self.chain = Arc::clone(chain);
        if all_entered {
            self.held_from = self.slots.len();
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.done(&Outcome::default());
    }
}

impl Slot {
    /// Ends the filter, if there is one that has not ended.
    fn close(&mut self, outcome: &Outcome) {
        self.state = State::Off;
        if let Some(mut filter) = self.filter.take() {
            filter.on_done(outcome);
        }
    }
}

fn same_plugin(one: &Chain, other: &Chain, index: usize) -> bool {
    let plugin = |chain: &Chain| chain.entries.get(index)?.plugin.clone();
    match (plugin(one), plugin(other)) {
        (Some(one), Some(other)) => Arc::ptr_eq(&one, &other),
        (one, other) => one.is_none() && other.is_none(),
    }
}

#[cfg(test)]
mod tests;
