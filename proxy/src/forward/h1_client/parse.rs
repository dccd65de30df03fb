//! A request's head: from bytes to a checked [`RequestHead`] and the framing of its body. Pure.

use bytes::BytesMut;
use http::header::{self, HeaderMap};
use http::{Method, Uri, Version};

use super::RequestBody;
use crate::error::RequestError;
use crate::forward::fields::{self, FieldError, LengthError, Places};
use crate::forward::h1_engine::Chunked;
use crate::http::RequestHead;
use crate::http::hygiene::{self, HeadLimits};

/// More fields than any limit allows.
const MAX_FIELDS: usize = 256;

/// What the bytes are.
#[expect(
    clippy::large_enum_variant,
    reason = "matched at once where it is made"
)]
pub(super) enum Outcome {
    /// The beginning of a head.
    Partial,
    /// A head, taken off the buffer.
    Request(Request),
    /// Not HTTP.
    Invalid(RequestError),
}

/// A head and what follows from it.
pub(super) struct Request {
    pub(super) head: RequestHead,
    pub(super) body: RequestBody,
    /// The client wants no further request on the connection.
    pub(super) close: bool,
    /// It is HTTP, but not to be served.
    pub(super) refused: Option<RequestError>,
}

/// Takes a whole head off the buffer.
pub(super) fn request(buffer: &mut BytesMut, limits: &HeadLimits) -> Outcome {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut fields);
    let length = match parsed.parse(buffer) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if buffer.len() > 2 * limits.bytes => {
            let message = format!("more than {} bytes", limits.bytes);
            return Outcome::Invalid(RequestError::HeadTooLarge(message));
        }
        Ok(httparse::Status::Partial) => return Outcome::Partial,
        Err(httparse::Error::TooManyHeaders) => {
            let message = format!("more than {MAX_FIELDS} header fields");
            return Outcome::Invalid(RequestError::HeadTooLarge(message));
        }
        Err(error) => return Outcome::Invalid(RequestError::MalformedHead(error.to_string())),
    };
    let method = Method::from_bytes(parsed.method.unwrap_or_default().as_bytes());
    let uri = parsed.path.unwrap_or_default().parse::<Uri>();
    let (Ok(method), Ok(uri)) = (method, uri) else {
        let message = "the request line is invalid".to_owned();
        return Outcome::Invalid(RequestError::MalformedHead(message));
    };
    let version = if parsed.version == Some(0) {
        Version::HTTP_10
    } else {
        Version::HTTP_11
    };
    let malformed =
        |error: FieldError| Outcome::Invalid(RequestError::MalformedHead(error.to_string()));
    let places = match Places::of(parsed.headers, buffer.as_ptr()) {
        Ok(places) => places,
        Err(error) => return malformed(error),
    };
    let raw = buffer.split_to(length).freeze();
    let headers = match places.slice(&raw) {
        Ok(headers) => headers,
        Err(error) => return malformed(error),
    };
    let head = RequestHead {
        method,
        uri,
        version,
        headers,
    };
    Outcome::Request(checked(head, &raw, limits))
}

fn checked(head: RequestHead, raw: &[u8], limits: &HeadLimits) -> Request {
    let close = closes(&head);
    let framed = body(&head.headers, head.version);
    let refused = hygiene::check(&head, Some(raw), limits).err();
    match framed {
        Ok(body) => Request {
            head,
            body,
            close,
            refused,
        },
        Err(error) => Request {
            head,
            body: RequestBody::Broken,
            close: true,
            refused: Some(refused.unwrap_or(error)),
        },
    }
}

/// RFC 9112, 6.3; strict.
fn body(headers: &HeaderMap, version: Version) -> Result<RequestBody, RequestError> {
    let malformed = |why: &str| Err(RequestError::MalformedHead(why.to_owned()));
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        let chunked =
            coding.as_bytes().eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
        if !chunked || version != Version::HTTP_11 {
            return malformed("transfer-encoding other than chunked");
        }
        if headers.contains_key(header::CONTENT_LENGTH) {
            return malformed("both content-length and transfer-encoding");
        }
        return Ok(RequestBody::Chunked(Chunked::new()));
    }
    match fields::content_length(headers) {
        Ok(None | Some(0)) => Ok(RequestBody::Done),
        Ok(Some(length)) => Ok(RequestBody::Length(length)),
        Err(LengthError::Differing) => malformed("differing content-lengths"),
        Err(LengthError::NotANumber) => malformed("content-length is not a number"),
    }
}

fn closes(head: &RequestHead) -> bool {
    head.version != Version::HTTP_11
        || head
            .headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|option| option.trim().eq_ignore_ascii_case("close"))
}
