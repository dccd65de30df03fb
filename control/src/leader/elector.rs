//! The loop that stands for election and renews.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use rand::Rng;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::decision::{Action, Observed, decide, mandate};
use super::{Leadership, Mandate, Terms, lease};
use crate::api_error::{explain, is_code};

/// Longest wait for one attempt.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// After someone else wrote the lease under our hands.
const CONFLICT_PAUSE: Duration = Duration::from_millis(100);

/// How long the release at the end may take.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// Stands for election until stopped.
pub struct Elector {
    leases: Api<Lease>,
    name: String,
    identity: String,
    terms: Terms,
    mandate: Mandate,
    observed: Option<Observed>,
    /// The lease as the API server has it as far as we know; `None`: look before writing. Taken out while a write is
    /// under way, so that a write that was given up leaves nothing stale behind.
    current: Option<Lease>,
    /// A failure is logged once, not every two seconds.
    failing: bool,
}

/// How an attempt ended.
enum Outcome {
    /// The lease is ours by a write sent then.
    Held { sent: Instant },
    /// It is someone else's.
    NotHeld { holder: String },
    /// Someone wrote it since we looked.
    Conflict,
}

impl Elector {
    /// Stands with `identity`, which no other replica may have, for the lease `namespace/name`.
    pub fn new(
        client: Client,
        namespace: &str,
        name: &str,
        identity: String,
        terms: Terms,
    ) -> (Self, Leadership) {
        let (mandate, leadership) = Mandate::new();
        let elector = Self {
            leases: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity,
            terms,
            mandate,
            observed: None,
            current: None,
            failing: false,
        };
        (elector, leadership)
    }

    /// Runs until `stop`, then gives up leadership and releases the lease.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        loop {
            tokio::select! {
                biased;
                () = &mut stop => break,
                () = self.turn() => {}
            }
        }
        self.release().await;
    }

    /// One attempt and the wait after it. Ends early, and without leadership, when the mandate runs out.
    async fn turn(&mut self) {
        let Some(deadline) = self.mandate.until() else {
            return self.attempt_and_wait().await;
        };
        let in_time = timeout_at(deadline, self.attempt_and_wait()).await.is_ok();
        // Even then the attempt may have renewed it, and the wait have been cut.
        let over = self
            .mandate
            .until()
            .is_none_or(|until| until <= Instant::now());
        if !in_time && over {
            self.lose("the lease could not be renewed in time");
        }
    }

    async fn attempt_and_wait(&mut self) {
        let started = Instant::now();
        let pause = match timeout(ATTEMPT_TIMEOUT, self.attempt()).await {
            Ok(Ok(outcome)) => self.conclude(outcome),
            Ok(Err(error)) => self.failed(&explain(&error)),
            Err(_) => self.failed("the API server does not answer"),
        };
        sleep_until(started + pause).await;
    }

    /// Looks, if need be, and does what is to be done.
    async fn attempt(&mut self) -> kube::Result<Outcome> {
        if self.current.is_none() {
            self.look().await?;
        }
        let (identity, terms) = (self.identity.clone(), self.terms);
        let now = Timestamp::now();
        let lease = self.current.take().unwrap_or_default();
        match decide(&identity, self.observed.as_ref(), Instant::now()) {
            Action::Create => {
                let lease = lease::created(&self.name, &identity, &terms, now);
                self.write(lease, true).await
            }
            Action::Take => {
                self.write(lease::taken(&lease, &identity, &terms, now), false)
                    .await
            }
            Action::Renew => {
                self.write(lease::renewed(&lease, &identity, &terms, now), false)
                    .await
            }
            Action::Follow => Ok(Outcome::NotHeld {
                holder: lease::record(&lease).holder,
            }),
        }
    }

    async fn look(&mut self) -> kube::Result<()> {
        let lease = self.leases.get_opt(&self.name).await?;
        let observe =
            |lease| Observed::update(self.observed.as_ref(), lease::record(lease), Instant::now());
        self.observed = lease.as_ref().map(observe);
        self.current = lease;
        Ok(())
    }

    async fn write(&mut self, lease: Lease, new: bool) -> kube::Result<Outcome> {
        let sent = Instant::now();
        let parameters = PostParams::default();
        let result = if new {
            self.leases.create(&parameters, &lease).await
        } else {
            self.leases.replace(&self.name, &parameters, &lease).await
        };
        match result {
            Ok(lease) => {
                let record = lease::record(&lease);
                self.observed = Some(Observed::update(None, record, sent));
                self.current = Some(lease);
                Ok(Outcome::Held { sent })
            }
            // Written, made or deleted by someone since we looked. (404 to a new one: its namespace is missing.)
            Err(error) if is_code(&error, 409) || (!new && is_code(&error, 404)) => {
                Ok(Outcome::Conflict)
            }
            Err(error) => Err(error),
        }
    }

    /// Answers when to try again, counted from the start of the attempt.
    fn conclude(&mut self, outcome: Outcome) -> Duration {
        self.failing = false;
        match outcome {
            Outcome::Held { sent } => {
                if self.mandate.grant(mandate(&self.terms, sent)) {
                    let (lease, identity) = (&self.name, &self.identity);
                    tracing::info!(lease, identity, "leading");
                }
                self.terms.retry_period
            }
            Outcome::NotHeld { holder } => {
                self.lose(&format!("the lease is held by {holder}"));
                // Spread, so that not all candidates write at the same time.
                let spread = rand::rng().random_range(1.0..1.2);
                self.terms.retry_period.mul_f64(spread)
            }
            Outcome::Conflict => CONFLICT_PAUSE,
        }
    }

    fn failed(&mut self, error: &str) -> Duration {
        if !std::mem::replace(&mut self.failing, true) {
            let lease = &self.name;
            tracing::warn!(error, lease, "cannot read or write the lease");
        }
        // It may have changed meanwhile.
        self.current = None;
        self.terms.retry_period
    }

    fn lose(&mut self, reason: &str) {
        self.current = None;
        if self.mandate.withdraw() {
            tracing::warn!(reason, lease = self.name, "no longer leading");
        }
    }

    /// Stops leading, then lets the next one take the lease at once.
    async fn release(mut self) {
        let led = self.mandate.withdraw();
        let release = async {
            // Also what a write that was cut short may have won.
            self.look().await?;
            let lease = self.current.take().unwrap_or_default();
            if lease::record(&lease).holder == self.identity {
                let free = lease::released(&lease, Timestamp::now());
                self.leases
                    .replace(&self.name, &PostParams::default(), &free)
                    .await?;
                tracing::info!(lease = self.name, "lease released");
            }
            kube::Result::Ok(())
        };
        match timeout(RELEASE_TIMEOUT, release).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) if led => {
                tracing::warn!(error = explain(&error), "the lease could not be released");
            }
            Err(_) if led => tracing::warn!("the lease could not be released in time"),
            Ok(Err(_)) | Err(_) => {}
        }
    }
}
