//! Calls back when a file or folder has changed and has come to rest.
//!
//! For: editors that rename, tools that write in place, Kubernetes that swaps symbolic links, files that
//! come and go, and network file systems that send no events at all.
//! Not for reading them: see [`FileSource`](crate::FileSource).

mod fingerprint;
mod notifier;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub use self::fingerprint::Fingerprint;
use self::notifier::Notifier;

/// How often to look where no event arrives.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// A file that never comes to rest is read anyway after this.
const LONGEST_UNREST: Duration = Duration::from_secs(5);

/// Watches one path on a thread of its own until dropped.
#[derive(Debug)]
pub struct Watcher {
    stop: Arc<AtomicBool>,
    wake: SyncSender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Calls `on_change` whenever `path` (a file, a folder of files, or nothing yet) differs from what it
    /// was, `debounce` after the last event.
    ///
    /// # Errors
    /// When no thread can be started. Without file events it polls.
    pub fn new(
        path: impl Into<PathBuf>,
        debounce: Duration,
        on_change: impl FnMut() + Send + 'static,
    ) -> io::Result<Self> {
        let path = path.into();
        let seen = Fingerprint::of(&path);
        Self::since(seen, path, debounce, on_change)
    }

    /// As [`new`](Self::new), but also calls when `path` has changed since `seen` was taken: for a
    /// caller that reads first and watches then, and must not miss what came in between.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn since(
        seen: Fingerprint,
        path: impl Into<PathBuf>,
        debounce: Duration,
        on_change: impl FnMut() + Send + 'static,
    ) -> io::Result<Self> {
        Self::spawn(
            seen,
            path.into(),
            debounce,
            POLL_INTERVAL,
            Notifier::new,
            on_change,
        )
    }

    fn spawn(
        seen: Fingerprint,
        path: PathBuf,
        debounce: Duration,
        poll: Duration,
        notifier: impl FnOnce(SyncSender<()>) -> Notifier,
        on_change: impl FnMut() + Send + 'static,
    ) -> io::Result<Self> {
        // One place is enough: a second event says nothing new.
        let (wake, events) = sync_channel(1);
        let stop = Arc::new(AtomicBool::new(false));
        let notifier = notifier(wake.clone());
        let watch = Watch {
            path,
            debounce,
            poll,
            seen,
            events,
            notifier,
            stop: stop.clone(),
        };
        let thread = thread::Builder::new()
            .name("sluice-watch".into())
            .spawn(move || watch.run(on_change))?;
        Ok(Self {
            stop,
            wake,
            thread: Some(thread),
        })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Full means that the thread is about to wake anyway.
        let _ = self.wake.try_send(());
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

struct Watch {
    path: PathBuf,
    debounce: Duration,
    poll: Duration,
    seen: Fingerprint,
    events: Receiver<()>,
    notifier: Notifier,
    stop: Arc<AtomicBool>,
}

impl Watch {
    fn run(mut self, mut on_change: impl FnMut()) {
        let mut at_rest = false;
        while !self.stopped() {
            // Before looking: what changes after the look is an event.
            self.notifier.arm(&self.path);
            if Fingerprint::of(&self.path) != self.seen {
                if !at_rest {
                    self.settle();
                    at_rest = true;
                    continue;
                }
                self.seen = Fingerprint::of(&self.path);
                at_rest = false;
                on_change();
                continue;
            }
            at_rest = match self.events.recv_timeout(self.poll) {
                Ok(()) => {
                    self.settle();
                    true
                }
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => return,
            };
        }
    }

    /// Waits until the path has not changed for the quiet time. Its neighbours do not count: a log that is
    /// written in the same folder would keep it from ever coming to rest.
    fn settle(&self) {
        let deadline = Instant::now() + LONGEST_UNREST;
        let mut last = Fingerprint::of(&self.path);
        let mut rest = Instant::now() + self.debounce;
        while !self.stopped() && Instant::now() < deadline {
            let left = rest.saturating_duration_since(Instant::now());
            if left.is_zero() || self.events.recv_timeout(left).is_err() {
                return;
            }
            let current = Fingerprint::of(&self.path);
            if current != last {
                last = current;
                rest = Instant::now() + self.debounce;
            }
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests;
