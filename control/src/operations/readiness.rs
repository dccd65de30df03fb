//! What must be before this replica is asked for anything.

use std::fmt;

/// Conditions, each with the words for when it is not met.
#[derive(Default)]
pub struct Readiness {
    conditions: Vec<(&'static str, Condition)>,
}

type Condition = Box<dyn Fn() -> bool + Send + Sync>;

impl Readiness {
    /// Another condition; `missing` says what is so while it is not met.
    pub fn require(
        &mut self,
        missing: &'static str,
        is_met: impl Fn() -> bool + Send + Sync + 'static,
    ) {
        self.conditions.push((missing, Box::new(is_met)));
    }

    /// What is not met now.
    pub fn missing(&self) -> Vec<&'static str> {
        let missing = self.conditions.iter().filter(|(_, is_met)| !is_met());
        missing.map(|(words, _)| *words).collect()
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.missing()).finish()
    }
}
