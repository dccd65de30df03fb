//! Turns a job's pieces into server-sent events, one buffer each, as a surface's format writes them.

use std::collections::VecDeque;

use bytes::Bytes;

use super::api::{Delta, Job};

/// How a surface writes its stream.
pub(crate) trait Format: Send {
    /// Before the first piece, when it is ready.
    fn open(&mut self, _job: &Job, _out: &mut dyn FnMut(Bytes)) {}
    /// One piece.
    fn delta(&mut self, job: &Job, delta: &Delta, out: &mut dyn FnMut(Bytes));
    /// After the last piece.
    fn close(&mut self, job: &Job, out: &mut dyn FnMut(Bytes));
}

/// The events of one streamed answer; dropping it cancels the generation.
pub(crate) struct EventStream {
    job: Job,
    format: Box<dyn Format>,
    ready: VecDeque<Bytes>,
    opened: bool,
    closed: bool,
}

impl EventStream {
    pub(crate) fn new(job: Job, format: Box<dyn Format>) -> Self {
        Self {
            job,
            format,
            ready: VecDeque::new(),
            opened: false,
            closed: false,
        }
    }

    /// The next event, with its empty line.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.closed {
                return None;
            }
            // After the first piece, so that whoever holds it can see that it has begun.
            if self.opened {
                self.job.released().await;
            }
            let delta = self.job.next().await;
            let ready = &mut self.ready;
            let mut out = |event| ready.push_back(event);
            if !std::mem::replace(&mut self.opened, true) {
                self.format.open(&self.job, &mut out);
            }
            match delta {
                Some(delta) => self.format.delta(&self.job, &delta, &mut out),
                None => {
                    self.format.close(&self.job, &mut out);
                    self.closed = true;
                }
            }
        }
    }
}
