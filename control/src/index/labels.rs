//! Labels of pods and nodes, and selectors of them: equal ones are kept once, compared without allocating.
//!
//! Ten thousand pods have a few hundred labels between them. Not for Kubernetes' set-based selectors: those are
//! for the API server (`watch`).

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// A key and its value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label {
    /// Key.
    pub key: Box<str>,
    /// Value, may be empty.
    pub value: Box<str>,
}

/// Labels by key, each key once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(Box<[Arc<Label>]>);

impl Labels {
    /// The value of a label.
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self
            .0
            .binary_search_by(|label| (*label.key).cmp(key))
            .ok()?;
        Some(&self.0[at].value)
    }

    /// Is every label of `selector` among these? An empty selector selects nothing here: nobody means every pod.
    pub fn match_selector(&self, selector: &Self) -> bool {
        let has = |label: &Arc<Label>| self.get(&label.key) == Some(&*label.value);
        !selector.0.is_empty() && selector.0.iter().all(has)
    }

    /// In order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Label>> {
        self.0.iter()
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As the messages of the push protocol have them.
    pub fn to_map(&self) -> BTreeMap<String, String> {
        let pair = |label: &Arc<Label>| (label.key.to_string(), label.value.to_string());
        self.0.iter().map(pair).collect()
    }
}

impl<K: Into<Box<str>>, V: Into<Box<str>>> FromIterator<(K, V)> for Labels {
    /// Of two labels with one key, the last one counts.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let by_key: BTreeMap<Box<str>, Box<str>> = pairs
            .into_iter()
            .map(|(key, value)| (key.into(), value.into()))
            .collect();
        let label = |(key, value)| Arc::new(Label { key, value });
        Self(by_key.into_iter().map(label).collect())
    }
}

impl std::fmt::Display for Labels {
    /// `a=b,c=d`, as `kubectl get -l` takes it.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, label) in self.0.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            write!(formatter, "{comma}{}={}", label.key, label.value)?;
        }
        Ok(())
    }
}

/// Keeps equal labels and words once.
#[derive(Debug, Default)]
pub(super) struct Interner {
    labels: HashSet<Arc<Label>>,
    words: HashSet<Arc<str>>,
    /// Entries after the last sweep.
    kept: usize,
}

/// Fewer entries are not worth a sweep.
const SWEEP_FROM: usize = 4096;

impl Interner {
    pub(super) fn labels(&mut self, labels: &mut Labels) {
        for label in &mut labels.0 {
            match self.labels.get(&**label) {
                Some(known) => *label = known.clone(),
                None => {
                    self.labels.insert(label.clone());
                }
            }
        }
        self.sweep();
    }

    pub(super) fn word(&mut self, word: &mut Arc<str>) {
        match self.words.get(&**word) {
            Some(known) => *word = known.clone(),
            None => {
                self.words.insert(word.clone());
            }
        }
    }

    /// Lets go of what nobody uses any more, each time the number of entries has doubled.
    fn sweep(&mut self) {
        if self.labels.len() + self.words.len() < (2 * self.kept).max(SWEEP_FROM) {
            return;
        }
        self.labels.retain(|label| Arc::strong_count(label) > 1);
        self.words.retain(|word| Arc::strong_count(word) > 1);
        self.kept = self.labels.len() + self.words.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().copied().collect()
    }

    #[test]
    fn a_selector_needs_every_one_of_its_labels() {
        let pod = labels(&[("app", "chat"), ("role", "decode"), ("tier", "")]);
        assert!(pod.match_selector(&labels(&[("role", "decode"), ("app", "chat")])));
        assert!(pod.match_selector(&labels(&[("tier", "")])));
        assert!(!pod.match_selector(&labels(&[("app", "chat"), ("role", "prefill")])));
        assert!(!pod.match_selector(&labels(&[("zone", "")])));
    }

    #[test]
    fn an_empty_selector_selects_nothing() {
        assert!(!labels(&[("app", "chat")]).match_selector(&Labels::default()));
    }

    #[test]
    fn equal_labels_are_kept_once_and_unused_ones_let_go() {
        let mut interner = Interner::default();
        let (mut first, mut second) = (labels(&[("a", "b")]), labels(&[("a", "b")]));
        interner.labels(&mut first);
        interner.labels(&mut second);
        assert!(Arc::ptr_eq(&first.0[0], &second.0[0]));
        for number in 0..2 * SWEEP_FROM {
            interner.labels(&mut labels(&[("pod", &number.to_string())]));
        }
        assert!(
            interner.labels.len() < SWEEP_FROM,
            "{}",
            interner.labels.len()
        );
        assert!(interner.labels.contains(&*first.0[0]));
    }
}
