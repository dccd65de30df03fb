//! How far the first lists are: readiness, in words.

/// Nothing is pushed before it is synced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Every first list is in, and has been handed on. It stays so.
    pub synced: bool,
    /// What is missing until then, with what is in the way if anything is.
    pub waiting: Vec<String>,
}

impl std::fmt::Display for Progress {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.synced {
            true => formatter.write_str("synced"),
            false => write!(formatter, "waiting for {}", self.waiting.join("; ")),
        }
    }
}
