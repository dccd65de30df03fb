//! Helpers: start an engine, send bytes, wait for conditions.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice_e2e::engine::{EngineOptions, EngineServer};

/// No wait in these tests is longer.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) fn instant() -> EngineServer {
    EngineServer::start(EngineOptions::instant("tiny")).unwrap()
}

/// An engine whose streams never end on their own within a test.
pub(crate) fn slow() -> EngineServer {
    let event_interval = Some(Duration::from_millis(20));
    EngineServer::start(EngineOptions {
        event_interval,
        ..EngineOptions::instant("tiny")
    })
    .unwrap()
}

/// Waits until `condition` holds; panics with `what` past the deadline.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < DEADLINE, "still not: {what}");
        // Between looks at the condition: a spinning test takes the core the engine needs.
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// A POST as bytes.
pub(crate) fn post(path: &str, headers: &[&str], body: &str) -> Vec<u8> {
    let mut request =
        format!("POST {path} HTTP/1.1\r\nhost: engine\r\ncontent-type: application/json\r\n");
    for header in headers {
        request.push_str(header);
        request.push_str("\r\n");
    }
    request.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
    request.into_bytes()
}

/// A streamed chat request of `tokens` tokens.
pub(crate) fn chat_body(tokens: u32, stream: bool) -> String {
    format!(
        r#"{{"messages":[{{"role":"user","content":"hi"}}],"max_tokens":{tokens},"stream":{stream}}}"#
    )
}

pub(crate) fn streamed(fault: &str, tokens: u32) -> Vec<u8> {
    let fault = format!("x-fault: {fault}");
    post("/v1/chat/completions", &[&fault], &chat_body(tokens, true))
}

/// A connection that has sent these bytes.
pub(crate) fn send(engine: &EngineServer, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(engine.addr()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(bytes).unwrap();
    stream
}

/// All that comes, and how it ended: in order, or by an error.
pub(crate) fn drain(stream: &mut TcpStream) -> (String, io::Result<()>) {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    let end = loop {
        match stream.read(&mut buffer) {
            Ok(0) => break Ok(()),
            Ok(count) => all.extend_from_slice(&buffer[..count]),
            Err(error) => break Err(error),
        }
    };
    (String::from_utf8_lossy(&all).into_owned(), end)
}

/// Reads until `needle` was seen.
pub(crate) fn read_until(stream: &mut TcpStream, needle: &str) -> String {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&all);
        if text.contains(needle) {
            return text.into_owned();
        }
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "the connection ended before {needle:?}: {text}");
        all.extend_from_slice(&buffer[..count]);
    }
}

/// The answer to one exchange whose connection is then closed.
pub(crate) fn exchange(engine: &EngineServer, path: &str, headers: &[&str], body: &str) -> String {
    let headers: Vec<_> = headers
        .iter()
        .copied()
        .chain(["connection: close"])
        .collect();
    let (answer, end) = drain(&mut send(engine, &post(path, &headers, body)));
    end.unwrap();
    answer
}

/// Status and JSON body of a POST.
pub(crate) async fn call(engine: &EngineServer, path: &str, body: Value) -> (u16, Value) {
    let request = reqwest::Client::new()
        .post(format!("{}{path}", engine.url()))
        .json(&body);
    let response = request.timeout(DEADLINE).send().await.unwrap();
    let status = response.status().as_u16();
    (status, response.json().await.unwrap())
}

/// The body of a GET.
pub(crate) async fn get(engine: &EngineServer, path: &str) -> String {
    reqwest::get(format!("{}{path}", engine.url()))
        .await
        .unwrap()
        .text()
        .await
        .unwrap()
}

/// The whole body of a streamed POST.
pub(crate) async fn stream_text(engine: &EngineServer, path: &str, body: Value) -> String {
    let request = reqwest::Client::new()
        .post(format!("{}{path}", engine.url()))
        .json(&body);
    request
        .timeout(DEADLINE)
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap()
}

/// The JSON of each `data:` line but `[DONE]`.
pub(crate) fn data(text: &str) -> Vec<Value> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("data: "));
    lines
        .filter(|line| *line != "[DONE]")
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// A chat request of three tokens with more fields, or others.
pub(crate) fn chat(more: Value) -> Value {
    let mut body = json!({"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 3});
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    body
}
