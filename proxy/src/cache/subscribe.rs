//! Follows engines' KV-event publishers over ZeroMQ and hands what they say to a sink, in order and without holes, or
//! says that there was one.
//!
//! All followers share one thread with a runtime of its own. Reading a batch takes CPU (a long prompt's is some
//! hundred kilobytes), which must not delay requests on their workers; one thread bounds that CPU to one core, keeps
//! each publisher's events in order without a queue, and needs no hop per batch as a blocking pool would. Nothing is
//! buffered between socket and sink: a sink that is slow slows the reading, then the publisher drops batches, and
//! their numbers tell.
//! What events mean to an index is not known here, nor where publishers are found (`sources`).

mod follower;
mod replay;
mod sequence;
mod status;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::event::KvEvent;
use super::sources::EventSource;
use super::zmtp::Address;
pub use super::zmtp::ZmtpError;
use follower::Follower;
use status::Status;
pub use status::{SubscriptionCounts, SubscriptionState, SubscriptionView};

/// What becomes of the events of one engine. Called from the followers' thread: a call that takes long delays every
/// publisher's events.
pub trait EventSink: Send + Sync {
    /// One change of the cache of that data-parallel rank, in the order of its publisher.
    fn apply(&self, rank: Option<u32>, event: &KvEvent);
    /// All that was said of that rank no longer holds.
    fn clear(&self, rank: Option<u32>);
    /// Whether events come. When they do not, what is known ages: estimate instead.
    fn live(&self, live: bool);
}

/// How patient a follower is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowParams {
    /// Wait after the first failure; doubled with each further one.
    pub min_backoff: Duration,
    /// Longest wait between attempts.
    pub max_backoff: Duration,
    /// Time without a connection after which [`EventSink::live`] says no.
    pub lost_after: Duration,
    /// Longest wait for the next answer of a replay.
    pub replay_silence: Duration,
    /// Longest replay. What it brought until then stays.
    pub replay_deadline: Duration,
}

impl Default for FollowParams {
    fn default() -> Self {
        Self {
            min_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(10),
            lost_after: Duration::from_secs(15),
            replay_silence: Duration::from_secs(2),
            replay_deadline: Duration::from_secs(20),
        }
    }
}

/// The thread that follows. Dropping it ends all subscriptions.
#[derive(Debug)]
pub struct Followers {
    runtime: Handle,
    params: FollowParams,
    /// Dropped with this: ends the thread.
    _stop: oneshot::Sender<()>,
}

impl Followers {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no thread or no event queue.
    pub fn start(params: FollowParams) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        std::thread::Builder::new()
            .name("kv-events".to_owned())
            .spawn(move || {
                // Dropped or sent: both mean stop.
                let _ = runtime.block_on(stopped);
                // A name being resolved must not hold up the end.
                runtime.shutdown_background();
            })?;
        Ok(Self {
            runtime: handle,
            params,
            _stop: stop,
        })
    }

    /// Follows one publisher until the subscription is dropped.
    ///
    /// # Errors
    /// When an endpoint of the source cannot be read.
    pub fn follow(
        &self,
        source: &EventSource,
        sink: Arc<dyn EventSink>,
    ) -> Result<Subscription, ZmtpError> {
        let address: Address = source.endpoint.parse()?;
        let replay = source.replay.as_deref().map(str::parse).transpose()?;
        let status = Arc::new(Status::new(source));
        let follower = Follower::new(
            source,
            address,
            replay,
            sink,
            status.clone(),
            self.params.clone(),
        );
        let task = self.runtime.spawn(follower.run()).abort_handle();
        Ok(Subscription { status, task })
    }
}

/// One publisher that is followed. Dropping it ends that; the sink keeps what it was told.
#[derive(Debug)]
pub struct Subscription {
    status: Arc<Status>,
    task: AbortHandle,
}

impl Subscription {
    /// How it stands.
    pub fn state(&self) -> SubscriptionState {
        self.status.state()
    }

    /// What has happened so far.
    pub fn counts(&self) -> SubscriptionCounts {
        self.status.counts()
    }

    /// For those who only look; it outlives the subscription.
    pub fn view(&self) -> SubscriptionView {
        SubscriptionView::new(&self.status)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.task.abort();
    }
}
