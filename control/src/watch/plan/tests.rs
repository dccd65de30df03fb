use std::collections::HashMap;

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use sluice_config::Kind;

use super::*;
use crate::index::{Detail, Facts, Index, Pod, PodState};

fn server(name: &str, labels: Value) -> Document {
    Document {
        key: DocumentKey::new(Kind::ModelServer, "a", name),
        uid: "u".into(),
        generation: 1,
        created: 0,
        value: json!({ "spec": {
            "workloadSelector": { "matchLabels": labels },
            "workloadPort": { "port": 8000 },
        }}),
        shown: Arc::default(),
    }
}

fn labels(value: &Value) -> Labels {
    let pairs = value.as_object().unwrap().iter();
    pairs
        .map(|(key, value)| (key.as_str(), value.as_str().unwrap()))
        .collect()
}

fn pod(name: &str, of: Value) -> Pod {
    Pod {
        key: ObjectKey::new("a", name),
        uid: "u".into(),
        labels: labels(&of),
        node: "".into(),
        address: Some("10.0.0.1".parse().unwrap()),
        running: true,
        state: PodState::Serving,
    }
}

/// Pods that do not change, an API server that lists them when asked to, the plan, and an index.
struct Bed {
    pods: Vec<Pod>,
    plan: PodPlan,
    index: Index,
    facts: HashMap<Arc<str>, Arc<Facts>>,
    watches: BTreeMap<SourceId, Option<String>>,
    covers: HashMap<SourceId, Cover>,
    last_id: u64,
    now: Instant,
}

impl Bed {
    fn new() -> Self {
        let pods = vec![
            pod("chat-0", json!({ "app": "chat", "tier": "gold" })),
            pod("chat-1", json!({ "app": "chat", "tier": "silver" })),
            pod("code-0", json!({ "app": "code", "tier": "gold" })),
            pod("other", json!({ "app": "other" })),
        ];
        Self {
            pods,
            plan: PodPlan::default(),
            index: Index::default(),
            facts: HashMap::new(),
            watches: BTreeMap::new(),
            covers: HashMap::new(),
            last_id: 0,
            now: Instant::now(),
        }
    }

    fn act(&mut self, mut actions: Vec<Action>) {
        let last_id = &mut self.last_id;
        let new_id = || {
            *last_id += 1;
            SourceId(*last_id)
        };
        self.plan.settle(self.now, new_id, &mut actions);
        for action in actions {
            match action {
                Action::Pass(input) => self.index.apply(input),
                Action::Stop(id) => assert!(self.watches.remove(&id).is_some()),
                Action::Start {
                    id,
                    namespace,
                    selector,
                } => {
                    assert_eq!(&*namespace, "a");
                    let next = self.plan.namespaces["a"].next.as_ref().unwrap();
                    assert_eq!(next.id, id);
                    self.covers.insert(id, next.cover.clone());
                    self.watches.insert(id, selector);
                }
            }
        }
        for (key, facts) in self.index.reconcile().facts {
            match facts {
                Some(facts) => self.facts.insert(key.name, facts),
                None => self.facts.remove(&key.name),
            };
        }
        self.check();
    }

    /// What must hold at every moment.
    fn check(&self) {
        for (name, facts) in &self.facts {
            let Detail::Server(server) = &facts.detail else {
                unreachable!()
            };
            let Some(selection) = self.plan.namespaces["a"].known[name].clone() else {
                assert_eq!(server.counts.all.ready, 0);
                continue;
            };
            let there = self
                .pods
                .iter()
                .filter(|pod| pod.labels.match_selector(&selection))
                .count();
            if server.awaiting.is_none() {
                assert_eq!(
                    server.counts.all.ready as usize, there,
                    "{name}: {selection}"
                );
            }
        }
        // At most an old watch and the one that is to replace it.
        assert!(self.watches.len() <= 2, "{:?}", self.watches);
    }

    fn apply(&mut self, name: &str, of: Value) {
        let mut actions = Vec::new();
        self.plan.applied(server(name, of), &mut actions);
        self.act(actions);
    }

    fn delete(&mut self, name: &str) {
        let mut actions = Vec::new();
        self.plan.deleted(&ObjectKey::new("a", name), &mut actions);
        self.act(actions);
    }

    /// A watch lists: the newest that runs, or (again) an older one.
    fn list(&mut self, newest: bool) {
        let id = match newest {
            true => self.watches.keys().last().copied(),
            false => self.watches.keys().next().copied(),
        };
        let Some(id) = id else { return };
        let cover = &self.covers[&id];
        let pods = self.pods.iter().filter(|pod| cover.covers(&pod.labels));
        let objects = pods.cloned().map(Object::Pod).collect();
        let mut actions = Vec::new();
        self.plan
            .pods_listed(&"a".into(), id, objects, &mut actions);
        self.act(actions);
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.plan.touch_wide(self.now);
        self.act(Vec::new());
    }

    fn selectors(&self) -> Vec<&str> {
        self.watches
            .values()
            .map(|selector| selector.as_deref().unwrap_or("*"))
            .collect()
    }

    fn server(&self, name: &str) -> &crate::index::ServerFacts {
        match &self.facts[name].detail {
            Detail::Server(server) => server,
            _ => unreachable!(),
        }
    }
}

#[test]
fn pods_are_watched_from_the_first_server_to_the_last() {
    let mut bed = Bed::new();
    bed.apply("s", json!({ "app": "chat" }));
    assert_eq!(bed.selectors(), ["app=chat"]);
    assert!(bed.server("s").awaiting.is_some());
    bed.list(true);
    assert_eq!(bed.server("s").awaiting, None);
    assert_eq!(bed.server("s").counts.all.ready, 2);
    bed.delete("s");
    assert!(bed.watches.is_empty() && bed.plan.namespaces.is_empty());
    assert_eq!(bed.index.len(ObjectKind::Pod), 0);
}

#[test]
fn a_server_without_pods_needs_no_watch() {
    let mut bed = Bed::new();
    bed.apply("written", json!({}));
    bed.apply("impossible", json!({ "app": "a,b" }));
    assert!(bed.watches.is_empty());
    assert_eq!(bed.server("impossible").awaiting, None);
    assert_eq!(bed.plan.awaiting().count(), 0);
}

#[test]
fn a_changed_selector_keeps_its_pods_until_the_new_ones_are_listed() {
    let mut bed = Bed::new();
    bed.apply("s", json!({ "app": "chat" }));
    bed.list(true);
    bed.apply("s", json!({ "app": "code" }));
    // Both at once: the old selection is in force until the switch.
    assert_eq!(bed.selectors(), ["app=chat", "app in (chat,code)"]);
    assert_eq!(bed.server("s").counts.all.ready, 2);
    bed.list(true);
    assert_eq!(bed.selectors(), ["app in (chat,code)"]);
    assert_eq!(bed.server("s").counts.all.ready, 1);
}

#[test]
fn a_watch_that_is_too_wide_is_narrowed_after_a_while() {
    let mut bed = Bed::new();
    bed.apply("a", json!({ "app": "chat" }));
    bed.apply("b", json!({ "tier": "gold" }));
    bed.list(true);
    bed.list(true);
    assert_eq!(bed.selectors(), ["*"]);
    bed.delete("b");
    assert_eq!(bed.selectors(), ["*"]);
    bed.wait(SHRINK_AFTER);
    assert_eq!(bed.selectors(), ["*", "app=chat"]);
    // A server that comes now has its pods from the wide one: the narrow one must not take over.
    bed.apply("c", json!({ "app": "other" }));
    assert_eq!(bed.server("c").counts.all.ready, 1);
    bed.list(true);
    assert_eq!(bed.selectors(), ["*"]);
    assert_eq!(bed.server("c").counts.all.ready, 1);
    bed.delete("c");
    bed.wait(SHRINK_AFTER);
    bed.list(true);
    assert_eq!(bed.selectors(), ["app=chat"]);
}

#[test]
fn what_keeps_a_first_list_from_coming_is_told_of_the_server() {
    let mut bed = Bed::new();
    bed.apply("s", json!({ "app": "chat" }));
    let id = *bed.watches.keys().next().unwrap();
    bed.plan
        .pods_failed(&"a".into(), id, &"pods is forbidden".into());
    bed.act(Vec::new());
    assert_eq!(
        bed.server("s").awaiting.as_deref(),
        Some("pods is forbidden")
    );
    // It goes on trying with the watch it has.
    assert_eq!(*bed.watches.keys().next().unwrap(), id);
    bed.list(true);
    assert_eq!(bed.server("s").awaiting, None);
}

#[test]
fn a_list_of_servers_removes_those_that_are_not_in_it() {
    let mut bed = Bed::new();
    bed.apply("a", json!({ "app": "chat" }));
    bed.list(true);
    bed.apply("b", json!({ "app": "code" }));
    // One that is held back and one in force.
    bed.apply("a", json!({ "app": "other" }));
    let mut actions = Vec::new();
    let all = vec![server("b", json!({ "app": "code" }))];
    bed.plan.listed(None, all, &mut actions);
    bed.act(actions);
    assert_eq!(
        bed.facts.keys().map(|name| &**name).collect::<Vec<_>>(),
        ["b"]
    );
    assert!(bed.plan.namespaces["a"].held.is_empty());
}

#[derive(Debug, Clone)]
enum Step {
    Apply(&'static str, Value),
    Delete(&'static str),
    List(bool),
    Wait,
}

fn step() -> impl Strategy<Value = Step> {
    let name = || select(vec!["s0", "s1", "s2"]);
    let selection = select(vec![
        json!({ "app": "chat" }),
        json!({ "app": "code" }),
        json!({ "app": "chat", "tier": "gold" }),
        json!({ "tier": "gold" }),
        json!({}),
    ]);
    prop_oneof![
        4 => (name(), selection).prop_map(|(name, selection)| Step::Apply(name, selection)),
        2 => name().prop_map(Step::Delete),
        4 => any::<bool>().prop_map(Step::List),
        1 => Just(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// `Bed::check` runs after each step: a server whose pods are known never misses one.
    #[test]
    fn no_pod_is_missing_at_any_moment(steps in prop::collection::vec(step(), 1..40)) {
        let mut bed = Bed::new();
        let mut wanted: BTreeMap<&str, Value> = BTreeMap::new();
        for step in steps {
            let before: Vec<_> = bed.facts.iter().map(|(n, f)| (n.clone(), f.clone())).collect();
            let deleted = match &step {
                Step::Delete(name) => Some(*name),
                _ => None,
            };
            match step {
                Step::Apply(name, selection) => {
                    wanted.insert(name, selection.clone());
                    bed.apply(name, selection);
                }
                Step::Delete(name) => {
                    wanted.remove(name);
                    bed.delete(name);
                }
                Step::List(newest) => bed.list(newest),
                Step::Wait => bed.wait(SHRINK_AFTER),
            }
            // Known pods stay known.
            for (name, facts) in before {
                let Detail::Server(server) = &facts.detail else { unreachable!() };
                if server.awaiting.is_none() && deleted != Some(&*name) {
                    prop_assert_eq!(&bed.server(&name).awaiting, &None);
                }
            }
        }
        // Left alone, it ends with every server as it was applied last, and one watch that is no wider than needed.
        for _ in 0..4 {
            bed.list(true);
            bed.wait(SHRINK_AFTER);
        }
        for (name, selection) in &wanted {
            let known = bed.plan.namespaces["a"].known[*name].clone();
            prop_assert_eq!(known.unwrap_or_default(), labels(selection));
            prop_assert_eq!(&bed.server(name).awaiting, &None);
        }
        let needs: Vec<Labels> = wanted.values().map(labels).filter(|l| !l.is_empty()).collect();
        let expected: Vec<String> = match needs.is_empty() {
            true => Vec::new(),
            false => vec![Cover::of(&needs).selector().unwrap_or("*".into())],
        };
        prop_assert_eq!(bed.selectors(), expected);
    }
}
