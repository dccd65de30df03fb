//! The gateway's own small requests to an endpoint: metrics, lists of models, sources of events, tokens of a text.
//!
//! Over the endpoint's link like any request, but never on a request's way: bounded in size and time, one fresh try
//! when a kept connection turns out closed. Not for clients' requests: those are `forward::attempts`.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version, header};
use thiserror::Error;

use crate::forward::exchange::{EngineError, Upstream};
use crate::forward::link::Link;
use crate::forward::upstream::{Connector, PingoraUpstream};
use crate::http::{RequestHead, ResponseHead};

/// Why an endpoint was asked in vain.
#[derive(Debug, Error)]
pub enum FetchError {
    /// No connection, or it broke.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// It answered, but not with 200.
    #[error("answered {0}, does the engine serve this path?")]
    Status(StatusCode),
    /// The answer is longer than allowed.
    #[error("the answer is longer than {limit} bytes")]
    TooLarge {
        /// Most bytes.
        limit: usize,
    },
    /// No whole answer in time.
    #[error("no whole answer within {0:?}, is the engine overloaded?")]
    Deadline(Duration),
    /// The path cannot be asked for.
    #[error("`{0}` is no path")]
    Path(String),
}

/// `GET path`: the body of a 200 answer of at most `limit_bytes`, whole within `deadline`.
pub async fn get(
    connector: &Connector,
    link: &Link,
    path: &str,
    limit_bytes: usize,
    deadline: Duration,
) -> Result<Bytes, FetchError> {
    whole(
        connector,
        link,
        head(Method::GET, path)?,
        Bytes::new(),
        limit_bytes,
        deadline,
    )
    .await
}

/// `POST path` with a JSON body; otherwise as [`get`].
pub async fn post_json(
    connector: &Connector,
    link: &Link,
    path: &str,
    body: Bytes,
    limit_bytes: usize,
    deadline: Duration,
) -> Result<Bytes, FetchError> {
    let mut head = head(Method::POST, path)?;
    let json = HeaderValue::from_static("application/json");
    head.headers.insert(header::CONTENT_TYPE, json);
    whole(connector, link, head, body, limit_bytes, deadline).await
}

/// `GET path`, its 200 answer piece by piece to `sink` until that returns false.
pub async fn get_pieces(
    connector: &Connector,
    link: &Link,
    path: &str,
    deadline: Duration,
    sink: impl FnMut(&[u8]) -> bool,
) -> Result<(), FetchError> {
    let head = head(Method::GET, path)?;
    within(
        deadline,
        pieces(connector, link, &head, &Bytes::new(), sink),
    )
    .await
}

async fn whole(
    connector: &Connector,
    link: &Link,
    head: RequestHead,
    body: Bytes,
    limit: usize,
    deadline: Duration,
) -> Result<Bytes, FetchError> {
    let mut gathered = BytesMut::new();
    let mut fits = true;
    let sink = |piece: &[u8]| {
        fits = gathered.len() + piece.len() <= limit;
        if fits {
            gathered.extend_from_slice(piece);
        }
        fits
    };
    within(deadline, pieces(connector, link, &head, &body, sink)).await?;
    if fits {
        Ok(gathered.freeze())
    } else {
        Err(FetchError::TooLarge { limit })
    }
}

async fn within<T>(
    deadline: Duration,
    work: impl Future<Output = Result<T, FetchError>>,
) -> Result<T, FetchError> {
    tokio::time::timeout(deadline, work)
        .await
        .unwrap_or(Err(FetchError::Deadline(deadline)))
}

async fn pieces(
    connector: &Connector,
    link: &Link,
    head: &RequestHead,
    body: &Bytes,
    mut sink: impl FnMut(&[u8]) -> bool,
) -> Result<(), FetchError> {
    let (mut upstream, answer) = match exchange(connector, link, head, body, false).await {
        Err(EngineError::Stale(_)) => exchange(connector, link, head, body, true).await?,
        other => other?,
    };
    if answer.status != StatusCode::OK {
        // Dropped unread: the connection closes.
        return Err(FetchError::Status(answer.status));
    }
    while let Some(piece) = upstream.chunk().await? {
        if !sink(&piece) {
            return Ok(());
        }
    }
    connector.release(link, upstream).await;
    Ok(())
}

async fn exchange(
    connector: &Connector,
    link: &Link,
    head: &RequestHead,
    body: &Bytes,
    fresh: bool,
) -> Result<(PingoraUpstream, ResponseHead), EngineError> {
    let mut upstream = connector.send(link, head, body, fresh).await?;
    let head = upstream.head().await?;
    Ok((upstream, head))
}

fn head(method: Method, path: &str) -> Result<RequestHead, FetchError> {
    let uri = path.parse::<Uri>().ok().filter(|_| path.starts_with('/'));
    let mut headers = HeaderMap::with_capacity(3);
    headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static("sluice"));
    Ok(RequestHead {
        method,
        uri: uri.ok_or_else(|| FetchError::Path(path.to_owned()))?,
        version: Version::HTTP_11,
        headers,
    })
}

#[cfg(test)]
mod tests;
