//! An API server for unit tests, inside the process: objects by path, versions, conflicts, and faults at will.
//!
//! It has neither schemas nor field managers, and its watches bring nothing; what needs those is tested on a real one
//! (`make e2e-cluster`). It is here because it obeys paused time.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tower::Service;

/// How it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Up,
    /// Takes requests, and neither acts nor answers.
    Silent,
    /// Acts, and does not answer.
    AnswersLost,
    /// Refuses with this status code.
    Failing(u16),
}

/// Clones share the objects. Each may be cut off by itself.
#[derive(Clone)]
pub(crate) struct ApiServer {
    objects: Arc<Mutex<Objects>>,
    mode: Arc<Mutex<Mode>>,
}

#[derive(Default)]
struct Objects {
    by_path: BTreeMap<String, Value>,
    version: u64,
    writes: usize,
}

impl ApiServer {
    pub(crate) fn new() -> Self {
        Self {
            objects: Arc::default(),
            mode: Arc::new(Mutex::new(Mode::Up)),
        }
    }

    /// The same server over another network.
    pub(crate) fn other_network(&self) -> Self {
        Self {
            objects: self.objects.clone(),
            mode: Arc::new(Mutex::new(Mode::Up)),
        }
    }

    pub(crate) fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.clone(), "default")
    }

    /// The object at `path`, such as `/api/v1/namespaces/default/secrets/x`.
    pub(crate) fn object(&self, path: &str) -> Option<Value> {
        self.objects.lock().unwrap().by_path.get(path).cloned()
    }

    /// As someone else would write it.
    pub(crate) fn put(&self, path: &str, object: Value) {
        let mut objects = self.objects.lock().unwrap();
        objects.store(path.to_owned(), object);
    }

    pub(crate) fn delete(&self, path: &str) {
        self.objects.lock().unwrap().by_path.remove(path);
    }

    /// Writes that changed something.
    pub(crate) fn writes(&self) -> usize {
        self.objects.lock().unwrap().writes
    }
}

impl Objects {
    fn store(&mut self, path: String, mut object: Value) -> Value {
        let metadata = |object: &Value| object["metadata"]["resourceVersion"].clone();
        if let Some(old) = self.by_path.get(&path) {
            object["metadata"]["resourceVersion"] = metadata(old);
            if *old == object {
                return object;
            }
        }
        self.version += 1;
        self.writes += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.by_path.insert(path, object.clone());
        object
    }

    fn answer(&mut self, method: &Method, path: &str, body: Value) -> (StatusCode, Value) {
        let found = self.by_path.get(path).cloned();
        match (method, found) {
            (&Method::GET, Some(object)) => (StatusCode::OK, object),
            (&Method::POST, _) => {
                let name = body["metadata"]["name"].as_str().unwrap_or_default();
                let path = format!("{path}/{name}");
                if self.by_path.contains_key(&path) {
                    return refusal(StatusCode::CONFLICT, "already exists");
                }
                (StatusCode::CREATED, self.store(path, body))
            }
            (&Method::PUT, Some(old)) => {
                let wanted = &body["metadata"]["resourceVersion"];
                if !wanted.is_null() && *wanted != old["metadata"]["resourceVersion"] {
                    return refusal(StatusCode::CONFLICT, "the object has been modified");
                }
                (StatusCode::OK, self.store(path.to_owned(), body))
            }
            (&Method::PATCH, found) => {
                let mut object = found.unwrap_or_else(|| json!({}));
                merge(&mut object, body);
                (StatusCode::OK, self.store(path.to_owned(), object))
            }
            _ => refusal(StatusCode::NOT_FOUND, "not found"),
        }
    }
}

/// As far as server-side apply is a merge.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

fn refusal(code: StatusCode, message: &str) -> (StatusCode, Value) {
    // The client goes by the reason.
    let reason = match (code, message) {
        (StatusCode::NOT_FOUND, _) => "NotFound",
        (StatusCode::CONFLICT, "already exists") => "AlreadyExists",
        (StatusCode::CONFLICT, _) => "Conflict",
        _ => "InternalError",
    };
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "code": code.as_u16(), "message": message, "reason": reason,
    });
    (code, status)
}

impl Service<Request<Body>> for ApiServer {
    type Response = Response<Full<bytes::Bytes>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let server = self.clone();
        Box::pin(async move {
            let mode = *server.mode.lock().unwrap();
            if mode == Mode::Silent {
                std::future::pending::<()>().await;
            }
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
            let (code, value) = match mode {
                Mode::Failing(code) => refusal(StatusCode::from_u16(code).unwrap(), "a fault"),
                _ => {
                    let mut objects = server.objects.lock().unwrap();
                    objects.answer(&parts.method, parts.uri.path(), body)
                }
            };
            if mode == Mode::AnswersLost {
                std::future::pending::<()>().await;
            }
            let text = Full::from(value.to_string());
            let response = Response::builder()
                .status(code)
                .header("content-type", "application/json");
            Ok(response.body(text).unwrap())
        })
    }
}
