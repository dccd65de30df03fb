//! The access log: one line per finished request, written by a thread of its own.
//!
//! A request only puts its record into a bounded lock-free queue. Formatting and writing happen on the writer's
//! thread; when it cannot keep up, records are dropped and counted, and no request waits.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use prometheus_client::metrics::counter::Counter;
use sluice_config::bootstrap::AccessLogConfig;

use self::output::Output;
use self::writer::Writer;
use super::record::RequestRecord;

mod format;
mod output;
#[cfg(test)]
mod tests;
mod writer;

/// How often a file is checked for having been renamed away.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Longest wait for the last lines when the log is dropped.
const STOP_WAIT: Duration = Duration::from_secs(2);

/// Where finished requests go. Share it in an `Arc`; dropping it writes what is queued.
#[derive(Debug)]
pub struct AccessLog {
    shared: Arc<Shared>,
    /// `None` when the log is off.
    writer: Option<WriterHandle>,
}

/// What the requests and the writer's thread share.
#[derive(Debug)]
struct Shared {
    queue: ArrayQueue<RequestRecord>,
    /// The writer is about to sleep or sleeping: the one who clears this must wake it.
    asleep: AtomicBool,
    dropped: Counter,
}

#[derive(Debug)]
struct WriterHandle {
    thread: Thread,
    /// Flushes asked for; closed means "write the rest and end". Locked to send and to close, never by a request.
    flushes: Mutex<Option<Sender<Sender<()>>>>,
    /// Closed when the thread has ended.
    ended: Mutex<Receiver<()>>,
}

impl AccessLog {
    /// Opens the output and starts the writer.
    ///
    /// # Errors
    /// The file cannot be opened for appending, or no thread can be started.
    pub fn start(config: &AccessLogConfig) -> io::Result<Self> {
        Self::start_counting(config, Counter::default())
    }

    /// As [`Self::start`], and counts lost lines in `dropped` (a metric).
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_counting(config: &AccessLogConfig, dropped: Counter) -> io::Result<Self> {
        Self::start_checking(config, dropped, CHECK_INTERVAL)
    }

    fn start_checking(
        config: &AccessLogConfig,
        dropped: Counter,
        check_interval: Duration,
    ) -> io::Result<Self> {
        let capacity = if config.enabled {
            config.queue.max(1)
        } else {
            1
        };
        let queue = ArrayQueue::new(capacity);
        let shared = Arc::new(Shared {
            queue,
            asleep: AtomicBool::new(false),
            dropped,
        });
        if !config.enabled {
            return Ok(Self {
                shared,
                writer: None,
            });
        }
        let (flushes, asked) = channel();
        let (ending, ended) = channel::<()>();
        let output = Output::open(&config.output)?;
        let writer = Writer::new(
            Arc::clone(&shared),
            output,
            config.format,
            asked,
            check_interval,
        );
        let thread = thread::Builder::new()
            .name("access-log".into())
            .spawn(move || {
                // Dropped when the thread ends, by a panic too.
                let _ending = ending;
                writer.run();
            })?;
        let handle = WriterHandle {
            thread: thread.thread().clone(),
            flushes: Mutex::new(Some(flushes)),
            ended: Mutex::new(ended),
        };
        Ok(Self {
            shared,
            writer: Some(handle),
        })
    }

    /// Hands a record to the writer. Never blocks: when the queue is full, the record is dropped and counted.
    pub fn log(&self, mut record: RequestRecord) {
        let Some(writer) = &self.writer else { return };
        record.clip();
        if self.shared.queue.push(record).is_err() {
            self.shared.dropped.inc();
        }
        // The push must be visible before `asleep` is read; the writer does the same the other way round.
        fence(Ordering::SeqCst);
        let filling = self.shared.queue.len() * 2 > self.shared.queue.capacity();
        if self.shared.asleep.load(Ordering::Relaxed)
            && self.shared.asleep.swap(false, Ordering::Relaxed)
            || filling
        {
            writer.thread.unpark();
        }
    }

    /// Lines lost so far: queue full, or output failing.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.get()
    }

    /// Waits until everything logged before this call is written, and reopens a file that was renamed away.
    /// Returns whether that happened in time.
    pub fn flush(&self, timeout: Duration) -> bool {
        let Some(writer) = &self.writer else {
            return true;
        };
        let (done, wait) = channel();
        let flushes = writer
            .flushes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let sent = flushes.is_some_and(|flushes| flushes.send(done).is_ok());
        writer.thread.unpark();
        sent && wait.recv_timeout(timeout).is_ok()
    }

    /// Writes what is queued and ends the writer, waiting at most `timeout`. Returns whether it ended in time.
    /// Records logged later are lost.
    pub fn stop(&self, timeout: Duration) -> bool {
        let Some(writer) = &self.writer else {
            return true;
        };
        writer
            .flushes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        writer.thread.unpark();
        let ended = writer.ended.lock().unwrap_or_else(PoisonError::into_inner);
        // Nothing is ever sent: an error that is not a timeout means that the thread dropped its end.
        matches!(
            ended.recv_timeout(timeout),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected)
        )
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        if !self.stop(STOP_WAIT) {
            tracing::warn!(waited = ?STOP_WAIT, "access log output is blocked, last lines are lost");
        }
    }
}
