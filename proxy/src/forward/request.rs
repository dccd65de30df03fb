//! A request's head on its way to an engine, as each protocol writes it. What an engine gets is the sanitised head
//! with a host and a length of our own.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderName, Version, header};
use pingora_core::protocols::Stream;
use pingora_http::RequestHeader;
use tokio::io::AsyncWriteExt;

use super::exchange::EngineError;
use super::link::Link;
use crate::http::RequestHead;

/// A body up to this size is copied behind the head: one small copy is cheaper than a gathered write.
const COPY_BODY_BYTES: usize = 8 << 10;

/// Fields that we write ourselves, or that only concern us.
fn is_ours(name: &HeaderName) -> bool {
    *name == header::HOST || *name == header::CONTENT_LENGTH || *name == header::EXPECT
}

/// Sends head and body as one write.
pub(super) async fn write_h1(
    stream: &mut Stream,
    link: &Link,
    head: &RequestHead,
    body: &Bytes,
) -> std::io::Result<()> {
    let inline = body.len() <= COPY_BODY_BYTES;
    let mut buffer = BytesMut::with_capacity(1024 + if inline { body.len() } else { 0 });
    buffer.put_slice(head.method.as_str().as_bytes());
    buffer.put_u8(b' ');
    buffer.put_slice(target(head).as_bytes());
    buffer.put_slice(b" HTTP/1.1\r\nhost: ");
    buffer.put_slice(link.authority.as_bytes());
    buffer.put_slice(b"\r\n");
    for (name, value) in head.headers.iter().filter(|(name, _)| !is_ours(name)) {
        buffer.put_slice(name.as_str().as_bytes());
        buffer.put_slice(b": ");
        buffer.put_slice(value.as_bytes());
        buffer.put_slice(b"\r\n");
    }
    buffer.put_slice(b"content-length: ");
    buffer.put_slice(itoa::Buffer::new().format(body.len()).as_bytes());
    buffer.put_slice(b"\r\n\r\n");
    if inline {
        buffer.put_slice(body);
        stream.write_all(&buffer).await?;
    } else {
        let mut both = Buf::chain(buffer, body.clone());
        stream.write_all_buf(&mut both).await?;
    }
    stream.flush().await
}

/// The head of an HTTP/2 request: an absolute URI and no host.
pub(super) fn h2_head(
    link: &Link,
    head: &RequestHead,
    length: usize,
) -> Result<RequestHeader, EngineError> {
    let invalid = |error: &dyn std::fmt::Display| EngineError::Request(error.to_string());
    let size = head.headers.len() + 1;
    let mut request = RequestHeader::build_no_case(head.method.clone(), b"/", Some(size))
        .map_err(|error| invalid(&error))?;
    let scheme = if link.tls { "https" } else { "http" };
    let uri = format!("{scheme}://{}{}", link.authority, target(head))
        .parse()
        .map_err(|error: http::uri::InvalidUri| invalid(&error))?;
    request.set_uri(uri);
    request.set_version(Version::HTTP_2);
    for (name, value) in head.headers.iter().filter(|(name, _)| !is_ours(name)) {
        request
            .append_header(name.clone(), value.clone())
            .map_err(|error| invalid(&error))?;
    }
    request
        .insert_header(header::CONTENT_LENGTH, length)
        .map_err(|error| invalid(&error))?;
    Ok(request)
}

fn target(head: &RequestHead) -> &str {
    head.uri
        .path_and_query()
        .map_or("/", |target| target.as_str())
}
