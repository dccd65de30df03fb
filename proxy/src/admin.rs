//! Health, metrics and debug endpoints, on listeners of their own: `/healthz`, `/readyz`, `/metrics`, and on the
//! admin address also `/debug/config`, `/debug/endpoints`, `POST /debug/explain` and Kthena's `/debug/config_dump/...`.
//!
//! Never prompts or keys. Not for clients' requests.

mod config_dump;
mod debug;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::{Method, Response, StatusCode, header};
use pingora_core::apps::http_app::ServeHttp;
use pingora_core::protocols::http::ServerSession;
use serde_json::Value;

use crate::gateway::Gateway;
use crate::http::RequestHead;
use crate::router_configuration::Defaults;
use crate::source::Source;

/// The application behind the admin and metrics listeners.
pub struct Admin {
    gateway: Arc<Gateway>,
    source: Arc<Source>,
    defaults: Arc<Defaults>,
    debug: bool,
}

impl Admin {
    /// With or without the debug endpoints.
    pub fn new(
        gateway: Arc<Gateway>,
        source: Arc<Source>,
        defaults: Arc<Defaults>,
        debug: bool,
    ) -> Self {
        Self {
            gateway,
            source,
            defaults,
            debug,
        }
    }

    async fn answer(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let request = session.req_header();
        let read = request.method == Method::GET || request.method == Method::HEAD;
        let path = request.uri.path().to_owned();
        match path.as_str() {
            "/healthz" if read => text(StatusCode::OK, "ok\n"),
            "/readyz" if read => self.ready(),
            "/metrics" if read => self.metrics(),
            "/debug/config" if read && self.debug => {
                json(&debug::config(&self.gateway, &self.source, &self.defaults))
            }
            "/debug/endpoints" if read && self.debug => json(&debug::endpoints(&self.gateway)),
            "/debug/explain" if request.method == Method::POST && self.debug => {
                self.explain(session).await
            }
            path if read && self.debug => match path.strip_prefix("/debug/config_dump/") {
                Some(asked) => {
                    let (status, value) = config_dump::answer(&self.gateway.serving.load(), asked);
                    json_with(status, &value)
                }
                None => text(StatusCode::NOT_FOUND, "not found\n"),
            },
            _ => text(StatusCode::NOT_FOUND, "not found\n"),
        }
    }

    fn ready(&self) -> Response<Vec<u8>> {
        let drain = &self.gateway.drain;
        if drain.is_ready() && !self.gateway.auth.is_ready() {
            let told = "no keys to check tokens with yet\n";
            text(StatusCode::SERVICE_UNAVAILABLE, told)
        } else if drain.is_ready() {
            text(StatusCode::OK, "ready\n")
        } else if drain.is_draining() {
            text(StatusCode::SERVICE_UNAVAILABLE, "draining\n")
        } else {
            text(StatusCode::SERVICE_UNAVAILABLE, "no configuration loaded\n")
        }
    }

    fn metrics(&self) -> Response<Vec<u8>> {
        let used = i64::try_from(self.gateway.bodies.used()).unwrap_or(i64::MAX);
        self.gateway.metrics.body_budget_bytes.set(used);
        let (kind, page) = self.gateway.metrics.page();
        respond(StatusCode::OK, kind, page.into_bytes())
    }

    /// The request to explain: this one's headers and body, at the path given by `?path=`.
    async fn explain(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let request = session.req_header();
        let query = request.uri.query().unwrap_or_default();
        let path = query.split('&').find_map(|pair| pair.strip_prefix("path="));
        let Ok(uri) = path.unwrap_or("/v1/chat/completions").parse() else {
            return text(StatusCode::BAD_REQUEST, "`path` is not a path\n");
        };
        let mut headers = request.headers.clone();
        // What a tool says by itself (curl: a form) is not what is to be explained; a boundary is.
        let form = headers
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"multipart/"));
        if !form {
            headers.remove(header::CONTENT_TYPE);
        }
        let head = RequestHead {
            method: Method::POST,
            uri,
            version: request.version,
            headers,
        };
        match read_body(session, self.gateway.config.limits.body_bytes).await {
            Ok(body) => json(&self.gateway.explain(head, body).await),
            Err(why) => text(StatusCode::BAD_REQUEST, why),
        }
    }
}

async fn read_body(session: &mut ServerSession, limit: usize) -> Result<Bytes, &'static str> {
    let mut body = BytesMut::new();
    while let Some(chunk) = session
        .read_request_body()
        .await
        .map_err(|_| "the body could not be read\n")?
    {
        if body.len() + chunk.len() > limit {
            return Err("the body is larger than limits.bodyBytes\n");
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        self.answer(session).await
    }
}

fn text(status: StatusCode, body: &'static str) -> Response<Vec<u8>> {
    respond(status, "text/plain; charset=utf-8", body.into())
}

fn json(value: &Value) -> Response<Vec<u8>> {
    json_with(StatusCode::OK, value)
}

fn json_with(status: StatusCode, value: &Value) -> Response<Vec<u8>> {
    let mut body = serde_json::to_vec_pretty(value).expect("a JSON value can be written");
    body.push(b'\n');
    respond(status, "application/json", body)
}

fn respond(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Response<Vec<u8>> {
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, kind)
        .header(header::CONTENT_LENGTH, body.len())
        .body(body)
        .expect("constant names and valid values")
}
