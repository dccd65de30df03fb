//! HTTP/2 with prior knowledge, by hyper. Normal behaviour, and the faults that make sense for one stream: status,
//! hanging, mid-stream cuts (as stream errors), `split`, `slow-drip`, `single-write`, `no-usage`. Those of the TCP
//! connection (`garbage`, `early-close` ...) become stream errors too.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use futures::stream;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame as BodyFrame, Incoming as HyperBody};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::api;
use super::connection::{counted, fault_of};
use super::counters::{Outcome, RequestGuard};
use super::fault::Fault;
use super::reply::{Frame, Frames, Incoming, Reply, ReplyBody};
use super::shared::Shared;

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Streams that one connection may hold: a gateway may send all of its load over a single one.
const MAX_STREAMS: u32 = 20_000;

/// Serves a connection of which `prefix` was read already.
pub(crate) async fn serve(shared: Arc<Shared>, stream: TcpStream, prefix: Bytes) {
    let io = TokioIo::new(Rewound { prefix, stream });
    let service = service_fn(move |request| {
        let shared = shared.clone();
        async move { answer(shared, request).await }
    });
    // The error says how the client broke off, which its requests' guards have counted.
    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .max_concurrent_streams(MAX_STREAMS)
        .serve_connection(io, service)
        .await;
}

async fn answer(
    shared: Arc<Shared>,
    request: http::Request<HyperBody>,
) -> Result<http::Response<Body>, io::Error> {
    let (parts, body) = request.into_parts();
    let mut incoming = Incoming {
        method: parts.method.as_str().to_owned(),
        target: parts
            .uri
            .path_and_query()
            .map_or_else(String::new, ToString::to_string),
        headers: parts
            .headers
            .iter()
            .map(|(name, value)| {
                (
                    Bytes::copy_from_slice(name.as_str().as_bytes()),
                    Bytes::copy_from_slice(value.as_bytes()),
                )
            })
            .collect(),
        body: Bytes::new(),
    };
    let mut guard = counted(&shared, &incoming);
    incoming.body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let incoming = Arc::new(incoming);
    if guard.is_some() {
        shared.counters.remember(incoming.clone());
    }
    let fault = match fault_of(&shared, &incoming) {
        Ok(fault) => fault,
        Err(reply) => return response(reply, None, guard),
    };
    match fault {
        Some(Fault::HangBeforeHeaders) => std::future::pending::<()>().await,
        Some(Fault::EarlyClose | Fault::Garbage | Fault::TruncatedLength) => {
            if let Some(guard) = &mut guard {
                guard.settle(Outcome::Faulted);
            }
            return Err(io::Error::other("injected fault"));
        }
        _ => {}
    }
    let mut reply = api::handle(&shared, &incoming, fault).await;
    if fault == Some(Fault::SingleWrite) {
        let body = std::mem::replace(&mut reply.body, ReplyBody::Full(Bytes::new()));
        reply.body = ReplyBody::Full(Frames::new(body, None).collect().await);
    }
    response(reply, fault, guard)
}

fn response(
    reply: Reply,
    fault: Option<Fault>,
    guard: Option<RequestGuard>,
) -> Result<http::Response<Body>, io::Error> {
    let mut builder = http::Response::builder()
        .status(reply.status)
        .header("server", "sluice-engine")
        .header("content-type", reply.content_type);
    for (name, value) in &reply.headers {
        builder = builder.header(*name, value);
    }
    let body = body_stream(Frames::new(reply.body, fault), guard);
    builder.body(body).map_err(io::Error::other)
}

fn body_stream(frames: Frames, guard: Option<RequestGuard>) -> Body {
    let state = Some((frames, guard));
    let frames = stream::unfold(state, |state| async move {
        let (mut frames, mut guard) = state?;
        let mut settle = |outcome| {
            if let Some(guard) = &mut guard {
                guard.settle(outcome);
            }
        };
        match frames.next().await {
            Frame::Data(data) => Some((Ok(BodyFrame::data(data)), Some((frames, guard)))),
            Frame::End => {
                settle(Outcome::Completed);
                None
            }
            Frame::Hang => std::future::pending().await,
            Frame::Reset | Frame::Close => {
                settle(Outcome::Faulted);
                Some((Err(io::Error::other("injected fault")), None))
            }
        }
    });
    StreamBody::new(frames)
        .map_err(|error| error)
        .boxed_unsync()
}

/// A connection whose first bytes were read already.
struct Rewound {
    prefix: Bytes,
    stream: TcpStream,
}

impl AsyncRead for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let count = self.prefix.len().min(buffer.remaining());
        buffer.put_slice(&self.prefix[..count]);
        self.prefix.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // An orderly end: do not reset what was sent.
        let _ = SockRef::from(&self.stream).set_linger(None);
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
