//! Counts SSE data events: the estimate of output tokens when an engine sends no usage.

/// The longest line start looked at: `data: [DONE]` and room to see that more follows.
const HEAD: usize = 16;

/// Counts the events of a stream that carry data, fed chunk by chunk.
///
/// Comments, events without data and `[DONE]` do not count. Most engines send one token an event, but also events
/// for the role, the finish reason and usage: the count is an estimate and the caller must mark it so.
#[derive(Debug, Clone, Default)]
pub struct EventCounter {
    count: u64,
    done: bool,
    /// Start of the current line.
    head: [u8; HEAD],
    /// Bytes of `head` in use.
    length: usize,
    /// Whether the current event was counted already.
    counted: bool,
    /// Whether the last byte was a CR: a LF right after it ends no further line.
    after_cr: bool,
}

impl EventCounter {
    /// Nothing seen.
    pub fn new() -> Self {
        Self::default()
    }

    /// Data events whose first data line is complete.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether `data: [DONE]` was seen.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Takes the next bytes of the response.
    pub fn push(&mut self, chunk: &[u8]) {
        let mut rest = chunk;
        if self.after_cr && !rest.is_empty() {
            self.after_cr = false;
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        while let Some(end) = memchr::memchr2(b'\n', b'\r', rest) {
            self.take(&rest[..end]);
            self.line();
            let terminator = rest[end];
            rest = &rest[end + 1..];
            if terminator == b'\r' {
                self.after_cr = rest.is_empty();
                rest = rest.strip_prefix(b"\n").unwrap_or(rest);
            }
        }
        self.take(rest);
    }

    fn take(&mut self, bytes: &[u8]) {
        let length = bytes.len().min(HEAD - self.length);
        self.head[self.length..self.length + length].copy_from_slice(&bytes[..length]);
        self.length += length;
    }

    /// Judges the line that just ended.
    fn line(&mut self) {
        let line = &self.head[..std::mem::take(&mut self.length)];
        if line.is_empty() {
            self.counted = false;
        } else if let Some(data) = line.strip_prefix(b"data:") {
            if data.trim_ascii() == b"[DONE]" {
                self.done = true;
            } else if !self.counted {
                self.counted = true;
                self.count += 1;
            }
        }
    }
}
