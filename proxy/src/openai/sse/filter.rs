//! Withholds the usage event of a stream whose client did not ask for it, so that the client sees the bytes it
//! would have seen had the gateway not asked.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::event::{Boundaries, read, shows_content};

/// The key of what is withheld.
const USAGE: &[u8] = b"\"usage\"";

/// Most bytes of an unfinished event held back. A usage event is far smaller: a longer event passes.
pub const MAX_HELD_BYTES: usize = 64 * 1024;

/// Takes the usage event out of a stream, fed chunk by chunk.
///
/// The usage event is a whole SSE event of one data line whose JSON has an empty `choices` array and a `usage`
/// object. All others pass unchanged, one with usage beside content too.
///
/// Bytes are held back only for an unfinished event at the end of a chunk, until its end comes, it shows a
/// choice, or it outgrows [`MAX_HELD_BYTES`]. Engines write events whole, so this is rare and no token waits.
#[derive(Debug, Clone, Default)]
pub struct UsageFilter {
    boundaries: Boundaries,
    /// An unfinished event.
    held: BytesMut,
    /// The unfinished event is let through.
    passing: bool,
    /// The last event was withheld.
    withheld: bool,
    /// The last event ended by a CR at the end of its chunk: a LF that comes next belongs to it.
    lf_due: bool,
    strip_null: bool,
    count: u64,
}

/// What happens to an event.
enum Verdict {
    Pass,
    Withhold,
    Cut(Range<usize>),
}

impl UsageFilter {
    /// A filter that takes out usage events only.
    pub fn new() -> Self {
        Self::default()
    }

    /// A filter that also cuts `"usage":null` out of the other events, which some engines (OpenAI's own) add to
    /// each when asked for usage. Unfinished events are then held to their end or the limit.
    pub fn stripping_null() -> Self {
        Self {
            strip_null: true,
            ..Self::default()
        }
    }

    /// Events withheld so far.
    pub fn withheld_events(&self) -> u64 {
        self.count
    }

    /// Takes a chunk and appends to `out` what may go to the client: the same memory unless an event was split.
    pub fn push(&mut self, chunk: Bytes, out: &mut Vec<Bytes>) {
        if chunk.is_empty() {
            return;
        }
        if self.is_plain(&chunk) {
            self.withheld = false;
            self.passing = false;
            out.push(chunk);
            return;
        }
        let mut output = Output::new(chunk, out);
        let mut at = self.completing_lf(&mut output);
        while at < output.chunk.len() {
            let found = self.boundaries.next(&output.chunk[at..]);
            let end = found.map_or(output.chunk.len(), |length| at + length);
            if found.is_some() {
                self.lf_due = end == output.chunk.len() && output.chunk[end - 1] == b'\r';
                self.ended(at..end, &mut output);
            } else {
                self.unfinished(at..end, &mut output);
            }
            at = end;
        }
        output.flush();
    }

    /// The response ended: releases what is held, unless it is the usage event without its last line end.
    pub fn finish(&mut self, out: &mut Vec<Bytes>) {
        let mut output = Output::new(Bytes::new(), out);
        self.ended(0..0, &mut output);
    }

    /// Whether a chunk passes at a glance: whole events, none of which speaks of usage.
    fn is_plain(&self, chunk: &Bytes) -> bool {
        self.held.is_empty()
            && !self.lf_due
            && self.boundaries.at_line_start()
            && (chunk.ends_with(b"\n\n") || chunk.ends_with(b"\n\r\n"))
            && memchr::memmem::find(chunk, USAGE).is_none()
    }

    /// Deals with a LF that completes the CR LF which ended the last event. Returns the bytes dealt with.
    fn completing_lf(&mut self, output: &mut Output<'_>) -> usize {
        if !std::mem::take(&mut self.lf_due) || output.chunk[0] != b'\n' {
            return 0;
        }
        self.boundaries.next(b"\n");
        if !self.withheld {
            output.pass(0..1);
        }
        1
    }

    /// Takes the part of an event that a chunk ends in.
    fn unfinished(&mut self, part: Range<usize>, output: &mut Output<'_>) {
        if self.passing {
            return output.pass(part);
        }
        self.held.extend_from_slice(&output.chunk[part.clone()]);
        if self.held.len() <= MAX_HELD_BYTES && (self.strip_null || !shows_content(&self.held)) {
            return;
        }
        self.passing = true;
        if self.held.len() == part.len() {
            self.held.clear();
            output.pass(part);
        } else {
            output.piece(self.held.split().freeze());
        }
    }

    /// Takes the end of an event, or all of it.
    fn ended(&mut self, part: Range<usize>, output: &mut Output<'_>) {
        if std::mem::take(&mut self.passing) {
            self.withheld = false;
            return output.pass(part);
        }
        if self.held.is_empty() {
            match self.judge(&output.chunk[part.clone()]) {
                Verdict::Pass => output.pass(part),
                Verdict::Withhold => {}
                Verdict::Cut(cut) => {
                    output.pass(part.start..part.start + cut.start);
                    output.pass(part.start + cut.end..part.end);
                }
            }
            return;
        }
        self.held.extend_from_slice(&output.chunk[part]);
        let event = self.held.split().freeze();
        match self.judge(&event) {
            Verdict::Pass => output.piece(event),
            Verdict::Withhold => {}
            Verdict::Cut(cut) => {
                output.piece(event.slice(..cut.start));
                output.piece(event.slice(cut.end..));
            }
        }
    }

    /// Judges a whole event.
    fn judge(&mut self, event: &[u8]) -> Verdict {
        self.withheld = false;
        if event.len() > MAX_HELD_BYTES
            || memchr::memmem::find(event, USAGE).is_none()
            || (!self.strip_null && shows_content(event))
        {
            return Verdict::Pass;
        }
        let Some(facts) = read(event) else {
            return Verdict::Pass;
        };
        if facts.is_usage_only() {
            self.withheld = true;
            self.count += 1;
            return Verdict::Withhold;
        }
        match facts.null {
            Some(cut) if self.strip_null => Verdict::Cut(cut),
            _ => Verdict::Pass,
        }
    }
}

/// Gathers what passes, neighbours in the chunk as one piece.
struct Output<'a> {
    chunk: Bytes,
    pending: Range<usize>,
    out: &'a mut Vec<Bytes>,
}

impl<'a> Output<'a> {
    fn new(chunk: Bytes, out: &'a mut Vec<Bytes>) -> Self {
        Self {
            chunk,
            pending: 0..0,
            out,
        }
    }

    /// Passes a part of the chunk.
    fn pass(&mut self, part: Range<usize>) {
        if part.start == self.pending.end {
            self.pending.end = part.end;
        } else {
            self.flush();
            self.pending = part;
        }
    }

    /// Passes bytes from before the chunk, joined to the start of it or not.
    fn piece(&mut self, piece: Bytes) {
        self.flush();
        if !piece.is_empty() {
            self.out.push(piece);
        }
    }

    fn flush(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        if !pending.is_empty() {
            self.out.push(self.chunk.slice(pending));
        }
    }
}
