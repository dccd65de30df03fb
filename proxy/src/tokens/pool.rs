//! Tokenising off the worker threads: a few threads, a bounded queue, and a deadline for who waits.
//!
//! A prompt that misses its deadline is tokenised all the same: its ids come by [`Late`], and its parts are in the
//! memo when the session's next turn asks. One that finds the queue full is not taken on at all. Nothing here
//! fails a request.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::encode::Memo;
use super::model::ModelTokenizer;
use super::request::{ApiKind, Reason, prompt};
use super::template::STACK_BYTES;

mod counters;

#[cfg(test)]
mod tests;

pub use counters::{Counters, CountersSnapshot, EngineOutcome};

/// Ids of a prompt, or why there are none.
pub type Ids = Result<Arc<[u32]>, Reason>;

/// How a pool is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenPoolParams {
    /// Threads that tokenise; at least one.
    pub threads: usize,
    /// Prompts that may wait for a thread; at least one.
    pub queue: usize,
    /// How long a request waits for its ids.
    pub deadline: Duration,
    /// Bytes of the memo, shared by all models.
    pub memo_bytes: usize,
    /// Largest body that is taken on: a queue of bodies is held memory.
    pub max_body_bytes: usize,
}

impl Default for TokenPoolParams {
    fn default() -> Self {
        Self {
            threads: 2,
            queue: 1_024,
            deadline: Duration::from_millis(3),
            memo_bytes: 64 << 20,
            max_body_bytes: 8 << 20,
        }
    }
}

/// What a request gets within its deadline.
#[derive(Debug)]
pub enum Outcome {
    /// The prompt's ids.
    Tokens(Arc<[u32]>),
    /// Not yet; they still come.
    Late(Late),
    /// There are none and will be none.
    Unavailable(Reason),
}

/// Ids on their way. Dropping it does not stop the work: the next turn profits from the memo.
#[derive(Debug)]
pub struct Late {
    ids: oneshot::Receiver<Ids>,
}

impl Late {
    /// Waits for the ids. For a task of its own, not for a request.
    ///
    /// # Errors
    /// The reason why there are none after all.
    pub async fn ids(self) -> Ids {
        self.ids.await.unwrap_or(Err(Reason::Panicked))
    }
}

struct Job {
    model: Arc<ModelTokenizer>,
    kind: ApiKind,
    body: Bytes,
    reply: oneshot::Sender<Ids>,
}

/// The threads, their queue and their memo. They end when the pool is dropped and the queue is empty.
#[derive(Debug)]
pub struct TokenPool {
    queue: SyncSender<Job>,
    shared: Arc<Shared>,
    deadline: Duration,
    max_body_bytes: usize,
    /// Whether the queue was full the last time: the change is logged, not every refusal.
    was_full: AtomicBool,
}

#[derive(Debug)]
struct Shared {
    memo: Memo,
    counters: Counters,
    /// Whether the last job panicked, for one log line per change.
    panicking: AtomicBool,
}

impl TokenPool {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn new(params: TokenPoolParams) -> std::io::Result<Self> {
        let (queue, jobs) = sync_channel(params.queue.max(1));
        let jobs = Arc::new(Mutex::new(jobs));
        let shared = Arc::new(Shared {
            memo: Memo::new(params.memo_bytes),
            counters: Counters::default(),
            panicking: AtomicBool::new(false),
        });
        for number in 0..params.threads.max(1) {
            let (jobs, shared) = (jobs.clone(), shared.clone());
            thread::Builder::new()
                .name(format!("tokens-{number}"))
                .stack_size(STACK_BYTES)
                .spawn(move || work(&jobs, &shared))?;
        }
        let (deadline, max_body_bytes) = (params.deadline, params.max_body_bytes);
        Ok(Self {
            queue,
            shared,
            deadline,
            max_body_bytes,
            was_full: AtomicBool::new(false),
        })
    }

    /// The ids of the prompt in `body`, if they come within the deadline.
    pub async fn tokenize(
        &self,
        model: &Arc<ModelTokenizer>,
        kind: ApiKind,
        body: Bytes,
    ) -> Outcome {
        if body.len() > self.max_body_bytes {
            return self.unavailable(Reason::Unsupported);
        }
        let (reply, mut ids) = oneshot::channel();
        let job = Job {
            model: model.clone(),
            kind,
            body,
            reply,
        };
        let sent = self.queue.try_send(job);
        self.note_fullness(matches!(sent, Err(TrySendError::Full(_))));
        if sent.is_err() {
            return self.unavailable(Reason::QueueFull);
        }
        match tokio::time::timeout(self.deadline, &mut ids).await {
            Ok(ids) => match ids.unwrap_or(Err(Reason::Panicked)) {
                Ok(ids) => {
                    self.shared.counters.in_time();
                    Outcome::Tokens(ids)
                }
                Err(reason) => self.unavailable(reason),
            },
            Err(_) => {
                self.shared.counters.late();
                Outcome::Late(Late { ids })
            }
        }
    }

    /// Counts a prompt that this pool has no tokenizer for, by what its engine said.
    pub fn told_by_engine(&self, outcome: EngineOutcome) {
        self.shared.counters.by_engine(outcome);
    }

    /// Counts since the start.
    pub fn counters(&self) -> CountersSnapshot {
        self.shared.counters.snapshot(&self.shared.memo)
    }

    fn unavailable(&self, reason: Reason) -> Outcome {
        self.shared.counters.unavailable(reason);
        Outcome::Unavailable(reason)
    }

    fn note_fullness(&self, full: bool) {
        if self.was_full.swap(full, Ordering::Relaxed) == full {
            return;
        }
        if full {
            tracing::warn!("queue of prompts to tokenise is full, routing goes on by bytes");
        } else {
            tracing::info!("queue of prompts to tokenise takes prompts again");
        }
    }
}

/// One thread's life.
fn work(jobs: &Mutex<Receiver<Job>>, shared: &Shared) {
    loop {
        // Waiting under the lock is the queue: one thread waits for a job, the others for their turn to.
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else {
            return;
        };
        let Job {
            model,
            kind,
            body,
            reply,
        } = job;
        let ids = ids_caught(shared, || {
            let prompt = prompt(kind, &body, |with_tools| model.content_format(with_tools))?;
            model.ids(&shared.memo, prompt)
        });
        // Nobody waits when the request has gone: the memo has the parts.
        let _ = reply.send(ids);
    }
}

/// The ids, with a panic of the library as a reason: a thread that died would take the pool with it.
fn ids_caught(shared: &Shared, ids: impl FnOnce() -> Ids) -> Ids {
    let ids = catch_unwind(AssertUnwindSafe(ids)).unwrap_or(Err(Reason::Panicked));
    let panicked = matches!(ids, Err(Reason::Panicked));
    if shared.panicking.swap(panicked, Ordering::Relaxed) != panicked {
        if panicked {
            tracing::error!("tokenizer panicked on a prompt, routing goes on by bytes");
        } else {
            tracing::info!("tokenizer works again");
        }
    }
    ids
}
