//! Objects of a cluster in, resources of the push stream and statuses out, as texts to read.
//!
//! Each `golden/NAME.yaml` holds objects as the API shows them, and may hold one of kind `Acknowledged`: what gateways
//! say. `golden/NAME.txt` holds what comes of them. `UPDATE_GOLDEN=1 cargo test -p sluice-control --test golden` writes
//! the texts anew, to be read in the diff.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DynamicObject, PartialObjectMeta};
use prost::Message;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sluice_config::Kind;
use sluice_config::push::{
    DocumentMessage, EndpointMessage, PeerMessage, ResourceType, RoleMessage, SecretMessage,
};
use sluice_control::index::{
    Document, Index, Input, Namespace, Node, Object, Pod, PodObject, Secret,
};
use sluice_control::push::acks::{Finding, Programmed};
use sluice_control::state::Resource;
use sluice_control::status::{Acknowledged, Desired};

#[test]
fn objects_become_resources_and_statuses() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    let cases = cases(&directory);
    assert!(!cases.is_empty());
    for case in cases {
        let text = run(&std::fs::read_to_string(&case).unwrap());
        let golden = case.with_extension("txt");
        if update {
            std::fs::write(&golden, text).unwrap();
        } else if std::fs::read_to_string(&golden).unwrap_or_default() != text {
            wrong.push(format!("{}:\n{text}", golden.display()));
        }
    }
    assert!(wrong.is_empty(), "differs: {}", wrong.join("\n"));
}

fn cases(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut cases: Vec<_> = paths
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "yaml")
        })
        .collect();
    cases.sort();
    cases
}

/// What gateways say to every resource.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Say {
    connected: usize,
    acknowledged: usize,
    rejections: BTreeMap<String, String>,
}

fn run(text: &str) -> String {
    let mut index = Index::default();
    let mut say = Say::default();
    for document in serde_yaml::Deserializer::from_str(text) {
        let value = Value::deserialize(document).unwrap();
        if value["kind"] == "Acknowledged" {
            say = serde_json::from_value(value).unwrap();
        } else {
            let objects = objects(value);
            objects
                .into_iter()
                .for_each(|object| index.apply(Input::Applied(object)));
        }
    }
    let output = index.reconcile();
    let mut out = String::new();
    output
        .upserts
        .iter()
        .for_each(|resource| show_resource(resource, &mut out));
    for (key, facts) in output.facts {
        let facts = facts.unwrap();
        let mut programmed = Programmed {
            connected: say.connected,
            acknowledged: say.acknowledged,
            ..Programmed::default()
        };
        for message in say.rejections.values() {
            programmed.refuse([&Finding {
                path: "spec".into(),
                message: message.clone(),
                remedy: String::new(),
            }]);
        }
        let acknowledged = Acknowledged {
            programmed,
            unreachable: 0,
        };
        let desired = Desired::of(&facts, &acknowledged);
        writeln!(out, "status of {key}, generation {}", desired.generation).unwrap();
        if let Some(endpoints) = desired.endpoints {
            let of = |c: sluice_crds::networking::EndpointCounts| {
                format!(
                    "{} ready, {} draining of {}",
                    c.ready, c.draining, c.endpoints
                )
            };
            write!(out, "  {}", of(endpoints.all)).unwrap();
            if let Some((prefill, decode)) = endpoints.roles {
                write!(out, "; prefill {}; decode {}", of(prefill), of(decode)).unwrap();
            }
            out.push('\n');
        }
        for verdict in &desired.verdicts {
            let (kind, truth) = (verdict.kind.name(), verdict.truth.name());
            writeln!(out, "  {kind}={truth} {}", verdict.reason.name()).unwrap();
            if !verdict.message.is_empty() {
                writeln!(out, "    {}", verdict.message).unwrap();
            }
        }
        // What is written is what is wanted: nothing is left to write then.
        let now = Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH);
        let shown = desired.status(&facts.shown, &now);
        let shown = serde_json::from_value(serde_json::to_value(shown).unwrap()).unwrap();
        assert_eq!(desired.difference(&shown), None, "{key}");
    }
    out
}

fn typed<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

/// As the watches bring them: a gateway's pod comes twice.
fn objects(value: Value) -> Vec<Object> {
    let kind = value["kind"].as_str().unwrap();
    if let Some(kind) = Kind::ALL.into_iter().find(|ours| ours.name() == kind) {
        let document = Document::of(kind, typed::<DynamicObject>(value)).unwrap();
        return vec![Object::Document(document)];
    }
    match kind {
        "Pod" => {
            let is_proxy = value["metadata"]["labels"]["app.kubernetes.io/component"] == "proxy";
            let pod = Pod::of(typed::<PodObject>(value)).unwrap();
            let proxy = is_proxy.then(|| Object::Proxy(pod.clone()));
            proxy.into_iter().chain([Object::Pod(pod)]).collect()
        }
        "Secret" => vec![Object::Secret(Secret::of(typed(value)).unwrap())],
        "Node" => {
            let node = Node::of(&typed::<PartialObjectMeta<v1::Node>>(value));
            vec![Object::Node(node.unwrap())]
        }
        "Namespace" => {
            let namespace = Namespace::of(&typed::<PartialObjectMeta<v1::Namespace>>(value));
            vec![Object::Namespace(namespace.unwrap())]
        }
        other => panic!("no kind {other}"),
    }
}

fn show_resource(resource: &Resource, out: &mut String) {
    let value = resource.value.clone();
    writeln!(out, "{} {}", resource.kind.name(), resource.name).unwrap();
    match resource.kind {
        ResourceType::Endpoint => show_endpoint(&EndpointMessage::decode(value).unwrap(), out),
        ResourceType::Peer => {
            let peer = PeerMessage::decode(value).unwrap();
            let ready = if peer.ready { "ready" } else { "not ready" };
            writeln!(out, "  {} in zone `{}`, {ready}", peer.host, peer.zone).unwrap();
        }
        ResourceType::Secret => {
            let secret = SecretMessage::decode(value).unwrap();
            let keys: Vec<_> = secret.data.keys().map(String::as_str).collect();
            writeln!(out, "  {}", keys.join(", ")).unwrap();
        }
        _ => {
            let document = DocumentMessage::decode(value).unwrap();
            writeln!(out, "  {}", document.json).unwrap();
        }
    }
}

fn show_endpoint(endpoint: &EndpointMessage, out: &mut String) {
    let draining = if endpoint.draining { ", draining" } else { "" };
    writeln!(
        out,
        "  {} port {} on `{}` in zone `{}`{draining}, revision `{}`, uid `{}`",
        endpoint.host, endpoint.port, endpoint.node, endpoint.zone, endpoint.revision, endpoint.uid
    )
    .unwrap();
    for membership in &endpoint.memberships {
        let role = RoleMessage::try_from(membership.role).unwrap();
        writeln!(
            out,
            "  in {}: {role:?}, group `{}`",
            membership.server, membership.pd_group
        )
        .unwrap();
    }
    for (word, map) in [
        ("labels", &endpoint.labels),
        ("topology", &endpoint.topology),
    ] {
        if !map.is_empty() {
            let pairs: Vec<_> = map
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            writeln!(out, "  {word} {}", pairs.join(", ")).unwrap();
        }
    }
}
