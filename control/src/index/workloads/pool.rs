//! The pods and the selections of one namespace.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::super::endpoint::Membership;
use super::super::facts::Counts;
use super::super::labels::{Label, Labels};
use super::super::object::{Pod, PodState};
use super::super::selection::{Place, Selection};

/// One namespace.
#[derive(Debug, Default)]
pub(super) struct Pool {
    pub(super) pods: HashMap<Arc<str>, Pod>,
    by_label: HashMap<Arc<Label>, HashSet<Arc<str>>>,
    selections: HashMap<Arc<str>, Entry>,
    /// Each server under one of its labels: a pod is held against the servers that stand under its own.
    selecting: HashMap<Arc<Label>, BTreeSet<Arc<str>>>,
    /// What came of the pods that somebody selects.
    pub(super) evaluated: HashMap<Arc<str>, Evaluated>,
    /// Sums over `evaluated`, by server. They outlive a server that comes back before its pods were looked at again.
    pub(super) counts: HashMap<Arc<str>, Counts>,
}

#[derive(Debug)]
struct Entry {
    selection: Selection,
    /// The label under which it stands in `selecting`.
    under: Arc<Label>,
}

/// What came of a pod when it was last looked at.
#[derive(Debug, Default)]
pub(super) struct Evaluated {
    /// Port and version of each endpoint that was given out.
    pub(super) endpoints: Vec<(u16, Arc<str>)>,
    pub(super) places: Vec<Counted>,
}

/// A pod's place as a server's counts have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Counted {
    server: Arc<str>,
    place: Place,
    state: PodState,
}

impl Pool {
    pub(super) fn is_empty(&self) -> bool {
        self.pods.is_empty() && self.selections.is_empty() && self.evaluated.is_empty()
    }

    pub(super) fn insert_pod(&mut self, pod: Pod) {
        let name = pod.key.name.clone();
        for label in pod.labels.iter() {
            let pods = self.by_label.entry(label.clone()).or_default();
            pods.insert(name.clone());
        }
        self.pods.insert(name, pod);
    }

    pub(super) fn remove_pod(&mut self, name: &str) -> Option<Pod> {
        let pod = self.pods.remove(name)?;
        for label in pod.labels.iter() {
            if let Some(pods) = self.by_label.get_mut(label) {
                pods.remove(name);
                if pods.is_empty() {
                    self.by_label.remove(label);
                }
            }
        }
        Some(pod)
    }

    /// Changes what a server selects. Answers the pods that it selected and those that it selects now.
    pub(super) fn select(
        &mut self,
        server: &Arc<str>,
        selection: Option<Selection>,
    ) -> Vec<Arc<str>> {
        let old = self.selections.remove(server);
        if let Some(old) = &old {
            self.leave(server, &old.under);
        }
        let mut touched = Vec::new();
        let old = old.map(|entry| entry.selection);
        for selection in [&old, &selection].into_iter().flatten() {
            touched.extend(self.selected(&selection.labels));
        }
        if let Some(selection) = selection
            && let Some(under) = self.least_used(&selection.labels)
        {
            let servers = self.selecting.entry(under.clone()).or_default();
            servers.insert(server.clone());
            self.selections
                .insert(server.clone(), Entry { selection, under });
        }
        touched
    }

    /// The places of a pod, in order of the servers' names.
    pub(super) fn places(&self, pod: &Pod) -> (Vec<Counted>, Vec<Membership>) {
        let under = |label| self.selecting.get(label).into_iter().flatten();
        let mut servers: Vec<_> = pod.labels.iter().flat_map(under).collect();
        servers.sort_unstable();
        let (mut places, mut memberships) = (Vec::new(), Vec::new());
        for server in servers {
            let selection = &self.selections[server].selection;
            let Some(place) = selection.place(&pod.labels) else {
                continue;
            };
            let served = selection.port.is_some() && place != Place::Stray;
            places.push(Counted {
                server: server.clone(),
                place,
                state: if served { pod.state } else { PodState::Idle },
            });
            if let (Place::Member(role), Some(port)) = (place, selection.port) {
                memberships.push(Membership {
                    server: server.clone(),
                    port,
                    role,
                    group: selection.group(&pod.labels).to_owned(),
                });
            }
        }
        (places, memberships)
    }

    /// Replaces a pod's old places by its new ones in the counts. Answers the servers that either speaks of.
    pub(super) fn recount(&mut self, old: &[Counted], new: &[Counted]) -> BTreeSet<Arc<str>> {
        let mut servers = BTreeSet::new();
        for (places, sign) in [(old, -1), (new, 1)] {
            for counted in places {
                let counts = self.counts.entry(counted.server.clone()).or_default();
                counts.add(counted.place, counted.state, sign);
                servers.insert(counted.server.clone());
            }
        }
        for server in &servers {
            if self.counts.get(server) == Some(&Counts::default()) {
                self.counts.remove(server);
            }
        }
        servers
    }

    /// Names of the pods that a selector selects.
    fn selected(&self, selector: &Labels) -> Vec<Arc<str>> {
        let candidates = selector.iter().map(|label| self.by_label.get(label));
        let Some(Some(rarest)) = candidates.min_by_key(|pods| pods.map_or(0, HashSet::len)) else {
            return Vec::new();
        };
        let selects = |name: &&Arc<str>| self.pods[&***name].labels.match_selector(selector);
        rarest.iter().filter(selects).cloned().collect()
    }

    /// The label under which the fewest servers stand.
    fn least_used(&self, labels: &Labels) -> Option<Arc<Label>> {
        let servers = |label: &&Arc<Label>| self.selecting.get(*label).map_or(0, BTreeSet::len);
        labels.iter().min_by_key(servers).cloned()
    }

    fn leave(&mut self, server: &str, under: &Arc<Label>) {
        if let Some(servers) = self.selecting.get_mut(under) {
            servers.remove(server);
            if servers.is_empty() {
                self.selecting.remove(under);
            }
        }
    }
}
