//! What is wrong on the stream: refused by name and with the field, while all else goes on.

use proptest::prelude::*;
use sluice_config::push::{
    Batch, DocumentMessage, EndpointMessage, PeerMessage, ResourceType, Upsert,
};

use crate::bed::{Bed, With, endpoint, endpoint_message, provider, route, secret, server, upsert};

/// `path: message` of the refusals of one resource, pushed beside a good one that is in force afterwards.
fn refusals(wrong: Upsert) -> Vec<String> {
    let mut bed = Bed::new();
    bed.put(&[provider("p", "key")]);
    let applied = bed.put(&[endpoint("good", "10.0.0.1", &["s"]), wrong, server("s")]);
    assert_eq!(
        bed.addresses("s")[0],
        "10.0.0.1:8000",
        "the rest is in force"
    );
    assert_eq!(
        applied.update.rejected,
        usize::from(!applied.refusals.is_empty())
    );
    assert!(
        applied
            .refusals
            .iter()
            .all(|refusal| refusal.item == 1 && !refusal.remedy.is_empty())
    );
    let texts = applied.refusals.iter();
    let texts = texts.map(|refusal| format!("{}: {}", refusal.path, refusal.message));
    texts.collect()
}

fn wrong_endpoint(change: impl FnOnce(&mut EndpointMessage)) -> Vec<String> {
    let mut message = endpoint_message("p", "10.0.0.2", &["s"]);
    change(&mut message);
    refusals(upsert(ResourceType::Endpoint, "default/p:8000", &message))
}

#[test]
fn endpoints_that_nobody_can_connect_to_are_refused() {
    assert_eq!(wrong_endpoint(|_| {}), Vec::<String>::new());
    assert_eq!(
        wrong_endpoint(|message| message.port = 70_000),
        ["port: the port 70000 is out of range"]
    );
    assert_eq!(
        wrong_endpoint(|message| message.port = 0),
        ["port: the port 0 is out of range"]
    );
    assert_eq!(
        wrong_endpoint(|message| message.host.clear()),
        ["host: \"\" is not an IP address"]
    );
    assert_eq!(
        wrong_endpoint(|message| message.memberships.clear()),
        ["memberships: it is in 0 pools, 1 to 256 are allowed"]
    );
    assert_eq!(
        wrong_endpoint(|message| message.memberships[0].role = 9),
        ["memberships[0].role: role 9 is not known"]
    );
    assert_eq!(
        wrong_endpoint(|message| message.memberships.push(message.memberships[0].clone())),
        ["memberships[1].server: the pool `s` stands there twice"]
    );
    assert_eq!(
        wrong_endpoint(|message| message.pod = "other".into()),
        [": it says that it is default/other:8000"]
    );
}

#[test]
fn documents_are_refused_with_the_path_of_the_field() {
    let wrong = route("r", "2025-01-01T00:00:00Z", &[("s", 1)]);
    let weight = wrong.clone().with(
        "spec.rules",
        r#"[{"targetModels": [{"modelServerName": "s", "weight": 0}]}]"#,
    );
    assert_eq!(
        refusals(weight),
        ["spec.rules[0].targetModels: the weights of the targets add up to zero"]
    );
    let misspelt = wrong.clone().with("spec.modelNam", r#""x""#);
    assert_eq!(
        refusals(misspelt),
        ["spec.modelNam: unknown field `modelNam`"]
    );
    let renamed = wrong.clone().with("metadata.name", r#""x""#);
    assert_eq!(
        refusals(renamed),
        [": it says that it is ModelRoute default/x"]
    );
    let other_kind = Upsert {
        kind: ResourceType::ModelServer,
        ..wrong.clone()
    };
    assert_eq!(
        refusals(other_kind),
        [": it says that it is ModelRoute default/r"]
    );
    let foreign = wrong
        .with("apiVersion", r#""apps/v1""#)
        .with("kind", r#""Deployment""#);
    assert_eq!(
        refusals(foreign),
        ["kind: ignored: kind Deployment of apps/v1"]
    );
    let text = DocumentMessage { json: "{".into() };
    let broken = upsert(ResourceType::ModelRoute, "default/r", &text);
    assert!(refusals(broken)[0].starts_with(": not JSON: "));
}

#[test]
fn bytes_that_are_no_message_and_absurd_sizes_are_refused() {
    let garbage = |kind: ResourceType, value: Vec<u8>| Upsert {
        kind,
        name: "default/x".into(),
        version: "1".into(),
        value,
    };
    for kind in ResourceType::ALL {
        let found = refusals(garbage(kind, vec![0xff; 40]));
        assert_eq!(found.len(), 1, "{kind:?}: {found:?}");
    }
    let large = DocumentMessage {
        json: " ".repeat(3 << 20),
    };
    let found = refusals(upsert(ResourceType::ModelRoute, "default/x", &large));
    assert_eq!(found, [": it is larger than 2 MiB"]);
    let deep = DocumentMessage {
        json: "[".repeat(100_000),
    };
    let found = refusals(upsert(ResourceType::ModelRoute, "default/x", &deep));
    assert!(found[0].contains("recursion limit"), "{found:?}");
    let long = Upsert {
        name: "x".repeat(1000),
        ..server("x")
    };
    assert!(refusals(long)[0].contains("longer than 600 bytes"));
}

#[test]
fn secrets_and_peers_must_be_who_they_say() {
    let renamed = Upsert {
        name: "default/key".into(),
        ..secret("other", "x")
    };
    assert_eq!(refusals(renamed), [": it says that it is default/other"]);
    let peer = PeerMessage {
        namespace: "default".into(),
        pod: "p".into(),
        host: "nowhere".into(),
        ..PeerMessage::default()
    };
    let found = refusals(upsert(ResourceType::Peer, "default/p", &peer));
    assert_eq!(found, ["host: \"nowhere\" is not an IP address"]);
}

#[test]
fn the_last_good_version_stays_and_is_the_one_that_is_named() {
    let mut bed = Bed::new();
    let good = route("r", "2025-01-01T00:00:00Z", &[("s", 1)]);
    bed.put(&[server("s"), good.clone(), endpoint("a", "10.0.0.1", &["s"])]);
    let mut moved = endpoint_message("a", "10.0.0.2", &["s"]);
    moved.memberships[0].role = 9;
    let applied = bed.put(&[
        good.clone().with("spec.rules", "[{}]"),
        upsert(ResourceType::Endpoint, "default/a:8000", &moved),
    ]);
    assert!(!applied.update.changed);
    assert_eq!(bed.catalog.refused().count(), 2);
    assert_eq!(applied.update.problems.len(), 2);
    assert_eq!(bed.addresses("s"), ["10.0.0.1:8000"]);
    let named: Vec<_> = bed.catalog.versions(ResourceType::ModelRoute).collect();
    assert_eq!(named, [("default/r".to_owned(), good.version.clone())]);
    // Mended, and removed.
    let applied = bed.put(&[good]);
    assert_eq!(applied.update.problems.len(), 1);
    bed.remove(ResourceType::Endpoint, "default/a:8000");
    assert_eq!(bed.catalog.refused().count(), 0);
    assert!(bed.addresses("s").is_empty());
}

proptest! {
    #[test]
    fn random_bytes_of_any_type_never_panic(
        resources in prop::collection::vec((0..7_usize, "[a-c/:]{0,6}", prop::collection::vec(any::<u8>(), 0..60)), 0..20),
    ) {
        let mut bed = Bed::new();
        let upserts = resources.into_iter().map(|(kind, name, value)| Upsert {
            kind: ResourceType::ALL[kind],
            version: "1".into(),
            name,
            value,
        });
        let batch = Batch { upserts: upserts.collect(), removals: vec![(ResourceType::Batch, "x".into())] };
        let removals = batch.upserts.iter().map(|one| (one.kind, one.name.clone())).collect();
        bed.push(&batch);
        bed.push(&Batch { upserts: Vec::new(), removals });
        prop_assert!(bed.snapshot().servers.is_empty());
    }

    #[test]
    fn a_flipped_byte_of_a_good_resource_never_panics(at in any::<prop::sample::Index>(), bit in 0..8_u8, which in 0..5_usize) {
        let good = [
            server("s"),
            route("r", "2025-01-01T00:00:00Z", &[("s", 1)]),
            endpoint("a", "10.0.0.1", &["s"]),
            provider("p", "key"),
            secret("key", "x"),
        ];
        let mut bed = Bed::new();
        bed.put(&good);
        let mut wrong = good[which].clone();
        let place = at.index(wrong.value.len());
        wrong.value[place] ^= 1 << bit;
        bed.put(&[wrong]);
        prop_assert_eq!(bed.snapshot().servers.len(), 1);
    }
}
