//! What a gateway that does everything right is told, and when.

use futures::future::join_all;
use sluice_config::push::{RejectionMessage, ResourceType};

use crate::bed::{Bed, SEEN_AT_MICROSECONDS, change, resource, seen_at};
use crate::gateway::{Gateway, Introduction, WILDCARD_TYPES, answer, refusal};

use ResourceType::{Endpoint, ModelRoute, ModelServer, Secret};

#[tokio::test]
async fn the_first_batch_holds_the_state_in_the_order_of_types() {
    let bed = Bed::start().await;
    bed.apply(&[
        (ModelRoute, "a/r", "r"),
        (Endpoint, "a/p:1", "e"),
        (ModelServer, "a/s", "s"),
    ]);
    let mut gateway = bed.gateway("one").await;
    gateway.subscribe_to_all().await;
    let batch = gateway.collect().await;
    let expected = [
        (ModelServer, "a/s"),
        (Endpoint, "a/p:1"),
        (ModelRoute, "a/r"),
    ]
    .map(|(kind, name)| (kind, name.to_owned(), bed.version(kind, name)));
    assert_eq!(batch.upserts(), expected);
    assert_eq!(batch.values()[2], ("a/r".to_owned(), "r".to_owned()));
    assert_eq!((batch.end.generation, batch.end.changed_at), (1, 0));
    assert_eq!(batch.end.control, "control-0");
    assert_eq!(bed.programmed(ModelRoute, "a/r").acknowledged, 0);
    gateway.accept(&batch).await;
    bed.until(|bed| bed.programmed(ModelRoute, "a/r").acknowledged == 1)
        .await;
}

#[tokio::test]
async fn an_empty_state_is_told_too() {
    let bed = Bed::start().await;
    let mut gateway = bed.gateway("one").await;
    gateway.subscribe_to_all().await;
    assert!(gateway.follow().await.is_empty());
}

#[tokio::test]
async fn a_change_flows_alone_and_says_when_it_was_seen() {
    let bed = Bed::start().await;
    bed.apply(&[(ModelRoute, "a/1", "x"), (ModelRoute, "a/2", "x")]);
    let mut gateway = bed.synced_gateway("one").await;
    let generation = bed.apply(&[(ModelRoute, "a/2", "y"), (ModelRoute, "a/1", "x")]);
    let batch = gateway.follow().await;
    assert_eq!(batch.values(), [("a/2".to_owned(), "y".to_owned())]);
    assert_eq!(batch.end.generation, generation);
    assert_eq!(batch.end.changed_at, SEEN_AT_MICROSECONDS);
}

#[tokio::test]
async fn what_is_gone_is_removed() {
    let bed = Bed::start().await;
    bed.apply(&[(ModelRoute, "a/1", "x"), (Endpoint, "a/p:1", "x")]);
    let mut gateway = bed.synced_gateway("one").await;
    bed.remove(&[(Endpoint, "a/p:1"), (Endpoint, "a/never:1")]);
    let batch = gateway.follow().await;
    assert_eq!(batch.removals(), [(Endpoint, "a/p:1".to_owned())]);
    assert!(batch.upserts().is_empty());
    assert_eq!(gateway.has.len(), 1);
}

#[tokio::test]
async fn a_server_and_its_endpoints_come_in_one_batch() {
    let bed = Bed::start().await;
    let mut gateway = bed.synced_gateway("one").await;
    let upserts = [(Endpoint, "a/p:1", "e"), (ModelServer, "a/s", "s")];
    bed.state.apply(change(&upserts, &[]));
    let batch = gateway.follow().await;
    let kinds: Vec<_> = batch
        .responses
        .iter()
        .map(|response| &*response.type_url)
        .collect();
    let expected = [ModelServer, Endpoint, ResourceType::Batch].map(ResourceType::url);
    assert_eq!(kinds, expected);
}

#[tokio::test]
async fn after_a_reconnect_only_the_difference_flows() {
    let bed = Bed::start().await;
    bed.apply(&[
        (ModelRoute, "a/same", "x"),
        (ModelRoute, "a/changed", "x"),
        (Endpoint, "a/gone:1", "x"),
    ]);
    let has = bed.synced_gateway("one").await.disconnect();
    bed.apply(&[(ModelRoute, "a/changed", "y"), (ModelServer, "a/new", "x")]);
    bed.remove(&[(Endpoint, "a/gone:1")]);
    let mut gateway = bed.gateway("one").await;
    gateway.has = has;
    gateway.subscribe_to_all().await;
    let batch = gateway.follow().await;
    let upserts: Vec<_> = batch
        .upserts()
        .into_iter()
        .map(|(_, name, _)| name)
        .collect();
    assert_eq!(upserts, ["a/new", "a/changed"]);
    assert_eq!(batch.removals(), [(Endpoint, "a/gone:1".to_owned())]);
    bed.until(|bed| bed.programmed(ModelRoute, "a/same").acknowledged == 1)
        .await;
}

#[tokio::test]
async fn a_gateway_that_answers_late_skips_what_lay_between() {
    let bed = Bed::start().await;
    bed.apply(&[(ModelRoute, "a/1", "0")]);
    let mut gateway = bed.gateway("one").await;
    gateway.subscribe_to_all().await;
    let first = gateway.collect().await;
    for value in ["1", "2", "3"] {
        bed.apply(&[(ModelRoute, "a/1", value), (ModelRoute, "a/2", value)]);
    }
    bed.remove(&[(ModelRoute, "a/2")]);
    gateway.accept(&first).await;
    let batch = gateway.follow().await;
    assert_eq!(batch.values(), [("a/1".to_owned(), "3".to_owned())]);
    assert_eq!(batch.removals(), [(ModelRoute, "a/2".to_owned())]);
    assert_eq!(batch.end.generation, 5);
}

#[tokio::test]
async fn a_refusal_is_known_by_its_path_and_holds_up_nothing_else() {
    let bed = Bed::start().await;
    let mut gateway = bed.synced_gateway("one").await;
    bed.apply(&[(ModelRoute, "a/bad", "x"), (ModelRoute, "a/good", "x")]);
    let batch = gateway.collect().await;
    let rejection = RejectionMessage {
        name: "a/bad".into(),
        path: "spec.rules[0]".into(),
        message: "no target".into(),
        remedy: "name one".into(),
    };
    gateway.send(refusal(&batch.responses[0], rejection)).await;
    gateway.send(answer(&batch.responses[1])).await;
    bed.until(|bed| bed.programmed(ModelRoute, "a/good").acknowledged == 1)
        .await;
    let programmed = bed.programmed(ModelRoute, "a/bad");
    assert_eq!((programmed.connected, programmed.acknowledged), (1, 0));
    assert_eq!(programmed.refusing, 1);
    let found = programmed.findings.first().unwrap();
    assert_eq!(found.path, "spec.rules[0]");
    assert_eq!(
        (found.message.as_str(), found.remedy.as_str()),
        ("no target", "name one")
    );

    bed.apply(&[(ModelRoute, "a/bad", "mended")]);
    gateway.follow().await;
    bed.until(|bed| bed.programmed(ModelRoute, "a/bad").acknowledged == 1)
        .await;
    assert_eq!(bed.programmed(ModelRoute, "a/bad").refusing, 0);
}

#[tokio::test]
async fn a_secret_is_sent_to_those_who_name_it_only() {
    let bed = Bed::start().await;
    bed.apply(&[(Secret, "a/key", "k"), (Secret, "a/other", "o")]);
    let mut gateway = bed.gateway("one").await;
    gateway.subscribe(Secret, &["*"]).await;
    gateway.subscribe_to_all().await;
    assert!(gateway.follow().await.is_empty());
    gateway.subscribe(Secret, &["a/key", "a/missing"]).await;
    let batch = gateway.follow().await;
    assert_eq!(batch.values(), [("a/key".to_owned(), "k".to_owned())]);
    assert_eq!(batch.removals(), [(Secret, "a/missing".to_owned())]);
    bed.apply(&[(Secret, "a/other", "p"), (Secret, "a/missing", "m")]);
    assert_eq!(
        gateway.follow().await.values(),
        [("a/missing".to_owned(), "m".to_owned())]
    );
    gateway.unsubscribe(Secret, &["a/key"]).await;
    let wants = |bed: &Bed| bed.push.acks().proxies()[0].subscriptions.concat();
    bed.until(|bed| !wants(bed).contains("a/key")).await;
    bed.apply(&[(Secret, "a/key", "new"), (ModelRoute, "a/1", "x")]);
    assert_eq!(
        gateway.follow().await.values(),
        [("a/1".to_owned(), "x".to_owned())]
    );
}

#[tokio::test]
async fn a_gateway_may_ask_for_fewer_namespaces_than_it_is_allowed() {
    let bed = Bed::start().await;
    bed.apply(&[(ModelRoute, "a/1", "x"), (ModelRoute, "b/1", "x")]);
    let introduction = Introduction {
        namespaces: vec!["b", "c"],
        ..Introduction::default()
    };
    let mut gateway = Gateway::introduced(bed.address, "one", introduction)
        .await
        .unwrap();
    gateway.subscribe_to_all().await;
    assert_eq!(
        gateway.follow().await.values(),
        [("b/1".to_owned(), "x".to_owned())]
    );
    assert_eq!(bed.programmed(ModelRoute, "a/1").connected, 0);
}

#[tokio::test]
async fn a_large_state_comes_in_pieces_of_which_none_is_lost() {
    let bed = Bed::start().await;
    let names: Vec<_> = (0..500).map(|number| format!("a/p{number:03}:1")).collect();
    let upserts = names
        .iter()
        .map(|name| resource(Endpoint, name, &[b'x'; 2000]));
    bed.state.apply(sluice_control::state::Change {
        upserts: upserts.collect(),
        removals: vec![],
        seen_at: seen_at(),
    });
    let mut gateway = bed.gateway("one").await;
    gateway.subscribe_to_all().await;
    let batch = gateway.follow().await;
    let received: Vec<_> = batch
        .upserts()
        .into_iter()
        .map(|(_, name, _)| name)
        .collect();
    assert_eq!(received, names);
    for response in &batch.responses {
        let bytes: usize = response.resources.iter().map(|_| 2000).sum();
        assert!(bytes <= 256 * 1024, "{bytes}");
    }
    assert!(batch.responses.len() > 5);
    bed.until(|bed| bed.programmed(Endpoint, "a/p000:1").acknowledged == 1)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_gateways_follow() {
    let bed = Bed::start().await;
    bed.apply(&[(ModelRoute, "a/1", "x"), (Endpoint, "a/p:1", "x")]);
    let names: Vec<_> = (0..200).map(|number| format!("gateway-{number}")).collect();
    let mut gateways = join_all(names.iter().map(|name| bed.synced_gateway(name))).await;
    bed.until(|bed| bed.programmed(ModelRoute, "a/1").acknowledged == 200)
        .await;
    bed.apply(&[(ModelRoute, "a/1", "y")]);
    let batches = join_all(gateways.iter_mut().map(Gateway::follow)).await;
    for batch in batches {
        assert_eq!(batch.values(), [("a/1".to_owned(), "y".to_owned())]);
    }
    bed.until(|bed| bed.programmed(ModelRoute, "a/1").acknowledged == 200)
        .await;
    let proxies = bed.push.acks().proxies();
    assert!(
        proxies
            .iter()
            .all(|proxy| proxy.version == "1.2.3" && proxy.generation == Some(2))
    );
    assert_eq!(proxies[0].subscriptions.len(), WILDCARD_TYPES.len());
    drop(gateways);
    bed.until(|bed| bed.push.acks().connected() == 0).await;
}
