//! The smallest label selector of the API server that covers what several ModelServers select.
//!
//! Keys that all of them name, each with the values that any of them wants: `app in (a,b),tier=gold`. One that names no
//! common key needs every pod of the namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use sluice_config::{is_label_key, is_label_value};

use crate::index::{Label, Labels};

/// A longer list of values becomes "has the label": it travels in a URL.
const MAX_LIST_BYTES: usize = 2048;
/// Most keys; further ones would make it longer and select hardly less.
const MAX_KEYS: usize = 4;

/// What a watch of pods brings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Cover(BTreeMap<Box<str>, Wanted>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    /// One of these.
    In(BTreeSet<Box<str>>),
    Any,
}

impl Cover {
    /// Of at least one selection.
    pub(super) fn of<'a>(selections: impl IntoIterator<Item = &'a Labels>) -> Self {
        let mut selections = selections.into_iter();
        let Some(first) = selections.next() else {
            return Self::default();
        };
        let values = |value: &str| BTreeSet::from([Box::from(value)]);
        let mut common: BTreeMap<Box<str>, BTreeSet<Box<str>>> = first
            .iter()
            .map(|label| (label.key.clone(), values(&label.value)))
            .collect();
        for selection in selections {
            common.retain(|key, values| match selection.get(key) {
                Some(value) => {
                    values.insert(value.into());
                    true
                }
                None => false,
            });
        }
        Self(common.into_iter().take(MAX_KEYS).map(wanted).collect())
    }

    /// Does the watch bring every pod that a server selects?
    pub(super) fn covers(&self, selection: &Labels) -> bool {
        self.0
            .iter()
            .all(|(key, wanted)| match (wanted, selection.get(key)) {
                (_, None) => false,
                (Wanted::Any, Some(_)) => true,
                (Wanted::In(values), Some(value)) => values.contains(value),
            })
    }

    /// As the API server takes it; `None`: every pod.
    pub(super) fn selector(&self) -> Option<String> {
        (!self.0.is_empty()).then(|| self.to_string())
    }
}

fn wanted((key, values): (Box<str>, BTreeSet<Box<str>>)) -> (Box<str>, Wanted) {
    let bytes: usize = values.iter().map(|value| value.len() + 1).sum();
    // An empty value cannot be written in a list.
    let listed = bytes <= MAX_LIST_BYTES && values.iter().all(|value| !value.is_empty());
    (
        key,
        if listed {
            Wanted::In(values)
        } else {
            Wanted::Any
        },
    )
}

impl fmt::Display for Cover {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (key, wanted)) in self.0.iter().enumerate() {
            let comma = if position > 0 { "," } else { "" };
            write!(formatter, "{comma}{key}")?;
            if let Wanted::In(values) = wanted {
                let values: Vec<&str> = values.iter().map(|value| &**value).collect();
                match values.as_slice() {
                    [one] => write!(formatter, "={one}")?,
                    several => write!(formatter, " in ({})", several.join(","))?,
                }
            }
        }
        Ok(())
    }
}

/// Can any pod have these labels? A selector of labels that Kubernetes would refuse selects nothing, and would make the
/// API server refuse the watch.
pub(super) fn is_possible(selection: &Labels) -> bool {
    let possible = |label: &Arc<Label>| is_label_key(&label.key) && is_label_value(&label.value);
    selection.iter().all(possible)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().copied().collect()
    }

    fn cover(selections: &[Labels]) -> Cover {
        let cover = Cover::of(selections);
        for selection in selections {
            assert!(cover.covers(selection), "{cover} of {selection}");
        }
        cover
    }

    #[test]
    fn one_server_needs_exactly_its_own_pods() {
        let cover = cover(&[labels(&[("app", "a"), ("tier", "gold")])]);
        assert_eq!(cover.selector().unwrap(), "app=a,tier=gold");
    }

    #[test]
    fn several_servers_share_the_keys_that_all_of_them_name() {
        let a = labels(&[("app", "a"), ("tier", "gold")]);
        let b = labels(&[("app", "b"), ("zone", "x")]);
        let cover = cover(&[a, b]);
        assert_eq!(cover.selector().unwrap(), "app in (a,b)");
        assert!(!cover.covers(&labels(&[("app", "c")])));
        assert!(!cover.covers(&labels(&[("tier", "gold")])));
    }

    #[test]
    fn without_a_common_key_every_pod_is_needed() {
        let cover = cover(&[labels(&[("app", "a")]), labels(&[("tier", "gold")])]);
        assert_eq!(cover.selector(), None);
        assert!(cover.covers(&labels(&[("whatever", "x")])));
    }

    #[test]
    fn a_long_list_and_an_empty_value_become_the_key_alone() {
        let many: Vec<_> = (0..200)
            .map(|n| labels(&[("app", &format!("a-rather-long-name-{n}"))]))
            .collect();
        let long = cover(&many);
        assert_eq!(long.selector().unwrap(), "app");
        assert!(long.covers(&labels(&[("app", "another")])));
        let empty = cover(&[labels(&[("app", "")]), labels(&[("app", "a")])]);
        assert_eq!(empty.selector().unwrap(), "app");
    }

    #[test]
    fn labels_that_kubernetes_refuses_are_no_pods() {
        for good in [
            ("app", "a"),
            ("app.kubernetes.io/name", "A.b_c-9"),
            ("app", ""),
        ] {
            assert!(is_possible(&labels(&[good])), "{good:?}");
        }
        let long = "x".repeat(64);
        let bad = [
            ("app", "a,b"),
            ("a b", "c"),
            ("", "c"),
            ("/a", "c"),
            ("Team.example.com/app", "c"),
            ("a..b/app", "c"),
            ("app", "-a"),
            ("app", &*long),
        ];
        for bad in bad {
            assert!(!is_possible(&labels(&[bad])), "{bad:?}");
        }
    }
}
