//! The CEL rules, run by an interpreter: an API server would otherwise be the first to read them.
//!
//! Not for: what the plain schema refuses (`structural.rs`). The interpreter runs rules only.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

use kube_cel::Validator;
use serde_json::{Value, json};
use sluice_crds::manifest;

fn schema(kind: &str) -> Value {
    let definition = manifest::definitions()
        .into_iter()
        .find(|definition| definition.spec.names.kind == kind)
        .unwrap();
    let value = serde_json::to_value(&definition).unwrap();
    value["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// Messages of the rules that a spec breaks, defaults filled in first as an API server does.
fn broken(kind: &str, spec: &Value, old: Option<&Value>) -> Vec<String> {
    let object = json!({ "spec": spec });
    let old = old.map(|old| json!({ "spec": old }));
    let result = Validator::new().validate_with_defaults(&schema(kind), &object, old.as_ref());
    result
        .err()
        .map(|errors| {
            errors
                .into_vec()
                .into_iter()
                .map(|error| error.message)
                .collect()
        })
        .unwrap_or_default()
}

fn assert_accepted(kind: &str, spec: Value) {
    assert_eq!(broken(kind, &spec, None), Vec::<String>::new(), "{spec}");
}

fn assert_refused(kind: &str, spec: Value, message: &str) {
    assert_eq!(broken(kind, &spec, None), [message], "{spec}");
}

fn rules() -> Value {
    json!([{ "targetModels": [{ "modelServerName": "a" }] }])
}

/// Names of lists that a rule goes through: what stands before `.all(` and `.exists(`.
fn lists_walked(rule: &str) -> Vec<&str> {
    [".all(", ".exists("]
        .iter()
        .flat_map(|walk| rule.match_indices(walk))
        .map(|(at, _)| rule[..at].rsplit('.').next().unwrap())
        .collect()
}

/// The schema of a property by its name, at any depth.
fn property<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    let below = |schema: &'a Value| property(schema, name);
    let properties = schema["properties"].as_object();
    properties
        .and_then(|properties| properties.get(name))
        .or_else(|| properties.and_then(|properties| properties.values().find_map(below)))
        .or_else(|| {
            schema["items"]
                .is_object()
                .then(|| below(&schema["items"]))?
        })
}

/// Kubernetes refuses a rule whose cost it cannot bound, and the cost of a walk is the list's `maxItems`.
#[test]
fn every_list_that_a_rule_walks_is_bounded() {
    fn visit(path: &str, schema: &Value, walked: &mut Vec<String>, seen: &mut usize) {
        let rules = schema["x-kubernetes-validations"].as_array();
        for rule in rules.into_iter().flatten() {
            *seen += 1;
            for name in lists_walked(rule["rule"].as_str().unwrap()) {
                let list = property(schema, name).unwrap_or_else(|| panic!("{path}: {name}"));
                assert!(
                    list["maxItems"].is_u64() || list["maxItems"].is_i64(),
                    "{path}: {name}"
                );
                walked.push(name.to_owned());
            }
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            visit(&format!("{path}.{name}"), property, walked, seen);
        }
        for below in ["items", "additionalProperties"] {
            if schema[below].is_object() {
                visit(&format!("{path}.{below}"), &schema[below], walked, seen);
            }
        }
    }
    let (mut walked, mut seen) = (Vec::new(), 0);
    for kind in ["ExternalModelProvider", "ModelRoute", "ModelServer"] {
        visit(kind, &schema(kind), &mut walked, &mut seen);
    }
    assert_eq!(walked, ["rules", "targetModels", "targetModels"]);
    assert_eq!(seen, 10, "a rule came or went: give it a case below");
}

#[test]
fn a_route_needs_a_model_name_or_an_adapter() {
    let message = "modelName and loraAdapters cannot both be empty";
    assert_refused("ModelRoute", json!({ "rules": rules() }), message);
    assert_refused(
        "ModelRoute",
        json!({ "modelName": "", "rules": rules() }),
        message,
    );
    assert_refused(
        "ModelRoute",
        json!({ "loraAdapters": [], "rules": rules() }),
        message,
    );
    assert_accepted("ModelRoute", json!({ "modelName": "m", "rules": rules() }));
    assert_accepted(
        "ModelRoute",
        json!({ "loraAdapters": ["l"], "rules": rules() }),
    );
}

#[test]
fn the_model_name_of_a_route_never_changes() {
    let old = json!({ "modelName": "m", "rules": rules() });
    let renamed = json!({ "modelName": "n", "rules": rules() });
    assert_eq!(
        broken("ModelRoute", &renamed, Some(&old)),
        ["modelName is immutable"]
    );
    assert_eq!(broken("ModelRoute", &old, Some(&old)), Vec::<String>::new());
}

#[test]
fn a_target_names_exactly_one_of_server_and_provider() {
    let message = "exactly one of modelServerName and externalModelProviderName must be set";
    let route =
        |target: Value| json!({ "modelName": "m", "rules": [{ "targetModels": [target] }] });
    assert_refused("ModelRoute", route(json!({})), message);
    let both = json!({ "modelServerName": "a", "externalModelProviderName": "b" });
    assert_refused("ModelRoute", route(both), message);
    assert_accepted("ModelRoute", route(json!({ "modelServerName": "a" })));
    assert_accepted(
        "ModelRoute",
        route(json!({ "externalModelProviderName": "b" })),
    );
}

#[test]
fn the_weights_of_a_rule_are_not_all_zero() {
    let route = |weights: &[u32]| {
        let targets: Vec<_> = weights
            .iter()
            .map(|weight| json!({ "modelServerName": "a", "weight": weight }))
            .collect();
        json!({ "modelName": "m", "rules": [{ "targetModels": targets }] })
    };
    let message = "the weights of a rule's targetModels cannot all be 0";
    assert_refused("ModelRoute", route(&[0, 0]), message);
    assert_accepted("ModelRoute", route(&[0, 1]));
}

#[test]
fn a_route_with_adapters_has_no_external_target() {
    let rules = json!([{ "targetModels": [{ "externalModelProviderName": "b" }] }]);
    assert_refused(
        "ModelRoute",
        json!({ "modelName": "m", "loraAdapters": ["l"], "rules": rules }),
        "a route with loraAdapters cannot target an externalModelProviderName",
    );
    assert_accepted(
        "ModelRoute",
        json!({ "modelName": "m", "loraAdapters": [], "rules": rules }),
    );
}

#[test]
fn a_server_needs_a_selector_and_a_port_unless_it_has_endpoints() {
    let selector = json!({ "matchLabels": { "app": "a" } });
    let port = json!({ "port": 8000 });
    let endpoints = json!([{ "address": "127.0.0.1:8000" }]);
    let kind = "ModelServer";
    let engine = "vLLM";
    assert_refused(
        kind,
        json!({ "inferenceEngine": engine, "workloadPort": port }),
        "workloadSelector is required unless endpoints are given",
    );
    assert_refused(
        kind,
        json!({ "inferenceEngine": engine, "workloadSelector": selector, "endpoints": [] }),
        "workloadPort is required unless endpoints are given",
    );
    assert_accepted(
        kind,
        json!({ "inferenceEngine": engine, "workloadSelector": selector, "workloadPort": port }),
    );
    assert_accepted(
        kind,
        json!({ "inferenceEngine": engine, "endpoints": endpoints }),
    );
}

#[test]
fn a_provider_cannot_do_without_its_secret() {
    let provider =
        |secret: Value| json!({ "baseURL": "https://a", "auth": { "secretRef": secret } });
    let kind = "ExternalModelProvider";
    assert_refused(
        kind,
        provider(json!({ "name": "s", "key": "k", "optional": true })),
        "secretRef.optional must be false or unset",
    );
    assert_refused(
        kind,
        provider(json!({ "name": "", "key": "k" })),
        "secretRef.name and secretRef.key must be set",
    );
    assert_accepted(kind, provider(json!({ "name": "s", "key": "k" })));
    assert_accepted(
        kind,
        provider(json!({ "name": "s", "key": "k", "optional": false })),
    );
}

#[test]
fn the_url_of_a_provider_has_no_user_query_or_fragment() {
    let message = "baseURL must have no user, query or fragment";
    for url in [
        "https://u:p@a/v1",
        "https://u@a",
        "https://a/v1?key=1",
        "https://a#f",
    ] {
        assert_refused("ExternalModelProvider", json!({ "baseURL": url }), message);
    }
    for url in ["https://api.example.com", "https://a:8443/v1/@here"] {
        assert_accepted("ExternalModelProvider", json!({ "baseURL": url }));
    }
}
