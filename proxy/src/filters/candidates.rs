//! What a filter may decide about where a request goes: it pins the target, or removes and scores endpoints.
//!
//! Not for choosing: the scheduler takes this view after the filters and decides.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::FilterError;

/// Targets of the matched rule and their endpoints.
#[derive(Debug, Clone, Default)]
pub struct Candidates {
    /// Targets of the rule, in its order.
    pub targets: Vec<TargetView>,
    /// Endpoints of all targets.
    pub endpoints: Vec<Candidate>,
    /// Index of the pinned target, and why.
    chosen: Option<(usize, &'static str)>,
}

/// One target of a rule.
#[derive(Debug, Clone)]
pub struct TargetView {
    /// Name of the ModelServer.
    pub server: Arc<str>,
    /// Relative share; 0 takes no traffic by itself, but may be pinned.
    pub weight: u32,
}

/// One endpoint.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Index of its target.
    pub target: usize,
    /// `host:port`.
    pub address: Arc<str>,
    /// Labels.
    pub labels: Arc<BTreeMap<String, String>>,
    /// A filter took it out.
    pub removed: bool,
    /// Why it was taken out.
    pub reason: Option<&'static str>,
    /// Milliseconds the filters add to its cost; negative favours it.
    pub score: f64,
}

impl Candidate {
    /// An endpoint no filter has touched.
    pub fn new(target: usize, address: Arc<str>, labels: Arc<BTreeMap<String, String>>) -> Self {
        Self {
            target,
            address,
            labels,
            removed: false,
            reason: None,
            score: 0.0,
        }
    }
}

impl Candidates {
    /// A view no filter has touched.
    pub fn new(targets: Vec<TargetView>, endpoints: Vec<Candidate>) -> Self {
        Self {
            targets,
            endpoints,
            chosen: None,
        }
    }

    /// Takes an endpoint out. The first reason given stays.
    ///
    /// # Errors
    /// [`FilterError::NoSuchCandidate`].
    pub fn remove(&mut self, endpoint: usize, reason: &'static str) -> Result<(), FilterError> {
        let candidate = self.endpoint_mut(endpoint)?;
        candidate.removed = true;
        candidate.reason.get_or_insert(reason);
        Ok(())
    }

    /// Adds `milliseconds` to an endpoint's cost.
    ///
    /// # Errors
    /// [`FilterError::NoSuchCandidate`], or [`FilterError::BadScore`] for what is not a finite number.
    pub fn add_score(&mut self, endpoint: usize, milliseconds: f64) -> Result<(), FilterError> {
        let candidate = self.endpoint_mut(endpoint)?;
        let score = candidate.score + milliseconds;
        if !score.is_finite() {
            return Err(FilterError::BadScore(endpoint));
        }
        candidate.score = score;
        Ok(())
    }

    /// Pins the target instead of the weighted random choice. A later filter's choice replaces an earlier one's.
    ///
    /// # Errors
    /// [`FilterError::NoSuchCandidate`].
    pub fn choose_target(
        &mut self,
        target: usize,
        reason: &'static str,
    ) -> Result<(), FilterError> {
        if target >= self.targets.len() {
            return Err(FilterError::NoSuchCandidate {
                what: "target",
                index: target,
            });
        }
        self.chosen = Some((target, reason));
        Ok(())
    }

    /// The pinned target's index, and why; `None` leaves the choice to the weights.
    pub fn chosen(&self) -> Option<(usize, &'static str)> {
        self.chosen
    }

    fn endpoint_mut(&mut self, index: usize) -> Result<&mut Candidate, FilterError> {
        self.endpoints
            .get_mut(index)
            .ok_or(FilterError::NoSuchCandidate {
                what: "endpoint",
                index,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_endpoints() -> Candidates {
        let target = TargetView {
            server: "stable".into(),
            weight: 100,
        };
        let endpoints = ["10.0.0.1:80", "10.0.0.2:80"]
            .map(|address| Candidate::new(0, address.into(), Arc::default()));
        Candidates::new(vec![target], endpoints.to_vec())
    }

    #[test]
    fn removal_keeps_the_first_reason() {
        let mut candidates = two_endpoints();
        candidates.remove(1, "draining").unwrap();
        candidates.remove(1, "busy").unwrap();
        assert!(!candidates.endpoints[0].removed);
        assert!(candidates.endpoints[1].removed);
        assert_eq!(candidates.endpoints[1].reason, Some("draining"));
    }

    #[test]
    fn scores_add_up() {
        let mut candidates = two_endpoints();
        candidates.add_score(0, 10.0).unwrap();
        candidates.add_score(0, -2.5).unwrap();
        assert_eq!(candidates.endpoints[0].score, 7.5);
    }

    #[test]
    fn a_score_that_is_not_finite_is_refused_and_changes_nothing() {
        let mut candidates = two_endpoints();
        assert_eq!(
            candidates.add_score(0, f64::NAN),
            Err(FilterError::BadScore(0))
        );
        assert_eq!(candidates.endpoints[0].score, 0.0);
    }

    #[test]
    fn a_later_choice_of_target_replaces_an_earlier_one() {
        let mut candidates = two_endpoints();
        candidates.targets.push(TargetView {
            server: "canary".into(),
            weight: 0,
        });
        assert_eq!(candidates.chosen(), None);
        candidates.choose_target(0, "sticky").unwrap();
        candidates.choose_target(1, "header").unwrap();
        assert_eq!(candidates.chosen(), Some((1, "header")));
    }

    #[test]
    fn unknown_indexes_are_errors() {
        let mut candidates = two_endpoints();
        assert!(candidates.remove(2, "gone").is_err());
        assert!(candidates.add_score(2, 1.0).is_err());
        let error = candidates.choose_target(1, "header").unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no target 1 among the candidates"
        );
    }
}
