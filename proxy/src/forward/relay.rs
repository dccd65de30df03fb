//! The answer on its way to the client: chunk by chunk, as received, measured and watched.
//!
//! Generic over the two traits of the seam, so it is tested without sockets. Not for retries: once the first
//! byte is out there are none.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::exchange::{ClientError, Downstream, EngineError, Upstream};
use crate::filters::{ChunkStep, Stream as FilterStream};
use crate::openai::sse::{EventCounter, Usage, UsageFilter, UsageScan};
use crate::telemetry::record::GapSummary;

/// How one answer is to be relayed.
#[derive(Debug, Clone, Copy)]
pub struct RelayOptions {
    /// Longest silence between two reads of the engine.
    pub idle_timeout: Duration,
    /// End of the whole request.
    pub deadline: Instant,
    /// The body is an event stream.
    pub events: bool,
    /// The gateway asked for the usage event and the client did not.
    pub withhold_usage: bool,
}

/// What was seen of an answer.
#[derive(Debug, Default)]
pub struct RelayReport {
    /// When the first body byte came.
    pub first_byte: Option<Instant>,
    /// When the last came.
    pub last_byte: Option<Instant>,
    /// Body bytes to the client.
    pub bytes: u64,
    /// Pauses between chunks.
    pub gaps: GapSummary,
    /// Token counts, if the engine told them.
    pub usage: Option<Usage>,
    /// Events with content, for an estimate.
    pub events: u64,
    /// The client has seen the end of an event (or nothing yet).
    pub between_events: bool,
}

/// How relaying ended.
#[derive(Debug)]
pub enum RelayEnd {
    /// Everything is delivered.
    Complete,
    /// The client went away; its engine is told by the closed connection.
    ClientGone,
    /// The client took nothing for too long.
    ClientSlow,
    /// The engine broke off.
    Broken(EngineError),
    /// The engine was silent for too long.
    Timeout(Duration),
    /// The whole request took too long, which need not be the engine's fault; its last wait was to take so long.
    Deadline(Duration),
    /// A filter stopped the answer.
    Filter,
}

/// One chunk of an answer, as it came.
#[derive(Debug, Clone, Copy)]
pub struct Beat {
    /// When.
    pub at: Instant,
    /// Since the one before; `None` for the first.
    pub gap: Option<Duration>,
    /// Events with content so far; 0 of a body that is no event stream.
    pub events: u64,
}

/// Moves the body of an answer whose head is already sent.
pub async fn relay<D: Downstream, U: Upstream>(
    client: &mut D,
    upstream: &mut U,
    filters: &mut FilterStream,
    options: RelayOptions,
    mut on_beat: impl FnMut(Beat),
) -> (RelayEnd, RelayReport) {
    let mut relay = Relay {
        report: RelayReport {
            between_events: true,
            ..RelayReport::default()
        },
        scan: UsageScan::new(),
        events: EventCounter::new(),
        withhold: options.withhold_usage.then(UsageFilter::new),
        out: Vec::new(),
    };
    let end = relay
        .run(client, upstream, filters, options, &mut on_beat)
        .await;
    relay.report.usage = relay.scan.usage();
    relay.report.events = relay.events.count();
    (end, relay.report)
}

struct Relay {
    report: RelayReport,
    scan: UsageScan,
    events: EventCounter,
    withhold: Option<UsageFilter>,
    /// Reused for the pieces that one chunk becomes.
    out: Vec<Bytes>,
}

impl Relay {
    async fn run<D: Downstream, U: Upstream>(
        &mut self,
        client: &mut D,
        upstream: &mut U,
        filters: &mut FilterStream,
        options: RelayOptions,
        on_beat: &mut impl FnMut(Beat),
    ) -> RelayEnd {
        loop {
            let left = until(options.deadline);
            let limit = options.idle_timeout.min(left);
            // A timeout looks at its future first: an engine that never pauses would outlive the deadline.
            if limit.is_zero() {
                return too_late(options.idle_timeout, left);
            }
            let read = tokio::select! {
                biased;
                read = tokio::time::timeout(limit, upstream.chunk()) => read,
                () = client.gone() => return RelayEnd::ClientGone,
            };
            let chunk = match read {
                Err(_) => return too_late(options.idle_timeout, left),
                Ok(Err(error)) => return RelayEnd::Broken(error),
                Ok(Ok(chunk)) => chunk,
            };
            let Some(chunk) = chunk else {
                return self.end(client, filters).await;
            };
            // Framing alone, such as the end of an HTTP/1.1 chunk: nothing to measure or send.
            if chunk.is_empty() {
                continue;
            }
            self.scan.push(&chunk);
            if options.events {
                self.events.push(&chunk);
            }
            on_beat(self.measure());
            let sent = self.deliver(client, filters, chunk).await;
            if let Some(end) = sent {
                return end;
            }
        }
    }

    fn measure(&mut self) -> Beat {
        let at = Instant::now();
        let gap = self.report.last_byte.replace(at).map(|last| at - last);
        match gap {
            Some(gap) => self.report.gaps.add(gap),
            None => self.report.first_byte = Some(at),
        }
        Beat {
            at,
            gap,
            events: self.events.count(),
        }
    }

    /// Passes one chunk through what may hold it back or change it, and on to the client.
    async fn deliver<D: Downstream>(
        &mut self,
        client: &mut D,
        filters: &mut FilterStream,
        chunk: Bytes,
    ) -> Option<RelayEnd> {
        match &mut self.withhold {
            Some(withhold) => withhold.push(chunk, &mut self.out),
            None => self.out.push(chunk),
        }
        self.flush(client, filters, false).await
    }

    async fn end<D: Downstream>(&mut self, client: &mut D, filters: &mut FilterStream) -> RelayEnd {
        if let Some(withhold) = &mut self.withhold {
            withhold.finish(&mut self.out);
        }
        if let Some(end) = self.flush(client, filters, true).await {
            return end;
        }
        match client.finish().await {
            Ok(()) => RelayEnd::Complete,
            Err(error) => client_end(&error),
        }
    }

    async fn flush<D: Downstream>(
        &mut self,
        client: &mut D,
        filters: &mut FilterStream,
        last: bool,
    ) -> Option<RelayEnd> {
        let mut chunk = join(&mut self.out);
        if chunk.is_empty() && !last {
            return None;
        }
        match filters.response_chunk(&mut chunk, last) {
            ChunkStep::Abort => return Some(RelayEnd::Filter),
            ChunkStep::Hold => return None,
            ChunkStep::Pass if chunk.is_empty() => return None,
            ChunkStep::Pass => {}
        }
        self.report.bytes += chunk.len() as u64;
        self.report.between_events = ends_event(&chunk);
        match client.write(chunk).await {
            Ok(()) => None,
            Err(error) => Some(client_end(&error)),
        }
    }
}

fn client_end(error: &ClientError) -> RelayEnd {
    match error {
        ClientError::TooSlow => RelayEnd::ClientSlow,
        ClientError::Gone | ClientError::Malformed(_) => RelayEnd::ClientGone,
    }
}

/// Nothing came: the engine was silent for too long, unless the request's own time ended before that.
fn too_late(idle_timeout: Duration, left: Duration) -> RelayEnd {
    if idle_timeout <= left {
        RelayEnd::Timeout(idle_timeout)
    } else {
        RelayEnd::Deadline(left)
    }
}

fn until(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// All pieces as one, so that they leave in one write.
fn join(pieces: &mut Vec<Bytes>) -> Bytes {
    match pieces.len() {
        0 => Bytes::new(),
        1 => pieces.pop().unwrap_or_default(),
        _ => {
            let joined = pieces.concat().into();
            pieces.clear();
            joined
        }
    }
}

fn ends_event(chunk: &[u8]) -> bool {
    chunk.ends_with(b"\n\n") || chunk.ends_with(b"\r\n\r\n") || chunk.ends_with(b"\r\r")
}

#[cfg(test)]
mod tests;
