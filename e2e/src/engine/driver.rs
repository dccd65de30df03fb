//! Runs the model against the wall clock and hands its tokens to those who wait for them.
//!
//! One task steps; submitting and cancelling only take the lock for a moment. A step's tokens are handed out when the
//! step's time is over, so a sequence submitted meanwhile waits for the next step, as in an engine.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};

use super::kv::KvCommand;
use super::metrics::Latencies;
use super::model::{Engine, Gauges, StepResult, SubmitError};
use super::profile::Profile;
use super::sequence::{GenerateRequest, RequestId};

/// How far the clock may lag behind its plan before the plan gives way.
const MAX_LAG: Duration = Duration::from_millis(50);

/// Tokens of one sequence that became ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Which sequence of its generation.
    pub(crate) sequence: usize,
    /// How many tokens.
    pub(crate) tokens: u32,
    /// Prompt tokens found in the prefix cache.
    pub(crate) cached: usize,
    /// Whether these are the last.
    pub(crate) last: bool,
}

#[derive(Debug)]
struct Subscriber {
    sequence: usize,
    /// Tokens to collect before a piece is sent; the last piece is sent in any case.
    batch: u32,
    pending: u32,
    prompt_tokens: u64,
    submitted: Instant,
    previous: Option<Instant>,
    sender: mpsc::UnboundedSender<Piece>,
}

#[derive(Debug)]
struct State {
    engine: Engine,
    subscribers: HashMap<RequestId, Subscriber>,
    latencies: Latencies,
}

/// One model in real time.
#[derive(Debug)]
pub(crate) struct Driver {
    /// Held without awaiting: for one step, submission or scrape.
    state: Mutex<State>,
    wake: Notify,
    started: Instant,
    speed: f64,
    /// Where each step's cache events go, if anywhere.
    events: Option<mpsc::UnboundedSender<KvCommand>>,
}

impl Driver {
    pub(crate) fn new(
        profile: Profile,
        speed: f64,
        events: Option<mpsc::UnboundedSender<KvCommand>>,
    ) -> Arc<Self> {
        let mut engine = Engine::new(profile);
        if events.is_some() {
            engine.record_events();
        }
        let state = State {
            engine,
            subscribers: HashMap::new(),
            latencies: Latencies::default(),
        };
        Arc::new(Self {
            state: Mutex::new(state),
            wake: Notify::new(),
            started: Instant::now(),
            speed: speed.max(1e-6),
            events,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn gauges(&self) -> Gauges {
        self.lock().engine.gauges()
    }

    pub(crate) fn latencies(&self) -> Latencies {
        self.lock().latencies.clone()
    }

    pub(crate) fn reset_prefix_cache(&self) -> bool {
        self.lock().engine.reset_prefix_cache()
    }

    /// Submits the sequences of one request, all or none; pieces hold `batch` tokens.
    pub(crate) fn submit(
        self: &Arc<Self>,
        requests: Vec<GenerateRequest>,
        batch: u32,
    ) -> Result<Generation, SubmitError> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let submitted = Instant::now();
        let now = self.model_time(submitted);
        let mut generation = Generation {
            driver: self.clone(),
            ids: Vec::with_capacity(requests.len()),
            receiver,
            unfinished: 0,
        };
        let mut refused = None;
        let mut state = self.lock();
        for (sequence, request) in requests.into_iter().enumerate() {
            let prompt_tokens = request.prompt.len() as u64;
            let id = match state.engine.submit(request, now) {
                Ok(id) => id,
                Err(error) => {
                    refused = Some(error);
                    break;
                }
            };
            let sender = sender.clone();
            let subscriber = Subscriber {
                sequence,
                batch,
                pending: 0,
                prompt_tokens,
                submitted,
                previous: None,
                sender,
            };
            state.subscribers.insert(id, subscriber);
            generation.ids.push(id);
            generation.unfinished += 1;
        }
        drop(state);
        if let Some(error) = refused {
            return Err(error);
        }
        self.wake.notify_one();
        Ok(generation)
    }

    fn cancel(&self, ids: &[RequestId]) {
        let mut state = self.lock();
        for id in ids {
            if state.subscribers.remove(id).is_some() {
                state.engine.cancel(*id);
                state.latencies.aborted += 1;
            }
        }
    }

    fn model_time(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.started)
            .mul_f64(self.speed)
    }

    /// Steps for ever.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut clock = Instant::now();
        loop {
            let Some(mut result) = self.step(clock) else {
                self.wake.notified().await;
                clock = Instant::now();
                continue;
            };
            clock += result.duration.div_f64(self.speed);
            let now = Instant::now();
            if clock > now && !result.duration.is_zero() {
                tokio::time::sleep_until(clock.into()).await;
            } else {
                clock = clock.max(now.checked_sub(MAX_LAG).unwrap_or(now));
            }
            self.publish(&mut result);
            self.deliver(&result);
            if result.duration.is_zero() {
                clock = Instant::now();
                tokio::task::yield_now().await;
            }
        }
    }

    fn step(&self, clock: Instant) -> Option<StepResult> {
        let mut state = self.lock();
        state
            .engine
            .has_work()
            .then(|| state.engine.step(self.model_time(clock)))
    }

    /// Before the tokens: who has seen an answer may count on its blocks being announced.
    fn publish(&self, result: &mut StepResult) {
        if let Some(events) = &self.events
            && !result.events.is_empty()
        {
            // An error means that the engine is stopping.
            let _ = events.send(KvCommand::Publish(std::mem::take(&mut result.events)));
        }
    }

    fn deliver(&self, result: &StepResult) {
        let now = Instant::now();
        let state = &mut *self.lock();
        state.latencies.busy += result.duration;
        for token in &result.tokens {
            // Cancelled while its step ran.
            let Some(subscriber) = state.subscribers.get_mut(&token.id) else {
                continue;
            };
            match subscriber.previous.replace(now) {
                Some(previous) => state.latencies.inter_token.observe(now - previous),
                None => {
                    state.latencies.prompt_tokens += subscriber.prompt_tokens;
                    state
                        .latencies
                        .first_token
                        .observe(now - subscriber.submitted);
                }
            }
            state.latencies.generated_tokens += 1;
            subscriber.pending += 1;
            if token.last || subscriber.pending >= subscriber.batch {
                let tokens = std::mem::take(&mut subscriber.pending);
                // A receiver that is gone cancels by itself.
                let _ = subscriber.sender.send(Piece {
                    sequence: subscriber.sequence,
                    tokens,
                    cached: token.cached_tokens,
                    last: token.last,
                });
            }
            if token.last {
                state.latencies.finished += 1;
                state.subscribers.remove(&token.id);
            }
        }
    }
}

/// The sequences of one request on their way; dropping it cancels what is unfinished.
#[derive(Debug)]
pub(crate) struct Generation {
    driver: Arc<Driver>,
    ids: Vec<RequestId>,
    receiver: mpsc::UnboundedReceiver<Piece>,
    unfinished: usize,
}

impl Generation {
    /// The next piece of any sequence; none when all are finished.
    pub(crate) async fn next(&mut self) -> Option<Piece> {
        if self.unfinished == 0 {
            return None;
        }
        let piece = self.receiver.recv().await?;
        self.unfinished -= usize::from(piece.last);
        Some(piece)
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        if self.unfinished > 0 {
            self.driver.cancel(&self.ids);
        }
    }
}
