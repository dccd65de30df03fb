//! Routes by the names that requests ask for, and which of them come first.
//!
//! As gateways decide: a model's own routes before those that have the name as an adapter, then the oldest. The order of
//! two equally old ones is that of `namespace/name` as a text.

use std::collections::{BTreeSet, HashMap};

use super::facts::{Conflict, RouteFacts};
use super::meaning::{RouteMeaning, RouteName};
use super::object::ObjectKey;
use super::overlap::{Overlap, compare, is_reachable};

/// Most older routes that a status speaks of.
pub const MAX_CONFLICTS: usize = 5;

/// Most older routes that one is held against, for each of its names: the oldest ones, which take the most.
const MAX_COMPARED: usize = 64;

/// A route's place in the order of one name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    adapter: bool,
    created: i64,
    /// `namespace/name`.
    place: String,
    route: ObjectKey,
}

/// Every accepted route under each of its names.
#[derive(Debug, Default)]
pub(super) struct Names(HashMap<Box<str>, BTreeSet<Rank>>);

impl Names {
    pub(super) fn insert(&mut self, route: &ObjectKey, created: i64, meaning: &RouteMeaning) {
        for name in &meaning.names {
            let ranks = self.0.entry(name.name.clone()).or_default();
            ranks.insert(rank(route, created, name));
        }
    }

    pub(super) fn remove(&mut self, route: &ObjectKey, created: i64, meaning: &RouteMeaning) {
        for name in &meaning.names {
            if let Some(ranks) = self.0.get_mut(&name.name) {
                ranks.remove(&rank(route, created, name));
                if ranks.is_empty() {
                    self.0.remove(&name.name);
                }
            }
        }
    }

    /// Routes that share a name with this one, it included.
    pub(super) fn sharing(&self, meaning: &RouteMeaning) -> BTreeSet<ObjectKey> {
        let ranks = meaning
            .names
            .iter()
            .filter_map(|name| self.0.get(&name.name));
        ranks.flatten().map(|rank| rank.route.clone()).collect()
    }

    /// Fills in the conflicts of a route. `meaning_of` looks up older ones.
    pub(super) fn conflicts<'a>(
        &self,
        route: &ObjectKey,
        created: i64,
        meaning: &RouteMeaning,
        meaning_of: impl Fn(&ObjectKey) -> Option<&'a RouteMeaning>,
        facts: &mut RouteFacts,
    ) {
        // Rules that some older route takes the requests of, under every name.
        let mut taken = true;
        for name in &meaning.names {
            let own = rank(route, created, name);
            let older = self.0.get(&name.name).into_iter().flatten();
            let older = older.take_while(|rank| **rank < own).take(MAX_COMPARED);
            let rules = meaning.rules.iter().enumerate();
            let reachable = rules.filter(|(_, rule)| is_reachable(rule, &name.name));
            let mut open: BTreeSet<usize> = reachable.map(|(position, _)| position).collect();
            for rank in older.filter(|rank| rank.route != *route) {
                let Some(other) = meaning_of(&rank.route) else {
                    continue;
                };
                let Some(rules) = against(other, meaning, &name.name) else {
                    continue;
                };
                rules.iter().for_each(|rule| _ = open.remove(rule));
                if facts.conflicts.len() < MAX_CONFLICTS {
                    facts.conflicts.push(Conflict {
                        older: rank.route.clone(),
                        name: name.name.clone(),
                        rules,
                    });
                }
            }
            taken &= open.is_empty();
        }
        facts.shadowed = taken && !facts.conflicts.is_empty();
    }
}

fn rank(route: &ObjectKey, created: i64, name: &RouteName) -> Rank {
    Rank {
        adapter: name.adapter,
        created,
        place: route.to_string(),
        route: route.clone(),
    }
}

/// The younger route's rules that the older one covers; `None` when no request matches both.
fn against(older: &RouteMeaning, younger: &RouteMeaning, name: &str) -> Option<Vec<usize>> {
    let (mut covered, mut any) = (Vec::new(), false);
    for (position, rule) in younger.rules.iter().enumerate() {
        let overlaps = older.rules.iter().map(|other| compare(other, rule, name));
        let most = overlaps.fold(Overlap::Apart, |most, overlap| match (most, overlap) {
            (Overlap::Covered, _) | (_, Overlap::Covered) => Overlap::Covered,
            (Overlap::Partly, _) | (_, Overlap::Partly) => Overlap::Partly,
            _ => Overlap::Apart,
        });
        any |= most != Overlap::Apart;
        if most == Overlap::Covered {
            covered.push(position);
        }
    }
    any.then_some(covered)
}
