//! Relaying between a scripted engine and a recording client; time is paused.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value;
use sluice_config::bootstrap::{FailPolicy, FilterConfig};

use super::*;
use crate::filters::{Chain, Hooks, Plugin, Registry, StreamFilter, StreamInfo, StreamView};
use crate::http::{RequestHead, ResponseHead};

/// What the engine does next.
enum Act {
    Send(&'static str),
    Wait(Duration),
    Break,
    End,
}

struct Engine(VecDeque<Act>);

impl Upstream for Engine {
    async fn head(&mut self) -> Result<ResponseHead, EngineError> {
        unreachable!("the head was read before")
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, EngineError> {
        loop {
            match self.0.pop_front() {
                Some(Act::Send(text)) => return Ok(Some(Bytes::from_static(text.as_bytes()))),
                Some(Act::Wait(pause)) => tokio::time::sleep(pause).await,
                Some(Act::Break) => return Err(EngineError::Lost("reset".into())),
                Some(Act::End) => return Ok(None),
                None => std::future::pending().await,
            }
        }
    }
}

#[derive(Default)]
struct Client {
    writes: Vec<String>,
    finished: bool,
    /// Goes away after so long.
    leaves: Option<Duration>,
    /// Fails the write of this number, counted from 0.
    fails: Option<(usize, fn() -> ClientError)>,
}

impl Downstream for Client {
    fn client(&self) -> Option<IpAddr> {
        None
    }
    async fn read_body(&mut self) -> Result<Option<Bytes>, ClientError> {
        Ok(None)
    }
    async fn send_continue(&mut self) -> Result<(), ClientError> {
        Ok(())
    }
    async fn gone(&mut self) {
        match self.leaves {
            Some(after) => tokio::time::sleep(after).await,
            None => std::future::pending().await,
        }
    }
    async fn start(&mut self, _head: ResponseHead) -> Result<(), ClientError> {
        Ok(())
    }
    async fn write(&mut self, chunk: Bytes) -> Result<(), ClientError> {
        if let Some((number, error)) = self.fails
            && number == self.writes.len()
        {
            return Err(error());
        }
        self.writes.push(String::from_utf8(chunk.to_vec()).unwrap());
        Ok(())
    }
    async fn finish(&mut self) -> Result<(), ClientError> {
        self.finished = true;
        Ok(())
    }
    async fn abort(&mut self) {}
    fn close_after_response(&mut self) {}
}

/// A filter that does one thing to every chunk, named by its configuration.
struct Chunks(String);

impl Plugin for Chunks {
    fn kind(&self) -> &'static str {
        "chunks"
    }
    fn hooks(&self) -> Hooks {
        Hooks::RESPONSE_CHUNK
    }
    fn open(&self, _head: &RequestHead) -> Option<Box<dyn StreamFilter>> {
        Some(Box::new(Self(self.0.clone())))
    }
}

impl StreamFilter for Chunks {
    fn on_response_chunk(
        &mut self,
        _cx: &mut StreamView<'_>,
        chunk: &mut Bytes,
        last: bool,
    ) -> ChunkStep {
        match self.0.as_str() {
            "abort at b" if chunk.contains(&b'b') => ChunkStep::Abort,
            "hold to the end" if !last => ChunkStep::Hold,
            "hold to the end" => {
                *chunk = Bytes::from_static(b"all of it");
                ChunkStep::Pass
            }
            "swallow" => {
                chunk.clear();
                ChunkStep::Pass
            }
            _ => ChunkStep::Pass,
        }
    }
}

/// A request's filters: one that does this, or none.
async fn filters(what: Option<&str>) -> FilterStream {
    let mut registry = Registry::new();
    registry.register("chunks", |value| {
        Ok(Arc::new(Chunks(value.as_str().unwrap_or("").to_owned())))
    });
    let configs: Vec<FilterConfig> = what
        .map(|what| FilterConfig {
            name: "it".into(),
            kind: "chunks".into(),
            config: Value::String(what.to_owned()),
            disabled: false,
            fail_policy: FailPolicy::Closed,
        })
        .into_iter()
        .collect();
    let chain = Chain::compile(&configs, Arc::new(registry)).unwrap();
    let info = StreamInfo {
        random: 0,
        deadline: Instant::now() + Duration::from_secs(3600),
    };
    let mut stream = FilterStream::new(&chain, info);
    let mut head = RequestHead {
        method: http::Method::POST,
        uri: http::Uri::from_static("/v1/chat/completions"),
        version: http::Version::HTTP_11,
        headers: http::HeaderMap::new(),
    };
    assert!(stream.request_head(&mut head).await == crate::filters::Flow::Next);
    stream
}

fn options() -> RelayOptions {
    RelayOptions {
        idle_timeout: Duration::from_secs(5),
        deadline: Instant::now() + Duration::from_secs(3600),
        events: true,
        withhold_usage: false,
    }
}

async fn run(
    client: &mut Client,
    acts: impl IntoIterator<Item = Act>,
    filter: Option<&str>,
    options: RelayOptions,
) -> (RelayEnd, RelayReport) {
    let mut engine = Engine(acts.into_iter().collect());
    let mut filters = filters(filter).await;
    relay(client, &mut engine, &mut filters, options, |_| {}).await
}

const CONTENT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
const USAGE: &str =
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

#[tokio::test(start_paused = true)]
async fn usage_is_read_and_withheld_when_the_gateway_asked_and_passed_when_the_client_did() {
    for withhold_usage in [true, false] {
        let mut client = Client::default();
        let acts = [
            Act::Send(CONTENT),
            Act::Send(USAGE),
            Act::Send(DONE),
            Act::End,
        ];
        let options = RelayOptions {
            withhold_usage,
            ..options()
        };
        let (end, report) = run(&mut client, acts, None, options).await;
        assert!(matches!(end, RelayEnd::Complete) && client.finished);
        let sent = client.writes.concat();
        assert_eq!(sent.contains("usage"), !withhold_usage, "{sent}");
        assert_eq!(sent.replace(USAGE, ""), format!("{CONTENT}{DONE}"));
        assert_eq!(report.bytes, sent.len() as u64);
        let usage = report.usage.unwrap();
        assert_eq!((usage.prompt_tokens, usage.completion_tokens), (7, 2));
        assert!(report.between_events);
    }
}

#[tokio::test(start_paused = true)]
async fn content_is_written_at_once_and_an_unfinished_usage_event_never() {
    let mut client = Client::default();
    let options = RelayOptions {
        withhold_usage: true,
        ..options()
    };
    let acts = [
        Act::Send(CONTENT),
        Act::Send("data: {\"choices\":[{\"del"),
        Act::Send("ta\":{}}]}\n\n"),
        Act::Send("data: {\"choices\":[],\"us"),
        Act::Break,
    ];
    let (end, report) = run(&mut client, acts, None, options).await;
    assert!(matches!(end, RelayEnd::Broken(EngineError::Lost(_))));
    let unfinished = "data: {\"choices\":[{\"del";
    assert_eq!(client.writes, [CONTENT, unfinished, "ta\":{}}]}\n\n"]);
    assert!(report.between_events, "what is held back was never begun");
    assert!(!client.finished);
}

#[tokio::test(start_paused = true)]
async fn a_break_inside_an_event_is_reported_as_such() {
    let mut client = Client::default();
    let acts = [Act::Send(CONTENT), Act::Send("data: {\"cho"), Act::Break];
    let (_, report) = run(&mut client, acts, None, options()).await;
    assert!(!report.between_events);
    assert_eq!(report.events, 1, "an unfinished event does not count");
}

#[tokio::test(start_paused = true)]
async fn silence_longer_than_the_idle_timeout_ends_it_and_shorter_does_not() {
    let started = tokio::time::Instant::now();
    let mut client = Client::default();
    let acts = [
        Act::Wait(Duration::from_millis(4900)),
        Act::Send(CONTENT),
        Act::Wait(Duration::from_millis(4900)),
        Act::Send(CONTENT),
    ];
    let (end, _) = run(&mut client, acts, None, options()).await;
    assert!(matches!(end, RelayEnd::Timeout(limit) if limit == Duration::from_secs(5)));
    assert_eq!(client.writes.len(), 2);
    assert_eq!(started.elapsed(), Duration::from_millis(4900 * 2 + 5000));
}

#[tokio::test(start_paused = true)]
async fn a_passed_deadline_ends_a_stream_that_is_not_idle() {
    let mut client = Client::default();
    let options = RelayOptions {
        deadline: Instant::now(),
        ..options()
    };
    let acts = [Act::Send(CONTENT), Act::Send(CONTENT), Act::End];
    let (end, _) = run(&mut client, acts, None, options).await;
    assert!(matches!(end, RelayEnd::Deadline(_)), "{end:?}");
    assert!(client.writes.is_empty());
}

#[tokio::test(start_paused = true)]
async fn silence_that_only_the_requests_own_time_ends_is_not_the_engines() {
    let mut client = Client::default();
    let options = RelayOptions {
        deadline: Instant::now() + Duration::from_secs(4),
        ..options()
    };
    let (end, _) = run(&mut client, [Act::Send(CONTENT)], None, options).await;
    assert!(matches!(end, RelayEnd::Deadline(_)), "{end:?}");
    assert_eq!(client.writes, [CONTENT]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_ends_it_while_the_engine_is_silent() {
    let started = tokio::time::Instant::now();
    let mut client = Client {
        leaves: Some(Duration::from_secs(2)),
        ..Client::default()
    };
    let (end, report) = run(&mut client, [Act::Send(CONTENT)], None, options()).await;
    assert!(matches!(end, RelayEnd::ClientGone));
    assert_eq!(started.elapsed(), Duration::from_secs(2));
    assert_eq!(report.events, 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_slow_and_one_that_resets_is_gone() {
    for (error, slow) in [
        ((|| ClientError::TooSlow) as fn() -> ClientError, true),
        (|| ClientError::Gone, false),
    ] {
        let mut client = Client {
            fails: Some((1, error)),
            ..Client::default()
        };
        let acts = [Act::Send(CONTENT), Act::Send(CONTENT), Act::End];
        let (end, _) = run(&mut client, acts, None, options()).await;
        assert_eq!(matches!(end, RelayEnd::ClientSlow), slow, "{end:?}");
        assert_eq!(matches!(end, RelayEnd::ClientGone), !slow, "{end:?}");
        assert!(!client.finished);
    }
}

#[tokio::test(start_paused = true)]
async fn a_filter_may_stop_hold_or_empty_an_answer() {
    let acts = || [Act::Send("a"), Act::Send("b"), Act::Send("c"), Act::End];
    let mut client = Client::default();
    let (end, _) = run(&mut client, acts(), Some("abort at b"), options()).await;
    assert!(matches!(end, RelayEnd::Filter));
    assert_eq!(client.writes, ["a"]);

    let mut client = Client::default();
    let (end, report) = run(&mut client, acts(), Some("hold to the end"), options()).await;
    assert!(matches!(end, RelayEnd::Complete) && client.finished);
    assert_eq!(client.writes, ["all of it"]);
    assert_eq!(report.bytes, 9);

    let mut client = Client::default();
    let (end, _) = run(&mut client, acts(), Some("swallow"), options()).await;
    assert!(matches!(end, RelayEnd::Complete) && client.finished);
    assert!(
        client.writes.is_empty(),
        "an empty write would end a chunked body"
    );
}

#[tokio::test(start_paused = true)]
async fn empty_pieces_are_neither_measured_nor_sent() {
    let mut client = Client::default();
    let acts = [
        Act::Send(""),
        Act::Send(CONTENT),
        Act::Send(""),
        Act::Send(CONTENT),
        Act::End,
    ];
    let (_, report) = run(&mut client, acts, None, options()).await;
    assert_eq!(client.writes.len(), 2);
    assert_eq!(report.gaps.count, 1);
}
