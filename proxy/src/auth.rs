//! Who may ask: a JSON Web Token is checked before anything else is done with a request, on every path of the clients'
//! listeners.
//!
//! The rules come from the bootstrap file or from Kthena's router configuration and may change at any time; a request
//! goes by those in force when it comes. Keys are fetched elsewhere ([`Keyring`], [`Refresher`]); without any, nobody is
//! let in, but where rules with keys were in force before: those stay until the new ones have theirs. Never open: what
//! cannot be checked is refused. The token is not sent on, not logged and not echoed.
//!
//! Not for what a user may do: there are no permissions yet.

mod keyring;
mod keys;
mod provider;
mod refresh;
mod token;

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::header::{self, HeaderMap};
use http::{HeaderValue, Method};
use serde_json::{Value, json};
use sluice_config::auth::{JwtParams, KeySource};
use tokio::sync::watch;

use self::keys::Keys;
use self::token::Rules;
use crate::error::RequestError;
use crate::http::RequestHead;
use crate::telemetry::Metrics;

pub use self::keyring::Keyring;
pub use self::refresh::Refresher;
pub use self::token::TokenError;

/// The rules in force. Share it in an `Arc`.
pub struct Authenticator {
    current: ArcSwapOption<InForce>,
    metrics: Arc<Metrics>,
    /// Tells the [`Refresher`] of another keyring.
    changed: watch::Sender<Option<Arc<Keyring>>>,
}

/// Rules and the keys they go by.
struct InForce {
    params: JwtParams,
    rules: Rules,
    keyring: Arc<Keyring>,
    /// Those before, as long as these have no keys: a new place of keys may be a mistake.
    before: Option<Arc<Self>>,
}

impl Authenticator {
    /// With these rules from the start; `None`: everybody may ask.
    pub fn new(params: Option<JwtParams>, metrics: Arc<Metrics>) -> Arc<Self> {
        provider::install();
        let authenticator = Self {
            current: ArcSwapOption::empty(),
            metrics,
            changed: watch::Sender::new(None),
        };
        authenticator.set(params);
        Arc::new(authenticator)
    }

    /// Goes by these rules from now on. Keys of the same place are kept.
    pub fn set(&self, params: Option<JwtParams>) {
        let current = self.current.load();
        if current.as_ref().map(|current| &current.params) == params.as_ref() {
            return;
        }
        let Some(params) = params else {
            tracing::warn!("tokens are not asked for any more: everybody may ask");
            self.current.store(None);
            self.changed.send_replace(None);
            return;
        };
        tracing::info!(issuer = params.issuer, "tokens are asked for");
        let kept = current.as_ref().map(|current| &current.keyring);
        let keyring = match kept.filter(|keyring| *keyring.source() == params.keys) {
            Some(keyring) => Arc::clone(keyring),
            None => Keyring::new(params.keys.clone(), Arc::clone(&self.metrics)),
        };
        let before = current.as_ref().and_then(|current| current.usable());
        let before = before.filter(|_| !keyring.is_known());
        let next = InForce {
            before: before.map(|(before, _)| Arc::new(before.alone())),
            ..InForce::new(params, keyring)
        };
        self.changed.send_replace(Some(Arc::clone(&next.keyring)));
        self.current.store(Some(Arc::new(next)));
    }

    /// Are tokens asked for?
    pub fn is_on(&self) -> bool {
        self.current.load().is_some()
    }

    /// Lets a request pass, and takes its token from it; `Some`: the user it names.
    ///
    /// # Errors
    /// What is wrong with the token, or that there are no keys to check it with.
    pub async fn admit(&self, head: &mut RequestHead) -> Result<Option<String>, RequestError> {
        let Some(current) = self.current.load_full() else {
            return Ok(None);
        };
        if is_preflight(head) {
            return Ok(None);
        }
        let admitted = current.check(&head.headers).await;
        if let Err(error) = &admitted {
            self.metrics.auth.refused(error);
        }
        // Consumed, right or wrong: it is nobody else's.
        head.headers.remove(header::AUTHORIZATION);
        admitted
    }

    /// Is there anything to check tokens with, as far as tokens are asked for?
    pub fn is_ready(&self) -> bool {
        let current = self.current.load();
        current
            .as_ref()
            .is_none_or(|current| current.usable().is_some())
    }

    /// Follows the keyrings that come into force.
    pub(crate) fn keyrings(&self) -> watch::Receiver<Option<Arc<Keyring>>> {
        self.changed.subscribe()
    }

    /// For `/debug/config`.
    pub fn describe(&self) -> Value {
        let current = self.current.load();
        let Some(current) = current.as_ref() else {
            return Value::Null;
        };
        let source = match &current.params.keys {
            KeySource::Uri(uri) => {
                json!({"jwksUri": uri.uri, "refreshSeconds": uri.refresh.as_secs_f64()})
            }
            KeySource::File(file) => json!({"jwksFile": file}),
        };
        json!({
            "issuer": current.params.issuer,
            "audiences": current.params.audiences,
            "userClaim": current.params.user_claim,
            "source": source,
            "keys": current.keyring.describe(),
            // Until these have keys.
            "issuerInForce": current.usable().map(|(usable, _)| &usable.params.issuer),
        })
    }
}

impl InForce {
    fn new(params: JwtParams, keyring: Arc<Keyring>) -> Self {
        Self {
            rules: Rules::new(&params),
            params,
            keyring,
            before: None,
        }
    }

    /// The same without those before.
    fn alone(&self) -> Self {
        Self::new(self.params.clone(), Arc::clone(&self.keyring))
    }

    /// The newest that have keys, these or those before, and the keys.
    fn usable(&self) -> Option<(&Self, Arc<Keys>)> {
        let all = [Some(self), self.before.as_deref()];
        let mut all = all.into_iter().flatten();
        all.find_map(|one| Some((one, one.keyring.keys()?)))
    }

    async fn check(&self, headers: &HeaderMap) -> Result<Option<String>, RequestError> {
        let token = token::find(headers)?;
        let (by, keys) = self.usable().ok_or(RequestError::AuthUnavailable)?;
        let checked = by.rules.check(token, &keys);
        if !matches!(checked, Err(TokenError::UnknownKey)) {
            return Ok(checked?);
        }
        // Perhaps its key is newer than ours.
        if !self.keyring.ask_for_newer().await {
            return Ok(checked?);
        }
        let (by, keys) = self.usable().ok_or(RequestError::AuthUnavailable)?;
        Ok(by.rules.check(token, &keys)?)
    }
}

/// A browser asks first whether it may ask, and may send no token with that. Answered by filters or with the methods of
/// a path; no engine ever sees `OPTIONS`.
fn is_preflight(head: &RequestHead) -> bool {
    head.method == Method::OPTIONS
        && head.headers.contains_key(header::ORIGIN)
        && head
            .headers
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// `www-authenticate` of a refusal (RFC 6750 3).
pub(crate) fn challenge(error: &TokenError) -> HeaderValue {
    let text = match error {
        // No error code where there was no token.
        TokenError::Missing => "Bearer realm=\"sluice\"".to_owned(),
        error => {
            let told = error.to_string().replace(['"', '\\'], "'");
            format!(
                "Bearer realm=\"sluice\", error=\"invalid_token\", error_description=\"{told}\""
            )
        }
    };
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("Bearer"))
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
