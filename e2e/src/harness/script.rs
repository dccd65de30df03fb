//! An engine that answers every request with the same bytes, right or wrong: for answers that no proper server
//! gives. It remembers the heads it read. Not an engine otherwise: see [`crate::engine`].

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// When the scripted bytes are sent, and what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// After the whole request; then the connection serves on.
    KeepOpen,
    /// After the whole request; then the connection is closed in order.
    Close,
    /// After the head alone; then the body is read and thrown away, and the connection closed.
    Early,
}

/// The engine; dropping it stops it.
pub struct ScriptedEngine {
    addr: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl ScriptedEngine {
    /// Starts one on a free port.
    ///
    /// # Panics
    /// When there is no port.
    pub async fn start(answer: impl Into<Vec<u8>>, manner: Manner) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let (answer, seen) = (Arc::<[u8]>::from(answer.into()), heads.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, answer.clone(), manner, seen.clone()));
            }
        });
        Self { addr, heads, task }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Heads of all requests so far, as they came.
    pub fn heads(&self) -> Vec<String> {
        self.heads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for ScriptedEngine {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    answer: Arc<[u8]>,
    manner: Manner,
    heads: Arc<Mutex<Vec<String>>>,
) {
    let mut input = Vec::new();
    loop {
        let Some(length) = read_head(&mut stream, &mut input, &heads).await else {
            return;
        };
        if manner == Manner::Early && stream.write_all(&answer).await.is_err() {
            return;
        }
        while input.len() < length {
            if !more(&mut stream, &mut input).await {
                return;
            }
        }
        input.drain(..length);
        if manner != Manner::Early && stream.write_all(&answer).await.is_err() {
            return;
        }
        if manner != Manner::KeepOpen {
            stream.shutdown().await.ok();
            return;
        }
    }
}

/// Takes a head off the input; the length of its body.
async fn read_head(
    stream: &mut TcpStream,
    input: &mut Vec<u8>,
    heads: &Mutex<Vec<String>>,
) -> Option<usize> {
    let end = loop {
        if let Some(at) = input.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break at;
        }
        if !more(stream, input).await {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&input[..end]).into_owned();
    input.drain(..end + 4);
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .and_then(|value| value.parse().ok());
    heads
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(head);
    Some(length.unwrap_or(0))
}

async fn more(stream: &mut TcpStream, input: &mut Vec<u8>) -> bool {
    matches!(stream.read_buf(input).await, Ok(count) if count > 0)
}
