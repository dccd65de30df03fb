//! The identity behind a service-account token: the API server is asked, and its yes is believed for a minute.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::api::{Api, PostParams};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::debug;

use super::AuthenticateError;

/// Whom a gateway's token must be meant for.
pub const AUDIENCE: &str = "sluice-control";

/// How long a yes is believed. A no never is: the token may be good in a moment.
const BELIEVED: Duration = Duration::from_secs(60);

/// Answers that are remembered.
const CAPACITY: usize = 4096;

/// Questions to the API server at a time.
const MAX_REVIEWS: usize = 16;

/// How long one answer may take, waiting for a turn included.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest of the API server's words that are passed on.
const MAX_WORDS: usize = 300;

type Hash = [u8; 32];

/// Asks the API server whose token this is.
#[derive(Debug)]
pub struct TokenReviewer {
    reviews: Api<TokenReview>,
    turns: Semaphore,
    /// Held for a lookup, never across an await.
    believed: Mutex<Believed>,
}

/// Tokens that were good a moment ago, by their hashes.
#[derive(Debug)]
struct Believed {
    identities: HashMap<Hash, (Arc<str>, Instant)>,
    capacity: usize,
}

impl TokenReviewer {
    /// Needs the right to create `tokenreviews` (the ClusterRole `system:auth-delegator`).
    pub fn new(client: kube::Client) -> Self {
        Self {
            reviews: Api::all(client),
            turns: Semaphore::new(MAX_REVIEWS),
            believed: Mutex::new(Believed::new(CAPACITY)),
        }
    }

    /// As Kubernetes calls it: `system:serviceaccount:NAMESPACE:NAME`.
    pub(super) async fn identity(&self, token: &str) -> Result<Arc<str>, AuthenticateError> {
        let hash: Hash = Sha256::digest(token).into();
        if let Some(identity) = self.believed().find(&hash, Instant::now()) {
            return Ok(identity);
        }
        let asked_at = Instant::now();
        let late = |_| {
            let words = format!(
                "no answer from the API server in {} s",
                REVIEW_TIMEOUT.as_secs()
            );
            AuthenticateError::Unreachable(words)
        };
        let status = timeout(REVIEW_TIMEOUT, self.review(token))
            .await
            .map_err(late)??;
        let identity = judge(status)?;
        self.believed().add(hash, Arc::clone(&identity), asked_at);
        Ok(identity)
    }

    async fn review(&self, token: &str) -> Result<TokenReviewStatus, AuthenticateError> {
        let _turn = self.turns.acquire().await;
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: token.to_owned(),
                audiences: Some(vec![AUDIENCE.to_owned()]),
            },
            ..TokenReview::default()
        };
        match self.reviews.create(&PostParams::default(), &review).await {
            Ok(review) => Ok(review.status.unwrap_or_default()),
            Err(error) => Err(unreachable(&error)),
        }
    }

    fn believed(&self) -> MutexGuard<'_, Believed> {
        self.believed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Words about a question that was not answered. An API server's refusal is about this process, not about the token.
fn unreachable(error: &kube::Error) -> AuthenticateError {
    debug!(%error, "no token review");
    let words = match error {
        kube::Error::Api(status) if status.code == 403 => {
            "sluice-control may not create TokenReviews; bind its service account to system:auth-delegator"
                .to_owned()
        }
        kube::Error::Api(status) => {
            format!("the API server answers {}: {}", status.code, shortened(&status.message))
        }
        _ => "the API server cannot be reached".to_owned(),
    };
    AuthenticateError::Unreachable(words)
}

/// From the API server's answer to an identity.
fn judge(status: TokenReviewStatus) -> Result<Arc<str>, AuthenticateError> {
    let words = status.error.unwrap_or_default();
    if status.authenticated != Some(true) {
        return Err(if words.contains("audience") {
            AuthenticateError::WrongAudience
        } else if words.contains("expired") {
            AuthenticateError::Expired
        } else if words.is_empty() {
            AuthenticateError::Refused("it is not a valid token".into())
        } else {
            AuthenticateError::Refused(shortened(&words))
        });
    }
    // A server that knows nothing of audiences says yes without any: that token is meant for the API server.
    let audiences = status.audiences.unwrap_or_default();
    if !audiences.iter().any(|audience| audience == AUDIENCE) {
        return Err(AuthenticateError::WrongAudience);
    }
    let user = status
        .user
        .and_then(|user| user.username)
        .unwrap_or_default();
    if user.is_empty() {
        return Err(AuthenticateError::Refused("it belongs to no user".into()));
    }
    Ok(user.into())
}

fn shortened(words: &str) -> String {
    words.chars().take(MAX_WORDS).collect()
}

impl Believed {
    fn new(capacity: usize) -> Self {
        Self {
            identities: HashMap::new(),
            capacity,
        }
    }

    fn find(&self, hash: &Hash, now: Instant) -> Option<Arc<str>> {
        let (identity, asked_at) = self.identities.get(hash)?;
        (now.duration_since(*asked_at) < BELIEVED).then(|| Arc::clone(identity))
    }

    fn add(&mut self, hash: Hash, identity: Arc<str>, asked_at: Instant) {
        if self.identities.len() >= self.capacity {
            self.make_room(asked_at);
        }
        self.identities.insert(hash, (identity, asked_at));
    }

    /// Drops what is too old, and if nothing is, the oldest.
    fn make_room(&mut self, now: Instant) {
        self.identities
            .retain(|_, (_, asked_at)| now.duration_since(*asked_at) < BELIEVED);
        if self.identities.len() >= self.capacity {
            let oldest = self
                .identities
                .iter()
                .min_by_key(|(_, (_, asked_at))| *asked_at);
            if let Some(oldest) = oldest.map(|(hash, _)| *hash) {
                self.identities.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_yes_is_believed_for_a_minute() {
        let mut believed = Believed::new(2);
        let start = Instant::now();
        believed.add([1; 32], "a".into(), start);
        let just_before = start + BELIEVED - Duration::from_millis(1);
        assert_eq!(believed.find(&[1; 32], just_before).as_deref(), Some("a"));
        assert_eq!(believed.find(&[1; 32], start + BELIEVED), None);
        assert_eq!(believed.find(&[2; 32], start), None);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_oldest_goes_first() {
        let mut believed = Believed::new(2);
        let start = Instant::now();
        for second in 0..5_u8 {
            let now = start + Duration::from_secs(second.into());
            believed.add([second; 32], "a".into(), now);
        }
        let now = start + Duration::from_secs(4);
        let found: Vec<_> = (0..5)
            .map(|n| believed.find(&[n; 32], now).is_some())
            .collect();
        assert_eq!(found, [false, false, false, true, true]);
        believed.add(
            [9; 32],
            "a".into(),
            start + BELIEVED + Duration::from_secs(10),
        );
        assert_eq!(believed.identities.len(), 1, "the old ones went together");
    }
}
