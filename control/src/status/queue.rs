//! Which document's status is to be written when. Without I/O; time comes in as an argument.
//!
//! Rules: what matters goes at once, but an object is written at most once a second; what gateways are about to answer
//! waits a moment; mere words wait half a minute. A write that failed is tried again, ever more seldom. A status that
//! was written and is not shown afterwards (an older CRD drops it, or someone else has other ideas) is written again
//! ever more seldom too, and never in a circle.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::index::{DocumentKey, Facts};

use super::compare::Urgency;
use super::condition::Verdict;
use super::desired::Desired;

/// Changes come in bursts, and a new server's pods a moment after it: one write for all.
const PROMPT: Duration = Duration::from_millis(200);
/// Gateways answer within milliseconds as a rule.
const SOON: Duration = Duration::from_secs(1);
const PATIENT: Duration = Duration::from_secs(30);
/// Between two writes of one object.
const INTERVAL: Duration = Duration::from_secs(1);
/// For a write to be shown.
const ECHO: Duration = Duration::from_secs(10);
/// For a CRD to be replaced.
const DROPPED: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_secs(1);
/// The longest of all waits.
const LONGEST: Duration = Duration::from_secs(600);

/// How a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The API server took it and answered with it.
    Written,
    /// The API server took it and answered without it, or cannot take it at all: the CRD knows no such status.
    Dropped,
    /// The object is gone, or is another one by now: whoever is there will be heard of.
    Gone,
    /// It failed, or nobody knows.
    Failed,
}

/// A status to write.
#[derive(Debug, Clone)]
pub(super) struct Write {
    pub(super) facts: Arc<Facts>,
    pub(super) desired: Desired,
    pub(super) news: Vec<Verdict>,
}

#[derive(Debug)]
struct Entry {
    facts: Arc<Facts>,
    next: Option<Planned>,
    in_flight: Option<Desired>,
    /// The last write, until the cluster shows what it should.
    last: Option<Attempt>,
    /// No write of this object before then.
    rested: Option<Instant>,
}

#[derive(Debug)]
struct Attempt {
    desired: Desired,
    outcome: Outcome,
    /// How often the same has been tried.
    times: u32,
    /// When to try the same again.
    again: Instant,
}

#[derive(Debug)]
struct Planned {
    due: Instant,
    desired: Desired,
    news: Vec<Verdict>,
}

/// All documents.
#[derive(Debug, Default)]
pub(super) struct Queue {
    entries: HashMap<DocumentKey, Entry>,
    /// Of the entries that have something planned.
    due: BTreeSet<(Instant, DocumentKey)>,
}

impl Queue {
    /// Takes in what is known of a document; `None`: it is gone.
    pub(super) fn learn(&mut self, key: &DocumentKey, facts: Option<Arc<Facts>>) {
        let Some(facts) = facts else {
            self.unplan(key);
            self.entries.remove(key);
            return;
        };
        match self.entries.get_mut(key) {
            // Another object of the same name starts anew.
            Some(entry) if entry.facts.uid == facts.uid => entry.facts = facts,
            _ => {
                self.unplan(key);
                let entry = Entry {
                    facts,
                    next: None,
                    in_flight: None,
                    last: None,
                    rested: None,
                };
                self.entries.insert(key.clone(), entry);
            }
        }
    }

    pub(super) fn keys(&self) -> Vec<DocumentKey> {
        self.entries.keys().cloned().collect()
    }

    /// What is known of a document.
    pub(super) fn facts(&self, key: &DocumentKey) -> Option<&Arc<Facts>> {
        self.entries.get(key).map(|entry| &entry.facts)
    }

    /// Plans a write where the status differs from what it should be, or unplans it.
    pub(super) fn consider(&mut self, key: &DocumentKey, desired: Desired, now: Instant) {
        let planned = self.unplan(key);
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        if entry.in_flight.is_some() {
            return;
        }
        let Some(difference) = desired.difference(&entry.facts.shown) else {
            entry.last = None;
            return;
        };
        let waits = match difference.urgency {
            Urgency::Prompt => PROMPT,
            Urgency::Soon => SOON,
            Urgency::Patient => PATIENT,
        };
        // Changes on changes must not put it off for ever.
        let mut due = planned.map_or(now + waits, |due| due.min(now + waits));
        due = due.max(entry.rested.unwrap_or(due));
        let mut news = difference.news;
        if let Some(last) = &entry.last {
            let is_same = last.desired == desired;
            if is_same && last.outcome != Outcome::Failed {
                // It was told; it only has to be shown.
                news.clear();
            }
            if is_same {
                due = last.again;
            } else if matches!(last.outcome, Outcome::Failed | Outcome::Dropped) {
                due = due.max(last.again);
            }
        }
        entry.next = Some(Planned { due, desired, news });
        self.due.insert((due, key.clone()));
    }

    /// When the next write is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Takes a write that is due.
    pub(super) fn take(&mut self, now: Instant) -> Option<(DocumentKey, Write)> {
        let (due, key) = self.due.first()?;
        if *due > now {
            return None;
        }
        let key = key.clone();
        self.due.pop_first();
        let entry = self.entries.get_mut(&key)?;
        let planned = entry.next.take()?;
        entry.in_flight = Some(planned.desired.clone());
        let write = Write {
            facts: entry.facts.clone(),
            desired: planned.desired,
            news: planned.news,
        };
        Some((key, write))
    }

    /// A write has ended. The document is to be considered again.
    pub(super) fn finish(&mut self, key: &DocumentKey, outcome: Outcome, now: Instant) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        let Some(desired) = entry.in_flight.take() else {
            return;
        };
        let last = entry.last.as_ref();
        let is_same =
            last.is_some_and(|last| last.desired == desired || last.outcome != Outcome::Written);
        let times = last.filter(|_| is_same).map_or(0, |last| last.times + 1);
        let first = match outcome {
            Outcome::Written => ECHO,
            Outcome::Dropped | Outcome::Gone => DROPPED,
            Outcome::Failed => RETRY,
        };
        let wait = first.saturating_mul(1 << times.min(10)).min(LONGEST);
        entry.rested = Some(now + INTERVAL);
        entry.last = Some(Attempt {
            desired,
            outcome,
            times,
            again: now + wait,
        });
    }

    /// Writes under way will not be finished: nobody knows what became of them.
    pub(super) fn abandon(&mut self) {
        for entry in self.entries.values_mut() {
            entry.in_flight = None;
        }
    }

    /// Answers when it was due.
    fn unplan(&mut self, key: &DocumentKey) -> Option<Instant> {
        let planned = self.entries.get_mut(key)?.next.take()?;
        self.due.remove(&(planned.due, key.clone()));
        Some(planned.due)
    }
}

#[cfg(test)]
mod tests;
