//! Other replicas' side of the push port: each that asks is told what the gateways here have acknowledged, and what
//! changes of it. See [`summary`](super::summary).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::info;

use super::summary::{Summary, SummaryMessage};
use super::{Peer, Shared};

/// Changes within this time are told together: a push to many gateways is many changes.
const GATHER: Duration = Duration::from_millis(500);

/// What the transport sends.
pub(super) type Summaries = ReceiverStream<Result<SummaryMessage, Status>>;

/// Tells in a task of its own, until one of both is gone.
pub(super) fn spawn(shared: Arc<Shared>, peer: Peer) -> Summaries {
    // One at a time: a slow reader is told the newest when it has taken the last.
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let _stream = peer.stream();
        info!(address = %peer.address, "another replica listens");
        let end = tokio::select! {
            end = tell(&shared, &sender) => end,
            () = sender.closed() => None,
        };
        if let Some(end) = end {
            let _ = sender.send(Err(end)).await;
        }
        info!(address = %peer.address, "another replica no longer listens");
    });
    ReceiverStream::new(receiver)
}

/// Until the process goes down, or the stream is old; the answer is its last word.
async fn tell(
    shared: &Shared,
    sender: &mpsc::Sender<Result<SummaryMessage, Status>>,
) -> Option<Status> {
    let mut changed = shared.acks.changed();
    // What no gateway here may see is acknowledged by none, and yet has to be told.
    let mut generations = shared.state.generations();
    let mut shutdown = shared.shutdown.clone();
    let aged = Instant::now() + shared.limits.max_age;
    let mut sent: Option<Summary> = None;
    loop {
        changed.borrow_and_update();
        generations.borrow_and_update();
        let now = shared.acks.summary();
        if sent.as_ref() != Some(&now) {
            let before = sent.take().unwrap_or_default();
            let name = shared.state.identity();
            for part in now.since(&before, shared.instance, name) {
                sender.send(Ok(part)).await.ok()?;
            }
            sent = Some(now);
        }
        tokio::select! {
            changed = changed.changed() => changed.ok()?,
            newer = generations.changed() => newer.ok()?,
            _ = shutdown.wait_for(|&down| down) => {
                return Some(Status::unavailable("this replica is shutting down"));
            }
            () = sleep_until(aged) => {
                let words = "this stream is old; connect again, so that it is authenticated anew";
                return Some(Status::unavailable(words));
            }
        }
        sleep(GATHER).await;
    }
}
