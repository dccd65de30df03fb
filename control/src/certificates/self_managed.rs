//! The loop that keeps an authority in its Secret, and this replica in good certificates.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use tokio::sync::watch;

use super::store::Stored;
use super::{
    Authorities, CertificateError, Clock, Lifetimes, Names, Resolver, SecretStore,
    ServingCertificate, Trust,
};
use crate::api_error::explain;
use crate::leader::Leadership;

/// After a failure, and while the leader owes us something.
const RETRY: Duration = Duration::from_secs(5);

/// A machine that slept does not count the time: look at the clock at least this often.
const LONGEST_WAIT: Duration = Duration::from_secs(10 * 60);

/// Why a pass was not the end of it.
#[derive(Debug, thiserror::Error)]
enum PassError {
    #[error("cannot read or write the authority's Secret: {}", explain(.0))]
    Api(#[source] kube::Error),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("someone else wrote the authority's Secret at the same time")]
    Conflict,
    #[error("the leader has not made an authority yet")]
    NoAuthority,
}

/// Makes and renews certificates for as long as it runs.
pub struct SelfManaged {
    store: SecretStore,
    leadership: Leadership,
    names: Names,
    lifetimes: Lifetimes,
    clock: Clock,
    resolver: Arc<Resolver>,
    trust: watch::Sender<Option<Trust>>,
    /// The last good ones: they go on signing while the API server is away.
    authorities: Option<Authorities>,
    serving: Option<ServingCertificate>,
    /// A failure is logged once.
    failing: Option<String>,
}

impl SelfManaged {
    /// Certificates for `names`, put into `resolver`. The second part says whom clients must trust, once there is
    /// something to trust.
    pub fn new(
        store: SecretStore,
        leadership: Leadership,
        names: Names,
        lifetimes: Lifetimes,
        clock: Clock,
        resolver: Arc<Resolver>,
    ) -> (Self, watch::Receiver<Option<Trust>>) {
        let (trust, receiver) = watch::channel(None);
        let managed = Self {
            store,
            leadership,
            names,
            lifetimes,
            clock,
            resolver,
            trust,
            authorities: None,
            serving: None,
            failing: None,
        };
        (managed, receiver)
    }

    /// Runs until dropped.
    pub async fn run(mut self) {
        let mut leadership = self.leadership.clone();
        let mut changes = std::pin::pin!(self.store.changes());
        loop {
            let wait = self.turn().await;
            tokio::select! {
                _ = changes.next() => {}
                () = leadership.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// One pass; answers when to look again at the latest.
    pub(super) async fn turn(&mut self) -> Duration {
        match self.pass().await {
            Ok(next) => {
                self.failing = None;
                let wait = next.duration_since((self.clock)());
                wait.map_or(RETRY, |wait| {
                    wait.clamp(Duration::from_secs(1), LONGEST_WAIT)
                })
            }
            Err(PassError::Conflict) => Duration::from_millis(500),
            Err(error) => {
                let error = error.to_string();
                if self.failing.as_ref() != Some(&error) {
                    tracing::warn!(
                        error,
                        "certificates are not as they should be, trying again"
                    );
                    self.failing = Some(error);
                }
                RETRY
            }
        }
    }

    async fn pass(&mut self) -> Result<SystemTime, PassError> {
        let outcome = self.current().await;
        let now = (self.clock)();
        // Also after a failure: what is known goes on.
        if let Ok(authorities) = &outcome {
            self.authorities = Some(authorities.clone());
        }
        let adopted = match self.authorities.clone() {
            Some(authorities) => Some(self.adopt(&authorities, now)?),
            None => None,
        };
        outcome?;
        adopted.ok_or(PassError::NoAuthority)
    }

    /// The authorities as they are to be now; the leader makes them so.
    async fn current(&self) -> Result<Authorities, PassError> {
        let stored = self.store.read().await.map_err(PassError::Api)?;
        let now = (self.clock)();
        if !self.leadership.is_leader() {
            return match stored.and_then(|stored| stored.authorities) {
                Some(authorities) => Ok(authorities?),
                None => Err(PassError::NoAuthority),
            };
        }
        let (authorities, reason) = self.wanted(stored.as_ref(), now)?;
        let Some(reason) = reason else {
            return Ok(authorities);
        };
        let written = self.store.write(&authorities, stored.as_ref(), now).await;
        if !written.map_err(PassError::Api)? {
            return Err(PassError::Conflict);
        }
        tracing::info!(reason, "the authority of our certificates was written");
        Ok(authorities)
    }

    /// The authorities that should be stored and, where they are not, why.
    fn wanted(
        &self,
        stored: Option<&Stored>,
        now: SystemTime,
    ) -> Result<(Authorities, Option<&'static str>), CertificateError> {
        let succeed =
            |last: &Authorities| Authorities::succeed(last.current.clone(), now, &self.lifetimes);
        let stored = stored.and_then(|stored| stored.authorities.as_ref());
        match (stored, &self.authorities) {
            (Some(Ok(stored)), _) if stored.is_due(now) => {
                Ok((succeed(stored)?, Some("it was time for a new one")))
            }
            (Some(Ok(stored)), _) if stored.is_previous_over(now) => {
                let pruned = Authorities {
                    previous: None,
                    ..stored.clone()
                };
                Ok((pruned, Some("the one before the last expired")))
            }
            (Some(Ok(stored)), _) => Ok((stored.clone(), None)),
            // Clients still trust the one that we remember.
            (Some(Err(_)), Some(last)) => Ok((succeed(last)?, Some("it was unreadable"))),
            (None, Some(last)) => Ok((succeed(last)?, Some("it was deleted"))),
            (Some(Err(_)), None) => {
                let first = Authorities::first(now, &self.lifetimes)?;
                Ok((first, Some("it was unreadable")))
            }
            (None, None) => {
                let first = Authorities::first(now, &self.lifetimes)?;
                Ok((first, Some("there was none")))
            }
        }
    }

    /// Serves by and tells of `authorities`; answers when something is due next.
    fn adopt(
        &mut self,
        authorities: &Authorities,
        now: SystemTime,
    ) -> Result<SystemTime, CertificateError> {
        let bundle = authorities.bundle(now);
        self.trust.send_if_modified(|trust| {
            let news = trust.as_ref().is_none_or(|trust| trust.bundle != bundle);
            if news {
                *trust = Some(Trust { bundle });
            }
            news
        });
        let issuer = authorities.issuer(now, &self.lifetimes);
        let serving = match self.serving.take() {
            Some(serving) if !serving.is_due(issuer, now) => serving,
            _ => {
                let new = ServingCertificate::issue(issuer, &self.names, now, &self.lifetimes)?;
                self.resolver.set(&new);
                tracing::info!("a new serving certificate is in use");
                new
            }
        };
        let renewal = serving.validity.renew_at();
        self.serving = Some(serving);
        Ok(renewal.min(authorities.next_change(now, &self.lifetimes)))
    }
}
