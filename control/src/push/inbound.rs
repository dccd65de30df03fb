//! The requests of one stream, taken from the body that carries them.
//!
//! Why not tonic's `Streaming`: it keeps its buffer, and the first requests after a reconnect are hundreds of KiB, which
//! thousands of connections would hold ever after.

use std::future::poll_fn;
use std::pin::Pin;

use bytes::{Buf, BytesMut};
use prost::Message;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Body as _;

use super::wire::Request;

/// A message begins with a flag, whether it is compressed, and its length in four bytes.
const HEAD_BYTES: usize = 5;

/// What a stream may keep of its buffer.
const KEPT_BYTES: usize = 4 * 1024;

#[derive(Debug)]
pub(super) struct Inbound {
    body: Body,
    buffer: BytesMut,
    max_request_bytes: usize,
}

impl Inbound {
    pub(super) fn new(body: Body, max_request_bytes: usize) -> Self {
        Self {
            body,
            buffer: BytesMut::new(),
            max_request_bytes,
        }
    }

    /// The next request; none once the gateway has ended its side. Nothing is lost when the future is dropped.
    pub(super) async fn message(&mut self) -> Result<Option<Request>, Status> {
        loop {
            if let Some(request) = self.whole()? {
                return Ok(Some(request));
            }
            match poll_fn(|context| Pin::new(&mut self.body).poll_frame(context)).await {
                Some(frame) => {
                    if let Ok(data) = frame?.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(Status::invalid_argument("the stream ends within a request")),
            }
        }
    }

    /// A request that has come whole. The buffer grows with what comes, not with what a head announces.
    fn whole(&mut self) -> Result<Option<Request>, Status> {
        let Some(([flag, length @ ..], rest)) = self.buffer.split_first_chunk::<HEAD_BYTES>()
        else {
            return Ok(None);
        };
        if *flag != 0 {
            let words = "compressed requests are not understood; send them as they are";
            return Err(Status::unimplemented(words));
        }
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > self.max_request_bytes {
            let limit = self.max_request_bytes;
            let words = format!("a request of {length} bytes; the largest allowed has {limit}");
            return Err(Status::out_of_range(words));
        }
        let Some(message) = rest.get(..length) else {
            return Ok(None);
        };
        let request = Request::decode(message).map_err(|error| {
            Status::invalid_argument(format!("request is no DeltaDiscoveryRequest: {error}"))
        })?;
        self.buffer.advance(HEAD_BYTES + length);
        if self.buffer.capacity() + HEAD_BYTES + length > KEPT_BYTES {
            self.buffer = BytesMut::from(&self.buffer[..]);
        }
        Ok(Some(request))
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn framed(request: &Request) -> Vec<u8> {
        let message = request.encode_to_vec();
        let mut framed = vec![0];
        framed.extend((message.len() as u32).to_be_bytes());
        framed.extend(message);
        framed
    }

    fn request(type_url: &str) -> Request {
        Request {
            type_url: type_url.into(),
            ..Request::default()
        }
    }

    /// With these bytes received.
    fn received(bytes: &[u8]) -> Inbound {
        let mut inbound = Inbound::new(Body::empty(), 100_000);
        inbound.buffer.extend_from_slice(bytes);
        inbound
    }

    #[tokio::test]
    async fn requests_are_told_apart_wherever_the_transport_cuts_them() {
        let requests = [request("one"), request(""), request("three")];
        let bytes: Vec<u8> = requests.iter().flat_map(framed).collect();
        for size in 1..bytes.len() {
            let mut inbound = received(&[]);
            let mut found = Vec::new();
            for piece in bytes.chunks(size) {
                inbound.buffer.extend_from_slice(piece);
                while let Some(request) = inbound.whole().unwrap() {
                    found.push(request);
                }
            }
            assert_eq!(found, requests, "in pieces of {size}");
            assert_eq!(inbound.message().await.unwrap(), None);
        }
    }

    #[test]
    fn what_a_large_request_needed_is_given_back() {
        let mut bytes = framed(&request(&"x".repeat(90_000)));
        bytes.extend(framed(&request("small")));
        let mut inbound = received(&bytes);
        inbound.whole().unwrap().unwrap();
        assert!(
            inbound.buffer.capacity() <= KEPT_BYTES,
            "{}",
            inbound.buffer.capacity()
        );
        assert_eq!(inbound.whole().unwrap(), Some(request("small")));
    }

    #[tokio::test]
    async fn what_is_no_request_ends_the_stream_with_words() {
        let mut compressed = framed(&request("x"));
        compressed[0] = 1;
        let mut nonsense = framed(&request("x"));
        nonsense[5] = 0xff;
        let large = [0, 0xff, 0xff, 0xff, 0xff];
        let half = framed(&request("x"));
        for (bytes, code) in [
            (&compressed[..], Code::Unimplemented),
            (&nonsense, Code::InvalidArgument),
            (&large, Code::OutOfRange),
            (&half[..7], Code::InvalidArgument),
            (&half[..3], Code::InvalidArgument),
        ] {
            let error = received(bytes).message().await.unwrap_err();
            assert_eq!(error.code(), code, "{error}");
        }
    }
}
