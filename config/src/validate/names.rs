//! Forms of names: of resources, labels and headers.

/// An RFC 1123 sub-domain, as names of Kubernetes objects are.
pub(super) fn is_dns_name(name: &str) -> bool {
    let label = |label: &str| {
        let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let bytes = label.as_bytes();
        let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
        edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(inner)
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// The name part of a label key, or a label value: up to 63 of letters, digits, `-`, `_` and `.`.
fn is_label_word(word: &str) -> bool {
    let bytes = word.as_bytes();
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let inner = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    word.len() <= 63 && edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(inner)
}

/// A label's key, with or without a `prefix/`.
pub fn is_label_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => is_dns_name(prefix) && is_label_word(name),
        None => is_label_word(key),
    }
}

/// A label's value; may be empty.
pub fn is_label_value(value: &str) -> bool {
    value.is_empty() || is_label_word(value)
}

/// A header field name: RFC 9110 `token`.
pub(super) fn is_header_name(name: &str) -> bool {
    let special = |b: u8| b"!#$%&'*+-.^_`|~".contains(&b);
    !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || special(b))
}
