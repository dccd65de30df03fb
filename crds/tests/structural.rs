//! The generated definitions against the rules an API server holds a schema to, and against the API's table.
//!
//! Not for: whether a rule means what it should (`rules.rs` runs them), nor for the YAML's text.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

use serde_json::{Value, json};
use sluice_crds::manifest;

/// `(kind, schema)` of every definition.
fn schemas() -> Vec<(String, Value)> {
    manifest::definitions()
        .into_iter()
        .map(|definition| {
            let value = serde_json::to_value(&definition).unwrap();
            let schema = value["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
            (definition.spec.names.kind, schema)
        })
        .collect()
}

/// Calls `visit` with the path and the schema of every value a document may hold.
fn walk(path: &str, schema: &Value, visit: &mut dyn FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), property, visit);
    }
    if schema["items"].is_object() {
        walk(&format!("{path}[]"), &schema["items"], visit);
    }
    if schema["additionalProperties"].is_object() {
        walk(
            &format!("{path}{{}}"),
            &schema["additionalProperties"],
            visit,
        );
    }
}

fn visit_all(visit: &mut dyn FnMut(&str, &Value)) {
    for (kind, schema) in schemas() {
        walk(&kind, &schema, visit);
    }
}

/// Of the keywords of JSON Schema, what `apiextensions.k8s.io/v1` takes in the frame of a structural schema
/// and we use. Not among them: `$ref`, `definitions`, `const`, `anyOf` and its kin (we have no use for them).
const KEYWORDS: [&str; 22] = [
    "additionalProperties",
    "default",
    "description",
    "enum",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "nullable",
    "pattern",
    "properties",
    "required",
    "title",
    "type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-validations",
];
const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";

#[test]
fn every_keyword_is_one_that_a_structural_schema_may_have() {
    visit_all(&mut |path, schema| {
        for keyword in schema.as_object().unwrap().keys() {
            assert!(
                KEYWORDS.contains(&keyword.as_str()) || keyword == PRESERVE,
                "{path}: {keyword}"
            );
        }
    });
}

#[test]
fn every_value_has_one_type_unless_any_json_is_kept() {
    let mut free = Vec::new();
    visit_all(&mut |path, schema| match &schema["type"] {
        Value::String(name) => {
            assert!(
                ["object", "array", "string", "integer", "number", "boolean"]
                    .contains(&name.as_str()),
                "{path}: {name}"
            );
            assert_eq!(
                name == "array",
                schema["items"].is_object(),
                "{path}: items go with arrays"
            );
        }
        Value::Null if schema[PRESERVE] == true => free.push(path.to_owned()),
        other => panic!("{path}: type {other}"),
    });
    assert_eq!(
        free,
        [
            "ModelRoute.spec.filters{}.config",
            "ModelServer.spec.scheduling.scheduler.pluginConfig[].args"
        ]
    );
}

#[test]
fn no_value_has_both_properties_and_additional_properties() {
    visit_all(&mut |path, schema| {
        let both = schema["properties"].is_object() && !schema["additionalProperties"].is_null();
        assert!(!both, "{path}");
    });
}

#[test]
fn only_the_status_may_be_null() {
    visit_all(&mut |path, schema| {
        if schema["nullable"] == true {
            assert!(path.ends_with(".status"), "{path}");
        }
        let values = schema["enum"].as_array();
        assert!(
            !values.is_some_and(|values| values.contains(&Value::Null)),
            "{path}"
        );
    });
}

#[test]
fn every_format_is_one_that_kubernetes_knows() {
    visit_all(&mut |path, schema| {
        if let Some(format) = schema["format"].as_str() {
            assert!(
                ["int32", "int64", "double", "date-time"].contains(&format),
                "{path}: {format}"
            );
        }
    });
}

#[test]
fn every_required_name_is_a_property() {
    visit_all(&mut |path, schema| {
        for name in schema["required"].as_array().into_iter().flatten() {
            let name = name.as_str().unwrap();
            assert!(schema["properties"][name].is_object(), "{path}: {name}");
        }
    });
}

#[test]
fn every_default_obeys_its_own_schema() {
    visit_all(&mut |path, schema| {
        let default = &schema["default"];
        let fits = match schema["type"].as_str() {
            _ if default.is_null() => true,
            Some("string") => default.is_string(),
            Some("integer") => default.is_i64(),
            Some("boolean") => default.is_boolean(),
            Some("object") => default.is_object(),
            _ => false,
        };
        assert!(fits, "{path}: {default}");
        if let (Some(values), false) = (schema["enum"].as_array(), default.is_null()) {
            assert!(values.contains(default), "{path}: {default}");
        }
    });
}

#[test]
fn every_property_is_described() {
    visit_all(&mut |path, schema| {
        let entry = path.ends_with("{}") || path.ends_with("[]");
        assert!(entry || schema["description"].is_string(), "{path}");
    });
}

#[test]
fn every_pattern_compiles() {
    visit_all(&mut |path, schema| {
        if let Some(pattern) = schema["pattern"].as_str() {
            regex::Regex::new(pattern).unwrap_or_else(|error| panic!("{path}: {error}"));
        }
    });
}

#[test]
fn every_rule_has_a_text_and_a_message() {
    visit_all(&mut |path, schema| {
        for rule in schema["x-kubernetes-validations"]
            .as_array()
            .into_iter()
            .flatten()
        {
            for key in ["rule", "message"] {
                let text = rule[key].as_str().unwrap_or_default();
                assert!(
                    !text.is_empty() && !text.contains('\n'),
                    "{path}: {key} of {rule}"
                );
            }
        }
    });
}

/// The keys of a value that are not words for people.
fn constraints(kind: &str, path: &str) -> Value {
    let full = format!("{kind}.{path}");
    let mut found = None;
    visit_all(&mut |path, schema| {
        if path == full {
            let mut schema = schema.clone();
            let entries = schema.as_object_mut().unwrap();
            for words in [
                "description",
                "properties",
                "items",
                "x-kubernetes-validations",
            ] {
                entries.remove(words);
            }
            found = Some(schema);
        }
    });
    found.unwrap_or_else(|| panic!("no {full}"))
}

#[test]
fn model_route_has_the_constraints_of_the_api() {
    let cases = [
        ("spec", json!({"type": "object", "required": ["rules"]})),
        ("spec.modelName", json!({"type": "string"})),
        (
            "spec.loraAdapters",
            json!({"type": "array", "maxItems": 10}),
        ),
        (
            "spec.loraAdapters[]",
            json!({"type": "string", "minLength": 1}),
        ),
        (
            "spec.parentRefs[]",
            json!({"type": "object", "required": ["name"]}),
        ),
        ("spec.rules", json!({"type": "array", "maxItems": 16})),
        (
            "spec.rules[]",
            json!({"type": "object", "required": ["targetModels"]}),
        ),
        (
            "spec.rules[].targetModels",
            json!({"type": "array", "minItems": 1, "maxItems": 16}),
        ),
        (
            "spec.rules[].targetModels[].weight",
            json!({"type": "integer", "format": "int32", "default": 100, "minimum": 0.0, "maximum": 100.0}),
        ),
        (
            "spec.rateLimit.inputTokensPerUnit",
            json!({"type": "integer", "format": "int64", "minimum": 1.0, "maximum": 4294967295.0}),
        ),
        (
            "spec.rateLimit.outputTokensPerUnit",
            json!({"type": "integer", "format": "int64", "minimum": 1.0, "maximum": 4294967295.0}),
        ),
        (
            "spec.rateLimit.unit",
            json!({"type": "string", "default": "second", "enum": ["second", "minute", "hour", "day", "month"]}),
        ),
        (
            "spec.rateLimit.global.redis",
            json!({"type": "object", "required": ["address"]}),
        ),
        ("spec.filters{}.config", json!({(PRESERVE): true})),
    ];
    for (path, want) in cases {
        assert_eq!(constraints("ModelRoute", path), want, "{path}");
    }
}

#[test]
fn model_server_has_the_constraints_of_the_api() {
    let engines = [
        "vLLM",
        "SGLang",
        "llama.cpp",
        "TGI",
        "Triton",
        "TensorRT-LLM",
        "MindIE",
    ];
    let cases = [
        (
            "spec",
            json!({"type": "object", "required": ["inferenceEngine"]}),
        ),
        ("spec.model", json!({"type": "string", "maxLength": 256})),
        (
            "spec.inferenceEngine",
            json!({"type": "string", "enum": engines}),
        ),
        (
            "spec.workloadSelector",
            json!({"type": "object", "required": ["matchLabels"]}),
        ),
        (
            "spec.workloadSelector.pdGroup",
            json!({"type": "object", "required": ["decodeLabels", "groupKey", "prefillLabels"]}),
        ),
        (
            "spec.workloadSelector.pdGroup.groupKey",
            json!({"type": "string", "minLength": 1, "maxLength": 317}),
        ),
        (
            "spec.workloadPort",
            json!({"type": "object", "required": ["port"]}),
        ),
        (
            "spec.workloadPort.port",
            json!({"type": "integer", "format": "int32", "minimum": 1.0, "maximum": 65535.0}),
        ),
        (
            "spec.workloadPort.protocol",
            json!({"type": "string", "default": "http", "enum": ["http", "https"]}),
        ),
        (
            "spec.workloadPort.http2",
            json!({"type": "boolean", "default": false}),
        ),
        (
            "spec.kvConnector.type",
            json!({"type": "string", "default": "http", "enum": ["http", "lmcache", "nixl", "mooncake"]}),
        ),
        (
            "spec.endpoints[]",
            json!({"type": "object", "required": ["address"]}),
        ),
    ];
    for (path, want) in cases {
        assert_eq!(constraints("ModelServer", path), want, "{path}");
    }
    assert_eq!(
        constraints("ModelServer", "spec.trafficPolicy.retry.retryInterval")["default"],
        "100ms"
    );
    for selector in [
        "matchLabels",
        "pdGroup.prefillLabels",
        "pdGroup.decodeLabels",
    ] {
        let path = format!("spec.workloadSelector.{selector}");
        assert_eq!(
            constraints("ModelServer", &path)["minProperties"],
            1,
            "{path}"
        );
    }
    for timeout in ["timeout", "streamIdleTimeout", "totalTimeout"] {
        let constraints = constraints("ModelServer", &format!("spec.trafficPolicy.{timeout}"));
        assert_eq!(constraints["type"], "string", "{timeout}");
        assert!(constraints.get("default").is_none(), "{timeout}");
    }
}

#[test]
fn external_model_provider_has_the_constraints_of_the_api() {
    let cases = [
        ("spec", json!({"type": "object", "required": ["baseURL"]})),
        (
            "spec.providerType",
            json!({"type": "string", "default": "OpenAI", "enum": ["OpenAI", "Anthropic"]}),
        ),
        ("spec.model", json!({"type": "string", "maxLength": 256})),
        (
            "spec.baseURL",
            json!({"type": "string", "minLength": 1, "pattern": "^https://.+"}),
        ),
        (
            "spec.insecureSkipVerify",
            json!({"type": "boolean", "default": false}),
        ),
        (
            "spec.auth",
            json!({"type": "object", "required": ["secretRef"]}),
        ),
        (
            "spec.auth.scheme",
            json!({"type": "string", "enum": ["Bearer", "APIKey"]}),
        ),
        (
            "spec.auth.secretRef",
            json!({"type": "object", "required": ["key", "name"]}),
        ),
        (
            "spec.headers{}",
            json!({"type": "string", "pattern": "^[^\\r\\n]*$"}),
        ),
        (
            "status.observedGeneration",
            json!({"type": "integer", "format": "int64"}),
        ),
    ];
    for (path, want) in cases {
        assert_eq!(constraints("ExternalModelProvider", path), want, "{path}");
    }
}

/// So that each writer of server-side apply owns its conditions, and leaves the others' alone.
#[test]
fn the_conditions_of_every_kind_are_merged_by_their_type() {
    let want = json!({
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    });
    for (kind, _) in schemas() {
        assert_eq!(constraints(&kind, "status.conditions"), want, "{kind}");
    }
}

#[test]
fn every_kind_is_namespaced_has_a_status_and_prints_its_columns() {
    let columns: Vec<_> = manifest::definitions()
        .into_iter()
        .map(|definition| {
            assert_eq!(definition.spec.scope, "Namespaced");
            assert_eq!(definition.spec.group, sluice_crds::networking::GROUP);
            let [version] = definition.spec.versions.as_slice() else {
                panic!("one version each");
            };
            assert_eq!(version.name, sluice_crds::networking::VERSION);
            assert!(version.served && version.storage);
            assert!(version.subresources.as_ref().unwrap().status.is_some());
            let columns = version.additional_printer_columns.iter().flatten();
            let names = columns
                .map(|column| column.name.clone())
                .collect::<Vec<_>>()
                .join(" ");
            format!("{}: {names}", definition.spec.names.plural)
        })
        .collect();
    assert_eq!(
        columns,
        [
            "externalmodelproviders: Type URL Ready Programmed Age",
            "modelroutes: Model Adapters Accepted Resolved Programmed Conflicted Age",
            "modelservers: Engine Port Protocol Endpoints Ready Draining Accepted Programmed Age",
        ]
    );
}
