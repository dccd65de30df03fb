//! An API server for unit tests, inside the process: lists, watches, statuses by server-side apply, and faults.
//!
//! It knows no schemas, admission or field managers; what needs those is tested on a real one (`make e2e-cluster`). It
//! is here because it obeys paused time, and because faults come when a test wants them.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use axum::body::Body as ReplyBody;
use bytes::Bytes;
use futures::channel::mpsc;
use futures::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tower::Service;

/// Clones are the same server.
#[derive(Clone, Default)]
pub(crate) struct FakeCluster {
    state: Arc<Mutex<State>>,
    /// Wakes requests that are held back.
    changed: Arc<Notify>,
}

#[derive(Default)]
struct State {
    /// By plural, namespace and name.
    objects: BTreeMap<(String, String, String), Value>,
    version: u64,
    watches: Vec<Watch>,
    /// Status code with which requests for a plural (`*`: for all) are refused.
    faults: BTreeMap<String, u16>,
    /// Plurals whose requests get no answer for now.
    silent: BTreeSet<String>,
    /// Plurals whose statuses are not kept.
    dropping: BTreeSet<String>,
    requests: Vec<String>,
}

struct Watch {
    plural: String,
    namespace: Option<String>,
    selector: Option<String>,
    lines: mpsc::UnboundedSender<Result<Bytes, Infallible>>,
}

impl FakeCluster {
    pub(crate) fn client(&self) -> Client {
        Client::new(self.clone(), "default")
    }

    /// Creates or replaces an object; `plural` as in its path.
    pub(crate) fn put(&self, plural: &str, mut object: Value) {
        let mut state = self.lock();
        state.version += 1;
        object["metadata"]["resourceVersion"] = state.version.to_string().into();
        let key = key(plural, &object);
        let known = state.objects.insert(key, object.clone());
        state.tell(
            plural,
            if known.is_some() { "MODIFIED" } else { "ADDED" },
            &object,
        );
    }

    pub(crate) fn delete(&self, plural: &str, namespace: &str, name: &str) {
        let mut state = self.lock();
        state.version += 1;
        let key = (plural.into(), namespace.into(), name.into());
        let mut object = state.objects.remove(&key).unwrap();
        object["metadata"]["resourceVersion"] = state.version.to_string().into();
        state.tell(plural, "DELETED", &object);
    }

    pub(crate) fn get(&self, plural: &str, namespace: &str, name: &str) -> Value {
        let key = (plural.into(), namespace.into(), name.into());
        self.lock().objects[&key].clone()
    }

    /// Refuses requests for a plural (`*`: all) with this code, or no longer.
    pub(crate) fn refuse(&self, plural: &str, code: Option<u16>) {
        let mut state = self.lock();
        match code {
            Some(code) => _ = state.faults.insert(plural.into(), code),
            None => _ = state.faults.remove(plural),
        }
    }

    /// Gives no answer to requests for a plural, or gives them now.
    pub(crate) fn silence(&self, plural: &str, silent: bool) {
        let mut state = self.lock();
        match silent {
            true => _ = state.silent.insert(plural.into()),
            false => _ = state.silent.remove(plural),
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// As a CRD without the status's fields.
    pub(crate) fn drop_statuses(&self, plural: &str) {
        self.lock().dropping.insert(plural.into());
    }

    /// Ends all watches; with a code, with an error of that code first.
    pub(crate) fn end_watches(&self, code: Option<u16>) {
        let watches = std::mem::take(&mut self.lock().watches);
        for watch in watches {
            if let Some(code) = code {
                let status = json!({
                    "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                    "message": "too old resource version", "reason": "Expired", "code": code,
                });
                watch.send("ERROR", &status);
            }
        }
    }

    /// `METHOD path?query` of every request so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.lock().requests.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    async fn answer(self, request: Request<Body>) -> Response<ReplyBody> {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(ReplyBody::new(body), usize::MAX)
            .await
            .unwrap();
        let path = Path::of(parts.uri.path());
        let query = parts.uri.query().unwrap_or_default();
        self.lock()
            .requests
            .push(format!("{} {}", parts.method, parts.uri));
        loop {
            let woken = self.changed.notified();
            if !self.lock().silent.contains(&path.plural) {
                break;
            }
            woken.await;
        }
        let mut state = self.lock();
        let fault = state.faults.get("*").or(state.faults.get(&path.plural));
        if let Some(code) = fault {
            return failure(*code);
        }
        let parameters = parameters(query);
        match parts.method {
            Method::GET if parameters.contains_key("watch") => state.watch(path, &parameters),
            Method::GET => reply(&state.list(&path, &parameters)),
            Method::PATCH if path.is_status => state.apply_status(&path, &body),
            _ => reply(&json!({})),
        }
    }
}

impl State {
    fn tell(&mut self, plural: &str, kind: &str, object: &Value) {
        let namespace = object["metadata"]["namespace"].as_str();
        self.watches.retain(|watch| {
            if watch.plural != plural
                || watch
                    .namespace
                    .as_deref()
                    .is_some_and(|wanted| Some(wanted) != namespace)
                || !matches(&watch.selector, object)
            {
                return true;
            }
            watch.send(kind, object)
        });
    }

    fn list(&self, path: &Path, parameters: &BTreeMap<String, String>) -> Value {
        let selector = parameters.get("labelSelector").cloned();
        let inside = |of: &&(String, String, String)| {
            of.0 == path.plural && path.namespace.as_ref().is_none_or(|wanted| *wanted == of.1)
        };
        let keys = self.objects.keys().filter(inside);
        let objects = keys
            .map(|key| &self.objects[key])
            .filter(|object| matches(&selector, object));
        json!({
            "kind": "List", "apiVersion": "v1",
            "metadata": { "resourceVersion": self.version.to_string() },
            "items": objects.collect::<Vec<_>>(),
        })
    }

    /// What happened after the version that is asked from is not sent again: tests change nothing in between.
    fn watch(&mut self, path: Path, parameters: &BTreeMap<String, String>) -> Response<ReplyBody> {
        let (lines, receiver) = mpsc::unbounded();
        self.watches.push(Watch {
            plural: path.plural,
            namespace: path.namespace,
            selector: parameters.get("labelSelector").cloned(),
            lines,
        });
        Response::new(ReplyBody::from_stream(receiver))
    }

    fn apply_status(&mut self, path: &Path, body: &[u8]) -> Response<ReplyBody> {
        let applied: Value = serde_json::from_slice(body).unwrap();
        let namespace = path.namespace.clone().unwrap_or_default();
        let key = (path.plural.clone(), namespace, path.name.clone());
        let Some(object) = self.objects.get_mut(&key) else {
            return failure(404);
        };
        if applied["metadata"]["uid"] != object["metadata"]["uid"] {
            return failure(409);
        }
        if !self.dropping.contains(&path.plural) {
            object["status"] = applied["status"].clone();
        }
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let object = object.clone();
        self.tell(&path.plural, "MODIFIED", &object);
        reply(&object)
    }
}

impl Watch {
    fn send(&self, kind: &str, object: &Value) -> bool {
        let line = format!("{}\n", json!({ "type": kind, "object": object }));
        self.lines.unbounded_send(Ok(line.into())).is_ok()
    }
}

/// `/api/v1` or `/apis/GROUP/VERSION`, then `[/namespaces/NS]/PLURAL[/NAME[/status]]`.
struct Path {
    namespace: Option<String>,
    plural: String,
    name: String,
    is_status: bool,
}

impl Path {
    fn of(path: &str) -> Self {
        let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        parts.drain(..if parts[0] == "api" { 2 } else { 3 });
        let mut namespace = None;
        if parts[0] == "namespaces" && parts.len() > 2 {
            namespace = Some(parts[1].to_owned());
            parts.drain(..2);
        }
        Self {
            namespace,
            plural: parts[0].to_owned(),
            name: parts.get(1).copied().unwrap_or_default().to_owned(),
            is_status: parts.get(2) == Some(&"status"),
        }
    }
}

fn key(plural: &str, object: &Value) -> (String, String, String) {
    let text = |key: &str| {
        object["metadata"][key]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    (plural.to_owned(), text("namespace"), text("name"))
}

fn parameters(query: &str) -> BTreeMap<String, String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let decode = |text: &str| {
        let text = text.replace('+', " ");
        let mut bytes = text.bytes();
        let mut decoded = Vec::new();
        while let Some(byte) = bytes.next() {
            let hex = |b: u8| (b as char).to_digit(16).unwrap() as u8;
            decoded.push(match byte {
                b'%' => 16 * hex(bytes.next().unwrap()) + hex(bytes.next().unwrap()),
                other => other,
            });
        }
        String::from_utf8(decoded).unwrap()
    };
    pairs
        .map(|(key, value)| (key.to_owned(), decode(value)))
        .collect()
}

/// `a=b`, `a in (b,c)` and `a`, joined by commas.
fn matches(selector: &Option<String>, object: &Value) -> bool {
    let labels = &object["metadata"]["labels"];
    let mut rest = selector.as_deref().unwrap_or_default();
    while !rest.is_empty() {
        let end = match (rest.find(" in ("), rest.find(',')) {
            (Some(list), comma) if comma.is_none_or(|comma| list < comma) => {
                rest.find(')').unwrap() + 1
            }
            (_, comma) => comma.unwrap_or(rest.len()),
        };
        let term = &rest[..end];
        rest = rest[end..].trim_start_matches(',');
        let holds = if let Some((key, values)) = term.split_once(" in (") {
            let mut values = values.trim_end_matches(')').split(',');
            labels[key]
                .as_str()
                .is_some_and(|label| values.any(|value| value == label))
        } else if let Some((key, value)) = term.split_once('=') {
            labels[key] == value
        } else {
            labels[term].is_string()
        };
        if !holds {
            return false;
        }
    }
    true
}

fn reply(value: &Value) -> Response<ReplyBody> {
    Response::new(ReplyBody::from(value.to_string()))
}

fn failure(code: u16) -> Response<ReplyBody> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("refused with {code}"), "reason": "Test", "code": code,
    });
    let mut response = reply(&status);
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}

impl Service<Request<Body>> for FakeCluster {
    type Response = Response<ReplyBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { Ok(this.answer(request).await) })
    }
}
