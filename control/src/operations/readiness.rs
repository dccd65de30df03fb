//! What must be before this replica is asked for anything.

use std::fmt;

/// Conditions, each with words for what is missing.
#[derive(Default)]
pub struct Readiness {
    conditions: Vec<Condition>,
}

type Condition = Box<dyn Fn() -> Option<String> + Send + Sync>;

impl Readiness {
    /// Another condition; `missing` says what is so while it is not met.
    pub fn require(
        &mut self,
        missing: &'static str,
        is_met: impl Fn() -> bool + Send + Sync + 'static,
    ) {
        self.explain(move || (!is_met()).then(|| missing.to_owned()));
    }

    /// Another condition, which says itself what is missing.
    pub fn explain(&mut self, missing: impl Fn() -> Option<String> + Send + Sync + 'static) {
        self.conditions.push(Box::new(missing));
    }

    /// What is not met now.
    pub fn missing(&self) -> Vec<String> {
        self.conditions
            .iter()
            .filter_map(|missing| missing())
            .collect()
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.missing()).finish()
    }
}
