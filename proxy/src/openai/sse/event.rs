//! Where SSE events end, and what a usage event looks like.

use std::ops::Range;

use crate::openai::scan::cursor::Cursor;
use crate::openai::scan::{JsonKind, ScanError};

/// Finds the blank lines that end events, over any split into chunks. Lines end by LF, CR LF or CR.
#[derive(Debug, Clone, Default)]
pub(super) struct Boundaries {
    /// Whether the current line holds bytes.
    in_line: bool,
    /// Whether the last byte was a CR.
    after_cr: bool,
}

impl Boundaries {
    /// Bytes up to and with the next event end, if it is in `bytes`. All of them count as read.
    pub(super) fn next(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        if std::mem::take(&mut self.after_cr) && bytes.first() == Some(&b'\n') {
            at = 1;
        }
        self.after_cr &= bytes.is_empty();
        while let Some(length) = memchr::memchr2(b'\n', b'\r', &bytes[at..]) {
            let end = at + length;
            let blank = length == 0 && !self.in_line;
            self.in_line = false;
            at = end + 1;
            if bytes[end] == b'\r' {
                match bytes.get(at) {
                    Some(b'\n') => at += 1,
                    Some(_) => {}
                    None => self.after_cr = true,
                }
            }
            if blank {
                return Some(at);
            }
        }
        self.in_line |= at < bytes.len();
        None
    }

    /// Whether a new line starts next, for certain.
    pub(super) fn at_line_start(&self) -> bool {
        !self.in_line && !self.after_cr
    }
}

/// What an event's JSON says about usage.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct UsageFacts {
    /// `choices` is there and empty.
    no_choices: bool,
    /// `usage` is an object.
    object: bool,
    /// The member `"usage":null` with one comma beside it, as offsets into the event.
    pub(super) null: Option<Range<usize>>,
}

impl UsageFacts {
    /// Whether the event carries usage and nothing else a client waits for.
    pub(super) fn is_usage_only(&self) -> bool {
        self.no_choices && self.object
    }
}

/// Reads a whole event. None if it is not one data line of JSON.
pub(super) fn read(event: &[u8]) -> Option<UsageFacts> {
    let data = data(event)?;
    let offset = data.start;
    let json = &event[data];
    let mut facts = UsageFacts::default();
    let mut end_of_last = None;
    let mut cursor = Cursor::new(json);
    cursor
        .object(|cursor, key| {
            let kind = cursor.kind()?;
            let value = cursor.skip()?;
            match cursor.bytes(&key.inner) {
                b"choices" => {
                    facts.no_choices = kind == JsonKind::Array && is_empty(&json[value.clone()])
                }
                b"usage" => {
                    facts.object = kind == JsonKind::Object;
                    facts.null = (kind == JsonKind::Null)
                        .then(|| member(json, end_of_last, &(key.span().start..value.end), offset));
                }
                _ => {}
            }
            end_of_last = Some(value.end);
            Ok::<(), ScanError>(())
        })
        .ok()?;
    cursor.peek().is_none().then_some(facts)
}

fn is_empty(array: &[u8]) -> bool {
    array[1..array.len() - 1].trim_ascii().is_empty()
}

/// The span to cut so that a member goes with one comma: the one before it, or after it if it is the first.
fn member(
    json: &[u8],
    end_of_last: Option<usize>,
    span: &Range<usize>,
    offset: usize,
) -> Range<usize> {
    let comma_before = end_of_last.unwrap_or(span.start);
    let mut end = span.end;
    if end_of_last.is_none()
        && let Some(comma) = json[end..]
            .iter()
            .position(|byte| !byte.is_ascii_whitespace())
        && json[end + comma] == b','
    {
        end += comma + 1;
    }
    offset + comma_before..offset + end
}

/// The payload of an event's only data line. Other fields (`event:`, `id:`) and comments may stand beside it.
fn data(event: &[u8]) -> Option<Range<usize>> {
    let mut found = None;
    let mut at = 0;
    while at < event.len() {
        let length = memchr::memchr2(b'\n', b'\r', &event[at..]).unwrap_or(event.len() - at);
        if event[at..at + length].starts_with(b"data:") {
            if found.is_some() {
                return None;
            }
            found = Some(at + 5..at + length);
        }
        at += length + 1;
    }
    found
}

/// Whether the start of an event already shows `choices` with something in it, so that it is no usage event.
///
/// Inside a JSON string the quotes of `"choices"` would be escaped: a match is a key or a whole string.
pub(super) fn shows_content(start: &[u8]) -> bool {
    const KEY: &[u8] = b"\"choices\"";
    let Some(place) = memchr::memmem::find(start, KEY) else {
        return false;
    };
    let rest = start[place + KEY.len()..].trim_ascii_start();
    let Some(rest) = rest.strip_prefix(b":") else {
        return false;
    };
    let Some(rest) = rest.trim_ascii_start().strip_prefix(b"[") else {
        return false;
    };
    rest.trim_ascii_start()
        .first()
        .is_some_and(|byte| *byte != b']')
}
