//! One line of Prometheus text: `name{label="value",...} value [time stamp]`. Borrowed, without allocation except for
//! label values with escapes.

use std::borrow::Cow;

/// Splits a sample into its name and the rest; `None` for comments and empty lines.
pub(super) fn name(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = line
        .iter()
        .position(|byte| matches!(byte, b'{' | b' ' | b'\t'))?;
    (end > 0 && line[0] != b'#').then(|| line.split_at(end))
}

/// Labels as written and the value of a sample, from what follows its name. `None` when it is malformed, or when the
/// value is none that a count, a size or a share can have: negative, infinite, not a number.
pub(super) fn sample(rest: &[u8]) -> Option<(&[u8], f64)> {
    let (labels, value) = match rest.first() {
        Some(b'{') => {
            let end = closing_brace(rest)?;
            (&rest[1..end], &rest[end + 1..])
        }
        _ => (&rest[..0], rest),
    };
    let text = std::str::from_utf8(value).ok()?;
    let number: f64 = text.split_ascii_whitespace().next()?.parse().ok()?;
    (number.is_finite() && number >= 0.0).then_some((labels, number))
}

/// Braces in quoted values do not count.
fn closing_brace(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        at += memchr::memchr2(b'"', b'}', text.get(at..)?)?;
        if text[at] == b'}' {
            return Some(at);
        }
        at = closing_quote(text, at + 1)? + 1;
    }
}

fn closing_quote(text: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at);
        }
        at += 2;
    }
}

/// The value of a label; `None` when it is not there, malformed or not UTF-8.
pub(super) fn label<'a>(labels: &'a [u8], wanted: &str) -> Option<Cow<'a, str>> {
    let mut rest = labels;
    loop {
        let equals = memchr::memchr(b'=', rest)?;
        let name = rest[..equals].trim_ascii();
        let quoted = rest.get(equals + 1..)?.trim_ascii_start();
        if quoted.first() != Some(&b'"') {
            return None;
        }
        let end = closing_quote(quoted, 1)?;
        if name == wanted.as_bytes() {
            return unescape(&quoted[1..end]);
        }
        rest = quoted[end + 1..].trim_ascii_start();
        rest = rest.strip_prefix(b",").unwrap_or(rest);
    }
}

fn unescape(value: &[u8]) -> Option<Cow<'_, str>> {
    let text = std::str::from_utf8(value).ok()?;
    if !text.contains('\\') {
        return Some(Cow::Borrowed(text));
    }
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, character == '\\') {
            (_, true) => match characters.next()? {
                'n' => plain.push('\n'),
                other => plain.push(other),
            },
            (other, false) => plain.push(other),
        }
    }
    Some(Cow::Owned(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_and_quotes_within_values_are_values() {
        let line = br#"m{a="x}\"y",b = "\\\n",c=""} 1e3 1700000000"#;
        let (found, rest) = name(line).unwrap();
        assert_eq!(found, b"m");
        let (labels, value) = sample(rest).unwrap();
        assert_eq!(value, 1000.0);
        assert_eq!(label(labels, "a").unwrap(), "x}\"y");
        assert_eq!(label(labels, "b").unwrap(), "\\\n");
        assert_eq!(label(labels, "c").unwrap(), "");
        assert_eq!(label(labels, "d"), None);
    }

    #[test]
    fn values_that_are_no_counts_are_refused() {
        for value in ["NaN", "+Inf", "-1", "", "x", "-Inf"] {
            assert_eq!(sample(format!(" {value}").as_bytes()), None, "{value}");
        }
        assert_eq!(sample(b"{} 0.0"), Some((&b""[..], 0.0)));
        assert_eq!(sample(b"{a=\"b\" 1"), None);
    }
}
