//! What the probes and the metrics say of the parts: read when asked for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use super::Common;
use super::following::Following;
use super::tls::{Port, Tls};
use crate::metrics::Metrics;
use crate::operations::Readiness;
use crate::push::Push;
use crate::state::PushState;
use crate::webhook::Webhook;

/// Versions of gateways that have a series of their own.
const MAX_VERSIONS: usize = 16;

/// When this replica may be asked: gateways and the API server have others to turn to.
pub(super) fn readiness(
    common: &Common<'_>,
    following: &Following,
    tls: &Tls,
    readiness: &mut Readiness,
) {
    let stopped = common.stopped.clone();
    readiness.require("shutting down", move || !*stopped.borrow());
    let progress = following.progress.clone();
    readiness.explain(move || {
        let progress = progress.borrow();
        (!progress.synced).then(|| progress.to_string())
    });
    for (words, port) in [
        ("there is no certificate for the push port yet", &tls.push),
        ("there is no certificate for the webhook yet", &tls.webhook),
    ] {
        if let Some(validity) = port.as_ref().map(Port::validity) {
            readiness.require(words, move || {
                validity().is_some_and(|validity| !validity.is_over(SystemTime::now()))
            });
        }
    }
}

/// Every family of the parts.
pub(super) fn metrics(
    common: &Common<'_>,
    state: &Arc<PushState>,
    push: &Push,
    webhook: &Webhook,
    following: &Following,
    tls: &Tls,
    metrics: &mut Metrics,
) {
    metrics.register(|registry| following.watches.register(registry));
    metrics.register(|registry| following.statuses.register(registry));
    metrics.register(|registry| push.metrics().register(registry));
    metrics.register(|registry| webhook.metrics().register(registry));

    let leadership = common.leadership.clone();
    let help = "Is this replica the one that writes?";
    metrics.sample("sluice_control_leader", help, None, move || {
        Some(f64::from(leadership.is_leader()))
    });
    let counted = state.clone();
    let help = "Resources that gateways are to serve, by type";
    metrics.sample_by("sluice_control_resources", help, "type", move || {
        let counts = counted.counts().into_iter();
        counts
            .map(|(kind, count)| (kind.name().to_owned(), count as f64))
            .collect()
    });
    let state = state.clone();
    let help = "Generation of what gateways are to serve";
    metrics.sample("sluice_control_generation", help, None, move || {
        Some(state.generation() as f64)
    });
    let acks = push.acks().clone();
    let help = "Gateways whose stream is open, by their version";
    metrics.sample_by("sluice_control_proxies", help, "version", move || {
        versions(acks.proxies().into_iter().map(|proxy| proxy.version))
    });
    let replicas = following.replicas.clone();
    let help = "Other replicas, as the leader sees them";
    metrics.sample_by("sluice_control_replicas", help, "state", move || {
        let counts = replicas.counts().into_iter();
        counts
            .map(|(state, count)| (state.to_owned(), count as f64))
            .collect()
    });
    let ports = [("push", &tls.push), ("webhook", &tls.webhook)];
    let validities: Vec<_> = ports
        .into_iter()
        .filter_map(|(name, port)| Some((name, port.as_ref()?.validity())))
        .collect();
    let help = "When the certificate of a port expires, since the epoch in seconds";
    let name = "sluice_control_certificate_expiry_timestamp_seconds";
    metrics.sample_by(name, help, "port", move || {
        let mut expiries = Vec::new();
        for (port, validity) in &validities {
            let until = validity().map(|validity| validity.until);
            let since = until.and_then(|until| until.duration_since(SystemTime::UNIX_EPOCH).ok());
            expiries.extend(since.map(|since| ((*port).to_owned(), since.as_secs_f64())));
        }
        expiries
    });
}

/// Gateways by version. A version is what a gateway says of itself: only words that look like one, and not too many.
fn versions(all: impl Iterator<Item = String>) -> Vec<(String, f64)> {
    let is_version = |text: &str| {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b".-+_".contains(&byte);
        (1..=32).contains(&text.len()) && text.bytes().all(good)
    };
    let mut counts = BTreeMap::<String, f64>::new();
    for version in all {
        let known = counts.contains_key(&version) || counts.len() < MAX_VERSIONS;
        let version = match version.as_str() {
            "" => "unknown".to_owned(),
            text if is_version(text) && known => version,
            _ => "other".to_owned(),
        };
        *counts.entry(version).or_default() += 1.0;
    }
    counts.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_are_none_and_too_many_are_counted_together() {
        let odd = ["0.1.0", "0.1.0", "", "a\"b", &"9".repeat(40)].map(str::to_owned);
        let counted = versions(odd.into_iter());
        assert_eq!(
            counted,
            [
                ("0.1.0".to_owned(), 2.0),
                ("other".to_owned(), 2.0),
                ("unknown".to_owned(), 1.0)
            ]
        );
        let many = versions((0..100).map(|number| number.to_string()));
        assert!(many.len() <= MAX_VERSIONS + 1, "{}", many.len());
        let sum: f64 = many.iter().map(|(_, count)| count).sum();
        assert_eq!(sum, 100.0);
    }
}
