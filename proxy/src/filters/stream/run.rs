//! The inner half of running a chain: one filter's part of one phase.
//!
//! Not for the order of phases: see [`super`].

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use sluice_config::bootstrap::FailPolicy;

use super::{Flow, Stream};
use crate::filters::view::StreamView;
use crate::filters::{
    BodyView, Chain, ChunkStep, FilterError, Hooks, LocalReply, Outcome, Phase, Step, StreamFilter,
};
use crate::http::RequestHead;

/// Most bytes of a response one filter may hold back.
pub(super) const HELD_LIMIT: usize = 1 << 20;

#[derive(Default)]
pub(super) struct Slot {
    pub(super) state: State,
    /// Kept after a failure too, for `on_done`.
    filter: Option<Box<dyn StreamFilter>>,
    /// Response bytes it holds back.
    held: BytesMut,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Not reached yet.
    #[default]
    Pending,
    /// Entered.
    Active,
    /// Disabled, not interested, or failed.
    Off,
}

/// How one filter's part of a phase ended, its waits included.
pub(super) enum Settled {
    Next,
    Stop,
    Reply(LocalReply),
}

impl Stream {
    /// Enters, in order, what is pending and not held.
    pub(super) async fn enter_pending(&mut self, head: &mut RequestHead) -> Flow {
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
    pub(super) async fn held_request(
        &mut self,
        head: &mut RequestHead,
        body: &BodyView<'_>,
    ) -> Flow {
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

    pub(super) async fn body_hook(
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
    pub(super) async fn settle(
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

    pub(super) fn chunk_hook(&mut self, index: usize, chunk: &mut Bytes, last: bool) -> ChunkStep {
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
    pub(super) fn call<R>(
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
    pub(super) fn fail(&mut self, index: usize, error: FilterError) -> Option<LocalReply> {
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
    pub(super) fn switch(&mut self, chain: &Arc<Chain>) {
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

impl Slot {
    /// Ends the filter, if there is one that has not ended.
    pub(super) fn close(&mut self, outcome: &Outcome) {
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
