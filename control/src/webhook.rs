//! The validating admission webhook: refuses what gateways would refuse, before it is stored.
//!
//! By the rules of `sluice_config`, so that files and cluster agree; Kthena's paths. It never looks at other objects: what
//! a reference points at may come later. It has no side effects, so a dry run is like any other.
//! Not in the data path: it may be off, or down with `failurePolicy: Ignore`; gateways judge for themselves.

mod registration;
mod review;
mod verdict;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::post;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use sluice_config::Kind;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

pub use self::registration::{FailurePolicy, Registration, Target};
use self::review::{Review, Reviewed};
use self::verdict::Verdict;

/// Largest review that is read; etcd takes less.
const MAX_BODY_BYTES: usize = 8 << 20;

/// Longest call. The API server waits [`registration::TIMEOUT_SECONDS`].
const TIMEOUT: Duration = Duration::from_secs(4);

/// Most values in a review, for each of which memory is needed: an object that fits into etcd has fewer.
const MAX_VALUES: usize = 300_000;

/// Reviews worked on at a time; more wait.
const CONCURRENCY: usize = 4;

/// Kind and path, as Kthena has them.
const PATHS: [(Kind, &str); 3] = [
    (Kind::ModelRoute, "/validate/modelroute"),
    (Kind::ModelServer, "/validate/modelserver"),
    (
        Kind::ExternalModelProvider,
        "/validate/externalmodelprovider",
    ),
];

/// The webhook. Clones share their limits and counts.
#[derive(Debug, Clone)]
pub struct Webhook {
    metrics: WebhookMetrics,
    slots: Arc<Semaphore>,
}

/// What became of the calls. Clones count together.
#[derive(Debug, Clone)]
pub struct WebhookMetrics {
    requests: Family<RequestLabels, Counter>,
    duration: Histogram,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    kind: &'static str,
    outcome: &'static str,
}

/// Why a review got no verdict. The API server then goes by the failure policy.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the review could not be read: {0}")]
    Body(#[from] axum::Error),
    #[error("not an AdmissionReview of admission.k8s.io/v1: {0}")]
    Review(String),
    #[error("took longer than {} s", TIMEOUT.as_secs())]
    Late,
    #[error("judging it failed")]
    Judge,
}

impl Failure {
    fn status(&self) -> StatusCode {
        match self {
            Self::Body(_) | Self::Review(_) => StatusCode::BAD_REQUEST,
            Self::Late => StatusCode::SERVICE_UNAVAILABLE,
            Self::Judge => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl Default for Webhook {
    fn default() -> Self {
        Self {
            metrics: WebhookMetrics {
                requests: Family::default(),
                // 0.1 ms to 3 s.
                duration: Histogram::new(exponential_buckets(0.0001, 2.0, 16)),
            },
            slots: Arc::new(Semaphore::new(CONCURRENCY)),
        }
    }
}

impl Webhook {
    /// Its counts.
    pub fn metrics(&self) -> &WebhookMetrics {
        &self.metrics
    }

    /// Its paths.
    pub fn router(&self) -> Router {
        let mut router = Router::new();
        for (kind, path) in PATHS {
            let handler = move |State(webhook): State<Self>, request: Request<Body>| async move {
                webhook.handle(kind, request).await
            };
            router = router.route(path, post(handler));
        }
        router.with_state(self.clone())
    }

    async fn handle(&self, kind: Kind, request: Request<Body>) -> Response {
        let started = Instant::now();
        let outcome = timeout(TIMEOUT, self.answer(kind, request)).await;
        let outcome = outcome.unwrap_or(Err(Failure::Late));
        self.metrics.record(kind, &outcome, started.elapsed());
        match outcome {
            Ok(reviewed) => Json(reviewed).into_response(),
            Err(failure) => {
                tracing::warn!(kind = kind.name(), error = %failure, "a review got no verdict");
                (failure.status(), format!("{failure}\n")).into_response()
            }
        }
    }

    async fn answer(&self, kind: Kind, request: Request<Body>) -> Result<Reviewed, Failure> {
        // Before the body is read: bodies are what memory is needed for.
        let slot = Arc::clone(&self.slots).acquire_owned().await;
        let slot = slot.map_err(|_| Failure::Judge)?;
        let body = to_bytes(request.into_body(), MAX_BODY_BYTES).await?;
        if values(&body) > MAX_VALUES {
            let words = format!("it has more than {MAX_VALUES} values");
            return Err(Failure::Review(words));
        }
        // Large documents with many patterns take a while, and must not hold up other tasks.
        let judged = tokio::task::spawn_blocking(move || {
            // Until it is done, which may be after the call was given up.
            let _slot = slot;
            let review = Review::parse(&body, kind).map_err(Failure::Review)?;
            let verdict = Verdict::of(&review);
            verdict.log(&review);
            Ok(Reviewed::new(&review, verdict))
        });
        judged.await.map_err(|_| Failure::Judge)?
    }
}

/// At least as many values as this JSON text has.
fn values(json: &[u8]) -> usize {
    1 + json.iter().filter(|byte| b",[{".contains(byte)).count()
}

impl WebhookMetrics {
    /// Names begin with `sluice_control_webhook_`.
    pub fn register(&self, registry: &mut Registry) {
        let webhook = registry.sub_registry_with_prefix("sluice_control_webhook");
        let help = "Reviews by kind and outcome: allowed, denied, or failed";
        webhook.register("requests", help, self.requests.clone());
        let help = "Time for a review, with reading it";
        webhook.register_with_unit("duration", help, Unit::Seconds, self.duration.clone());
    }

    fn record(&self, kind: Kind, outcome: &Result<Reviewed, Failure>, took: Duration) {
        let outcome = match outcome {
            Ok(reviewed) if reviewed.is_allowed() => "allowed",
            Ok(_) => "denied",
            Err(_) => "failed",
        };
        let labels = RequestLabels {
            kind: kind.name(),
            outcome,
        };
        self.requests.get_or_create(&labels).inc();
        self.duration.observe(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests;
