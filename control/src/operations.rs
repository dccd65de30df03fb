//! Probes and metrics on a port of their own, and debug endpoints on loopback.
//!
//! `/healthz`: the process runs. `/readyz`: it may be asked; else what is missing. `/metrics`: OpenMetrics text.
//! `/debug/state`, `/debug/proxies`: see `debug`. Never secrets.

mod debug;
mod readiness;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::metrics::{CONTENT_TYPE, Metrics};

pub use self::debug::debug_router;
pub use self::readiness::Readiness;

/// What the operations port tells.
#[derive(Debug)]
pub struct Operations {
    /// Every family.
    pub metrics: Metrics,
    /// What must be.
    pub readiness: Readiness,
}

impl Operations {
    /// Its paths.
    pub fn router(self) -> Router {
        Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .with_state(Arc::new(self))
    }
}

async fn ready(State(operations): State<Arc<Operations>>) -> Response {
    let missing = operations.readiness.missing();
    if missing.is_empty() {
        return "ready\n".into_response();
    }
    let text = format!("not ready: {}\n", missing.join("; "));
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

async fn metrics(State(operations): State<Arc<Operations>>) -> Response {
    let text = operations.metrics.encode();
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response()
}

#[cfg(test)]
mod tests;
