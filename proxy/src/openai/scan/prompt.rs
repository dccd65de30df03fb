//! Prompt parts: where the text, roles and token ids of the API's prompt fields stand.
//!
//! Shapes: a string; a list of strings; token ids or lists of them; messages or items with a `role` and a
//! `content` that is a string or a list of parts with `text` or media, and tool calls. Anything else is stepped
//! over.

use std::ops::Range;

use super::cursor::{Cursor, Text};
use super::error::ScanError;
use super::facts::{Facts, JsonKind, MAX_PROMPT_SPANS, PromptKind, PromptSpan};

/// Content parts are looked into this deep: a tool result's content is itself a list of parts.
const PART_LEVELS: usize = 2;

/// Reads a prompt field's value of any shape; `text` is the kind of its plain strings.
pub(super) fn field(
    cursor: &mut Cursor<'_>,
    facts: &mut Facts,
    text: PromptKind,
) -> Result<Range<usize>, ScanError> {
    match cursor.kind()? {
        JsonKind::String => {
            let found = cursor.string()?;
            push_text(facts, text, &found);
            Ok(found.span())
        }
        JsonKind::Array => list(cursor, facts, text),
        _ => cursor.skip(),
    }
}

/// Reads a list of strings, token ids, lists of token ids, or objects with text.
fn list(
    cursor: &mut Cursor<'_>,
    facts: &mut Facts,
    text: PromptKind,
) -> Result<Range<usize>, ScanError> {
    // The whole array's place in the list comes before its parts, but its end is known only after them.
    let place = facts.prompt.len();
    let mut numbers = 0;
    let mut objects = false;
    let span = cursor.array(|cursor| {
        match cursor.kind()? {
            JsonKind::String => push_text(facts, text, &cursor.string()?),
            JsonKind::Number => {
                numbers += 1;
                cursor.skip()?;
            }
            JsonKind::Array => {
                let span = cursor.skip()?;
                push_tokens(cursor, facts, text, span);
            }
            JsonKind::Object => {
                objects = true;
                item(cursor, facts, text)?;
            }
            _ => {
                cursor.skip()?;
            }
        }
        Ok(())
    })?;
    let whole = match text {
        PromptKind::Content => Some(PromptKind::Messages),
        PromptKind::Input if objects => Some(PromptKind::Items),
        PromptKind::Input | PromptKind::Prompt if numbers > 0 => {
            facts.prompt_tokens += numbers;
            Some(PromptKind::Tokens)
        }
        _ => None,
    };
    if let Some(kind) = whole {
        // At most one for each prompt field, so not held to the limit.
        let span = span.clone();
        facts.prompt.insert(place, PromptSpan { kind, span });
    }
    Ok(span)
}

/// Reads one object of a list: a message, an item, a system block, a document.
fn item(cursor: &mut Cursor<'_>, facts: &mut Facts, text: PromptKind) -> Result<(), ScanError> {
    let text = match text {
        PromptKind::Input => PromptKind::Content,
        other => other,
    };
    cursor.object(|cursor, key| match &*cursor.name(&key) {
        b"role" => string(cursor, facts, PromptKind::Role),
        b"content" | b"output" => parts(cursor, facts, text, PART_LEVELS),
        b"text" => string(cursor, facts, text),
        b"tool_calls" | b"function_call" | b"arguments" => whole(cursor, facts, PromptKind::Calls),
        _ => cursor.skip().map(drop),
    })?;
    Ok(())
}

/// Reads content: a string, or a list of parts with `text` (and `content` of their own, one level down).
fn parts(
    cursor: &mut Cursor<'_>,
    facts: &mut Facts,
    text: PromptKind,
    levels: usize,
) -> Result<(), ScanError> {
    if cursor.kind()? != JsonKind::Array || levels == 0 {
        return string(cursor, facts, text);
    }
    cursor.array(|cursor| {
        if cursor.kind()? != JsonKind::Object {
            return string(cursor, facts, text);
        }
        cursor.object(|cursor, key| match &*cursor.name(&key) {
            b"text" => string(cursor, facts, text),
            b"content" => parts(cursor, facts, text, levels - 1),
            b"image_url" | b"input_audio" | b"audio_url" | b"video_url" | b"source" | b"file"
            | b"file_data" => whole(cursor, facts, PromptKind::Media),
            b"input" => whole(cursor, facts, PromptKind::Calls),
            _ => cursor.skip().map(drop),
        })?;
        Ok(())
    })?;
    Ok(())
}

/// Reads a string, or steps over anything else.
fn string(cursor: &mut Cursor<'_>, facts: &mut Facts, kind: PromptKind) -> Result<(), ScanError> {
    if cursor.kind()? == JsonKind::String {
        push_text(facts, kind, &cursor.string()?);
    } else {
        cursor.skip()?;
    }
    Ok(())
}

/// Notes a value of any shape as one part.
fn whole(cursor: &mut Cursor<'_>, facts: &mut Facts, kind: PromptKind) -> Result<(), ScanError> {
    let span = cursor.skip()?;
    push(facts, kind, span);
    Ok(())
}

fn push_text(facts: &mut Facts, kind: PromptKind, text: &Text) {
    if kind.is_text() {
        facts.prompt_bytes += text.inner.len();
    }
    push(facts, kind, text.inner.clone());
}

/// One of several token lists. Only `prompt` and `input` may hold them.
fn push_tokens(cursor: &Cursor<'_>, facts: &mut Facts, text: PromptKind, span: Range<usize>) {
    let first = cursor.bytes(&span)[1..].trim_ascii_start().first();
    if !matches!(text, PromptKind::Input | PromptKind::Prompt)
        || !first.is_some_and(u8::is_ascii_digit)
    {
        return;
    }
    facts.prompt_tokens += 1 + memchr::memchr_iter(b',', cursor.bytes(&span)).count();
    push(facts, PromptKind::Tokens, span);
}

fn push(facts: &mut Facts, kind: PromptKind, span: Range<usize>) {
    if facts.prompt.len() >= MAX_PROMPT_SPANS {
        facts.prompt_truncated = true;
        return;
    }
    facts.prompt.push(PromptSpan { kind, span });
}
