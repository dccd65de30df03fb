//! Where the tags of a Jinja source are: enough lexing to rewrite one tag and to see what loops run over.
//!
//! Not a parser: expressions stay text. Strings, comments and raw blocks are stepped over as Jinja does, so
//! that `{% generation %}` inside a string is text.

use std::ops::Range;

/// One `{% ... %}` of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tag {
    /// The first word: `for`, `set`, `generation`; empty when the tag starts with something else.
    pub(super) name: Range<usize>,
    /// What follows the name, up to the closing marks.
    pub(super) rest: Range<usize>,
}

/// The tags in order. A source that ends inside a tag gives the tags before it: compiling it tells what is wrong.
pub(super) fn tags(source: &str) -> Vec<Tag> {
    let mut tags = Vec::new();
    let mut at = 0;
    while let Some(open) = next_open(source, at) {
        let Some(close) = close_of(source, open) else {
            break;
        };
        at = close;
        if !source[open..].starts_with("{%") {
            continue;
        }
        let tag = tag_within(source, open + 2..close - 2);
        if &source[tag.name.clone()] == "raw" {
            at = after_raw(source, close);
        }
        tags.push(tag);
    }
    tags
}

/// The next `{%`, `{{` or `{#`.
fn next_open(source: &str, from: usize) -> Option<usize> {
    let bytes = source.as_bytes();
    memchr::memchr_iter(b'{', &bytes[from..])
        .map(|at| from + at)
        .find(|&at| matches!(bytes.get(at + 1), Some(b'%' | b'{' | b'#')))
}

/// Just past the closing marks of what opens at `open`.
fn close_of(source: &str, open: usize) -> Option<usize> {
    let body = open + 2;
    let close = match source.as_bytes()[open + 1] {
        b'#' => return source[body..].find("#}").map(|at| body + at + 2),
        b'%' => b"%}",
        _ => b"}}",
    };
    let bytes = source.as_bytes();
    let (mut at, mut braces) = (body, 0_usize);
    while at < bytes.len() {
        match bytes[at] {
            quote @ (b'"' | b'\'') => at = after_string(bytes, at, quote)?,
            // A dict literal may end right before the closing marks: `{{ {"a": {}} }}`.
            b'{' => (at, braces) = (at + 1, braces + 1),
            b'}' if braces > 0 => (at, braces) = (at + 1, braces - 1),
            _ if bytes[at..].starts_with(close) => return Some(at + 2),
            _ => at += 1,
        }
    }
    None
}

/// Just past the string that opens at `at`.
fn after_string(bytes: &[u8], at: usize, quote: u8) -> Option<usize> {
    let mut at = at + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            byte if byte == quote => return Some(at + 1),
            _ => at += 1,
        }
    }
    None
}

/// Name and rest of the tag whose inside is `inside`; the trim marks belong to neither.
fn tag_within(source: &str, inside: Range<usize>) -> Tag {
    let text = &source[inside.clone()];
    let text = text.strip_suffix(['-', '+']).unwrap_or(text);
    let end = inside.start + text.len();
    let lead = text.strip_prefix(['-', '+']).unwrap_or(text).trim_start();
    let start = end - lead.len();
    let length = lead
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(lead.len());
    Tag {
        name: start..start + length,
        rest: start + length..end,
    }
}

/// Where the `endraw` tag that closes a raw block begins, or the end of the source.
fn after_raw(source: &str, from: usize) -> usize {
    let mut at = from;
    while let Some(open) = source[at..].find("{%").map(|found| at + found) {
        let inside = source[open + 2..]
            .trim_start_matches(['-', '+'])
            .trim_start();
        if inside.starts_with("endraw") {
            return open;
        }
        at = open + 2;
    }
    source.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(source: &str) -> Vec<&str> {
        tags(source)
            .into_iter()
            .map(|tag| &source[tag.name])
            .collect()
    }

    #[test]
    fn tags_are_found_past_strings_comments_and_raw_blocks() {
        let source = "a{%- for m in x -%}{{ '%} {% if %}' }}{# {% if %} #}{% raw %}{% set %}{% endraw %}{%+endfor%}";
        assert_eq!(names(source), ["for", "raw", "endraw", "endfor"]);
    }

    #[test]
    fn a_dict_before_the_closing_marks_does_not_close_early() {
        assert_eq!(
            names("{{ {'a': {}} }}{% set a = {'b': {}} %}{% if a %}"),
            ["set", "if"]
        );
    }

    #[test]
    fn an_open_end_gives_what_came_before() {
        assert_eq!(names("{% if a %}{% set b = 'c"), ["if"]);
        assert_eq!(names("{%"), Vec::<&str>::new());
        assert_eq!(names("{% 'x\\"), Vec::<&str>::new());
    }
}
