//! Parameters of a header value: `; name=value; name="quoted \" value"` (RFC 2045, 5.1).

/// A parameter stands twice: parsers differ in which one they take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Twice;

/// The value of a parameter in what follows the first semicolon.
pub(super) fn parameter(text: &str, wanted: &str) -> Result<Option<String>, Twice> {
    let mut found = None;
    let mut rest = text;
    while !rest.is_empty() {
        let (name, after) = match rest.find(['=', ';']) {
            Some(end) if rest.as_bytes()[end] == b'=' => (&rest[..end], &rest[end + 1..]),
            // A parameter without a value.
            Some(end) => {
                rest = &rest[end + 1..];
                continue;
            }
            None => break,
        };
        let (value, after) = value(after.trim_start());
        rest = after;
        if name.trim().eq_ignore_ascii_case(wanted) && found.replace(value).is_some() {
            return Err(Twice);
        }
    }
    Ok(found)
}

/// A value, quoted or not, and what stands after its semicolon.
fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = text.split_once(';').unwrap_or((text, ""));
        return (value.trim().to_owned(), rest);
    };
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => {
                let rest = &quoted[at + 1..];
                return (value, rest.split_once(';').map_or("", |(_, rest)| rest));
            }
            '\\' => value.extend(letters.next().map(|(_, escaped)| escaped)),
            plain => value.push(plain),
        }
    }
    (value, "")
}
