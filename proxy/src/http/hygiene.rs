//! What a client's head must be like, and what never goes on to an engine.
//!
//! Pure checks on heads; RFC 9110 and 9112 are the source. Not for limits on bodies.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Uri, Version};

use crate::error::RequestError;
use crate::http::RequestHead;

/// Limits on a request's head.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// Bytes of names and values.
    pub bytes: usize,
    /// Number of fields.
    pub count: usize,
}

/// Refuses heads that HTTP forbids, that smuggle, or that are too large. `raw` is the HTTP/1 head as received.
pub fn check(
    head: &RequestHead,
    raw: Option<&[u8]>,
    limits: &HeadLimits,
) -> Result<(), RequestError> {
    check_size(head, limits)?;
    if let Some(raw) = raw {
        check_raw(head, raw)?;
    }
    check_host(head)?;
    if head.headers.contains_key(header::UPGRADE) || head.method == http::Method::CONNECT {
        return Err(RequestError::Upgrade);
    }
    Ok(())
}

fn check_size(head: &RequestHead, limits: &HeadLimits) -> Result<(), RequestError> {
    let count = head.headers.len();
    if count > limits.count {
        let message = format!("{count} fields, the limit is {}", limits.count);
        return Err(RequestError::HeadTooLarge(message));
    }
    let target = head
        .uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    let fields: usize = head
        .headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    let bytes = fields + target;
    if bytes > limits.bytes {
        let message = format!("{bytes} bytes, the limit is {}", limits.bytes);
        return Err(RequestError::HeadTooLarge(message));
    }
    Ok(())
}

/// What only the raw HTTP/1 head shows: both framings at once, and bare line feeds.
fn check_raw(head: &RequestHead, raw: &[u8]) -> Result<(), RequestError> {
    let malformed = |why: &str| Err(RequestError::MalformedHead(why.into()));
    if head.headers.contains_key(header::TRANSFER_ENCODING) {
        let has_length = raw
            .split(|&byte| byte == b'\n')
            .any(|line| line.len() > 14 && line[..14].eq_ignore_ascii_case(b"content-length"));
        if has_length {
            return malformed("both content-length and transfer-encoding");
        }
        let plain = head
            .headers
            .get_all(header::TRANSFER_ENCODING)
            .iter()
            .count()
            == 1
            && head.headers[header::TRANSFER_ENCODING]
                .as_bytes()
                .eq_ignore_ascii_case(b"chunked");
        if !plain {
            return malformed("transfer-encoding other than chunked");
        }
    }
    let bare = memchr::memchr_iter(b'\n', raw).any(|at| at == 0 || raw[at - 1] != b'\r');
    if bare {
        return malformed("line ends without carriage return");
    }
    Ok(())
}

fn check_host(head: &RequestHead) -> Result<(), RequestError> {
    let hosts = head.headers.get_all(header::HOST).iter().count();
    let authority = head.uri.authority().is_some();
    match hosts {
        0 if head.version == Version::HTTP_2 && authority => Ok(()),
        0 if head.version == Version::HTTP_10 => Ok(()),
        0 => Err(RequestError::MalformedHead("host is missing".into())),
        1 if !is_host(head.headers[header::HOST].as_bytes()) => Err(RequestError::MalformedHead(
            "host is not a host name".into(),
        )),
        1 if head
            .uri
            .authority()
            .is_some_and(|target| !same_host(target, &head.headers)) =>
        {
            Err(RequestError::MalformedHead(
                "host differs from the request target".into(),
            ))
        }
        1 => Ok(()),
        _ => Err(RequestError::MalformedHead("more than one host".into())),
    }
}

fn same_host(target: &http::uri::Authority, headers: &HeaderMap) -> bool {
    let host = headers
        .get(header::HOST)
        .map_or(b"".as_slice(), HeaderValue::as_bytes);
    host.eq_ignore_ascii_case(target.as_str().as_bytes())
}

/// `host[:port]` or nothing (RFC 9112 3.2).
fn is_host(value: &[u8]) -> bool {
    value.is_empty() || (!value.contains(&b'@') && http::uri::Authority::try_from(value).is_ok())
}

/// Hop-by-hop fields of RFC 9110 7.6.1, and those that our own framing replaces.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Fields by which gateways and engines steer each other: from a client they would choose its endpoint or its
/// tenant. (llm-d, Gateway API Inference Extension, Kthena and Sluice.)
const INTERNAL: [&str; 9] = [
    "x-prefiller-host-port",
    "x-prefiller-url",
    "x-encoder-hosts-ports",
    "x-data-parallel-host-port",
    "x-data-parallel-rank",
    "x-gateway-destination-endpoint",
    "x-gateway-destination-endpoint-served",
    "x-gateway-model-name-rewrite",
    "x-gateway-inference-fairness-id",
];

/// Removes hop-by-hop fields and those nominated by `connection`.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let nominated: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| *name != header::CONTENT_LENGTH && *name != header::HOST)
        .collect();
    for name in nominated.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// Makes a client's head into what the rooms above and the engine may see.
pub fn sanitize(head: &mut RequestHead) {
    strip_hop_by_hop(&mut head.headers);
    for name in INTERNAL {
        head.headers.remove(name);
    }
    let own: Vec<HeaderName> = head
        .headers
        .keys()
        .filter(|name| name.as_str().starts_with("x-sluice-"))
        .cloned()
        .collect();
    for name in own {
        head.headers.remove(name);
    }
    if head.headers.get(header::HOST).is_none()
        && let Some(authority) = head.uri.authority()
        && let Ok(value) = HeaderValue::from_str(authority.as_str())
    {
        head.headers.insert(header::HOST, value);
    }
    if let Some(target) = head.uri.path_and_query().cloned() {
        head.uri = Uri::from(target);
    }
}

/// Does the client wait for `100 Continue`?
pub fn expects_continue(headers: &HeaderMap) -> bool {
    headers
        .get(header::EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// `content-length` as a number.
pub fn content_length(headers: &HeaderMap) -> Option<usize> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits {
        bytes: 1000,
        count: 10,
    };

    fn head(fields: &[(&'static str, &'static str)]) -> RequestHead {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        RequestHead {
            method: http::Method::POST,
            uri: "/v1/chat/completions".parse().unwrap(),
            version: Version::HTTP_11,
            headers,
        }
    }

    fn refusal(head: &RequestHead, raw: &[u8]) -> String {
        check(head, Some(raw), &LIMITS).unwrap_err().to_string()
    }

    #[test]
    fn a_plain_head_passes() {
        let head = head(&[("host", "a"), ("content-length", "3")]);
        assert!(check(&head, Some(b"POST / HTTP/1.1\r\nhost: a\r\n\r\n"), &LIMITS).is_ok());
    }

    #[test]
    fn both_framings_are_refused_even_though_the_parser_hid_one() {
        let head = head(&[("host", "a"), ("transfer-encoding", "chunked")]);
        let raw = b"POST / HTTP/1.1\r\nhost: a\r\nContent-Length: 3\r\ntransfer-encoding: chunked\r\n\r\n";
        assert!(refusal(&head, raw).contains("both content-length"));
    }

    #[test]
    fn host_must_be_there_once() {
        assert!(refusal(&head(&[]), b"").contains("host is missing"));
        assert!(
            refusal(&head(&[("host", "a"), ("host", "b")]), b"").contains("more than one host")
        );
        for odd in ["a, b", "a b", "user@a", "a/b"] {
            assert!(refusal(&head(&[("host", odd)]), b"").contains("not a host name"));
        }
        for fine in ["", "a:80", "[::1]:80", "10.0.0.1", "a_b.c"] {
            assert!(
                check(&head(&[("host", fine)]), Some(b""), &LIMITS).is_ok(),
                "{fine}"
            );
        }
    }

    #[test]
    fn a_target_that_contradicts_host_is_refused() {
        let mut head = head(&[("host", "a")]);
        head.uri = "http://A/v1/models".parse().unwrap();
        assert!(check(&head, None, &LIMITS).is_ok());
        head.uri = "http://b/v1/models".parse().unwrap();
        assert!(refusal(&head, b"").contains("differs"));
    }

    #[test]
    fn bare_line_feeds_are_refused() {
        assert!(
            refusal(&head(&[("host", "a")]), b"POST / HTTP/1.1\nhost: a\n\n").contains("line ends")
        );
    }

    #[test]
    fn upgrades_are_refused() {
        assert!(
            refusal(&head(&[("host", "a"), ("upgrade", "websocket")]), b"").contains("upgrade")
        );
    }

    #[test]
    fn too_many_or_too_large_fields_are_431() {
        let many: Vec<(&'static str, &'static str)> = (0..11).map(|_| ("x-a", "b")).collect();
        assert_eq!(
            check(&head(&many), None, &LIMITS).unwrap_err().status(),
            431
        );
        let mut large = head(&[("host", "a")]);
        large
            .headers
            .insert("x-a", HeaderValue::from_str(&"b".repeat(1000)).unwrap());
        assert_eq!(check(&large, None, &LIMITS).unwrap_err().status(), 431);
    }

    #[test]
    fn internal_and_nominated_fields_never_pass() {
        let mut head = head(&[
            ("host", "a"),
            ("connection", "x-secret, keep-alive"),
            ("x-secret", "1"),
            ("x-sluice-endpoint", "10.0.0.1:1"),
            ("x-gateway-destination-endpoint", "10.0.0.1:1"),
            ("authorization", "Bearer k"),
        ]);
        sanitize(&mut head);
        let names: Vec<&str> = head.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["host", "authorization"]);
    }

    #[test]
    fn an_absolute_target_becomes_origin_form() {
        let mut head = head(&[("host", "a")]);
        head.uri = "http://a/v1/models?x=1".parse().unwrap();
        sanitize(&mut head);
        assert_eq!(head.uri.to_string(), "/v1/models?x=1");
    }
}
