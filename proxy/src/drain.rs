//! Readiness and shutdown: who is still being served, and whether new work is still welcome.
//!
//! Not for signals: see `server::shutdown`.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// Counts requests being served, and says when to stop.
#[derive(Debug, Default)]
pub struct Drain {
    draining: AtomicBool,
    configured: AtomicBool,
    active: AtomicUsize,
    idle: Notify,
}

/// One request being served.
#[derive(Debug)]
pub struct ActiveGuard<'a>(&'a Drain);

impl Drain {
    /// Counts one request until the guard drops.
    pub fn enter(&self) -> ActiveGuard<'_> {
        self.active.fetch_add(1, Ordering::AcqRel);
        ActiveGuard(self)
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
        let idle = async {
            loop {
                let changed = self.idle.notified();
                if self.active() == 0 {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(limit, idle).await.is_ok()
    }
}

impl Drop for ActiveGuard<'_> {
    fn drop(&mut self) {
        if self.0.active.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.notify_waiters();
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
