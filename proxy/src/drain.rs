//! Readiness and shutdown: who is still being served, and whether new work is still welcome.
//!
//! Not for signals: see `server::shutdown`.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};

/// Counts requests being served, and says when to stop.
#[derive(Debug, Default)]
pub struct Drain {
    draining: AtomicBool,
    configured: AtomicBool,
    active: AtomicUsize,
    /// HTTP/2 connections: what a finished request wrote may still wait in one of them for the socket.
    multiplexed: AtomicUsize,
    idle: Notify,
    closing: watch::Sender<bool>,
}

/// One request being served, or one connection.
#[derive(Debug)]
pub struct ActiveGuard<'a> {
    drain: &'a Drain,
    counter: &'a AtomicUsize,
}

impl Drain {
    /// Counts one request until the guard drops.
    pub fn enter(&self) -> ActiveGuard<'_> {
        self.guard(&self.active)
    }

    /// Counts one HTTP/2 connection until the guard drops.
    pub fn multiplexed(&self) -> ActiveGuard<'_> {
        self.guard(&self.multiplexed)
    }

    fn guard<'a>(&'a self, counter: &'a AtomicUsize) -> ActiveGuard<'a> {
        counter.fetch_add(1, Ordering::AcqRel);
        ActiveGuard {
            drain: self,
            counter,
        }
    }

    /// Requests being served now.
    pub fn active(&self) -> usize {
        self.active.load(Ordering::Acquire)
    }

    /// From now on: not ready, and connections close after their response.
    pub fn begin(&self) {
        self.draining.store(true, Ordering::Release);
        self.idle.notify_waiters();
    }

    /// Has [`Self::begin`] been called?
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// From now on: connections take no new requests once they have finished those they have.
    pub fn close_connections(&self) {
        self.closing.send_replace(true);
    }

    /// Turns true with [`Self::close_connections`].
    pub fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    /// The first configuration is loaded.
    pub fn set_configured(&self) {
        self.configured.store(true, Ordering::Release);
    }

    /// Should a load balancer send new requests here?
    pub fn is_ready(&self) -> bool {
        self.configured.load(Ordering::Acquire) && !self.is_draining()
    }

    /// Waits until nothing is being served, at most `limit`; false when the limit came first.
    pub async fn wait_idle(&self, limit: Duration) -> bool {
        self.wait_zero(&self.active, limit).await
    }

    /// Waits until every HTTP/2 connection is closed, and so has sent all, at most `limit`; false when the
    /// limit came first. To be called after [`Self::close_connections`].
    pub async fn wait_closed(&self, limit: Duration) -> bool {
        self.wait_zero(&self.multiplexed, limit).await
    }

    async fn wait_zero(&self, counter: &AtomicUsize, limit: Duration) -> bool {
        let zero = async {
            loop {
                let changed = self.idle.notified();
                if counter.load(Ordering::Acquire) == 0 {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(limit, zero).await.is_ok()
    }
}

impl Drop for ActiveGuard<'_> {
    fn drop(&mut self) {
        if self.counter.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.drain.idle.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_for_the_last_request_and_no_longer() {
        let drain = Drain::default();
        let guard = drain.enter();
        assert!(!drain.wait_idle(Duration::from_secs(1)).await);
        let started = tokio::time::Instant::now();
        let (idle, ()) = tokio::join!(drain.wait_idle(Duration::from_secs(60)), async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            drop(guard);
        });
        assert!(idle);
        assert_eq!(started.elapsed(), Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn connections_are_waited_for_apart_from_requests() {
        let drain = Drain::default();
        let connection = drain.multiplexed();
        let mut closing = drain.closing();
        assert!(drain.wait_idle(Duration::ZERO).await);
        assert!(!drain.wait_closed(Duration::from_secs(1)).await);
        let close = async {
            closing.changed().await.unwrap();
            drop(connection);
        };
        drain.close_connections();
        let (closed, ()) = tokio::join!(drain.wait_closed(Duration::from_secs(60)), close);
        assert!(closed && *closing.borrow());
    }

    #[test]
    fn ready_means_configured_and_not_draining() {
        let drain = Drain::default();
        assert!(!drain.is_ready());
        drain.set_configured();
        assert!(drain.is_ready());
        drain.begin();
        assert!(!drain.is_ready());
    }
}
