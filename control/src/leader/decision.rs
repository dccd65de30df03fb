//! What to do about the lease, as a function of what was seen of it and when.
//!
//! Times of other machines are never compared with ours: a lease is over when *we* have seen it unchanged for its
//! whole duration, by our monotonic clock. No I/O here.

use std::time::Duration;

use tokio::time::Instant;

use super::Terms;

/// What of a lease decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// Empty: released.
    pub(super) holder: String,
    /// For which its holder claims it.
    pub(super) duration: Duration,
    /// When its holder says that it renewed; only ever compared with itself.
    pub(super) renewed: Option<String>,
    pub(super) transitions: i32,
}

/// A record and since when we know it as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Observed {
    pub(super) record: Record,
    pub(super) since: Instant,
}

impl Observed {
    /// `record` as seen `now`; a record that has not changed keeps its time.
    pub(super) fn update(last: Option<&Self>, record: Record, now: Instant) -> Self {
        let since = match last {
            Some(last) if last.record == record => last.since,
            _ => now,
        };
        Self { record, since }
    }

    fn expires(&self) -> Instant {
        self.since + self.record.duration
    }
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// There is no lease: make one that is ours.
    Create,
    /// It is released or over: take it.
    Take,
    /// It is ours: say so again.
    Renew,
    /// It is someone else's.
    Follow,
}

/// What `identity` does about the lease that it has seen, or seen missing.
pub(super) fn decide(identity: &str, observed: Option<&Observed>, now: Instant) -> Action {
    match observed {
        None => Action::Create,
        Some(observed) if observed.record.holder == identity => Action::Renew,
        Some(observed) if observed.record.holder.is_empty() => Action::Take,
        Some(observed) if now >= observed.expires() => Action::Take,
        Some(_) => Action::Follow,
    }
}

/// Until when a renewal that was sent at `sent` makes us the leader. Others count from when they saw it, which is later.
pub(super) fn mandate(terms: &Terms, sent: Instant) -> Instant {
    sent + terms.renew_deadline
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(holder: &str, since: Instant) -> Observed {
        let record = Record {
            holder: holder.into(),
            duration: Duration::from_secs(15),
            renewed: Some("2026-01-01T00:00:00Z".into()),
            transitions: 3,
        };
        Observed { record, since }
    }

    #[test]
    fn a_lease_that_is_missing_or_released_is_taken_at_once() {
        let now = Instant::now();
        assert_eq!(decide("me", None, now), Action::Create);
        assert_eq!(decide("me", Some(&seen("", now)), now), Action::Take);
    }

    #[test]
    fn our_own_is_renewed_however_old_it_is() {
        let now = Instant::now();
        let ours = seen("me", now);
        assert_eq!(decide("me", Some(&ours), now), Action::Renew);
        let later = now + Duration::from_secs(3600);
        assert_eq!(decide("me", Some(&ours), later), Action::Renew);
    }

    #[test]
    fn another_s_is_left_alone_until_we_saw_it_unchanged_for_its_duration() {
        let start = Instant::now();
        let theirs = seen("them", start);
        let almost = start + Duration::from_millis(14_999);
        assert_eq!(decide("me", Some(&theirs), almost), Action::Follow);
        let over = start + Duration::from_secs(15);
        assert_eq!(decide("me", Some(&theirs), over), Action::Take);
    }

    #[test]
    fn what_their_clock_says_does_not_matter() {
        let start = Instant::now();
        let mut theirs = seen("them", start);
        // Last renewed decades ago, by their clock or by ours.
        theirs.record.renewed = Some("1999-01-01T00:00:00Z".into());
        assert_eq!(decide("me", Some(&theirs), start), Action::Follow);
    }

    #[test]
    fn every_renewal_starts_the_wait_anew_and_a_repeated_look_does_not() {
        let start = Instant::now();
        let first = seen("them", start);
        let later = start + Duration::from_secs(5);
        let again = Observed::update(Some(&first), first.record.clone(), later);
        assert_eq!(again.since, start);
        let renewed = Record {
            renewed: Some("2026-01-01T00:00:02Z".into()),
            ..first.record.clone()
        };
        assert_eq!(Observed::update(Some(&first), renewed, later).since, later);
    }

    #[test]
    fn a_mandate_ends_before_anyone_else_may_take_the_lease() {
        let terms = Terms::default();
        let sent = Instant::now();
        // The quickest other sees the renewal as it is sent.
        let earliest_take = sent + terms.lease_duration;
        assert!(mandate(&terms, sent) < earliest_take);
    }
}
