//! Families about tokens and the keys that check them. They show once tokens are asked for.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::family::Family;
use super::labels::{OutcomeLabel, ReasonLabel};
use crate::error::RequestError;

#[derive(Debug, Default)]
pub(crate) struct AuthSeries {
    refusals: Family<ReasonLabel, Counter>,
    fetches: Family<OutcomeLabel, Counter>,
    keys: Gauge,
}

impl AuthSeries {
    pub(super) fn register(&self, sluice: &mut Registry) {
        sluice.register(
            "auth_refusals",
            "Requests refused by what was wrong with their tokens",
            self.refusals.clone(),
        );
        sluice.register(
            "auth_key_fetches",
            "Readings of the keys that check tokens",
            self.fetches.clone(),
        );
        sluice.register(
            "auth_keys",
            "Keys that can check tokens now",
            self.keys.clone(),
        );
    }

    /// A request is refused.
    pub(crate) fn refused(&self, error: &RequestError) {
        let reason = match error {
            RequestError::Token(error) => error.as_str(),
            _ => "no_keys",
        };
        self.refusals.child(&ReasonLabel { reason }).inc();
    }

    /// Keys were read: how many, or `None` when that failed.
    pub(crate) fn fetched(&self, keys: Option<usize>) {
        let outcome = if keys.is_some() { "ok" } else { "failed" };
        self.fetches.child(&OutcomeLabel { outcome }).inc();
        if let Some(keys) = keys {
            self.keys.set(i64::try_from(keys).unwrap_or(i64::MAX));
        }
    }
}
