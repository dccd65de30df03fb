//! Request id and W3C trace context: taken over when sane, made when not.
//!
//! Trace context: <https://www.w3.org/TR/trace-context/>, version 00.

use http::HeaderValue;
use http::header::{HeaderMap, HeaderName};
use rand::Rng;

/// The field that carries the request id, both ways.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Keeps the client's `x-request-id` when it is sane (1 to 128 characters of a log- and header-safe set), else
/// sets a UUID, the one form that every engine takes. Returns the id.
pub fn ensure_request_id(headers: &mut HeaderMap) -> HeaderValue {
    let mut ids = headers.get_all(&REQUEST_ID).iter();
    if let (Some(id), None) = (ids.next(), ids.next())
        && is_sane(id.as_bytes())
    {
        return id.clone();
    }
    let mut buffer = uuid::Uuid::encode_buffer();
    let text = uuid::Uuid::new_v4().hyphenated().encode_lower(&mut buffer);
    let id = HeaderValue::from_str(text).expect("a UUID is a valid header value");
    headers.insert(REQUEST_ID, id.clone());
    id
}

fn is_sane(id: &[u8]) -> bool {
    (1..=128).contains(&id.len())
        && id
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(byte))
}

/// Keeps a valid `traceparent`, else sets a new, unsampled one (and drops `tracestate`, which belongs to it).
/// Returns the trace id as 32 hexadecimal digits.
pub fn ensure_trace_context(headers: &mut HeaderMap, random: &mut impl Rng) -> String {
    let given = headers
        .get(&TRACEPARENT)
        .and_then(|value| value.to_str().ok())
        .and_then(trace_id);
    if let Some(id) = given {
        return id.to_owned();
    }
    headers.remove(&TRACESTATE);
    let trace: u128 = random.random_range(1..=u128::MAX);
    let span: u64 = random.random_range(1..=u64::MAX);
    let mut text = String::with_capacity(55);
    text.push_str("00-");
    push_hex(&mut text, &trace.to_be_bytes());
    text.push('-');
    push_hex(&mut text, &span.to_be_bytes());
    text.push_str("-00");
    let id = text[3..35].to_owned();
    let value = HeaderValue::try_from(text).expect("hexadecimal digits are a valid header value");
    headers.insert(TRACEPARENT, value);
    id
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from(DIGITS[usize::from(nibble)]));
        }
    }
}

/// The trace id of a valid `traceparent`.
fn trace_id(value: &str) -> Option<&str> {
    let mut parts = value.split('-');
    let (version, trace, span, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str, length: usize| {
        text.len() == length
            && text
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let valid = hex(version, 2)
        && version != "ff"
        && (version != "00" || parts.next().is_none())
        && hex(trace, 32)
        && hex(span, 16)
        && hex(flags, 2)
        && trace.bytes().any(|byte| byte != b'0')
        && span.bytes().any(|byte| byte != b'0');
    valid.then_some(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sane_request_id_is_kept() {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, HeaderValue::from_static("rid-1:a"));
        assert_eq!(ensure_request_id(&mut headers), "rid-1:a");
    }

    #[test]
    fn a_missing_doubled_or_odd_request_id_becomes_a_uuid() {
        for given in [&[][..], &["a", "b"], &["with space"], &[""]] {
            let mut headers = HeaderMap::new();
            for id in given {
                headers.append(REQUEST_ID, HeaderValue::from_str(id).unwrap());
            }
            let id = ensure_request_id(&mut headers);
            assert!(
                uuid::Uuid::parse_str(id.to_str().unwrap()).is_ok(),
                "{given:?}"
            );
            assert_eq!(headers.get_all(&REQUEST_ID).iter().count(), 1);
        }
    }

    #[test]
    fn a_valid_trace_context_is_kept_and_a_bad_one_replaced() {
        let mut random = rand::rng();
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_static(good));
        assert_eq!(
            ensure_trace_context(&mut headers, &mut random),
            &good[3..35]
        );
        assert_eq!(headers[&TRACEPARENT], good);
        for bad in [
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "x",
            "ff-1-2-3",
        ] {
            headers.insert(TRACEPARENT, HeaderValue::from_static(bad));
            headers.insert(TRACESTATE, HeaderValue::from_static("a=b"));
            let id = ensure_trace_context(&mut headers, &mut random);
            assert_eq!(
                trace_id(headers[&TRACEPARENT].to_str().unwrap()),
                Some(id.as_str())
            );
            assert!(!headers.contains_key(&TRACESTATE));
        }
    }
}
