//! The gateway: a request's way from its head to its settlement, one call per step.
//!
//! A table of contents. What each step does is in its room; what the wire is, nobody here knows.

mod body;
mod deliver;
mod explain;
mod inference;
mod models;
mod remember;
mod request;
mod respond;
mod session;
mod surface;
mod tokenize;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde_json::Value;
use sluice_config::Bootstrap;
use sluice_config::bootstrap::TokenizersConfig;

use crate::auth::Authenticator;
use crate::drain::Drain;
use crate::endpoints::output::OutputLengths;
use crate::error::RequestError;
use crate::filters::LocalReply;
use crate::forward::attempts::Attempts;
use crate::forward::budget::RetryBudget;
use crate::forward::exchange::{Arrival, ClientTimeouts, Downstream};
use crate::forward::upstream::Connector;
use crate::http::hygiene::HeadLimits;
use crate::http::{RequestHead, hygiene, identity};
use crate::limits::ByteBudget;
use crate::serving::ServingStore;
use crate::telemetry::{AccessLog, Metrics};
use crate::tokens::{TokenPool, TokenPoolParams};
use request::Request;
use surface::Api;

/// Where a request's random numbers come from; tests give a seeded one.
pub type RandomSource = Box<dyn Fn() -> SmallRng + Send + Sync>;

/// Everything requests share.
pub struct Gateway {
    /// Fixed configuration.
    pub config: Bootstrap,
    /// Hot configuration with live state.
    pub serving: ServingStore,
    /// How long models' answers are.
    pub outputs: OutputLengths,
    /// Threads that tokenise; `None` if the system gave none.
    pub tokens: Option<Arc<TokenPool>>,
    /// Series.
    pub metrics: Arc<Metrics>,
    /// One line per request.
    pub access_log: AccessLog,
    /// Who may ask.
    pub auth: Arc<Authenticator>,
    /// Readiness and shutdown.
    pub drain: Arc<Drain>,
    /// Random numbers.
    pub random: RandomSource,
    /// Connections to engines.
    pub connector: Arc<Connector>,
    /// Bytes of bodies held.
    pub bodies: Arc<ByteBudget>,
    retries: RetryBudget,
    /// The fixed point that health and budgets count from.
    origin: Instant,
}

/// Why a request's normal way ends before an engine's answer is relayed.
pub(crate) enum Halt {
    /// A filter, or an API of the gateway's own, answers.
    Reply(Box<LocalReply>),
    /// The gateway refuses.
    Error(RequestError),
    /// Nobody is left to answer.
    ClientGone,
}

impl From<RequestError> for Halt {
    fn from(error: RequestError) -> Self {
        Self::Error(error)
    }
}

impl Gateway {
    /// A gateway that serves nothing until its first configuration is installed.
    pub fn new(
        config: Bootstrap,
        serving: ServingStore,
        metrics: Arc<Metrics>,
        access_log: AccessLog,
        auth: Arc<Authenticator>,
        drain: Arc<Drain>,
    ) -> Self {
        let retry = &config.retry;
        let tokens = token_pool(&config.tokenizers);
        if let Some(tokens) = &tokens {
            metrics.set_token_pool(tokens);
        }
        Self {
            connector: Arc::new(Connector::new(
                &config.upstream,
                config.timeouts.connect.into(),
            )),
            bodies: ByteBudget::new(config.limits.body_budget_bytes),
            retries: RetryBudget::new(
                retry.budget_percent,
                retry.budget_floor,
                retry.budget_window.into(),
            ),
            outputs: OutputLengths::default(),
            tokens,
            random: Box::new(|| SmallRng::from_rng(&mut rand::rng())),
            origin: Instant::now(),
            config,
            serving,
            metrics,
            access_log,
            auth,
            drain,
        }
    }

    /// Limits on request heads.
    pub fn head_limits(&self) -> HeadLimits {
        let limits = &self.config.limits;
        HeadLimits {
            bytes: limits.header_bytes,
            count: limits.header_count,
        }
    }

    /// Time limits of the clients' side.
    pub fn client_timeouts(&self) -> ClientTimeouts {
        let timeouts = &self.config.timeouts;
        ClientTimeouts {
            idle: timeouts.client_idle.into(),
            read: timeouts.client_read.into(),
            write: timeouts.client_write.into(),
        }
    }

    /// Time since the gateway began: what health and budgets count in.
    pub fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// Serves one request to its end, whatever that is.
    pub async fn serve<D: Downstream>(&self, client: &mut D, arrival: Arrival) {
        let (head, refused) = match arrival {
            Arrival::Closed => return,
            Arrival::Request(head) => (head, None),
            Arrival::Refused(error, head) => (head.unwrap_or_else(unreadable_head), Some(error)),
        };
        let _active = self.drain.enter();
        let _gauge = self.metrics.active_request();
        if self.drain.is_draining() {
            client.close_after_response();
        }
        let mut request = Request::begin(self, head, client.client());
        let halt = match refused {
            Some(error) => Err(Halt::Error(error)),
            None => self.handle(client, &mut request).await,
        };
        if let Err(halt) = halt {
            Box::pin(respond::halted(client, &mut request, halt)).await;
        }
        request.settle(self);
    }

    async fn handle<D: Downstream>(
        &self,
        client: &mut D,
        request: &mut Request,
    ) -> Result<(), Halt> {
        // Before everything: neither a filter nor a route sees a request that may not be here.
        if self.auth.is_on() {
            request.record.user = Box::pin(self.auth.admit(&mut request.head)).await?;
        }
        if !request.serving.chain.is_empty() {
            Box::pin(request.enter_filters()).await?;
        }
        match surface::classify(&request.head.method, request.head.uri.path())? {
            Api::Inference => inference::serve(self, client, request).await,
            Api::Models => {
                let models = models::list(request.snapshot());
                Err(Halt::Reply(respond::json(&models).into()))
            }
            Api::Model(name) => match models::find(request.snapshot(), &name) {
                Some(model) => Err(Halt::Reply(respond::json(&model).into())),
                None => Err(RequestError::RouteNotFound { model: name }.into()),
            },
            Api::Options(allow) => Err(Halt::Reply(respond::options(allow).into())),
        }
    }

    /// What would happen to a request: rule, target, candidates with reasons. Sends nothing.
    pub async fn explain(&self, head: RequestHead, body: bytes::Bytes) -> Value {
        explain::explain(self, head, body).await
    }

    fn attempts(&self) -> Attempts<'_> {
        Attempts {
            connector: &self.connector,
            budget: &self.retries,
            retry: &self.config.retry,
            first_byte: self.config.timeouts.first_byte.into(),
            origin: self.origin,
            metrics: &self.metrics,
        }
    }
}

fn token_pool(config: &TokenizersConfig) -> Option<Arc<TokenPool>> {
    let params = TokenPoolParams {
        threads: config.threads,
        deadline: config.deadline.into(),
        memo_bytes: config.memo_bytes,
        ..TokenPoolParams::default()
    };
    match TokenPool::new(params) {
        Ok(pool) => Some(Arc::new(pool)),
        Err(error) => {
            tracing::error!(%error, "no threads to tokenise: every pool is routed by bytes");
            None
        }
    }
}

/// Stands in for a head that could not be parsed.
fn unreadable_head() -> RequestHead {
    RequestHead {
        method: http::Method::GET,
        uri: http::Uri::from_static("/"),
        version: http::Version::HTTP_11,
        headers: http::HeaderMap::new(),
    }
}

/// Makes a client's head what the rooms may see, with its request id and trace id.
fn prepare(head: &mut RequestHead, random: &mut SmallRng) -> (http::HeaderValue, String) {
    hygiene::sanitize(head);
    let id = identity::ensure_request_id(&mut head.headers);
    let trace = identity::ensure_trace_context(&mut head.headers, random);
    (id, trace)
}
