//! Requests and replies between the HTTP side and the API side, and how a fault cuts a reply's body into writes.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use serde_json::Value;

use super::fault::Fault;
use super::stream::EventStream;

/// A request, read to its end.
#[derive(Clone, Debug, Default)]
pub struct Incoming {
    /// Its method, as sent.
    pub method: String,
    /// Its path and query, as sent.
    pub target: String,
    /// Its headers in their order, names as sent.
    pub headers: Vec<(Bytes, Bytes)>,
    /// Its body, without transfer coding.
    pub body: Bytes,
}

impl Incoming {
    /// The first header of that name, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name.as_bytes()));
        found.and_then(|(_, value)| std::str::from_utf8(value).ok())
    }

    /// Its path, without the query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

pub(crate) const JSON: &str = "application/json";

/// An answer whose head is known.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: ReplyBody,
}

pub(crate) enum ReplyBody {
    Full(Bytes),
    Events(Box<EventStream>),
}

impl Reply {
    pub(crate) fn full(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        let body = ReplyBody::Full(body.into());
        Self {
            status,
            content_type: content_type.to_owned(),
            headers: Vec::new(),
            body,
        }
    }

    pub(crate) fn json(status: u16, value: &Value) -> Self {
        Self::full(status, JSON, value.to_string())
    }

    pub(crate) fn events(stream: EventStream) -> Self {
        Self {
            status: 200,
            content_type: "text/event-stream; charset=utf-8".to_owned(),
            headers: Vec::new(),
            body: ReplyBody::Events(Box::new(stream)),
        }
    }
}

/// What to do next with a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// Write these bytes at once.
    Data(Bytes),
    /// The body is complete.
    End,
    /// Say nothing more, keep the connection.
    Hang,
    /// Reset the connection.
    Reset,
    /// Close the connection in order, in mid-body.
    Close,
}

/// A body cut into writes as the fault demands.
pub(crate) struct Frames {
    body: ReplyBody,
    fault: Option<Fault>,
    events: usize,
    /// Pieces of an event still to write.
    pieces: VecDeque<Bytes>,
    /// Of a full body: handed out already.
    halves: u8,
}

impl Frames {
    pub(crate) fn new(body: ReplyBody, fault: Option<Fault>) -> Self {
        Self {
            body,
            fault,
            events: 0,
            pieces: VecDeque::new(),
            halves: 0,
        }
    }

    /// The next thing to do. Not cancel safe: a dropped future may lose an event that waits for its time.
    pub(crate) async fn next(&mut self) -> Frame {
        if let Some(Fault::SlowDrip(pause)) = self.fault
            && !self.pieces.is_empty()
        {
            tokio::time::sleep(pause).await;
        }
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                return Frame::Data(piece);
            }
            if let Some(stop) = self.stop() {
                return stop;
            }
            let Some(event) = self.next_event().await else {
                return Frame::End;
            };
            self.events += 1;
            self.cut(event);
        }
    }

    /// How the fault ends the body here, if it does.
    fn stop(&self) -> Option<Frame> {
        match self.fault? {
            Fault::HangMidStream(after) if self.events >= after => Some(Frame::Hang),
            Fault::ResetMidStream(after) if self.events >= after => Some(Frame::Reset),
            Fault::CloseMidStream(after) if self.events >= after => Some(Frame::Close),
            Fault::HangAfterHeaders => Some(Frame::Hang),
            _ => None,
        }
    }

    async fn next_event(&mut self) -> Option<Bytes> {
        match &mut self.body {
            ReplyBody::Events(stream) => stream.next().await,
            ReplyBody::Full(body) if self.halves == 0 => {
                self.halves = 1;
                match self.fault {
                    Some(
                        Fault::HangMidStream(_)
                        | Fault::ResetMidStream(_)
                        | Fault::CloseMidStream(_),
                    ) => {
                        // Half of it, then the fault: an unstreamed body has no events to count.
                        self.events = usize::MAX - 1;
                        Some(body.split_to(body.len() / 2))
                    }
                    _ => Some(std::mem::take(body)),
                }
            }
            ReplyBody::Full(_) => None,
        }
    }

    fn cut(&mut self, mut event: Bytes) {
        let size = match self.fault {
            Some(Fault::Split(size)) => size.get(),
            Some(Fault::SlowDrip(_)) => 1,
            _ => event.len(),
        };
        while !event.is_empty() {
            self.pieces.push_back(event.split_to(size.min(event.len())));
        }
    }

    /// All that is left, in one buffer.
    pub(crate) async fn collect(&mut self) -> Bytes {
        let mut all = BytesMut::new();
        while let Frame::Data(data) = self.next().await {
            all.extend_from_slice(&data);
        }
        all.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn frames(fault: &str, body: &'static str) -> Vec<Frame> {
        let mut frames = Frames::new(
            ReplyBody::Full(Bytes::from_static(body.as_bytes())),
            fault.parse().ok(),
        );
        let mut all = Vec::new();
        loop {
            let frame = frames.next().await;
            let done = !matches!(frame, Frame::Data(_));
            all.push(frame);
            if done {
                return all;
            }
        }
    }

    fn data(text: &'static str) -> Frame {
        Frame::Data(Bytes::from_static(text.as_bytes()))
    }

    #[tokio::test]
    async fn a_body_passes_whole_without_a_fault() {
        assert_eq!(frames("none", "abcd").await, [data("abcd"), Frame::End]);
    }

    #[tokio::test]
    async fn a_body_is_split_or_cut_in_half() {
        assert_eq!(
            frames("split:3", "abcd").await,
            [data("abc"), data("d"), Frame::End]
        );
        assert_eq!(
            frames("reset-mid-stream:1", "abcd").await,
            [data("ab"), Frame::Reset]
        );
        assert_eq!(
            frames("close-mid-stream:1", "abcd").await,
            [data("ab"), Frame::Close]
        );
        assert_eq!(frames("hang-after-headers", "abcd").await, [Frame::Hang]);
    }
}
