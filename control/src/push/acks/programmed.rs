//! What gateways say to one version of one resource, as sums: how many, and why not. Bounded however many they are.

use std::collections::BTreeSet;

use super::MAX_FINDINGS;

/// Where one resource is in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Programmed {
    /// Gateways that are connected, may see it and have subscribed to its type.
    pub connected: usize,
    /// Those of them that serve this version.
    pub acknowledged: usize,
    /// Those of them that refuse it, and keep the last good version.
    pub refusing: usize,
    /// Why they do: each finding once, whoever has it, and the first few of many.
    pub findings: BTreeSet<Finding>,
}

/// What a gateway has against a resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Field path; empty for the whole.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

impl Programmed {
    /// One more gateway refuses it, for these reasons.
    pub fn refuse<'a>(&mut self, findings: impl IntoIterator<Item = &'a Finding>) {
        self.refusing += 1;
        for finding in findings {
            self.note(finding);
        }
    }

    /// Counts the gateways of another replica, too.
    pub fn add(&mut self, others: &Self) {
        self.connected += others.connected;
        self.acknowledged += others.acknowledged;
        self.refusing += others.refusing;
        for finding in &others.findings {
            self.note(finding);
        }
    }

    fn note(&mut self, finding: &Finding) {
        if !self.findings.contains(finding) {
            self.findings.insert(finding.clone());
        }
        // The same few stay in whatever order they come.
        if self.findings.len() > MAX_FINDINGS {
            self.findings.pop_last();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(message: &str) -> Finding {
        Finding {
            path: "spec".into(),
            message: message.into(),
            remedy: String::new(),
        }
    }

    #[test]
    fn a_finding_is_kept_once_and_of_many_the_same_few() {
        let all: Vec<_> = (0..20).map(|n| finding(&format!("{n:02}"))).collect();
        let (mut one, mut other) = (Programmed::default(), Programmed::default());
        one.refuse(&all);
        one.refuse(&all[3..4]);
        for finding in all.iter().rev() {
            other.refuse([finding]);
        }
        assert_eq!(one.findings, other.findings);
        assert_eq!(one.findings.len(), MAX_FINDINGS);
        assert_eq!((one.refusing, other.refusing), (2, 20));
        one.add(&other);
        assert_eq!((one.refusing, one.findings), (22, other.findings));
    }
}
