//! One endpoint's side of the wire: how to reach it, and its idle HTTP/1.1 connections, youngest first.
//!
//! Not Pingora's pool: that spawns a task for every connection given back, and asks the kernel for the peer's name
//! at every reuse.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use pingora_core::protocols::Stream;
use tokio::io::AsyncReadExt;

/// How to reach one endpoint, and the connections kept to it.
pub struct Link {
    pub(super) host: String,
    pub(super) port: u16,
    /// `host:port` for the `host` field and the HTTP/2 authority.
    pub(super) authority: String,
    pub(super) tls: bool,
    pub(super) http2: bool,
    /// Held for a push or a pop, never over an await.
    idle: Mutex<VecDeque<Idle>>,
    /// No pool has the endpoint any more: nothing is kept.
    retired: AtomicBool,
}

struct Idle {
    stream: Stream,
    since: Instant,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("authority", &self.authority)
            .finish_non_exhaustive()
    }
}

impl Link {
    /// A link to `host:port`; `authority` is what the engine sees as its name.
    pub fn new(host: &str, port: u16, authority: &str, tls: bool, http2: bool) -> Self {
        Self {
            host: host.to_owned(),
            port,
            authority: authority.to_owned(),
            tls,
            http2,
            idle: Mutex::new(VecDeque::new()),
            retired: AtomicBool::new(false),
        }
    }

    /// Whether a pool still has the endpoint. If none does, idle connections are closed, and those that running
    /// requests hold when they are done.
    pub(crate) fn set_in_use(&self, in_use: bool) {
        self.retired.store(!in_use, Ordering::Relaxed);
        if !in_use {
            self.lock().clear();
        }
    }

    /// Does a pool have the endpoint?
    #[cfg(test)]
    pub(crate) fn is_in_use(&self) -> bool {
        !self.retired.load(Ordering::Relaxed)
    }

    /// Name or address of its host, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Idle connections kept now.
    pub fn idle_connections(&self) -> usize {
        self.lock().len()
    }

    /// The youngest idle connection that is still open.
    pub(super) fn take(&self, idle_timeout: Duration) -> Option<Stream> {
        loop {
            let mut youngest = self.lock().pop_back()?;
            if youngest.since.elapsed() >= idle_timeout {
                // All others are older still.
                self.lock().clear();
                return None;
            }
            // A read that would wait: open and quiet. No system call unless something has arrived.
            if youngest.stream.read(&mut [0]).now_or_never().is_none() {
                return Some(youngest.stream);
            }
        }
    }

    /// Keeps a connection that can serve another request; too many, or too old, and the oldest go.
    pub(super) fn keep(&self, stream: Stream, max_idle: usize, idle_timeout: Duration) {
        if max_idle == 0 {
            return;
        }
        let mut idle = self.lock();
        // Under the lock: what comes after it was emptied sees why.
        if self.retired.load(Ordering::Relaxed) {
            return;
        }
        let old = |idle: &Idle| idle.since.elapsed() >= idle_timeout;
        while idle.len() >= max_idle || idle.front().is_some_and(old) {
            idle.pop_front();
        }
        idle.push_back(Idle {
            stream,
            since: Instant::now(),
        });
    }

    /// Closes connections that have been idle for too long; to be called now and then.
    pub(crate) fn sweep(&self, idle_timeout: Duration) {
        let mut idle = self.lock();
        let old = idle.partition_point(|idle| idle.since.elapsed() >= idle_timeout);
        drop(idle.drain(..old));
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
