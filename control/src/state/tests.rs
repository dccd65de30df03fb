use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::grants::Namespaces;

fn resource(kind: ResourceType, name: &str, value: &str) -> Resource {
    let (namespace, _) = name.split_once('/').unwrap();
    Resource::new(
        kind,
        name,
        namespace,
        Bytes::copy_from_slice(value.as_bytes()),
    )
}

fn change(upserts: &[(&str, &str)], removals: &[&str]) -> Change {
    let kind = ResourceType::ModelRoute;
    Change {
        upserts: upserts
            .iter()
            .map(|(name, value)| resource(kind, name, value))
            .collect(),
        removals: removals.iter().map(|&name| (kind, name.into())).collect(),
        seen_at: SystemTime::UNIX_EPOCH,
    }
}

/// Follows a state by its answers.
struct Follower {
    namespaces: Namespaces,
    interests: Interests,
    generation: u64,
    has: BTreeMap<(ResourceType, String), String>,
}

impl Follower {
    /// Of every type but the last everything, of the last two names.
    fn new(namespaces: Namespaces) -> Self {
        let mut follower = Self {
            namespaces,
            interests: Default::default(),
            generation: 0,
            has: BTreeMap::new(),
        };
        follower.connect();
        follower
    }

    fn connect(&mut self) {
        for (index, interest) in self.interests.iter_mut().enumerate() {
            *interest = Interest::default();
            if index < TYPES - 1 {
                interest.everything = true;
                interest.fresh_everything = true;
            } else {
                interest.names = ["a/1".to_owned(), "b/2".to_owned()].into();
                interest.fresh_names = interest.names.clone();
            }
            for ((kind, name), version) in &self.has {
                if *kind as usize == index {
                    interest.known.insert(name.clone(), version.clone());
                }
            }
        }
    }

    fn ask(&self, state: &PushState) -> Result<Diff, Behind> {
        state.diff(&Ask {
            since: self.generation,
            namespaces: &self.namespaces,
            interests: &self.interests,
        })
    }

    /// Takes what an answer says, and is connected anew if there is none.
    fn follow(&mut self, state: &PushState) -> Diff {
        let diff = self.ask(state).unwrap_or_else(|_| {
            self.connect();
            self.ask(state).unwrap()
        });
        for (kind, told) in ResourceType::ALL.into_iter().zip(&diff.types) {
            for entry in &told.upserts {
                let Resource {
                    name,
                    version,
                    namespace,
                    ..
                } = &entry.resource;
                assert!(self.namespaces.allow(namespace));
                self.has
                    .insert((kind, name.to_string()), version.to_string());
            }
            for name in &told.removals {
                self.has.remove(&(kind, name.to_string()));
            }
        }
        self.interests.iter_mut().for_each(Interest::told);
        self.generation = diff.generation;
        diff
    }

    /// What it should have.
    fn should_have(&self, state: &PushState) -> BTreeMap<(ResourceType, String), String> {
        let mut should = BTreeMap::new();
        for (kind, interest) in ResourceType::ALL.into_iter().zip(&self.interests) {
            for entry in state.list(kind) {
                let Resource {
                    name,
                    version,
                    namespace,
                    ..
                } = &entry.resource;
                let wants = interest.everything || interest.names.contains(&**name);
                if wants && self.namespaces.allow(namespace) {
                    should.insert((kind, name.to_string()), version.to_string());
                }
            }
        }
        should
    }
}

#[test]
fn what_changes_nothing_makes_no_generation() {
    let state = PushState::new("c".into());
    assert_eq!(state.apply(change(&[("a/1", "x")], &["a/2"])), 1);
    assert_eq!(state.apply(change(&[("a/1", "x")], &["a/2"])), 1);
    assert_eq!(state.apply(change(&[("a/1", "y")], &[])), 2);
    assert_eq!(state.apply(change(&[], &["a/1"])), 3);
    assert_eq!(state.apply(change(&[], &["a/1"])), 3);
    assert_eq!(state.generation(), 3);
}

#[test]
fn a_name_both_removed_and_set_is_there_afterwards() {
    let state = PushState::new("c".into());
    state.apply(change(&[("a/1", "x")], &[]));
    state.apply(change(&[("a/1", "y")], &["a/1"]));
    let entry = state.get(ResourceType::ModelRoute, "a/1").unwrap();
    assert_eq!(entry.resource.value, "y");
    assert_eq!(entry.generation, 2);
}

#[test]
fn an_unchanged_resource_keeps_its_generation_and_its_memory() {
    let state = PushState::new("c".into());
    state.apply(change(&[("a/1", "x")], &[]));
    let before = state.get(ResourceType::ModelRoute, "a/1").unwrap();
    state.apply(change(&[("a/1", "x"), ("a/2", "x")], &[]));
    let after = state.get(ResourceType::ModelRoute, "a/1").unwrap();
    assert!(Arc::ptr_eq(&before, &after));
}

#[test]
fn changes_are_told_once_in_their_newest_form_with_the_oldest_time() {
    let state = PushState::new("c".into());
    let mut follower = Follower::new(Namespaces::All);
    assert_eq!(follower.follow(&state).oldest_change, None);
    for (seconds, value) in [(5, "x"), (6, "y"), (7, "z")] {
        let seen_at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        state.apply(Change {
            seen_at,
            ..change(&[("a/1", value)], &[])
        });
    }
    let diff = follower.follow(&state);
    let told = &diff.types[ResourceType::ModelRoute as usize];
    assert_eq!(told.upserts.len(), 1);
    assert_eq!(told.upserts[0].resource.value, "z");
    let oldest = SystemTime::UNIX_EPOCH + Duration::from_secs(5);
    assert_eq!(diff.oldest_change, Some(oldest));
    assert!(follower.follow(&state).is_empty());
}

#[test]
fn an_answer_shares_the_values_of_the_state() {
    let state = PushState::new("c".into());
    state.apply(change(&[("a/1", "x")], &[]));
    let diff = Follower::new(Namespaces::All).follow(&state);
    let told = &diff.types[ResourceType::ModelRoute as usize].upserts[0];
    let kept = state.get(ResourceType::ModelRoute, "a/1").unwrap();
    assert!(Arc::ptr_eq(told, &kept));
}

#[test]
fn a_connection_that_is_too_far_behind_is_told_so() {
    let state = PushState::with_log_capacity("c".into(), 2);
    let mut follower = Follower::new(Namespaces::All);
    follower.follow(&state);
    for value in ["x", "y", "z"] {
        state.apply(change(&[("a/1", value)], &[]));
    }
    let behind = follower.ask(&state).unwrap_err();
    assert_eq!(
        behind,
        Behind {
            since: 0,
            generation: 3
        }
    );
}

#[test]
fn what_one_may_not_see_is_gone_for_him_like_what_does_not_exist() {
    let state = PushState::new("c".into());
    let secret = ResourceType::Secret;
    let upserts = vec![resource(secret, "a/s", "x"), resource(secret, "b/s", "x")];
    state.apply(Change {
        upserts,
        ..change(&[], &[])
    });
    let mut interests = Interests::default();
    let names = BTreeSet::from(["a/s", "b/s", "c/s"].map(str::to_owned));
    let interest = &mut interests[secret as usize];
    interest.names = names.clone();
    interest.fresh_names = names;
    interest.known = HashMap::from([("b/s".to_owned(), "old".to_owned())]);
    let namespaces = Namespaces::Only(["a".to_owned()].into());
    let ask = Ask {
        since: 0,
        namespaces: &namespaces,
        interests: &interests,
    };
    let diff = state.diff(&ask).unwrap();
    let told = &diff.types[secret as usize];
    assert_eq!(told.upserts.len(), 1);
    assert_eq!(&*told.upserts[0].resource.name, "a/s");
    let removals: Vec<_> = told.removals.iter().map(|name| &**name).collect();
    assert_eq!(removals, ["b/s", "c/s"]);
}

#[test]
fn values_do_not_show_in_debug_output() {
    let shown = format!("{:?}", resource(ResourceType::Secret, "a/s", "hunter2"));
    assert!(
        !shown.contains("hunter2") && shown.contains("a/s"),
        "{shown}"
    );
}

/// A step of the property below.
#[derive(Debug, Clone)]
enum Step {
    Apply {
        upserts: Vec<(usize, u8, u8)>,
        removals: Vec<(usize, u8)>,
    },
    Follow(usize),
    Reconnect(usize),
}

fn name(number: u8) -> String {
    format!("{}/{}", ["a", "b", "c"][usize::from(number) % 3], number)
}

fn step() -> impl Strategy<Value = Step> {
    let upserts = proptest::collection::vec((0..TYPES, 0..8_u8, 0..3_u8), 0..4);
    let removals = proptest::collection::vec((0..TYPES, 0..8_u8), 0..3);
    prop_oneof![
        3 => (upserts, removals).prop_map(|(upserts, removals)| Step::Apply { upserts, removals }),
        2 => (0..3_usize).prop_map(Step::Follow),
        1 => (0..3_usize).prop_map(Step::Reconnect),
    ]
}

proptest! {
    #[test]
    fn whoever_replays_the_answers_has_the_state(
        steps in proptest::collection::vec(step(), 1..60),
        capacity in 1..40_usize,
    ) {
        let state = PushState::with_log_capacity("c".into(), capacity);
        let only = |names: &[&str]| {
            Namespaces::Only(names.iter().map(|&name| name.to_owned()).collect())
        };
        let mut followers = [
            Follower::new(Namespaces::All),
            Follower::new(only(&["a", "b"])),
            Follower::new(only(&["c"])),
        ];
        for step in steps {
            match step {
                Step::Apply { upserts, removals } => {
                    let before = state.generation();
                    let after = state.apply(Change {
                        upserts: upserts
                            .iter()
                            .map(|&(kind, number, value)| {
                                resource(ResourceType::ALL[kind], &name(number), &value.to_string())
                            })
                            .collect(),
                        removals: removals
                            .iter()
                            .map(|&(kind, number)| (ResourceType::ALL[kind], name(number).into()))
                            .collect(),
                        seen_at: SystemTime::UNIX_EPOCH,
                    });
                    prop_assert!(after == before || after == before + 1);
                }
                Step::Follow(which) => {
                    let follower = &mut followers[which];
                    follower.follow(&state);
                    prop_assert_eq!(&follower.has, &follower.should_have(&state));
                    prop_assert!(follower.follow(&state).is_empty());
                }
                Step::Reconnect(which) => {
                    let follower = &mut followers[which];
                    follower.connect();
                    let had = follower.has.clone();
                    let diff = follower.follow(&state);
                    prop_assert_eq!(&follower.has, &follower.should_have(&state));
                    // Only the difference flows.
                    for (kind, told) in ResourceType::ALL.into_iter().zip(&diff.types) {
                        for entry in &told.upserts {
                            let key = (kind, entry.resource.name.to_string());
                            prop_assert!(had.get(&key).map(String::as_str) != Some(&*entry.resource.version));
                        }
                    }
                }
            }
        }
    }
}
