use prost::Message;

use std::collections::BTreeMap;

use super::*;

/// As hexadecimal digits, to be held against what other programs write.
fn hex(message: &impl Message) -> String {
    message
        .encode_to_vec()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[test]
fn every_type_is_found_by_its_url_and_sent_in_one_order() {
    for (position, kind) in ResourceType::ALL.into_iter().enumerate() {
        assert_eq!(ResourceType::from_url(kind.url()), Some(kind));
        assert!(kind.url().ends_with(kind.name()));
        assert_eq!(kind as usize, position);
    }
    assert_eq!(ResourceType::from_url("type.googleapis.com/Other"), None);
}

#[test]
fn an_endpoint_is_encoded_as_ever() {
    let endpoint = EndpointMessage {
        namespace: "a".into(),
        pod: "p".into(),
        uid: "u".into(),
        host: "10.0.0.1".into(),
        port: 8000,
        memberships: vec![MembershipMessage {
            server: "s".into(),
            role: RoleMessage::Decode.into(),
            pd_group: "g".into(),
        }],
        labels: BTreeMap::from([("k".into(), "v".into())]),
        revision: "r".into(),
        node: "n".into(),
        zone: "z".into(),
        draining: true,
        topology: BTreeMap::new(),
    };
    let want = "0a0161120170\
                1a0175220831302e302e302e3128c03e32080a017310021a01673a060a016b1201764201724a016e52017a5801";
    assert_eq!(hex(&endpoint), want);
    let bytes = endpoint.encode_to_vec();
    assert_eq!(EndpointMessage::decode(bytes.as_slice()).unwrap(), endpoint);
}

#[test]
fn documents_batches_peers_and_rejections_are_encoded_as_ever() {
    let document = DocumentMessage { json: "{}".into() };
    assert_eq!(hex(&document), "0a027b7d");
    let batch = BatchMessage {
        generation: 7,
        changed_at: 300,
        control: "c".into(),
    };
    assert_eq!(hex(&batch), "080710ac021a0163");
    let peer = PeerMessage {
        namespace: "a".into(),
        pod: "p".into(),
        host: "h".into(),
        zone: String::new(),
        ready: true,
    };
    assert_eq!(hex(&peer), "0a01611201701a01682801");
    let rejections = RejectionsMessage {
        rejections: vec![RejectionMessage {
            name: "a/b".into(),
            path: "spec".into(),
            message: "m".into(),
            remedy: "r".into(),
        }],
    };
    assert_eq!(
        hex(&rejections),
        "0a110a03612f62120473706563\
                                  1a016d220172"
    );
}

#[test]
fn a_secret_does_not_show_its_values() {
    let secret = SecretMessage {
        namespace: "a".into(),
        name: "b".into(),
        data: BTreeMap::from([("key".into(), b"hunter2".to_vec())]),
    };
    let shown = format!("{secret:?}");
    assert!(
        shown.contains("key") && !shown.contains("hunter2"),
        "{shown}"
    );
    assert_eq!(
        hex(&secret),
        "0a0161120162\
                              1a0e0a036b6579120768756e74657232"
    );
}

#[test]
fn a_version_follows_the_value_and_nothing_else() {
    assert_eq!(version(b""), "2d06800538d394c2");
    assert_ne!(version(b"a"), version(b"b"));
}
