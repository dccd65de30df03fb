//! An API server for unit tests, inside the process: objects with versions, conflicts, lists, watches, statuses by
//! server-side apply, and faults at will.
//!
//! It knows no schemas, admission or field managers; what needs those is tested on a real one (`make e2e-cluster`). It
//! is here because it obeys paused time, and because faults come when a test wants them.

mod objects;
mod path;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use axum::body::Body as ReplyBody;
use futures::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tower::Service;

use self::objects::Objects;
use self::path::{Key, Path, parameters};

/// How it answers on one network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    #[default]
    Up,
    /// Takes requests, and neither acts nor answers.
    Silent,
    /// Acts, and does not answer.
    AnswersLost,
    /// Refuses with this status code.
    Failing(u16),
}

/// Clones are the same server on the same network.
#[derive(Clone, Default)]
pub(crate) struct ApiServer {
    state: Arc<Mutex<State>>,
    mode: Arc<Mutex<Mode>>,
    /// Wakes requests that are held back.
    changed: Arc<Notify>,
}

#[derive(Default)]
struct State {
    objects: Objects,
    /// Status code with which requests for a plural (`*`: for all) are refused.
    faults: BTreeMap<String, u16>,
    /// Plurals whose requests get no answer for now.
    silent: BTreeSet<String>,
    requests: Vec<String>,
}

impl ApiServer {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The same server over another network, which may be cut by itself.
    pub(crate) fn other_network(&self) -> Self {
        Self {
            mode: Arc::default(),
            ..self.clone()
        }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.clone(), "default")
    }

    /// Creates or replaces an object, as someone else would; `plural` as in its path.
    pub(crate) fn put(&self, plural: &str, object: Value) {
        let key = Key::of(plural, &object);
        self.lock().objects.store(key, object);
    }

    pub(crate) fn get(&self, plural: &str, namespace: &str, name: &str) -> Value {
        let key = Key::new(plural, namespace, name);
        self.lock().objects.get(&key).unwrap()
    }

    pub(crate) fn delete(&self, plural: &str, namespace: &str, name: &str) {
        self.lock()
            .objects
            .remove(&Key::new(plural, namespace, name));
    }

    /// The object at `path`, such as `/api/v1/namespaces/default/secrets/x`.
    pub(crate) fn object(&self, path: &str) -> Option<Value> {
        self.lock().objects.get(&Path::of(path).key())
    }

    pub(crate) fn put_at(&self, path: &str, object: Value) {
        self.lock().objects.store(Path::of(path).key(), object);
    }

    pub(crate) fn delete_at(&self, path: &str) {
        self.lock().objects.remove(&Path::of(path).key());
    }

    /// Writes that changed something.
    pub(crate) fn writes(&self) -> usize {
        self.lock().objects.writes
    }

    /// `METHOD path?query` of every request so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.lock().requests.clone()
    }

    /// Of this network.
    pub(crate) fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
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
        self.lock().objects.dropping.insert(plural.into());
    }

    /// Ends all watches; with a code, with an error of that code first.
    pub(crate) fn end_watches(&self, code: Option<u16>) {
        let error = code.map(|code| status(code, "too old resource version"));
        self.lock().objects.end_watches(error.as_ref());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    async fn answer(self, request: Request<Body>) -> Response<ReplyBody> {
        let mode = *self.mode.lock().unwrap();
        if mode == Mode::Silent {
            std::future::pending::<()>().await;
        }
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(ReplyBody::new(body), usize::MAX).await;
        let body = serde_json::from_slice(&body.unwrap()).unwrap_or(Value::Null);
        let path = Path::of(parts.uri.path());
        let line = format!("{} {}", parts.method, parts.uri);
        self.lock().requests.push(line);
        loop {
            let woken = self.changed.notified();
            if !self.lock().silent.contains(&path.plural) {
                break;
            }
            woken.await;
        }
        let query = parts.uri.query().unwrap_or_default();
        let answer = match mode {
            Mode::Failing(code) => failure(code, "a fault"),
            _ => self.lock().answer(&parts.method, path, query, body),
        };
        if mode == Mode::AnswersLost {
            std::future::pending::<()>().await;
        }
        answer
    }
}

impl State {
    fn answer(
        &mut self,
        method: &Method,
        path: Path,
        query: &str,
        body: Value,
    ) -> Response<ReplyBody> {
        let fault = self.faults.get("*").or(self.faults.get(&path.plural));
        if let Some(code) = fault {
            return failure(*code, &format!("refused with {code}"));
        }
        let parameters = parameters(query);
        let objects = &mut self.objects;
        let done = match *method {
            Method::GET if parameters.contains_key("watch") => {
                let lines = objects.watch(path, &parameters);
                return Response::new(ReplyBody::from_stream(lines));
            }
            Method::GET if path.name.is_empty() => Ok(objects.list(&path, &parameters)),
            Method::GET => objects.get(&path.key()).ok_or((404, "not found")),
            Method::POST => objects.create(path, body),
            Method::PUT => objects.replace(path.key(), body),
            Method::PATCH if path.is_status => objects.apply_status(path.key(), body),
            Method::PATCH => Ok(objects.apply(path.key(), body)),
            _ => Err((405, "this server knows no such method")),
        };
        match done {
            Ok(value) => reply(&value),
            Err((code, message)) => failure(code, message),
        }
    }
}

fn reply(value: &Value) -> Response<ReplyBody> {
    Response::new(ReplyBody::from(value.to_string()))
}

fn failure(code: u16, message: &str) -> Response<ReplyBody> {
    let mut response = reply(&status(code, message));
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}

/// The client goes by the reason.
fn status(code: u16, message: &str) -> Value {
    let reason = match (code, message) {
        (404, _) => "NotFound",
        (409, objects::EXISTS) => "AlreadyExists",
        (409, _) => "Conflict",
        (410, _) => "Expired",
        _ => "InternalError",
    };
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "code": code, "message": message, "reason": reason,
    })
}

impl Service<Request<Body>> for ApiServer {
    type Response = Response<ReplyBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let server = self.clone();
        Box::pin(async move { Ok(server.answer(request).await) })
    }
}
