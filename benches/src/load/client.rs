//! A client for streamed chats: few instructions per event, connections kept, every failure named.
//!
//! HTTP/1.1 of hyper without a pool crate: thousands of events a second share two cores with what is measured.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Collected, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::answer::Answer;

/// Longest page that is read.
const MAX_PAGE_BYTES: usize = 8 << 20;

type Sender = SendRequest<Full<Bytes>>;

/// One server, with the connections to it that wait for their next request.
#[derive(Debug)]
pub struct Client {
    server: SocketAddr,
    /// At most as many as requests were in flight at one time. Locked without awaiting.
    idle: Mutex<Vec<Sender>>,
    timeout: Duration,
}

/// Why an exchange is no success.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No connection.
    #[error("connect")]
    Connect,
    /// The connection broke.
    #[error("broken connection")]
    Broken,
    /// A status other than 200.
    #[error("status {0}")]
    Status(u16),
    /// The stream ended early, or is no chat, or has not the tokens that were asked for.
    #[error("incomplete answer")]
    Incomplete,
    /// Not over in time.
    #[error("timeout")]
    Timeout,
}

/// A streamed answer and when it came.
#[derive(Clone, Debug)]
pub struct Streamed {
    /// The answer.
    pub answer: Answer,
    /// When its first text arrived.
    pub first: Option<Instant>,
}

impl Client {
    /// A client of that server; an exchange longer than `timeout` has failed.
    pub fn new(server: SocketAddr, timeout: Duration) -> Self {
        Self {
            server,
            idle: Mutex::default(),
            timeout,
        }
    }

    /// Sends a chat that asks for a stream of that many tokens and reads its answer to the end.
    ///
    /// # Errors
    /// When the answer is not whole: see [`Failure`].
    pub async fn chat(&self, body: String, tokens: u32) -> Result<Streamed, Failure> {
        let exchange = self.stream(Method::POST, "/v1/chat/completions", body.into());
        let streamed = self.in_time(exchange).await?;
        match streamed.answer.complete(tokens) {
            true => Ok(streamed),
            false => Err(Failure::Incomplete),
        }
    }

    /// The body of a page.
    ///
    /// # Errors
    /// When it does not answer with 200: see [`Failure`].
    pub async fn page(&self, path: &str) -> Result<String, Failure> {
        let exchange = async {
            let (_sender, body) = self.send(Method::GET, path, Bytes::new()).await?;
            let body = Limited::new(body, MAX_PAGE_BYTES).collect().await;
            body.map(Collected::to_bytes).map_err(|_| Failure::Broken)
        };
        let page = self.in_time(exchange).await?;
        String::from_utf8(page.into()).map_err(|_| Failure::Broken)
    }

    async fn in_time<T>(
        &self,
        exchange: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let result = tokio::time::timeout(self.timeout, exchange).await;
        result.unwrap_or(Err(Failure::Timeout))
    }

    async fn stream(&self, method: Method, path: &str, body: Bytes) -> Result<Streamed, Failure> {
        let (sender, mut body) = self.send(method, path, body).await?;
        let mut answer = Answer::default();
        let mut first = None;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| Failure::Broken)?.into_data() else {
                continue;
            };
            answer.feed(&data);
            if first.is_none() && !answer.text.is_empty() {
                first = Some(Instant::now());
            }
        }
        self.idle().push(sender);
        Ok(Streamed { answer, first })
    }

    /// The connection and the body of an answer with status 200.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(Sender, Incoming), Failure> {
        let mut sender = self.connection().await?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = Uri::try_from(path).expect("paths are literals");
        let host = HeaderValue::try_from(self.server.to_string()).expect("an address is ASCII");
        request.headers_mut().insert(header::HOST, host);
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::CONTENT_TYPE, json);
        let response = sender.send_request(request).await;
        let response = response.map_err(|_| Failure::Broken)?;
        match response.status() {
            StatusCode::OK => Ok((sender, response.into_body())),
            status => Err(Failure::Status(status.as_u16())),
        }
    }

    /// A connection that was kept and is still open, else a new one.
    async fn connection(&self) -> Result<Sender, Failure> {
        loop {
            let Some(mut kept) = self.idle().pop() else {
                break;
            };
            if kept.ready().await.is_ok() {
                return Ok(kept);
            }
        }
        let stream = TcpStream::connect(self.server).await;
        let stream = stream.map_err(|_| Failure::Connect)?;
        stream.set_nodelay(true).map_err(|_| Failure::Connect)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|_| Failure::Connect)?;
        // Its errors reach the exchange that waits for it.
        tokio::spawn(connection);
        Ok(sender)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Sender>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
