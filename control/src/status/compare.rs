//! What the cluster shows against what it should show: is there anything to write, and how soon?

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use crate::index::Shown;

use super::condition::{ConditionType, Reason, Truth, Verdict};
use super::desired::Desired;

/// How soon a difference is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// At once.
    Prompt,
    /// After a moment: gateways are about to answer, and one write will do.
    Soon,
    /// When it has stayed for a while: a gateway came or went, and every document's status speaks of it.
    Patient,
}

/// What is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// How soon to write.
    pub urgency: Urgency,
    /// Conditions that became different, as they are now, as far as somebody may want to hear of it.
    pub news: Vec<Verdict>,
}

impl Desired {
    /// What differs from what the cluster shows; `None`: nothing. Conditions of others are theirs.
    pub fn difference(&self, shown: &Shown) -> Option<Difference> {
        let mut news: Vec<Verdict> = Vec::new();
        // Nothing differs; only words do; only that gateways have not all answered does.
        let same = self.same_counts(shown) && shown.observed_generation == Some(self.generation);
        let (mut equal, mut only_words, mut only_waits) = (same, same, same);
        for verdict in &self.verdicts {
            let mut found = shown.conditions.iter();
            let found = found.find(|condition| condition.type_ == verdict.kind.name());
            let (status, reason) = (verdict.truth.name(), verdict.reason.name());
            let says_it = found.is_some_and(|found| {
                (found.status.as_str(), found.reason.as_str()) == (status, reason)
                    && found.observed_generation == Some(self.generation)
            });
            equal &= says_it && found.is_some_and(|found| found.message == verdict.message);
            only_words &= says_it;
            only_waits &= says_it || (is_waiting(verdict) && found.is_some());
            let before = found.map(|found| (found.status.as_str(), found.reason.as_str()));
            // One cause is told once, whatever conditions it has.
            let is_told = news.iter().any(|told| told.reason == verdict.reason);
            if !is_told && is_news(verdict, before) {
                news.push(verdict.clone());
            }
        }
        if equal {
            return None;
        }
        let waits = self
            .verdict(ConditionType::Programmed)
            .is_some_and(is_waiting);
        let urgency = match (only_words || only_waits, waits) {
            (true, _) => Urgency::Patient,
            (false, true) => Urgency::Soon,
            (false, false) => Urgency::Prompt,
        };
        Some(Difference { urgency, news })
    }

    fn same_counts(&self, shown: &Shown) -> bool {
        let wanted = self.status(shown, &Time(Timestamp::UNIX_EPOCH));
        let counts = |of: &Shown| (of.endpoints, of.ready, of.draining, of.prefill, of.decode);
        counts(&wanted) == counts(shown)
    }
}

/// Gateways have not all answered.
fn is_waiting(verdict: &Verdict) -> bool {
    verdict.reason == Reason::Pending
}

/// Worth an event: what is wrong, what is right again, and that gateways have it. Not what was never otherwise, and
/// not what nobody can say yet.
fn is_news(verdict: &Verdict, before: Option<(&str, &str)>) -> bool {
    let is_served = verdict.kind == ConditionType::Programmed;
    match before {
        _ if verdict.truth == Truth::Unknown => false,
        Some(before) if before == (verdict.truth.name(), verdict.reason.name()) => false,
        Some((status, _)) if status != Truth::Unknown.name() => true,
        _ => verdict.is_bad() || is_served,
    }
}
