//! Writes one HTTP/1 answer: whole bodies with their head in one write, streams one event a write, and the faults that
//! lie in the framing.

use std::io::Write;

use http::StatusCode;
use tokio::io::AsyncWriteExt;

use super::read::Framing;
use super::{Connection, Next, attended};
use crate::engine::counters::Outcome;
use crate::engine::fault::Fault;
use crate::engine::reply::{Frame, Frames, Reply, ReplyBody};

/// How many bytes `truncated-length` promises too much.
const PROMISED: usize = 1024;

/// How the body's end is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Delimiter {
    Length(usize),
    Chunks,
    Close,
}

/// The reason phrase of a status.
pub(super) fn reason(status: u16) -> &'static str {
    StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or("Unknown")
}

impl Connection {
    /// Writes an answer as the fault says.
    pub(super) async fn write_reply(
        &mut self,
        mut reply: Reply,
        fault: Option<Fault>,
        framing: Framing,
    ) -> (Next, Outcome) {
        if matches!(
            (fault, &reply.body),
            (Some(Fault::TruncatedLength), ReplyBody::Events(_))
        ) {
            let body = std::mem::replace(&mut reply.body, ReplyBody::Full(Default::default()));
            let mut frames = Frames::new(body, None);
            match attended(&mut self.stream, &mut self.input, frames.collect()).await {
                Some(all) => reply.body = ReplyBody::Full(all),
                None => return (Next::Reset, Outcome::Cancelled),
            }
        }
        let delimiter = match (&reply.body, fault) {
            (_, Some(Fault::CloseDelimited)) => Delimiter::Close,
            (ReplyBody::Full(body), Some(Fault::TruncatedLength)) => {
                Delimiter::Length(body.len() + PROMISED)
            }
            (ReplyBody::Full(body), _) => Delimiter::Length(body.len()),
            (ReplyBody::Events(_), _) if framing.chunks => Delimiter::Chunks,
            (ReplyBody::Events(_), _) => Delimiter::Close,
        };
        let close = !framing.keep_alive || delimiter == Delimiter::Close;
        self.begin(&reply, delimiter, close);
        if framing.head_only {
            return self.ended(close, fault).await;
        }
        // A stream's head does not wait for the first event.
        let streams = matches!(reply.body, ReplyBody::Events(_));
        if streams && fault != Some(Fault::SingleWrite) && !self.flush().await {
            return (Next::Reset, Outcome::Cancelled);
        }
        self.write_body(Frames::new(reply.body, fault), delimiter, close, fault)
            .await
    }

    async fn write_body(
        &mut self,
        mut frames: Frames,
        delimiter: Delimiter,
        close: bool,
        fault: Option<Fault>,
    ) -> (Next, Outcome) {
        loop {
            let Some(frame) = attended(&mut self.stream, &mut self.input, frames.next()).await
            else {
                return (Next::Reset, Outcome::Cancelled);
            };
            match frame {
                Frame::Data(data) => {
                    self.append(&data, delimiter);
                    if fault != Some(Fault::SingleWrite) && !self.flush().await {
                        return (Next::Reset, Outcome::Cancelled);
                    }
                }
                Frame::End => {
                    if delimiter == Delimiter::Chunks {
                        self.output.extend_from_slice(b"0\r\n\r\n");
                    }
                    return self.ended(close, fault).await;
                }
                Frame::Hang => {
                    if self.flush().await {
                        self.until_gone().await;
                    }
                    return (Next::Reset, Outcome::Cancelled);
                }
                Frame::Reset => {
                    self.flush().await;
                    return (Next::Reset, Outcome::Faulted);
                }
                Frame::Close => {
                    self.flush().await;
                    return (Next::Close, Outcome::Faulted);
                }
            }
        }
    }

    /// Writes what is left and says what comes next.
    async fn ended(&mut self, close: bool, fault: Option<Fault>) -> (Next, Outcome) {
        if !self.flush().await {
            return (Next::Reset, Outcome::Cancelled);
        }
        match fault {
            Some(Fault::TruncatedLength) => (Next::Close, Outcome::Faulted),
            Some(Fault::KeepaliveClose) => (Next::Close, Outcome::Completed),
            _ if close => (Next::Close, Outcome::Completed),
            _ => (Next::KeepAlive, Outcome::Completed),
        }
    }

    /// Puts the head into the output. Writing to a vector cannot fail.
    fn begin(&mut self, reply: &Reply, delimiter: Delimiter, close: bool) {
        let out = &mut self.output;
        let _ = write!(
            out,
            "HTTP/1.1 {} {}\r\nserver: sluice-engine\r\n",
            reply.status,
            reason(reply.status)
        );
        let _ = write!(out, "content-type: {}\r\n", reply.content_type);
        for (name, value) in &reply.headers {
            let _ = write!(out, "{name}: {value}\r\n");
        }
        match delimiter {
            Delimiter::Length(length) => drop(write!(out, "content-length: {length}\r\n")),
            Delimiter::Chunks => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
            Delimiter::Close => {}
        }
        if close {
            out.extend_from_slice(b"connection: close\r\n");
        }
        out.extend_from_slice(b"\r\n");
    }

    fn append(&mut self, data: &[u8], delimiter: Delimiter) {
        if delimiter != Delimiter::Chunks {
            self.output.extend_from_slice(data);
            return;
        }
        let _ = write!(self.output, "{:x}\r\n", data.len());
        self.output.extend_from_slice(data);
        self.output.extend_from_slice(b"\r\n");
    }

    /// Writes the output; false when the client is gone.
    async fn flush(&mut self) -> bool {
        let written = self.stream.write_all(&self.output).await.is_ok();
        self.output.clear();
        written
    }
}
