//! Path of a field inside a document.

use std::fmt;

/// One step down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

/// Steps from the top of a document.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct FieldPath(Vec<Step>);

impl FieldPath {
    /// From a dotted list of plain keys.
    pub(crate) fn of(keys: &str) -> Self {
        Self(
            keys.split('.')
                .filter(|key| !key.is_empty())
                .map(|key| Step::Key(key.into()))
                .collect(),
        )
    }

    pub(crate) fn key(&self, key: impl Into<String>) -> Self {
        self.with(Step::Key(key.into()))
    }

    pub(crate) fn index(&self, index: usize) -> Self {
        self.with(Step::Index(index))
    }

    pub(crate) fn join(&self, rest: &Self) -> Self {
        Self(self.0.iter().chain(&rest.0).cloned().collect())
    }

    pub(crate) fn steps(&self) -> &[Step] {
        &self.0
    }

    /// The rest of this path below `prefix`, if it is below it.
    pub(crate) fn below(&self, prefix: &Self) -> Option<Self> {
        self.0
            .strip_prefix(prefix.0.as_slice())
            .map(|rest| Self(rest.to_vec()))
    }

    /// Is `other` this path, or somewhere below it?
    pub(crate) fn contains(&self, other: &Self) -> bool {
        other.0.starts_with(&self.0)
    }

    fn with(&self, step: Step) -> Self {
        let mut steps = Vec::with_capacity(self.0.len() + 1);
        steps.extend_from_slice(&self.0);
        steps.push(step);
        Self(steps)
    }
}

impl fmt::Display for FieldPath {
    /// `spec.rules[0]`; keys that are no plain words are quoted: `headers["x.y"]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |key: &str| {
            !key.is_empty()
                && key
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
        };
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) if !plain(key) => write!(f, "[{key:?}]")?,
                Step::Key(key) if at == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
            }
        }
        Ok(())
    }
}

/// A path as a chain of stack frames: walking a document costs nothing until something is wrong.
#[derive(Clone, Copy)]
pub(crate) enum Place<'a> {
    /// Below this path.
    Path(&'a FieldPath),
    Key(&'a Place<'a>, &'a str),
    Index(&'a Place<'a>, usize),
}

impl<'a> Place<'a> {
    pub(crate) fn key(&'a self, key: &'a str) -> Self {
        Place::Key(self, key)
    }

    pub(crate) fn index(&'a self, index: usize) -> Self {
        Place::Index(self, index)
    }
}

impl From<Place<'_>> for FieldPath {
    fn from(place: Place<'_>) -> Self {
        match place {
            Place::Path(path) => path.clone(),
            Place::Key(parent, key) => Self::from(*parent).key(key),
            Place::Index(parent, index) => Self::from(*parent).index(index),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_keys_indexes_and_odd_keys() {
        let path = FieldPath::of("spec.rules")
            .index(0)
            .key("headers")
            .key("x.y");
        assert_eq!(path.to_string(), r#"spec.rules[0].headers["x.y"]"#);
        assert!(FieldPath::of("spec").contains(&path));
        assert!(!path.contains(&FieldPath::of("spec")));
    }
}
