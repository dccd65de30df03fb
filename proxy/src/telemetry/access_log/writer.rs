//! The writer's thread: sleeps until woken, formats in batches, writes each batch at once.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use sluice_config::bootstrap::AccessLogFormat;

use super::output::Output;
use super::{Shared, format};

/// A batch is written when it has grown to this.
const BATCH_BYTES: usize = 64 << 10;
/// Pause after a batch, so that a burst of requests costs one wake-up and not one each.
const LINGER: Duration = Duration::from_millis(5);

pub(super) struct Writer {
    shared: Arc<Shared>,
    output: Output,
    format: AccessLogFormat,
    flushes: Receiver<Sender<()>>,
    /// How often a file is checked for having been renamed away, and the longest sleep.
    check_interval: Duration,
    checked: Instant,
    /// The last write failed: say so once, not per batch.
    failing: bool,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        output: Output,
        format: AccessLogFormat,
        flushes: Receiver<Sender<()>>,
        check_interval: Duration,
    ) -> Self {
        Self {
            shared,
            output,
            format,
            flushes,
            check_interval,
            checked: Instant::now(),
            failing: false,
        }
    }

    pub(super) fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH_BYTES);
        loop {
            // Flushes are taken before the queue is emptied: what was logged before them is then in this batch.
            let (waiting, closed) = self.asked();
            self.reopen(!waiting.is_empty());
            let wrote = self.drain(&mut batch);
            for done in waiting {
                // Whoever asked may have given up waiting.
                let _ = done.send(());
            }
            match (closed, wrote) {
                (true, _) => return,
                (false, true) => thread::park_timeout(LINGER),
                (false, false) => self.sleep(),
            }
        }
    }

    fn asked(&self) -> (Vec<Sender<()>>, bool) {
        let mut waiting = Vec::new();
        loop {
            match self.flushes.try_recv() {
                Ok(done) => waiting.push(done),
                Err(error) => return (waiting, error == TryRecvError::Disconnected),
            }
        }
    }

    /// Writes everything queued; false when there was nothing.
    fn drain(&mut self, batch: &mut Vec<u8>) -> bool {
        // At most one queue's worth per turn, so that flushes and checks get theirs under a steady flood.
        let mut any = false;
        let mut lines = 0;
        for _ in 0..self.shared.queue.capacity() {
            let Some(record) = self.shared.queue.pop() else {
                break;
            };
            format::line(self.format, &record, batch);
            any = true;
            lines += 1;
            if batch.len() >= BATCH_BYTES {
                self.write(batch, lines);
                lines = 0;
            }
        }
        self.write(batch, lines);
        any
    }

    fn write(&mut self, batch: &mut Vec<u8>, lines: u64) {
        if batch.is_empty() {
            return;
        }
        let written = self.output.write(batch);
        batch.clear();
        match written {
            Ok(()) => self.failing = false,
            Err(error) => {
                self.shared.dropped.inc_by(lines);
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(%error, "access log cannot be written, lines are lost and counted");
                }
            }
        }
    }

    fn reopen(&mut self, now: bool) {
        if !now && self.checked.elapsed() < self.check_interval {
            return;
        }
        self.checked = Instant::now();
        if let Err(error) = self.output.reopen_if_moved() {
            tracing::error!(%error, "access log file cannot be reopened, writing to the old one");
        }
    }

    fn sleep(&self) {
        self.shared.asleep.store(true, Ordering::Relaxed);
        // Pairs with the fence in `AccessLog::log`: either we see its record or it sees us asleep.
        fence(Ordering::SeqCst);
        if self.shared.queue.is_empty() {
            thread::park_timeout(self.check_interval);
        }
        self.shared.asleep.store(false, Ordering::Relaxed);
    }
}
