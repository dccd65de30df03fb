//! The Lease object: what of it decides, and how it reads when we hold it.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;

use super::Terms;
use super::decision::Record;

/// Of a lease that does not say for how long it is claimed: what Kubernetes' components claim.
const USUAL_DURATION: Duration = Duration::from_secs(15);

/// What decides. An empty or strange lease reads as released, or as claimed for the usual time.
pub(super) fn record(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec
        .lease_duration_seconds
        .and_then(|s| u64::try_from(s).ok());
    Record {
        holder: spec.holder_identity.unwrap_or_default(),
        duration: seconds.map_or(USUAL_DURATION, Duration::from_secs),
        renewed: spec.renew_time.map(|time| time.0.to_string()),
        transitions: spec.lease_transitions.unwrap_or_default(),
    }
}

/// A new lease that is ours.
pub(super) fn created(name: &str, identity: &str, terms: &Terms, now: Timestamp) -> Lease {
    Lease {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            acquire_time: Some(MicroTime(now)),
            lease_transitions: Some(0),
            ..claim(identity, terms, now)
        }),
    }
}

/// `lease` with us as its new holder.
pub(super) fn taken(lease: &Lease, identity: &str, terms: &Terms, now: Timestamp) -> Lease {
    let transitions = record(lease).transitions.saturating_add(1);
    let spec = LeaseSpec {
        acquire_time: Some(MicroTime(now)),
        lease_transitions: Some(transitions),
        ..claim(identity, terms, now)
    };
    with_spec(lease, spec)
}

/// `lease`, which is ours, renewed.
pub(super) fn renewed(lease: &Lease, identity: &str, terms: &Terms, now: Timestamp) -> Lease {
    let last = lease.spec.clone().unwrap_or_default();
    let spec = LeaseSpec {
        acquire_time: last.acquire_time,
        lease_transitions: last.lease_transitions,
        ..claim(identity, terms, now)
    };
    with_spec(lease, spec)
}

/// `lease`, which is ours, free for the next one to take.
pub(super) fn released(lease: &Lease, now: Timestamp) -> Lease {
    let last = lease.spec.clone().unwrap_or_default();
    let spec = LeaseSpec {
        holder_identity: Some(String::new()),
        // As Kubernetes' components do; 0 is not allowed.
        lease_duration_seconds: Some(1),
        renew_time: Some(MicroTime(now)),
        ..last
    };
    with_spec(lease, spec)
}

fn claim(identity: &str, terms: &Terms, now: Timestamp) -> LeaseSpec {
    let seconds = i32::try_from(terms.lease_duration.as_secs()).unwrap_or(i32::MAX);
    LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: Some(seconds),
        renew_time: Some(MicroTime(now)),
        ..LeaseSpec::default()
    }
}

/// The rest, `resourceVersion` above all, as it was seen: the API server refuses what was changed meanwhile.
fn with_spec(lease: &Lease, spec: LeaseSpec) -> Lease {
    Lease {
        metadata: lease.metadata.clone(),
        spec: Some(spec),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn a_change_of_holder_is_counted_and_a_renewal_keeps_since_when() {
        let terms = Terms::default();
        let first = created("control", "a", &terms, at(1));
        let second = taken(&first, "b", &terms, at(20));
        let third = renewed(&second, "b", &terms, at(22));
        let spec = third.spec.unwrap();
        assert_eq!(spec.lease_transitions, Some(1));
        assert_eq!(spec.acquire_time, Some(MicroTime(at(20))));
        assert_eq!(spec.renew_time, Some(MicroTime(at(22))));
        assert_eq!(spec.holder_identity.as_deref(), Some("b"));
        assert_eq!(spec.lease_duration_seconds, Some(15));
    }

    #[test]
    fn a_released_lease_has_no_holder_and_a_bare_one_is_taken_for_released() {
        let lease = created("control", "a", &Terms::default(), at(1));
        let record = record(&released(&lease, at(2)));
        assert_eq!((record.holder.as_str(), record.duration.as_secs()), ("", 1));
        assert_eq!(super::record(&Lease::default()).holder, "");
    }

    #[test]
    fn labels_and_the_version_that_was_seen_stay() {
        let mut lease = created("control", "a", &Terms::default(), at(1));
        lease.metadata.resource_version = Some("7".into());
        let next = renewed(&lease, "a", &Terms::default(), at(3));
        assert_eq!(next.metadata.resource_version.as_deref(), Some("7"));
    }
}
