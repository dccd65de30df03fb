use bytes::Bytes;
use envoy_types::pb::google::protobuf::Any;

use super::*;
use crate::state::{Entry, Resource, TypeDiff};

use ResourceType::{Batch, Endpoint, ModelRoute, ModelServer, Secret};

fn subscription() -> Subscription {
    Subscription::new("c".into(), Namespaces::All, 3)
}

fn request(kind: ResourceType) -> Request {
    Request {
        type_url: kind.url().into(),
        ..Request::default()
    }
}

fn subscribe(kind: ResourceType, names: &[&str]) -> Request {
    Request {
        subscribe: names.iter().map(|&name| name.to_owned()).collect(),
        ..request(kind)
    }
}

fn answer(response: &Response) -> Request {
    Request {
        response_nonce: response.nonce.to_string(),
        ..request(response.kind)
    }
}

fn refuse(response: &Response, details: Vec<Any>) -> Request {
    let error = rpc::Status {
        code: 3,
        message: "does not compile".into(),
        details,
    };
    Request {
        error_detail: Some(error),
        ..answer(response)
    }
}

fn rejections(names: &[&str]) -> Vec<Any> {
    let rejection = |&name: &&str| RejectionMessage {
        name: name.into(),
        path: "spec.x".into(),
        message: "m".into(),
        remedy: "r".into(),
    };
    let message = RejectionsMessage {
        rejections: names.iter().map(rejection).collect(),
    };
    vec![Any {
        type_url: REJECTIONS_URL.into(),
        value: message.encode_to_vec(),
    }]
}

fn diff(generation: u64, upserts: &[(ResourceType, &str)]) -> Diff {
    let mut diff = Diff {
        generation,
        ..Diff::default()
    };
    for &(kind, name) in upserts {
        let resource = Resource::new(kind, name, "a", Bytes::from_static(b"x"));
        let entry = Arc::new(Entry {
            resource,
            generation,
        });
        diff.types[kind as usize].upserts.push(entry);
    }
    diff
}

/// Everything that is queued.
fn sent(subscription: &mut Subscription) -> Vec<Arc<Response>> {
    std::iter::from_fn(|| subscription.pop()).collect()
}

/// Opened, and with a first batch answered.
fn following() -> Subscription {
    let mut subscription = subscription();
    for kind in [ModelServer, Endpoint, ModelRoute, Batch] {
        subscription.receive(request(kind)).unwrap();
    }
    assert!(subscription.begin(diff(1, &[])));
    for response in sent(&mut subscription) {
        subscription.receive(answer(&response)).unwrap();
    }
    assert!(!subscription.is_waiting());
    subscription
}

fn names(refusals: &[Refusal]) -> Vec<&str> {
    refusals.iter().map(|refusal| &*refusal.name).collect()
}

#[test]
fn nothing_is_told_before_the_gateway_has_subscribed_to_everything() {
    let mut subscription = subscription();
    subscription.receive(request(ModelServer)).unwrap();
    subscription.receive(request(Endpoint)).unwrap();
    assert!(!subscription.wants(7));
    let received = subscription.receive(request(Batch)).unwrap();
    assert!(received.subscribed);
    assert!(subscription.wants(7));
    assert!(!subscription.receive(request(Batch)).unwrap().subscribed);
}

#[test]
fn a_gateway_without_subscriptions_is_told_so_with_an_empty_batch() {
    let mut subscription = subscription();
    subscription.receive(request(Batch)).unwrap();
    assert!(subscription.wants(0));
    assert!(subscription.begin(diff(0, &[])));
    let sent = sent(&mut subscription);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].kind, Batch);
    subscription.receive(answer(&sent[0])).unwrap();
    assert!(!subscription.wants(0));
}

#[test]
fn an_empty_first_list_and_a_star_mean_everything() {
    for first in [request(ModelRoute), subscribe(ModelRoute, &["*"])] {
        let mut subscription = subscription();
        assert!(subscription.receive(first).unwrap().subscribed);
        let interest = &subscription.interests()[ModelRoute as usize];
        assert!(interest.everything && interest.fresh_everything);
        assert!(interest.names.is_empty());
    }
}

#[test]
fn an_empty_later_list_means_nothing() {
    let mut subscription = subscription();
    subscription
        .receive(subscribe(ModelRoute, &["a/1"]))
        .unwrap();
    assert!(
        !subscription
            .receive(request(ModelRoute))
            .unwrap()
            .subscribed
    );
    assert!(!subscription.interests()[ModelRoute as usize].everything);
}

#[test]
fn secrets_are_never_subscribed_to_as_a_whole() {
    let mut subscription = subscription();
    subscription.receive(request(Secret)).unwrap();
    subscription
        .receive(subscribe(Secret, &["*", "a/1"]))
        .unwrap();
    let interest = &subscription.interests()[Secret as usize];
    assert!(!interest.everything);
    assert_eq!(interest.names, ["a/1".to_owned()].into());
}

#[test]
fn what_is_unsubscribed_is_no_longer_asked_for() {
    let mut subscription = following();
    subscription
        .receive(subscribe(Secret, &["a/1", "a/2"]))
        .unwrap();
    let unsubscribe = Request {
        unsubscribe: vec!["a/1".into()],
        ..request(Secret)
    };
    assert!(subscription.receive(unsubscribe).unwrap().subscribed);
    let everything = Request {
        unsubscribe: vec!["*".into()],
        ..request(Endpoint)
    };
    subscription.receive(everything).unwrap();
    let ask = subscription.ask();
    let secrets = &ask.interests[Secret as usize];
    assert_eq!(secrets.names, ["a/2".to_owned()].into());
    assert_eq!(secrets.fresh_names, secrets.names);
    assert!(!ask.interests[Endpoint as usize].everything);
}

#[test]
fn known_versions_count_in_the_first_request_of_a_type_only() {
    let mut subscription = subscription();
    let known = |version: &str| Request {
        initial_resource_versions: [("a/1".to_owned(), version.to_owned())].into(),
        ..request(ModelRoute)
    };
    subscription.receive(known("first")).unwrap();
    subscription.receive(known("second")).unwrap();
    let interest = &subscription.interests()[ModelRoute as usize];
    assert_eq!(interest.known["a/1"], "first");
}

#[test]
fn one_batch_is_out_at_a_time_and_the_next_follows_its_last_answer() {
    let mut subscription = following();
    assert!(!subscription.wants(1));
    assert!(subscription.wants(2));
    subscription.begin(diff(2, &[(ModelServer, "a/1"), (Endpoint, "a/1:1")]));
    assert!(!subscription.wants(3));
    let sent = sent(&mut subscription);
    assert_eq!(sent.len(), 3);
    for response in &sent[..2] {
        let received = subscription.receive(answer(response)).unwrap();
        assert_eq!(received.answer, Some(true));
        assert!(received.answered.is_none());
        assert!(!subscription.wants(3));
    }
    let received = subscription.receive(answer(&sent[2])).unwrap();
    let answered = received.answered.unwrap();
    assert_eq!(answered.generation, 2);
    assert!(answered.refusals.is_empty());
    assert!(subscription.wants(3));
    assert_eq!(subscription.ask().since, 2);
}

#[test]
fn what_concerns_others_only_is_passed_over_in_silence() {
    let mut subscription = following();
    assert!(!subscription.begin(diff(5, &[])));
    assert!(!subscription.is_waiting());
    assert!(!subscription.wants(5));
    assert_eq!(subscription.ask().since, 5);
}

#[test]
fn answers_to_what_is_not_outstanding_are_ignored_but_their_subscriptions_count() {
    let mut subscription = following();
    subscription.begin(diff(2, &[(ModelServer, "a/1")]));
    let sent = sent(&mut subscription);
    for nonce in ["1", "99", "18446744073709551615", "-1", "x"] {
        let stale = Request {
            response_nonce: nonce.into(),
            ..subscribe(Secret, &["a/s"])
        };
        let received = subscription.receive(stale).unwrap();
        assert_eq!(received.answer, None, "{nonce}");
        assert!(received.subscribed);
    }
    let wrong_type = Request {
        type_url: ModelRoute.url().into(),
        ..answer(&sent[0])
    };
    assert_eq!(subscription.receive(wrong_type).unwrap().answer, None);
    subscription.receive(answer(&sent[0])).unwrap();
    let again = subscription.receive(answer(&sent[0])).unwrap();
    assert_eq!(again.answer, None, "a second answer");
    assert!(subscription.is_waiting());
}

#[test]
fn what_is_not_sent_yet_cannot_be_answered() {
    let mut subscription = following();
    subscription.begin(diff(2, &[(ModelServer, "a/1")]));
    let first = subscription.pop().unwrap();
    let guessed = Request {
        response_nonce: (first.nonce + 1).to_string(),
        ..request(Batch)
    };
    assert_eq!(subscription.receive(guessed).unwrap().answer, None);
}

#[test]
fn a_no_names_what_it_refuses_among_what_was_sent() {
    let mut subscription = following();
    subscription.begin(diff(2, &[(ModelRoute, "a/1"), (ModelRoute, "a/2")]));
    let sent = sent(&mut subscription);
    let details = rejections(&["a/2", "a/2", "a/never-sent"]);
    let received = subscription.receive(refuse(&sent[0], details)).unwrap();
    assert_eq!(received.answer, Some(false));
    let answered = subscription
        .receive(answer(&sent[1]))
        .unwrap()
        .answered
        .unwrap();
    assert_eq!(names(&answered.refusals), ["a/2", "a/2"]);
    let refusal = &answered.refusals[0];
    assert_eq!(*refusal.version, *sent[0].upserts[1].resource.version);
    assert_eq!(
        (refusal.path.as_str(), refusal.remedy.as_str()),
        ("spec.x", "r")
    );
}

#[test]
fn a_no_may_name_what_came_in_another_response_of_its_type() {
    let mut subscription = following();
    let mut large = diff(2, &[]);
    let told: &mut TypeDiff = &mut large.types[Endpoint as usize];
    for name in ["a/1", "a/2"] {
        let resource = Resource::new(Endpoint, name, "a", vec![0; 60_000].into());
        told.upserts.push(Arc::new(Entry {
            resource,
            generation: 2,
        }));
    }
    subscription.begin(large);
    let sent = sent(&mut subscription);
    assert_eq!(sent.len(), 3);
    let mut last = None;
    for request in [
        answer(&sent[0]),
        refuse(&sent[1], rejections(&["a/1"])),
        answer(&sent[2]),
    ] {
        last = subscription.receive(request).unwrap().answered;
    }
    assert_eq!(names(&last.unwrap().refusals), ["a/1"]);
}

#[test]
fn a_no_without_readable_details_refuses_all_of_its_response() {
    let broken = vec![Any {
        type_url: REJECTIONS_URL.into(),
        value: vec![0xff],
    }];
    for details in [vec![], broken, rejections(&[])] {
        let mut subscription = following();
        subscription.begin(diff(
            2,
            &[
                (ModelServer, "a/1"),
                (ModelRoute, "a/1"),
                (ModelRoute, "a/2"),
            ],
        ));
        let sent = sent(&mut subscription);
        subscription.receive(answer(&sent[0])).unwrap();
        subscription.receive(refuse(&sent[1], details)).unwrap();
        let answered = subscription
            .receive(answer(&sent[2]))
            .unwrap()
            .answered
            .unwrap();
        assert_eq!(names(&answered.refusals), ["a/1", "a/2"]);
        assert!(
            answered
                .refusals
                .iter()
                .all(|refusal| refusal.kind == ModelRoute)
        );
        assert_eq!(answered.refusals[0].message, "does not compile");
    }
}

#[test]
fn a_no_to_the_end_of_a_batch_refuses_the_batch() {
    let mut subscription = following();
    subscription.begin(diff(2, &[(ModelServer, "a/1"), (ModelRoute, "a/2")]));
    let sent = sent(&mut subscription);
    subscription.receive(answer(&sent[0])).unwrap();
    subscription.receive(answer(&sent[1])).unwrap();
    let received = subscription.receive(refuse(&sent[2], vec![])).unwrap();
    assert_eq!(names(&received.answered.unwrap().refusals), ["a/1", "a/2"]);
}

#[test]
fn a_type_of_a_newer_gateway_is_passed_over() {
    let mut subscription = subscription();
    let received = subscription.receive(Request {
        type_url: "type.googleapis.com/sluice.push.v9.Dream".into(),
        ..Request::default()
    });
    assert!(received.unwrap().unknown_type);
}

#[test]
fn names_are_bounded_in_number_and_length() {
    let mut subscription = subscription();
    subscription
        .receive(subscribe(Secret, &["a/1", "a/2", "a/3", "a/3"]))
        .unwrap();
    let error = subscription
        .receive(subscribe(Secret, &["a/4"]))
        .unwrap_err();
    let expected = RequestError::TooManyNames {
        kind: Secret,
        limit: 3,
    };
    assert_eq!(error, expected);
    let long = "a".repeat(MAX_NAME_BYTES + 1);
    let error = subscription
        .receive(subscribe(Secret, &[&long]))
        .unwrap_err();
    assert_eq!(error, RequestError::LongName(MAX_NAME_BYTES + 1));
}
