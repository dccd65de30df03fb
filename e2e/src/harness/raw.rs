//! A client that writes exactly the bytes it is told, and reads answers by their framing: for all that a proper
//! HTTP library would refuse to send, or hide when it reads.
//!
//! HTTP/1 only. Every wait ends after [`PATIENCE`], with a panic that says what was waited for.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::PATIENCE;

/// A plain TCP connection to a server.
pub struct RawClient {
    stream: TcpStream,
    /// Read and not yet consumed.
    input: Vec<u8>,
}

/// How an answer's body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// There is none by definition.
    NoBody,
    /// By `content-length`.
    Length,
    /// By the last chunk.
    Chunks,
    /// By the end of the connection.
    Close,
}

/// One answer.
#[derive(Clone, Debug)]
pub struct RawAnswer {
    /// The first line.
    pub line: String,
    /// Status.
    pub status: u16,
    /// Fields, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body, without transfer coding.
    pub body: Vec<u8>,
    /// How it ended.
    pub ending: Ending,
}

impl RawAnswer {
    /// All values of a field, joined.
    pub fn header(&self, name: &str) -> Option<String> {
        let values: Vec<&str> = self
            .headers
            .iter()
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
            .collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            panic!("{error} in {:?}", String::from_utf8_lossy(&self.body));
        })
    }
}

impl RawClient {
    /// Connects.
    ///
    /// # Panics
    /// When nobody listens.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("it listens");
        stream.set_nodelay(true).expect("a fresh socket");
        Self {
            stream,
            input: Vec::new(),
        }
    }

    /// Writes. A server that closes while we write is a legal answer, so errors are for the caller to judge.
    ///
    /// # Errors
    /// When the server has closed.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        timeout(PATIENCE, self.stream.write_all(bytes.as_ref()))
            .await
            .expect("the server takes what we send")
    }

    /// Says that nothing more will be sent.
    pub async fn half_close(&mut self) {
        self.stream.shutdown().await.ok();
    }

    /// Reads one answer to anything but HEAD; none when the connection ended instead.
    pub async fn answer(&mut self) -> Option<RawAnswer> {
        self.answer_to("POST").await
    }

    /// Reads one answer, 1xx included.
    pub async fn answer_to(&mut self, method: &str) -> Option<RawAnswer> {
        let end = loop {
            if let Some(at) = find(&self.input, b"\r\n\r\n") {
                break at;
            }
            if !self.more().await {
                assert!(
                    self.input.is_empty(),
                    "half a head: {:?}",
                    String::from_utf8_lossy(&self.input)
                );
                return None;
            }
        };
        let head = String::from_utf8_lossy(&self.input[..end]).into_owned();
        self.input.drain(..end + 4);
        let mut answer = parse_head(&head);
        answer.ending = ending(method, &answer);
        answer.body = match answer.ending {
            Ending::NoBody => Vec::new(),
            Ending::Length => {
                let length = answer.header("content-length").expect("just seen");
                self.take(length.parse().expect("a number")).await
            }
            Ending::Chunks => self.chunks().await,
            Ending::Close => {
                while self.more().await {}
                std::mem::take(&mut self.input)
            }
        };
        Some(answer)
    }

    /// Waits until the server closes; what came before that.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.input)
    }

    async fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let line = self.line().await;
            let size = usize::from_str_radix(line.split(';').next().unwrap_or("").trim(), 16)
                .unwrap_or_else(|_| panic!("chunk size in {line:?}"));
            if size == 0 {
                while !self.line().await.is_empty() {}
                return body;
            }
            body.extend(self.take(size).await);
            assert_eq!(self.line().await, "", "a chunk ends with its line");
        }
    }

    async fn line(&mut self) -> String {
        loop {
            if let Some(end) = find(&self.input, b"\r\n") {
                let line = String::from_utf8_lossy(&self.input[..end]).into_owned();
                self.input.drain(..end + 2);
                return line;
            }
            assert!(self.more().await, "the answer breaks off in its framing");
        }
    }

    async fn take(&mut self, count: usize) -> Vec<u8> {
        while self.input.len() < count {
            assert!(self.more().await, "the answer breaks off in its body");
        }
        self.input.drain(..count).collect()
    }

    /// Reads what there is; false at the end of the connection, however it ended.
    async fn more(&mut self) -> bool {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.input)).await;
        matches!(read.expect("the server says something or closes"), Ok(count) if count > 0)
    }
}

fn parse_head(head: &str) -> RawAnswer {
    let mut lines = head.split("\r\n");
    let line = lines.next().unwrap_or_default().to_owned();
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let headers = lines
        .map(|field| field.split_once(':').unwrap_or((field, "")))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    RawAnswer {
        status: status.unwrap_or_else(|| panic!("no status in {line:?}")),
        line,
        headers,
        body: Vec::new(),
        ending: Ending::NoBody,
    }
}

fn ending(method: &str, answer: &RawAnswer) -> Ending {
    if method == "HEAD" || answer.status < 200 || matches!(answer.status, 204 | 304) {
        Ending::NoBody
    } else if answer.header("transfer-encoding").as_deref() == Some("chunked") {
        Ending::Chunks
    } else if answer.header("content-length").is_some() {
        Ending::Length
    } else {
        Ending::Close
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}
