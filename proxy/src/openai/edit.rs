//! Edits on a request body at the offsets the scan recorded. Everything between them is passed on as it came:
//! key order, number text and white space stay, and untouched parts are not copied in [`Edits::pieces`].
//!
//! Does not look at the body: offsets come from [`Facts`] of the same bytes.

#[cfg(test)]
mod tests;

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::scan::{Facts, Key, ModelField};

/// Changes to one body, to be applied at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edits {
    /// Replaced spans, sorted and apart.
    replaced: Vec<(Range<usize>, Bytes)>,
    /// Members added before the closing brace, as `"key":value`.
    added: Vec<(Key, Bytes)>,
    /// Where members are added, and whether the object had any before.
    end: Option<(usize, bool)>,
}

impl Edits {
    /// No changes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the body stays as it is.
    pub fn is_empty(&self) -> bool {
        self.replaced.is_empty() && self.added.is_empty()
    }

    /// Puts `bytes` where `span` stood. Takes the place of earlier edits that overlap it.
    pub fn replace(&mut self, span: Range<usize>, bytes: impl Into<Bytes>) {
        self.replaced
            .retain(|(other, _)| other.end <= span.start || span.end <= other.start);
        let place = self
            .replaced
            .partition_point(|(other, _)| other.start < span.start);
        self.replaced.insert(place, (span, bytes.into()));
    }

    /// Sets a top-level field to a JSON value, replacing the one it has or adding it as the last member.
    pub fn set(&mut self, facts: &Facts, key: Key, json: impl AsRef<[u8]>) {
        let json = json.as_ref();
        if let Some(member) = facts.member(key) {
            self.replace(member.span.clone(), Bytes::copy_from_slice(json));
            return;
        }
        let mut member = BytesMut::with_capacity(key.name().len() + 3 + json.len());
        for part in [b"\"", key.name().as_bytes(), b"\":", json] {
            member.extend_from_slice(part);
        }
        self.added.retain(|(other, _)| *other != key);
        self.added.push((key, member.freeze()));
        self.end = Some((facts.object_end, facts.is_empty_object));
    }

    /// Names another model. Adds the field if the body has none.
    pub fn rename_model(&mut self, facts: &Facts, new: &str) {
        if let ModelField::Present(field) = &facts.model
            && field.value == new
        {
            return;
        }
        self.set(facts, Key::Model, quote(new));
    }

    /// Asks for usage in the stream. Returns whether the client had not: then the extra event is ours, to be
    /// withheld from the answer.
    pub fn include_usage(&mut self, facts: &Facts) -> bool {
        if facts.includes_usage() {
            return false;
        }
        match &facts.stream_options {
            Some(options) if !options.empty => match &options.include_usage_span {
                Some(span) => self.replace(span.clone(), &b"true"[..]),
                None => {
                    let start = options.span.start + 1;
                    self.replace(start..start, &b"\"include_usage\":true,"[..]);
                }
            },
            _ => self.set(facts, Key::StreamOptions, b"{\"include_usage\":true}"),
        }
        true
    }

    /// Length of the edited body, in bytes.
    pub fn length(&self, body: &Bytes) -> usize {
        self.pieces(body).iter().map(Bytes::len).sum()
    }

    /// The edited body in pieces, for one vectored write: untouched parts share the body's memory.
    pub fn pieces(&self, body: &Bytes) -> Vec<Bytes> {
        let mut pieces = Vec::with_capacity(2 * (self.replaced.len() + self.added.len()) + 2);
        let mut from = 0;
        for (span, bytes) in &self.replaced {
            push(&mut pieces, body.slice(from..span.start));
            push(&mut pieces, bytes.clone());
            from = span.end;
        }
        if let Some((end, empty)) = self.end {
            push(&mut pieces, body.slice(from..end));
            for (place, (_, member)) in self.added.iter().enumerate() {
                if place > 0 || !empty {
                    pieces.push(Bytes::from_static(b","));
                }
                pieces.push(member.clone());
            }
            from = end;
        }
        push(&mut pieces, body.slice(from..));
        pieces
    }

    /// The edited body in one piece; without edits the same `Bytes`.
    pub fn apply(&self, body: &Bytes) -> Bytes {
        if self.is_empty() {
            return body.clone();
        }
        let pieces = self.pieces(body);
        let mut whole = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
        for piece in &pieces {
            whole.extend_from_slice(piece);
        }
        whole.freeze()
    }
}

fn push(pieces: &mut Vec<Bytes>, piece: Bytes) {
    if !piece.is_empty() {
        pieces.push(piece);
    }
}

/// A string as JSON.
fn quote(text: &str) -> Vec<u8> {
    serde_json::to_vec(text).expect("a string always serialises to JSON")
}
