use envoy_types::pb::envoy::service::discovery::v3::Resource;
use envoy_types::pb::google::protobuf::Any;
use proptest::prelude::*;
use prost::Message;
use sluice_config::push::{BATCH, REJECTIONS_URL, RejectionMessage, RejectionsMessage, Upsert};

use super::*;

fn resource(kind: ResourceType, name: &str, value: &[u8]) -> Resource {
    Resource {
        name: name.to_owned(),
        version: "1".to_owned(),
        resource: Some(Any {
            type_url: kind.url().to_owned(),
            value: value.to_vec(),
        }),
        ..Resource::default()
    }
}

fn response(kind: ResourceType, nonce: &str, resources: Vec<Resource>) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        type_url: kind.url().to_owned(),
        nonce: nonce.to_owned(),
        resources,
        ..DeltaDiscoveryResponse::default()
    }
}

fn end(generation: u64) -> DeltaDiscoveryResponse {
    let message = BatchMessage {
        generation,
        changed_at: 0,
        control: "c".to_owned(),
    };
    let kind = ResourceType::Batch;
    response(
        kind,
        "end",
        vec![resource(kind, BATCH, &message.encode_to_vec())],
    )
}

fn client() -> Client {
    Client::start(&NodeParams::default(), &Known::default()).0
}

/// The batch that these responses make.
fn collect(client: &mut Client, responses: Vec<DeltaDiscoveryResponse>) -> Collected {
    let mut collected = None;
    for response in responses {
        assert!(collected.is_none(), "ended too soon");
        collected = client.take(response).unwrap();
    }
    collected.unwrap()
}

/// `nonce: findings` of each answer to a batch.
fn answers(
    client: &mut Client,
    responses: Vec<DeltaDiscoveryResponse>,
    refusals: &[Refusal],
) -> Vec<(String, Vec<RejectionMessage>)> {
    let Collected {
        batch, receipts, ..
    } = collect(client, responses);
    let requests = client.settle(receipts, &batch, refusals, &BTreeSet::new());
    let findings = |request: &DeltaDiscoveryRequest| {
        let details = request
            .error_detail
            .as_ref()
            .map(|status| &status.details[0]);
        details.map_or_else(Vec::new, |details| {
            assert_eq!(details.type_url, REJECTIONS_URL);
            RejectionsMessage::decode(details.value.as_slice())
                .unwrap()
                .rejections
        })
    };
    let answers = requests.iter();
    answers
        .map(|one| (one.response_nonce.clone(), findings(one)))
        .collect()
}

#[test]
fn the_first_requests_name_what_is_known_and_end_with_the_end() {
    let mut known = Known::default();
    known.versions[ResourceType::ModelRoute as usize] = vec![("a/r".into(), "7".into())];
    let node = NodeParams {
        id: "ns/pod".into(),
        namespaces: vec!["a".into()],
    };
    let (_, requests) = Client::start(&node, &known);
    let urls: Vec<_> = requests.iter().map(|one| one.type_url.as_str()).collect();
    let all = ResourceType::ALL.into_iter();
    let without_secrets: Vec<_> = all
        .filter(|kind| *kind != ResourceType::Secret)
        .map(ResourceType::url)
        .collect();
    assert_eq!(urls, without_secrets);
    assert!(
        requests
            .iter()
            .all(|one| one.resource_names_subscribe == ["*"])
    );
    let node = requests[0].node.as_ref().unwrap();
    assert_eq!(node.id, "ns/pod");
    assert!(
        node.metadata
            .as_ref()
            .unwrap()
            .fields
            .contains_key("namespaces")
    );
    assert!(requests[1..].iter().all(|one| one.node.is_none()));
    let routes = requests
        .iter()
        .find(|one| one.type_url == ResourceType::ModelRoute.url());
    assert_eq!(routes.unwrap().initial_resource_versions["a/r"], "7");
}

#[test]
fn secrets_are_asked_for_by_name_and_as_others_are_needed() {
    let mut known = Known {
        wanted_secrets: Arc::new(["a/one".to_owned()].into()),
        ..Known::default()
    };
    known.versions[ResourceType::Secret as usize] = vec![("a/one".into(), "7".into())];
    let (mut client, requests) = Client::start(&NodeParams::default(), &known);
    let is_secrets = |one: &&DeltaDiscoveryRequest| one.type_url == ResourceType::Secret.url();
    let first = requests.iter().find(is_secrets).unwrap();
    assert_eq!(first.resource_names_subscribe, ["a/one"]);
    assert_eq!(first.initial_resource_versions["a/one"], "7");
    let mut settle = |wanted: &[&str]| {
        let Collected {
            batch, receipts, ..
        } = collect(&mut client, vec![end(1)]);
        let wanted = wanted.iter().map(ToString::to_string).collect();
        client.settle(receipts, &batch, &[], &wanted)
    };
    let changed = settle(&["a/two"]);
    let change = changed.iter().find(is_secrets).unwrap();
    assert_eq!(change.resource_names_subscribe, ["a/two"]);
    assert_eq!(change.resource_names_unsubscribe, ["a/one"]);
    assert!(!settle(&["a/two"]).iter().any(|one| is_secrets(&one)));
}

#[test]
fn a_batch_is_whole_only_with_its_end_and_every_response_is_answered_then() {
    let mut client = client();
    let server = response(
        ResourceType::ModelServer,
        "1",
        vec![resource(ResourceType::ModelServer, "a/s", b"x")],
    );
    let mut endpoints = response(ResourceType::Endpoint, "2", Vec::new());
    endpoints.removed_resources = vec!["a/p:1".into()];
    assert!(client.take(server).unwrap().is_none());
    assert!(client.is_collecting());
    assert!(client.take(endpoints).unwrap().is_none());
    let collected = client.take(end(7)).unwrap().unwrap();
    assert!(!client.is_collecting());
    assert_eq!(collected.end.generation, 7);
    let upsert = Upsert {
        kind: ResourceType::ModelServer,
        name: "a/s".into(),
        version: "1".into(),
        value: b"x".to_vec(),
    };
    assert_eq!(collected.batch.upserts, [upsert]);
    assert_eq!(
        collected.batch.removals,
        [(ResourceType::Endpoint, "a/p:1".into())]
    );
    let answers = client.settle(collected.receipts, &collected.batch, &[], &BTreeSet::new());
    let nonces: Vec<_> = answers
        .iter()
        .map(|one| one.response_nonce.as_str())
        .collect();
    assert_eq!(nonces, ["1", "2", "end"]);
    assert!(answers.iter().all(|one| one.error_detail.is_none()));
    assert_eq!(answers[0].type_url, ResourceType::ModelServer.url());
}

#[test]
fn what_is_refused_is_told_in_the_answer_to_its_own_response() {
    let mut client = client();
    let route = |name: &str| resource(ResourceType::ModelRoute, name, b"x");
    let responses = vec![
        response(
            ResourceType::ModelRoute,
            "1",
            vec![route("a/one"), route("a/two")],
        ),
        response(ResourceType::ModelRoute, "2", vec![route("a/three")]),
        end(1),
    ];
    let refusal = |item: usize, path: &str| Refusal {
        item,
        path: path.into(),
        message: "no".into(),
        remedy: "yes".into(),
    };
    let refusals = [refusal(1, "spec.a"), refusal(1, "spec.b"), refusal(2, "")];
    let answers = answers(&mut client, responses, &refusals);
    let told: Vec<Vec<(&str, &str)>> = answers
        .iter()
        .map(|(_, findings)| {
            findings
                .iter()
                .map(|one| (&*one.name, &*one.path))
                .collect()
        })
        .collect();
    assert_eq!(
        told,
        [
            vec![("a/two", "spec.a"), ("a/two", "spec.b")],
            vec![("a/three", "")],
            vec![]
        ]
    );
}

#[test]
fn garbage_is_refused_by_name_and_the_rest_goes_on() {
    let mut client = client();
    let good = resource(ResourceType::Endpoint, "a/good:1", b"x");
    let none = Resource {
        resource: None,
        ..resource(ResourceType::Endpoint, "a/none:1", b"")
    };
    let other = resource(ResourceType::Peer, "a/other:1", b"x");
    let large = resource(ResourceType::Endpoint, "a/large:1", &vec![0; 5 << 20]);
    let mut endpoints = response(
        ResourceType::Endpoint,
        "1",
        vec![good.clone(), good, none, other, large],
    );
    endpoints.removed_resources = vec!["a/gone:1".into(), "a/gone:1".into()];
    let unknown = DeltaDiscoveryResponse {
        type_url: "type.googleapis.com/Other".into(),
        nonce: "2".into(),
        ..DeltaDiscoveryResponse::default()
    };
    let Collected {
        batch, receipts, ..
    } = collect(&mut client, vec![endpoints, unknown, end(1)]);
    assert_eq!((batch.upserts.len(), batch.removals.len()), (1, 1));
    let requests = client.settle(receipts, &batch, &[], &BTreeSet::new());
    let status = requests[0].error_detail.as_ref().unwrap();
    assert_eq!(status.code, 3);
    let told = RejectionsMessage::decode(status.details[0].value.as_slice()).unwrap();
    let told: Vec<String> = told
        .rejections
        .iter()
        .map(|one| format!("{}: {}", one.name, one.message))
        .collect();
    assert_eq!(
        told,
        [
            "a/gone:1: it stands twice in one batch: only the first counts",
            "a/good:1: it stands twice in one batch: only the first counts",
            "a/none:1: it has no value",
            "a/other:1: its value is a `type.googleapis.com/sluice.push.v1.Peer`",
            "a/large:1: it is larger than 4 MiB",
        ]
    );
    assert!(
        status.message.ends_with("(and 4 more)"),
        "{}",
        status.message
    );
    assert!(requests[1].error_detail.is_some());
    assert!(requests[2].error_detail.is_none());
}

#[test]
fn an_end_that_cannot_be_read_is_an_end_all_the_same() {
    let kind = ResourceType::Batch;
    for wrong in [
        response(kind, "end", Vec::new()),
        response(kind, "end", vec![resource(kind, BATCH, &[0xff; 9])]),
        response(kind, "end", vec![resource(kind, "other", b"")]),
    ] {
        let mut client = client();
        let answers = answers(&mut client, vec![wrong], &[]);
        assert_eq!(answers.len(), 1);
        assert_eq!(answers[0].1.len(), 1, "{answers:?}");
    }
}

#[test]
fn more_than_can_be_held_ends_the_stream() {
    let mut client = client();
    let mut outcome = Ok(None);
    for number in 0..70 {
        let value = vec![0; 4 << 20];
        let one = resource(ResourceType::Endpoint, &format!("a/{number}:1"), &value);
        outcome = client
            .take(response(ResourceType::Endpoint, "1", vec![one]))
            .map(|_| None::<()>);
        if outcome.is_err() {
            break;
        }
    }
    assert_eq!(outcome.unwrap_err(), TooMuch);
}

#[test]
fn answers_are_bounded_however_much_was_wrong() {
    let mut client = client();
    let resources = (0..3000).map(|number| Resource {
        name: format!("{number}/{}", "x".repeat(1000)),
        ..Resource::default()
    });
    let answer = response(ResourceType::Endpoint, "1", resources.collect());
    let Collected {
        batch, receipts, ..
    } = collect(&mut client, vec![answer, end(1)]);
    let requests = client.settle(receipts, &batch, &[], &BTreeSet::new());
    assert!(
        requests[0].encoded_len() < 1 << 20,
        "{}",
        requests[0].encoded_len()
    );
}

/// Any response, in and out of order.
fn any_response() -> impl Strategy<Value = DeltaDiscoveryResponse> {
    let url = prop_oneof![
        8 => (0..ResourceType::ALL.len()).prop_map(|kind| ResourceType::ALL[kind].url().to_owned()),
        1 => ".{0,12}",
    ];
    let value = prop::option::of((url.clone(), prop::collection::vec(any::<u8>(), 0..8)));
    let resource = ("[ab/]{0,3}|batch", value).prop_map(|(name, value)| Resource {
        name,
        resource: value.map(|(type_url, value)| Any { type_url, value }),
        ..Resource::default()
    });
    let resources = prop::collection::vec(resource, 0..4);
    let removed = prop::collection::vec("[ab/]{0,3}", 0..3);
    (url, resources, removed, ".{0,4}").prop_map(
        |(type_url, resources, removed_resources, nonce)| DeltaDiscoveryResponse {
            type_url,
            resources,
            removed_resources,
            nonce,
            ..DeltaDiscoveryResponse::default()
        },
    )
}

proptest! {
    #[test]
    fn any_sequence_of_responses_is_answered_one_by_one(
        responses in prop::collection::vec(any_response(), 0..20),
    ) {
        let mut client = client();
        let mut unanswered = Vec::new();
        for response in responses {
            unanswered.push(response.nonce.clone());
            if let Some(collected) = client.take(response).unwrap() {
                let Collected { batch, receipts, .. } = collected;
                let answers = client.settle(receipts, &batch, &[], &BTreeSet::new());
                let nonces: Vec<_> = answers.iter().map(|one| one.response_nonce.clone()).collect();
                prop_assert_eq!(&nonces, &unanswered);
                unanswered.clear();
                let mut names: Vec<_> = batch.removals.clone();
                names.extend(batch.upserts.iter().map(|one| (one.kind, one.name.clone())));
                let count = names.len();
                names.sort();
                names.dedup();
                prop_assert_eq!(names.len(), count, "a name stands in a batch once");
            }
        }
    }
}
