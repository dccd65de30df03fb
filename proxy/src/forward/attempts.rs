//! Attempts: one request tried at one endpoint after another, until one answers or no retry is allowed.
//!
//! What may be tried again: a connection that could not be made or broke before any answer, no answer in time,
//! 502, 503, 504, and 429 where configured. Never a 4xx else, never after the first byte went to the client.
//! A kept connection that turns out closed is replaced by a fresh one to the same endpoint, once, as part of the
//! same attempt.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::SmallRng;
use sluice_config::bootstrap::RetryConfig;
use sluice_config::snapshot::TrafficPolicy;

use super::budget::RetryBudget;
use super::exchange::{EngineError, Upstream};
use super::flight::Flight;
use super::plan::{Choice, Plan};
use super::upstream::{Connector, PingoraUpstream};
use crate::endpoints::Endpoint;
use crate::error::RequestError;
use crate::filters::{Flow, Hooks, LocalReply, Stream as FilterStream};
use crate::http::{RequestHead, ResponseHead};
use crate::serving::{Pool, Serving};
use crate::telemetry::metrics::{AttemptReason, GaugeGuard, Metrics};

/// What all requests share.
pub struct Attempts<'a> {
    /// Connections.
    pub connector: &'a Connector,
    /// Bound on retries.
    pub budget: &'a RetryBudget,
    /// Defaults for what a ModelServer does not set.
    pub retry: &'a RetryConfig,
    /// Default for a ModelServer without `trafficPolicy.timeout`.
    pub first_byte: Duration,
    /// The fixed point that health and budget count from.
    pub origin: Instant,
    /// Counters.
    pub metrics: &'a Metrics,
}

/// What one request brings.
pub struct Job<'a> {
    /// Configuration in force for it.
    pub serving: &'a Serving,
    /// Head for the engine.
    pub head: &'a RequestHead,
    /// Model as the client named it.
    pub model: &'a str,
    /// When the request began: a pool's `totalTimeout` counts from here.
    pub started: Instant,
    /// End of the whole request, whatever its pool says.
    pub deadline: Instant,
    /// Its filters.
    pub filters: &'a mut FilterStream,
    /// Body for a server (index into the snapshot's servers): edits differ by target.
    pub body: &'a (dyn Fn(usize) -> Bytes + Sync),
    /// The answer is to come in one piece: nothing tells when its prompt has been prefilled.
    pub whole: bool,
    /// What counts an attempt at a server besides, if anything does.
    pub active: &'a (dyn Fn(usize) -> Option<GaugeGuard> + Sync),
}

/// An engine's answer, its head read, and what ends when it has been delivered.
pub struct Answer {
    /// The exchange.
    pub upstream: PingoraUpstream,
    /// The response's head.
    pub head: ResponseHead,
    /// Index into the serving's pools.
    pub server: usize,
    /// Its claim on the endpoint that answers.
    pub flight: Flight,
    /// When its attempt began, from the fixed point that health counts from.
    pub since: Duration,
}

/// What is known of the attempts, whether or not one succeeded.
#[derive(Debug, Default)]
pub struct AttemptLog {
    /// Attempts made.
    pub count: u32,
    /// Endpoint of the first.
    pub first: Option<Arc<str>>,
    /// Endpoint of the last.
    pub last: Option<Arc<str>>,
    /// Server of the last: index into the serving's pools.
    pub server: Option<usize>,
    /// Status of the last engine that answered.
    pub status: Option<u16>,
}

/// Why there is no answer.
pub enum NoAnswer {
    /// The gateway answers.
    Error(RequestError),
    /// A filter answers.
    Reply(Box<LocalReply>),
}

/// How one attempt ended that may be followed by another.
enum Failure {
    Engine(EngineError),
    Timeout(Duration),
    /// The engine answered, but asks for another endpoint by its status.
    Status(Box<Answer>),
}

impl Job<'_> {
    /// When the request must be over at a pool with this policy.
    fn deadline(&self, policy: &TrafficPolicy) -> Instant {
        policy.total_timeout.map_or(self.deadline, |total| {
            self.deadline.min(self.started + total)
        })
    }
}

impl Answer {
    /// Gives the connection back (or closes it), and settles the counts.
    pub async fn release(self, connector: &Connector) {
        let link = &self.flight.endpoint().link;
        connector.release(link, self.upstream).await;
    }
}

impl Failure {
    fn reason(&self) -> AttemptReason {
        match self {
            Self::Engine(EngineError::Connect(_)) => AttemptReason::Connect,
            Self::Engine(EngineError::Stale(_)) => AttemptReason::Stale,
            Self::Engine(EngineError::Lost(_)) => AttemptReason::Reset,
            Self::Engine(EngineError::Invalid(_) | EngineError::Request(_)) => {
                AttemptReason::Protocol
            }
            Self::Timeout(_) => AttemptReason::Timeout,
            Self::Status(answer) if answer.head.status.as_u16() == 429 => AttemptReason::Status429,
            Self::Status(_) => AttemptReason::Status5xx,
        }
    }

    /// The connection is at fault, not the work: moving on to a healthy endpoint adds no load anywhere.
    fn is_connection(&self) -> bool {
        matches!(
            self,
            Self::Engine(EngineError::Connect(_) | EngineError::Stale(_) | EngineError::Lost(_))
        )
    }

    /// No further attempt follows: what the client gets.
    fn conclude(self, attempts: u32) -> Result<Box<Answer>, NoAnswer> {
        Err(NoAnswer::Error(match self {
            Self::Status(answer) => return Ok(answer),
            Self::Timeout(timeout) => RequestError::EngineTimeout { timeout },
            Self::Engine(EngineError::Connect(cause)) => {
                RequestError::EngineUnreachable { attempts, cause }
            }
            Self::Engine(error) => RequestError::EngineBroken {
                attempts,
                cause: error.to_string(),
            },
        }))
    }
}

impl Attempts<'_> {
    /// Tries until an engine answers or no retry is allowed. May be dropped at any point: the engine is then
    /// told by its closed connection, and all counts are settled.
    pub async fn run(
        &self,
        job: &mut Job<'_>,
        plan: &mut Plan<'_>,
        log: &mut AttemptLog,
        random: &mut SmallRng,
    ) -> Result<Box<Answer>, NoAnswer> {
        self.budget.request(self.origin.elapsed());
        let mut failed: Option<Failure> = None;
        loop {
            let now = self.origin.elapsed();
            let next = plan.peek(now, random);
            let choice = match (next, failed) {
                (Some(choice), None) => choice,
                (None, None) => {
                    let model = job.model.to_owned();
                    let reason = plan.obstacle(now);
                    return Err(NoAnswer::Error(RequestError::NoEndpoint { model, reason }));
                }
                (Some(choice), Some(failure)) => {
                    let policy = &job.serving.snapshot.servers[choice.server].policy;
                    let deadline = job.deadline(policy);
                    let late = Instant::now() >= deadline;
                    if late || !self.may_retry(&failure, &choice, policy, log.count) {
                        return failure.conclude(log.count);
                    }
                    let connection = failure.is_connection();
                    drop(failure);
                    if !connection {
                        self.pause(policy, deadline).await;
                    }
                    choice
                }
                (None, Some(failure)) => return failure.conclude(log.count),
            };
            plan.take(choice, now);
            match self.attempt(job, plan, choice, log).await? {
                Ok(answer) => return Ok(answer),
                Err(failure) => failed = Some(failure),
            }
        }
    }

    fn may_retry(
        &self,
        failure: &Failure,
        next: &Choice,
        policy: &TrafficPolicy,
        attempts: u32,
    ) -> bool {
        if attempts > policy.retry_attempts.unwrap_or(self.retry.attempts) {
            return false;
        }
        if failure.is_connection() && next.healthy {
            return true;
        }
        let room = self.budget.try_retry(self.origin.elapsed());
        if !room {
            self.metrics.retry_budget_exhausted.inc();
        }
        room
    }

    async fn pause(&self, policy: &TrafficPolicy, deadline: Instant) {
        let interval = policy.retry_interval.unwrap_or(self.retry.interval.into());
        let left = deadline.saturating_duration_since(Instant::now());
        tokio::time::sleep(interval.min(left)).await;
    }

    /// One attempt. The outer error ends the request; the inner one may be followed by another attempt.
    async fn attempt(
        &self,
        job: &mut Job<'_>,
        plan: &Plan<'_>,
        choice: Choice,
        log: &mut AttemptLog,
    ) -> Result<Result<Box<Answer>, Failure>, NoAnswer> {
        let pool = &job.serving.pools[choice.server];
        let endpoint = Arc::clone(&pool.members[choice.member].endpoint);
        log.count += 1;
        log.first.get_or_insert_with(|| endpoint.address.clone());
        log.last = Some(endpoint.address.clone());
        log.server = Some(choice.server);
        let (found, work) = plan.work(choice);
        let mut flight = Flight::dispatch(pool, &pool.members[choice.member], &found, work)
            .counted((job.active)(choice.server));
        let since = self.origin.elapsed();
        // Counts as cancelled if this future is dropped.
        let mut outcome = OutcomeGuard {
            pool,
            reason: AttemptReason::Cancelled,
        };
        let edited = attempt_head(job, &endpoint.address)?;
        let head = edited.as_ref().unwrap_or(job.head);
        let policy = &job.serving.snapshot.servers[choice.server].policy;
        let deadline = job.deadline(policy);
        let left = deadline.saturating_duration_since(Instant::now());
        let (limit, whole_time) = self.patience(policy, left);
        let body = (job.body)(choice.server);
        // Pinned here and lent: a future that is handed on is kept twice in the request's state.
        let exchange = pin!(self.exchange(pool, &endpoint, head, &body));
        let exchange = settled_meanwhile(exchange, &mut flight, job.whole);
        let answered = tokio::time::timeout(limit, exchange).await;
        let failure = match answered {
            Ok(Ok((upstream, head))) => {
                let status = head.status.as_u16();
                log.status = Some(status);
                match status {
                    // Fast refusals keep its count in flight low: it would draw every first try.
                    502..=504 => endpoint.health.lost(since, self.origin.elapsed()),
                    _ => endpoint.health.answered(),
                }
                let answer = Box::new(Answer {
                    upstream,
                    head,
                    server: choice.server,
                    flight,
                    since,
                });
                if !self.asks_for_another(status) {
                    outcome.reason = AttemptReason::Ok;
                    return Ok(Ok(answer));
                }
                Failure::Status(answer)
            }
            Ok(Err(error)) => {
                self.note_error(&endpoint, &error, since);
                Failure::Engine(error)
            }
            Err(_) => {
                if whole_time {
                    endpoint.failing.answered(true, self.origin.elapsed());
                }
                Failure::Timeout(limit)
            }
        };
        outcome.reason = failure.reason();
        Ok(Err(failure))
    }

    /// How long an attempt waits for an answer where so much time is left to its request, and whether that is all an
    /// endpoint has: one that got less has not failed.
    fn patience(&self, policy: &TrafficPolicy, left: Duration) -> (Duration, bool) {
        let first_byte = policy.first_byte_timeout.unwrap_or(self.first_byte);
        (first_byte.min(left), first_byte <= left)
    }

    /// Sends and reads the head; a kept connection that turns out closed is replaced once.
    async fn exchange(
        &self,
        pool: &Pool,
        endpoint: &Endpoint,
        head: &RequestHead,
        body: &Bytes,
    ) -> Result<(PingoraUpstream, ResponseHead), EngineError> {
        match self.exchange_once(pool, endpoint, head, body, false).await {
            Err(EngineError::Stale(_)) => {
                pool.metrics.attempt(AttemptReason::Stale);
                self.exchange_once(pool, endpoint, head, body, true).await
            }
            other => other,
        }
    }

    async fn exchange_once(
        &self,
        pool: &Pool,
        endpoint: &Endpoint,
        head: &RequestHead,
        body: &Bytes,
        fresh: bool,
    ) -> Result<(PingoraUpstream, ResponseHead), EngineError> {
        let mut upstream = self
            .connector
            .send(&endpoint.link, head, body, fresh)
            .await?;
        pool.metrics.connection(upstream.reused());
        let head = upstream.head().await?;
        Ok((upstream, head))
    }

    /// What an attempt without an answer tells of its endpoint.
    fn note_error(&self, endpoint: &Endpoint, error: &EngineError, since: Duration) {
        let now = self.origin.elapsed();
        match error {
            EngineError::Connect(_) => endpoint.health.unreachable(since, now),
            EngineError::Lost(_) | EngineError::Stale(_) => endpoint.health.lost(since, now),
            EngineError::Invalid(_) => endpoint.failing.answered(true, now),
            EngineError::Request(_) => {}
        }
    }

    fn asks_for_another(&self, status: u16) -> bool {
        matches!(status, 502..=504) || (status == 429 && self.retry.on_429)
    }
}

/// The exchange, and meanwhile the prompt of an answer in one piece counts as prefilled when it should be: else it would
/// count as pending until its last token.
async fn settled_meanwhile<T>(
    mut exchange: Pin<&mut impl Future<Output = T>>,
    flight: &mut Flight,
    whole: bool,
) -> T {
    if whole {
        match tokio::time::timeout(flight.expected_prefill(), &mut exchange).await {
            Ok(answered) => return answered,
            Err(_) => flight.prefilled(),
        }
    }
    exchange.await
}

/// The head with what filters did for this attempt; `None` when no filter looks.
fn attempt_head(job: &mut Job<'_>, address: &str) -> Result<Option<RequestHead>, NoAnswer> {
    if !job.filters.wants(Hooks::ATTEMPT) {
        return Ok(None);
    }
    let mut head = job.head.clone();
    match job.filters.attempt(&mut head, address) {
        Flow::Next => Ok(Some(head)),
        Flow::Reply(reply) => Err(NoAnswer::Reply(reply.into())),
    }
}

/// Counts how an attempt ended, whichever way it does.
struct OutcomeGuard<'a> {
    pool: &'a Pool,
    reason: AttemptReason,
}

impl Drop for OutcomeGuard<'_> {
    fn drop(&mut self) {
        self.pool.metrics.attempt(self.reason);
    }
}

#[cfg(test)]
mod tests;
