//! A scripted filter for the tests of this room: its `config` says what each hook answers, and a log keeps what
//! was called.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderMap, Method, StatusCode, Version};
use serde::Deserialize;
use serde_json::{Value, json};
use sluice_config::bootstrap::{FailPolicy, FilterConfig};

use super::*;
use crate::http::{RequestHead, ResponseHead};

/// What was called, in order, as `label what`.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    /// Everything since the last call.
    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    fn push(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }
}

/// A hook left out is not in the plugin's set.
#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Script {
    label: String,
    uninterested: bool,
    head: Option<String>,
    body: Option<String>,
    candidates: Option<String>,
    attempt: Option<String>,
    response: Option<String>,
    chunk: Option<String>,
}

struct Probe {
    script: Script,
    log: Log,
}

struct ProbeStream {
    script: Script,
    log: Log,
}

/// A registry whose one type, `probe`, writes to `log`.
pub(super) fn registry(log: &Log) -> Arc<Registry> {
    let log = log.clone();
    let mut registry = Registry::new();
    registry.register("probe", move |value| {
        let script = config::parse(value)?;
        Ok(Arc::new(Probe {
            script,
            log: log.clone(),
        }))
    });
    Arc::new(registry)
}

/// A probe called `name`, whose log lines begin with that name too.
pub(super) fn probe(name: &str, mut script: Value) -> FilterConfig {
    script["label"] = json!(name);
    filter(name, "probe", script)
}

pub(super) fn filter(name: &str, kind: &str, config: Value) -> FilterConfig {
    FilterConfig {
        name: name.into(),
        kind: kind.into(),
        config,
        disabled: false,
        fail_policy: FailPolicy::Closed,
    }
}

pub(super) fn chain(log: &Log, filters: &[FilterConfig]) -> Arc<Chain> {
    Chain::compile(filters, registry(log)).unwrap()
}

/// A far deadline and fixed random bits.
pub(super) fn info() -> StreamInfo {
    StreamInfo {
        random: 7,
        deadline: Instant::now() + Duration::from_secs(3600),
    }
}

pub(super) fn request() -> RequestHead {
    RequestHead {
        method: Method::POST,
        uri: "/v1/chat/completions".parse().unwrap(),
        version: Version::HTTP_11,
        headers: HeaderMap::new(),
    }
}

pub(super) fn response() -> ResponseHead {
    ResponseHead {
        status: StatusCode::OK,
        headers: HeaderMap::new(),
    }
}

pub(super) fn body(bytes: &Bytes) -> BodyView<'_> {
    BodyView {
        bytes,
        model: "llama",
        prompt_bytes: 10,
        max_tokens: None,
        stream: false,
        user: None,
        session: None,
    }
}

/// A chain with one filter of a built-in type.
pub(super) fn builtin(kind: &str, config: Value) -> Arc<Chain> {
    let filters = [filter("it", kind, config)];
    Chain::compile(&filters, Arc::new(Registry::builtin())).unwrap()
}

/// Why a built-in type refuses `config`.
pub(super) fn refusal(kind: &str, config: Value) -> String {
    Registry::builtin()
        .build(kind, &config)
        .map(drop)
        .unwrap_err()
}

/// The head phase of a filter that does not wait.
pub(super) fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("nothing to wait for")
}

impl Plugin for Probe {
    fn kind(&self) -> &'static str {
        "probe"
    }

    fn hooks(&self) -> Hooks {
        let script = &self.script;
        let given = [
            (&script.head, Hooks::REQUEST_HEAD),
            (&script.body, Hooks::REQUEST_BODY),
            (&script.candidates, Hooks::CANDIDATES),
            (&script.attempt, Hooks::ATTEMPT),
            (&script.response, Hooks::RESPONSE_HEAD),
            (&script.chunk, Hooks::RESPONSE_CHUNK),
        ];
        given
            .iter()
            .filter(|(answer, _)| answer.is_some())
            .fold(Hooks::NONE, |all, (_, hook)| all | *hook)
    }

    fn open(&self, _head: &RequestHead) -> Option<Box<dyn StreamFilter>> {
        if self.script.uninterested {
            return None;
        }
        self.log.push(format!("{} open", self.script.label));
        Some(Box::new(ProbeStream {
            script: self.script.clone(),
            log: self.log.clone(),
        }))
    }
}

impl ProbeStream {
    fn note(&self, what: &str) {
        self.log.push(format!("{} {what}", self.script.label));
    }

    fn answer(&self, answer: Option<&str>) -> Result<Step, FilterError> {
        match answer {
            Some("reply") => Ok(Step::Reply(self.reply())),
            Some("stop") => Ok(Step::Stop),
            Some("fail") => Err(FilterError::failed("out of order")),
            Some("wait twice" | "wait, reply") => Ok(wait_for(1_u32)),
            Some("wait forever") => Ok(Step::Wait(futures::future::pending().boxed())),
            Some("wait wrongly") => Ok(wait_for("text")),
            _ => Ok(Step::Next),
        }
    }

    fn reply(&self) -> LocalReply {
        LocalReply::error(StatusCode::IM_A_TEAPOT, "probe", self.script.label.clone())
    }
}

/// A future that is not ready at once, then brings `value`.
fn wait_for<T: Send + 'static>(value: T) -> Step {
    let future = async move {
        tokio::task::yield_now().await;
        Resumed::new(value)
    };
    Step::Wait(future.boxed())
}

impl StreamFilter for ProbeStream {
    fn on_request_head(
        &mut self,
        _cx: &mut StreamView<'_>,
        _head: &mut RequestHead,
    ) -> Result<Step, FilterError> {
        self.note("head");
        self.answer(self.script.head.as_deref())
    }

    fn on_request_body(
        &mut self,
        cx: &mut StreamView<'_>,
        _head: &mut RequestHead,
        body: &BodyView<'_>,
    ) -> Result<Step, FilterError> {
        let text = String::from_utf8_lossy(body.bytes);
        self.note(&format!("body {text}"));
        if self.script.body.as_deref() == Some("replace") {
            cx.replace_body(Bytes::from(format!("{text}+{}", self.script.label)));
        }
        self.answer(self.script.body.as_deref())
    }

    fn on_candidates(
        &mut self,
        _cx: &mut StreamView<'_>,
        _head: &RequestHead,
        candidates: &mut Candidates,
    ) -> Result<(), FilterError> {
        self.note("candidates");
        match self.script.candidates.as_deref() {
            Some("remove") => candidates.remove(0, "probe"),
            Some("pin") => candidates.choose_target(1, "probe"),
            Some("fail") => Err(FilterError::failed("out of order")),
            _ => Ok(()),
        }
    }

    fn on_attempt(
        &mut self,
        _cx: &mut StreamView<'_>,
        attempt: &mut RequestHead,
        endpoint: &str,
    ) -> Result<(), FilterError> {
        self.note(&format!("attempt {endpoint}"));
        let value = endpoint.parse().expect("an address is a header value");
        attempt.headers.insert("x-endpoint", value);
        match self.script.attempt.as_deref() {
            Some("fail") => Err(FilterError::failed("out of order")),
            _ => Ok(()),
        }
    }

    fn on_response_head(
        &mut self,
        _cx: &mut StreamView<'_>,
        response: &mut ResponseHead,
    ) -> Result<Step, FilterError> {
        self.note(&format!("response {}", response.status.as_u16()));
        self.answer(self.script.response.as_deref())
    }

    fn on_response_chunk(
        &mut self,
        _cx: &mut StreamView<'_>,
        chunk: &mut Bytes,
        last: bool,
    ) -> ChunkStep {
        let mark = if last { "." } else { "" };
        let shown = match chunk.len() {
            0..100 => String::from_utf8_lossy(chunk).into_owned(),
            more => format!("{more} bytes"),
        };
        self.note(&format!("chunk {shown}{mark}"));
        match self.script.chunk.as_deref() {
            Some("hold") => ChunkStep::Hold,
            // Releases at the end of a line.
            Some("lines") if !chunk.ends_with(b"\n") => ChunkStep::Hold,
            Some("abort") => ChunkStep::Abort,
            Some("upper") => {
                *chunk = Bytes::from(chunk.to_ascii_uppercase());
                ChunkStep::Pass
            }
            _ => ChunkStep::Pass,
        }
    }

    fn on_resume(
        &mut self,
        _cx: &mut StreamView<'_>,
        phase: Phase<'_>,
        resumed: Resumed,
    ) -> Result<Step, FilterError> {
        let number: u32 = resumed.take()?;
        let (phase, script) = match phase {
            Phase::RequestHead(_) => ("head", &self.script.head),
            Phase::RequestBody(..) => ("body", &self.script.body),
            Phase::ResponseHead(_) => ("response", &self.script.response),
        };
        self.note(&format!("resume {phase} {number}"));
        match (script.as_deref(), number) {
            (Some("wait, reply"), _) => Ok(Step::Reply(self.reply())),
            (_, 1) => Ok(wait_for(2_u32)),
            _ => Ok(Step::Next),
        }
    }

    fn on_done(&mut self, outcome: &Outcome) {
        self.note(&format!("done {:?}", outcome.end));
    }
}
