use bytes::Bytes;

use super::*;
use crate::push::wire::Response;
use crate::state::{Change, Resource};

use ResourceType::{ModelRoute, ModelServer};

struct Fixture {
    state: Arc<PushState>,
    acks: Arc<Acks>,
}

impl Fixture {
    fn new() -> Self {
        let state = Arc::new(PushState::new("c".into()));
        let acks = Arc::new(Acks::new(Arc::clone(&state)));
        Self { state, acks }
    }

    /// Returns the version.
    fn apply(&self, kind: ResourceType, name: &str, value: &str) -> Arc<str> {
        let (namespace, _) = name.split_once('/').unwrap();
        let value = Bytes::copy_from_slice(value.as_bytes());
        let resource = Resource::new(kind, name, namespace, value);
        let version = Arc::clone(&resource.version);
        self.state.apply(Change {
            upserts: vec![resource],
            removals: vec![],
            seen_at: SystemTime::UNIX_EPOCH,
        });
        version
    }

    /// Subscribed to both types.
    fn connect(&self, name: &str, namespaces: Namespaces) -> ConnectedGuard {
        let guard = self.acks.connect(Caller {
            name: name.into(),
            address: ([127, 0, 0, 1], 1).into(),
            identity: "i".into(),
            version: "1".into(),
            namespaces,
        });
        let mut interests = Interests::default();
        for kind in [ModelServer, ModelRoute] {
            interests[kind as usize].everything = true;
        }
        guard.subscribed(&interests);
        guard
    }

    fn programmed(&self, kind: ResourceType, name: &str, version: &str) -> (usize, usize) {
        let programmed = self.acks.programmed(kind, name, version);
        (programmed.acknowledged, programmed.connected)
    }

    fn entry(&self, kind: ResourceType, name: &str) -> Arc<crate::state::Entry> {
        self.state.get(kind, name).unwrap()
    }
}

fn only(names: &[&str]) -> Namespaces {
    Namespaces::Only(names.iter().map(|&name| name.to_owned()).collect())
}

fn answered(generation: u64) -> Answered {
    Answered {
        generation,
        changed_at: None,
        responses: vec![],
        refusals: vec![],
    }
}

fn refusal(entry: &crate::state::Entry, message: &str) -> Refusal {
    Refusal {
        kind: entry.resource.kind,
        name: Arc::clone(&entry.resource.name),
        version: Arc::clone(&entry.resource.version),
        path: "spec".into(),
        message: message.into(),
        remedy: "mend it".into(),
    }
}

#[test]
fn a_version_counts_once_its_generation_is_acknowledged() {
    let fixture = Fixture::new();
    let first = fixture.apply(ModelRoute, "a/1", "x");
    let one = fixture.connect("one", Namespaces::All);
    let two = fixture.connect("two", Namespaces::All);
    assert_eq!(fixture.programmed(ModelRoute, "a/1", &first), (0, 2));
    one.answered(&answered(1));
    assert_eq!(fixture.programmed(ModelRoute, "a/1", &first), (1, 2));
    two.answered(&answered(1));
    assert_eq!(fixture.programmed(ModelRoute, "a/1", &first), (2, 2));
    let second = fixture.apply(ModelRoute, "a/1", "y");
    assert_eq!(
        fixture.programmed(ModelRoute, "a/1", &first),
        (0, 2),
        "an old version"
    );
    assert_eq!(fixture.programmed(ModelRoute, "a/1", &second), (0, 2));
    one.answered(&answered(2));
    assert_eq!(fixture.programmed(ModelRoute, "a/1", &second), (1, 2));
    drop(one);
    assert_eq!(fixture.programmed(ModelRoute, "a/1", &second), (0, 1));
}

#[test]
fn what_is_unchanged_stays_acknowledged_while_other_things_change() {
    let fixture = Fixture::new();
    let version = fixture.apply(ModelRoute, "a/1", "x");
    let one = fixture.connect("one", Namespaces::All);
    one.answered(&answered(1));
    fixture.apply(ModelRoute, "a/2", "x");
    assert_eq!(fixture.programmed(ModelRoute, "a/1", &version), (1, 1));
}

#[test]
fn only_those_count_that_may_see_it_and_want_its_type() {
    let fixture = Fixture::new();
    let version = fixture.apply(ModelRoute, "a/1", "x");
    let provider = fixture.apply(ResourceType::ExternalModelProvider, "a/1", "x");
    let names = ["one", "two", "three"];
    let guards: Vec<_> = names
        .into_iter()
        .zip([only(&["a"]), only(&["b"]), Namespaces::All])
        .map(|(name, namespaces)| fixture.connect(name, namespaces))
        .collect();
    for guard in &guards {
        guard.answered(&answered(2));
    }
    assert_eq!(fixture.programmed(ModelRoute, "a/1", &version), (2, 2));
    let kind = ResourceType::ExternalModelProvider;
    assert_eq!(fixture.programmed(kind, "a/1", &provider), (0, 0));
}

#[test]
fn a_refused_version_is_reported_until_a_newer_one_is_accepted() {
    let fixture = Fixture::new();
    let bad = fixture.apply(ModelRoute, "a/1", "x");
    let fine = fixture.apply(ModelRoute, "a/2", "x");
    let one = fixture.connect("one", Namespaces::All);
    let entry = fixture.entry(ModelRoute, "a/1");
    one.answered(&Answered {
        refusals: vec![refusal(&entry, "no"), refusal(&entry, "neither")],
        ..answered(2)
    });
    assert_eq!(fixture.programmed(ModelRoute, "a/2", &fine), (1, 1));
    let programmed = fixture.acks.programmed(ModelRoute, "a/1", &bad);
    assert_eq!((programmed.acknowledged, programmed.connected), (0, 1));
    let words: Vec<_> = programmed
        .findings
        .iter()
        .map(|found| found.message.as_str())
        .collect();
    assert_eq!(words, ["neither", "no"]);
    assert_eq!(programmed.refusing, 1);
    let report = &fixture.acks.proxies()[0];
    assert_eq!(report.rejections.len(), 2);
    assert_eq!(report.rejections[0].version, *bad);

    let good = fixture.apply(ModelRoute, "a/1", "y");
    let entry = fixture.entry(ModelRoute, "a/1");
    let response = Response {
        kind: ModelRoute,
        nonce: 1,
        upserts: vec![entry],
        removals: vec![],
    };
    one.answered(&Answered {
        responses: vec![Arc::new(response)],
        ..answered(3)
    });
    assert_eq!(fixture.programmed(ModelRoute, "a/1", &good), (1, 1));
    assert!(fixture.acks.proxies()[0].rejections.is_empty());
}

#[test]
fn what_is_kept_of_refusals_is_bounded_but_none_is_forgotten() {
    let fixture = Fixture::new();
    let one = fixture.connect("one", Namespaces::All);
    let names: Vec<_> = (0..200).map(|number| format!("a/{number}")).collect();
    for name in &names {
        fixture.apply(ModelRoute, name, "x");
    }
    let long = "é".repeat(5000);
    let refusals: Vec<_> = names
        .iter()
        .flat_map(|name| {
            let entry = fixture.entry(ModelRoute, name);
            vec![refusal(&entry, &long); MAX_FINDINGS + 3]
        })
        .collect();
    one.answered(&Answered {
        refusals,
        ..answered(200)
    });
    let text: usize = {
        let proxies = fixture.acks.lock();
        let proxy = proxies.by_connection.values().next().unwrap();
        assert_eq!(proxy.refused[ModelRoute as usize].len(), 200);
        proxy.refusal_bytes
    };
    let untold = Finding::untold().bytes() * names.len();
    assert!(text <= MAX_REFUSAL_BYTES + untold, "{text}");
    for name in &names {
        let version = &fixture.entry(ModelRoute, name).resource.version;
        let programmed = fixture.acks.programmed(ModelRoute, name, version);
        let counts = (programmed.acknowledged, programmed.refusing);
        assert_eq!(counts, (0, 1), "{name}");
        assert_eq!(programmed.findings.len(), 1, "the same over and over");
    }
    let entries: Vec<_> = names
        .iter()
        .map(|name| fixture.entry(ModelRoute, name))
        .collect();
    let response = Response {
        kind: ModelRoute,
        nonce: 1,
        upserts: entries,
        removals: vec![],
    };
    one.answered(&Answered {
        responses: vec![Arc::new(response)],
        ..answered(201)
    });
    let proxies = fixture.acks.lock();
    assert_eq!(
        proxies.by_connection.values().next().unwrap().refusal_bytes,
        0
    );
}

#[test]
fn a_gateway_that_reconnects_counts_once_by_its_newest_connection() {
    let fixture = Fixture::new();
    let version = fixture.apply(ModelRoute, "a/1", "x");
    let old = fixture.connect("one", Namespaces::All);
    old.answered(&answered(1));
    let new = fixture.connect("one", Namespaces::All);
    assert_eq!(fixture.programmed(ModelRoute, "a/1", &version), (0, 1));
    assert_eq!(fixture.acks.connected(), 2);
    let superseded: Vec<_> = fixture
        .acks
        .proxies()
        .iter()
        .map(|proxy| proxy.superseded)
        .collect();
    assert_eq!(superseded, [true, false]);
    drop(new);
    assert_eq!(fixture.programmed(ModelRoute, "a/1", &version), (1, 1));
    let new = fixture.connect("one", Namespaces::All);
    drop(old);
    assert_eq!(fixture.programmed(ModelRoute, "a/1", &version), (0, 1));
    drop(new);
    assert_eq!(fixture.programmed(ModelRoute, "a/1", &version), (0, 0));
}

#[test]
fn every_event_that_counts_is_announced() {
    let fixture = Fixture::new();
    let mut changed = fixture.acks.changed();
    let mut announced = || {
        let announced = changed.has_changed().unwrap();
        changed.mark_unchanged();
        announced
    };
    let one = fixture.connect("one", Namespaces::All);
    assert!(announced());
    one.sent();
    one.skipped(1);
    assert!(!announced());
    one.answered(&answered(2));
    assert!(announced());
    drop(one);
    assert!(announced());
}

#[test]
fn a_report_says_who_is_there_and_how_far_it_is() {
    let fixture = Fixture::new();
    fixture.apply(ModelRoute, "a/1", "x");
    let one = fixture.connect("one", only(&["b", "a"]));
    let report = &fixture.acks.proxies()[0];
    assert_eq!(report.name, "one");
    assert_eq!(report.namespaces, "a,b");
    assert_eq!(report.subscriptions, ["ModelServer/*", "ModelRoute/*"]);
    assert_eq!((report.generation, report.behind), (None, 1));
    assert_eq!(report.waiting_ms, None);
    one.sent();
    assert!(fixture.acks.proxies()[0].waiting_ms.is_some());
    one.answered(&answered(1));
    let report = &fixture.acks.proxies()[0];
    assert_eq!((report.generation, report.behind), (Some(1), 0));
    assert_eq!(report.waiting_ms, None);
}
