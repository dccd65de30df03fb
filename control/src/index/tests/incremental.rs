//! Whatever happens, in whatever order: what has come out in sum is what a fresh index makes of the objects.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;
use sluice_config::push::{EndpointMessage, ResourceType, RoleMessage};

use super::any::object;
use crate::index::*;

/// What a test does to an index.
#[derive(Debug, Clone)]
enum Step {
    Apply(ObjectKind, Object),
    /// Of the objects that are there, the one at this position (modulo their number).
    Delete(usize),
    /// A list of the kind and namespace of the object at this position. What it shows and hides comes from the bits.
    Relist {
        like: usize,
        whole: bool,
        hidden: u32,
    },
    Reconcile,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => object().prop_map(|(kind, object)| Step::Apply(kind, object)),
        3 => any::<usize>().prop_map(Step::Delete),
        2 => (any::<usize>(), any::<bool>(), any::<u32>())
            .prop_map(|(like, whole, hidden)| Step::Relist { like, whole, hidden }),
        3 => Just(Step::Reconcile),
    ]
}

/// The cluster as it is.
type Cluster = BTreeMap<(ObjectKind, ObjectKey), Object>;

/// What gateways and statuses have been told, in sum.
#[derive(Default)]
struct Told {
    resources: BTreeMap<(ResourceType, Arc<str>), Bytes>,
    facts: BTreeMap<DocumentKey, Arc<Facts>>,
}

impl Told {
    fn take(&mut self, output: Output) {
        for (kind, name) in output.removals {
            let known = self.resources.remove(&(kind, name.clone()));
            assert!(known.is_some(), "{name} was never given out");
        }
        for resource in output.upserts {
            assert!(resource.name.starts_with(&*resource.namespace));
            let key = (resource.kind, resource.name.clone());
            let before = self.resources.insert(key, resource.value.clone());
            assert_ne!(before, Some(resource.value), "{} again", resource.name);
        }
        for (key, facts) in output.facts {
            match facts {
                Some(facts) => self.facts.insert(key, facts),
                None => self.facts.remove(&key),
            };
        }
    }
}

fn run(steps: Vec<Step>) -> (Cluster, Told, Index) {
    let (mut index, mut told, mut cluster) = (Index::default(), Told::default(), Cluster::new());
    for step in steps {
        match step {
            Step::Apply(kind, object) => {
                cluster.insert((kind, object.key()), object.clone());
                index.apply(Input::Applied(object));
            }
            Step::Delete(position) => {
                if let Some((kind, key)) = at(&cluster, position) {
                    cluster.remove(&(kind, key.clone()));
                    index.apply(Input::Deleted(kind, key));
                }
            }
            Step::Relist {
                like,
                whole,
                hidden,
            } => {
                let Some((kind, key)) = at(&cluster, like) else {
                    continue;
                };
                let namespace = (!whole && !key.namespace.is_empty()).then_some(key.namespace);
                let mut position = 0;
                cluster.retain(|(other, key), _| {
                    let inside = namespace.as_ref().is_none_or(|n| *n == key.namespace);
                    position += 1;
                    *other != kind || !inside || hidden & (1 << (position % 32)) == 0
                });
                let inside = |(other, key): &&(ObjectKind, ObjectKey)| {
                    *other == kind && namespace.as_ref().is_none_or(|n| *n == key.namespace)
                };
                let keys = cluster.keys().filter(inside);
                let objects = keys.map(|key| cluster[key].clone()).collect();
                index.apply(Input::Restarted {
                    kind,
                    namespace: namespace.clone(),
                    objects,
                });
            }
            Step::Reconcile => told.take(index.reconcile()),
        }
    }
    told.take(index.reconcile());
    (cluster, told, index)
}

fn at(cluster: &Cluster, position: usize) -> Option<(ObjectKind, ObjectKey)> {
    let position = position.checked_rem(cluster.len())?;
    cluster.keys().nth(position).cloned()
}

/// What is not the same in both.
fn differences(incremental: &Told, fresh: &Told) -> Vec<String> {
    let mut all = unequal(&incremental.resources, &fresh.resources);
    all.extend(unequal(&incremental.facts, &fresh.facts));
    all
}

fn unequal<K: Ord + Debug, V: PartialEq + Debug>(
    a: &BTreeMap<K, V>,
    b: &BTreeMap<K, V>,
) -> Vec<String> {
    let keys: BTreeSet<&K> = a.keys().chain(b.keys()).collect();
    let differ = keys.into_iter().filter(|key| a.get(key) != b.get(key));
    differ
        .map(|key| format!("{key:?}: {:?} instead of {:?}", a.get(key), b.get(key)))
        .collect()
}

fn from_nothing(cluster: &Cluster) -> Told {
    let (mut index, mut told) = (Index::default(), Told::default());
    // Backwards, and all of it in one pass.
    for object in cluster.values().rev() {
        index.apply(Input::Applied(object.clone()));
    }
    told.take(index.reconcile());
    told
}

/// Endpoints without any index: every pod against every server.
fn endpoints_by_hand(cluster: &Cluster) -> BTreeMap<String, Vec<(String, i32, String)>> {
    let mut endpoints = BTreeMap::new();
    for object in cluster.values() {
        let Object::Pod(pod) = object else { continue };
        if pod.state == PodState::Idle || pod.address.is_none() {
            continue;
        }
        for object in cluster.values() {
            let Object::Document(document) = object else {
                continue;
            };
            let Some(selection) = Selection::of(document.spec()) else {
                continue;
            };
            let Some(Place::Member(role)) = selection.place(&pod.labels) else {
                continue;
            };
            if let (true, Some(port)) =
                (document.key.namespace == pod.key.namespace, selection.port)
            {
                let name = format!("{}:{port}", pod.key);
                let group = selection.group(&pod.labels).to_owned();
                let member = (document.key.name.to_string(), role as i32, group);
                endpoints.entry(name).or_insert_with(Vec::new).push(member);
            }
        }
    }
    endpoints
}

fn endpoints_told(told: &Told) -> BTreeMap<String, Vec<(String, i32, String)>> {
    let endpoints = told
        .resources
        .iter()
        .filter(|((kind, _), _)| *kind == ResourceType::Endpoint);
    endpoints
        .map(|((_, name), value)| {
            let message = EndpointMessage::decode(value.clone()).unwrap();
            let members = message.memberships.into_iter();
            let members = members.map(|member| (member.server, member.role, member.pd_group));
            (name.to_string(), members.collect())
        })
        .collect()
}

fn counts_by_hand(cluster: &Cluster, server: &Document) -> Counts {
    let mut counts = Counts::default();
    let Some(selection) = Selection::of(server.spec()) else {
        return counts;
    };
    for object in cluster.values() {
        let Object::Pod(pod) = object else { continue };
        if pod.key.namespace != server.key.namespace {
            continue;
        }
        let role = match selection.place(&pod.labels) {
            None => continue,
            Some(Place::Stray) => {
                counts.strays += 1;
                continue;
            }
            Some(Place::Member(role)) => role,
        };
        let mut all = vec![&mut counts.all];
        match role {
            RoleMessage::Whole => {}
            RoleMessage::Prefill => all.push(&mut counts.prefill),
            RoleMessage::Decode => all.push(&mut counts.decode),
        }
        for one in all {
            one.endpoints += 1;
            match (pod.state, selection.port) {
                (PodState::Serving, Some(_)) => one.ready += 1,
                (PodState::Draining, Some(_)) => one.draining += 1,
                _ => {}
            }
        }
    }
    counts
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_comes_out_in_sum_is_what_the_objects_amount_to(steps in prop::collection::vec(step(), 1..100)) {
        let (cluster, told, index) = run(steps);
        prop_assert_eq!(differences(&told, &from_nothing(&cluster)), Vec::<String>::new());
        prop_assert_eq!(endpoints_told(&told), endpoints_by_hand(&cluster));
        for kind in ObjectKind::ALL {
            let there = cluster.keys().filter(|(other, _)| *other == kind).count();
            prop_assert_eq!(index.len(kind), there);
        }
        for object in cluster.values() {
            let Object::Document(document) = object else { continue };
            if let Detail::Server(server) = &told.facts[&document.key].detail {
                prop_assert_eq!(server.counts, counts_by_hand(&cluster, document));
            }
        }
    }

    #[test]
    fn nothing_stays_behind_of_what_is_gone(steps in prop::collection::vec(step(), 1..60)) {
        let mut index = Index::default();
        let mut cluster = BTreeSet::new();
        for step in steps {
            match step {
                Step::Apply(kind, object) => {
                    cluster.insert((kind, object.key()));
                    index.apply(Input::Applied(object));
                }
                _ => _ = index.reconcile(),
            }
        }
        for (kind, key) in cluster {
            index.apply(Input::Deleted(kind, key));
        }
        index.reconcile();
        index.interner = Default::default();
        prop_assert_eq!(format!("{index:?}"), format!("{:?}", Index::default()));
    }

    #[test]
    fn a_second_pass_over_nothing_new_brings_nothing(steps in prop::collection::vec(step(), 1..30)) {
        let mut index = Index::default();
        for step in steps {
            if let Step::Apply(_, object) = step {
                index.apply(Input::Applied(object.clone()));
                index.reconcile();
                index.apply(Input::Applied(object));
                let again = index.reconcile();
                prop_assert!(again.upserts.is_empty() && again.removals.is_empty() && again.facts.is_empty());
            }
        }
    }
}
