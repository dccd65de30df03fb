//! Which form of message content a template wants: a string, or the list of parts.
//!
//! vLLM decides by the template's syntax tree (`vllm/renderers/hf.py`, content format "auto"): a loop over
//! `message.content`, where `message` is the target of a loop over `messages` or over a variable set from it,
//! means parts. The same rule on tags, so that the same template gives the same prompt.

use super::scanner::tags;

/// How vLLM hands a message's content to the template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentFormat {
    /// One string; text parts are joined by newlines. vLLM's `string`.
    Text,
    /// A list of `{"type": "text", "text": ...}`. vLLM's `openai`.
    Parts,
}

/// Variables followed at most: a template with more aliases of `messages` than this is not one.
const MAX_ALIASES: usize = 64;

pub(super) fn content_format(source: &str) -> ContentFormat {
    let (mut sets, mut loops) = (Vec::new(), Vec::new());
    for tag in tags(source) {
        let rest = source[tag.rest].trim();
        match &source[tag.name] {
            "set" => sets.extend(
                rest.split_once('=')
                    .map(|(to, from)| (to.trim(), from.trim())),
            ),
            "for" => loops.extend(
                rest.split_once(" in ")
                    .map(|(to, over)| (to.trim(), over.trim())),
            ),
            _ => {}
        }
    }
    let lists = aliases(&sets);
    let messages: Vec<&str> = loops
        .iter()
        .filter(|(_, over)| lists.iter().any(|list| is_access(over, list, None)))
        .map(|(to, _)| *to)
        .collect();
    let parts = loops.iter().any(|(_, over)| {
        messages
            .iter()
            .any(|message| is_access(over, message, Some("content")))
    });
    if parts {
        ContentFormat::Parts
    } else {
        ContentFormat::Text
    }
}

/// `messages` and every variable set from it, from a filter of it or from a slice of it.
fn aliases<'a>(sets: &[(&'a str, &'a str)]) -> Vec<&'a str> {
    let mut found = vec!["messages"];
    let mut next = 0;
    while next < found.len() && found.len() < MAX_ALIASES {
        for (to, from) in sets {
            if is_access(from, found[next], None) && !found.contains(to) {
                found.push(to);
            }
        }
        next += 1;
    }
    found
}

/// Whether `expression` is the variable (or its attribute `key`), maybe through slices, filters and tests.
fn is_access(expression: &str, variable: &str, key: Option<&str>) -> bool {
    let Some(rest) = expression.strip_prefix(variable) else {
        return false;
    };
    let rest = match key {
        None => Some(rest),
        Some(key) => after_key(rest, key),
    };
    rest.is_some_and(ends_access)
}

/// What follows `.key` or `['key']`.
fn after_key<'a>(rest: &'a str, key: &str) -> Option<&'a str> {
    if let Some(dotted) = rest.strip_prefix('.') {
        return dotted.strip_prefix(key);
    }
    let inner = rest.strip_prefix('[')?.trim_start();
    let quote = inner.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let inner = inner[1..].strip_prefix(key)?.strip_prefix(quote)?;
    inner.trim_start().strip_prefix(']')
}

/// Whether nothing but slices, filters, a test or a loop's own `if` follows.
fn ends_access(rest: &str) -> bool {
    if rest.starts_with(|c: char| c.is_alphanumeric() || c == '_') {
        return false;
    }
    let mut rest = rest.trim_start();
    loop {
        let after = if let Some(filter) = rest.strip_prefix('|') {
            let name = filter.trim_start();
            let name = name.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
            bracketed(name.trim_start(), '(', ')').map_or(name, |(_, after)| after)
        } else if let Some((inside, after)) = bracketed(rest, '[', ']') {
            if !inside.contains(':') {
                return false;
            }
            after
        } else {
            let word = rest.split_whitespace().next();
            return matches!(word, None | Some("if" | "is" | "recursive"));
        };
        rest = after.trim_start();
    }
}

/// The inside of a bracket that opens here, and what follows it.
fn bracketed(text: &str, open: char, close: char) -> Option<(&str, &str)> {
    let inside = text.strip_prefix(open)?;
    let mut depth = 1_usize;
    for (at, c) in inside.char_indices() {
        if c == open {
            depth += 1;
        } else if c == close {
            depth -= 1;
        }
        if depth == 0 {
            return Some((&inside[..at], &inside[at + close.len_utf8()..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_over_content_means_parts() {
        for source in [
            "{% for m in messages %}{% for c in m['content'] %}{% endfor %}{% endfor %}",
            "{% for m in messages %}{% for c in m.content | list %}{% endfor %}{% endfor %}",
            "{% set rest = messages[1:] %}{% for m in rest %}{% for c in m[\"content\"] if c %}{% endfor %}{% endfor %}",
            "{% set a = messages %}{% set b = a | list %}{% for m in b[::-1] %}{% for c in m.content %}x{% endfor %}{% endfor %}",
        ] {
            assert_eq!(content_format(source), ContentFormat::Parts, "{source}");
        }
    }

    #[test]
    fn a_template_that_prints_content_wants_text() {
        for source in [
            "{% for m in messages %}{{ m.content }}{% endfor %}",
            "{% for m in messages %}{% for c in m.content.split() %}{% endfor %}{% endfor %}",
            "{% for m in messages %}{% for c in m.contents %}{% endfor %}{% endfor %}",
            "{% for c in tool.content %}{% endfor %}",
            "{% for m in messages %}{% for c in m.tool_calls %}{% endfor %}{% endfor %}",
            "{% for m in messages %}{% for c in m['content'][0] %}{% endfor %}{% endfor %}",
            "{# {% for c in m.content %} #}",
        ] {
            assert_eq!(content_format(source), ContentFormat::Text, "{source}");
        }
    }
}
