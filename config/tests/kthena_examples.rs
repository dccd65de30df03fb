//! `config/examples/kthena`: each manifest is what Kthena's users write, and what an API server with our definitions and the
//! gateway both accept.
//!
//! Not for: what an example does once applied (the cluster tests run them).

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kube_cel::Validator;
use serde::Deserialize;
use serde_json::Value;
use sluice_config::{AnyFilter, check};

/// Every field of Kthena's three kinds below `spec`, by its API (v1.0). What is not here is an addition of ours.
const FIELDS: [(&str, &str); 3] = [
    (
        "ModelRoute",
        "modelName loraAdapters
        parentRefs parentRefs.group parentRefs.kind parentRefs.name parentRefs.namespace parentRefs.port
        parentRefs.sectionName
        rules rules.name rules.modelMatch
        rules.modelMatch.headers rules.modelMatch.headers.* rules.modelMatch.headers.*.exact
        rules.modelMatch.headers.*.prefix rules.modelMatch.headers.*.regex
        rules.modelMatch.uri rules.modelMatch.uri.exact rules.modelMatch.uri.prefix rules.modelMatch.uri.regex
        rules.modelMatch.body rules.modelMatch.body.model
        rules.targetModels rules.targetModels.modelServerName rules.targetModels.externalModelProviderName
        rules.targetModels.weight
        rateLimit rateLimit.inputTokensPerUnit rateLimit.outputTokensPerUnit rateLimit.unit
        rateLimit.global rateLimit.global.redis rateLimit.global.redis.address",
    ),
    (
        "ModelServer",
        "model inferenceEngine
        workloadSelector workloadSelector.matchLabels workloadSelector.matchLabels.*
        workloadSelector.pdGroup workloadSelector.pdGroup.groupKey
        workloadSelector.pdGroup.prefillLabels workloadSelector.pdGroup.prefillLabels.*
        workloadSelector.pdGroup.decodeLabels workloadSelector.pdGroup.decodeLabels.*
        workloadPort workloadPort.port workloadPort.protocol
        trafficPolicy trafficPolicy.timeout trafficPolicy.retry trafficPolicy.retry.attempts
        trafficPolicy.retry.retryInterval
        kvConnector kvConnector.type",
    ),
    (
        "ExternalModelProvider",
        "providerType model baseURL insecureSkipVerify
        auth auth.scheme auth.secretRef auth.secretRef.name auth.secretRef.key auth.secretRef.optional
        headers headers.*",
    ),
];

/// Kthena knows two engines; the others are ours.
const ENGINES: [&str; 2] = ["vLLM", "SGLang"];

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/kthena");
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert_eq!(files.len(), 11, "{files:?}");
    files
}

/// `(file, document)` of every document of every file.
fn documents() -> Vec<(String, Value)> {
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        serde_yaml::Deserializer::from_str(&text)
            .map(|document| (name.clone(), Value::deserialize(document).unwrap()))
            .collect::<Vec<_>>()
    };
    files().into_iter().flat_map(read).collect()
}

/// The documents of our kinds, each with its kind and its definition's schema.
fn resources() -> Vec<(String, String, Value, Value)> {
    let schemas: Vec<(String, Value)> = sluice_crds::manifest::definitions()
        .into_iter()
        .map(|definition| {
            let value = serde_json::to_value(&definition).unwrap();
            let schema = value["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
            (definition.spec.names.kind, schema)
        })
        .collect();
    let with_schema = |(file, document): (String, Value)| {
        let (kind, schema) = schemas
            .iter()
            .find(|(kind, _)| document["kind"] == **kind)?;
        Some((file, kind.clone(), document, schema.clone()))
    };
    documents().into_iter().filter_map(with_schema).collect()
}

#[test]
fn the_gateway_accepts_every_file_alone_and_the_folder_as_a_whole() {
    let mut sets: Vec<Vec<PathBuf>> = files().into_iter().map(|path| vec![path]).collect();
    sets.push(files());
    for paths in sets {
        let problems = check(&paths, Arc::new(AnyFilter));
        let errors: Vec<_> = problems.iter().filter(|p| p.is_error()).collect();
        assert!(errors.is_empty(), "{paths:?}: {errors:#?}");
    }
}

#[test]
fn together_they_use_every_field_of_kthena_and_none_of_ours() {
    for (kind, fields) in FIELDS {
        let mut used = BTreeSet::new();
        for (_, _, document, schema) in resources().into_iter().filter(|r| r.1 == kind) {
            let spec = &schema["properties"]["spec"];
            collect("", spec, &document["spec"], &mut used);
        }
        let known: BTreeSet<String> = fields.split_whitespace().map(str::to_owned).collect();
        assert_eq!(used, known, "{kind}");
    }
    for (file, kind, document, _) in resources() {
        if kind == "ModelServer" {
            let engine = document["spec"]["inferenceEngine"].as_str().unwrap();
            assert!(ENGINES.contains(&engine), "{file}: {engine}");
        }
    }
}

/// Paths of what a value sets; the keys of maps are written `*`.
fn collect(path: &str, schema: &Value, value: &Value, used: &mut BTreeSet<String>) {
    for item in value.as_array().into_iter().flatten() {
        collect(path, &schema["items"], item, used);
    }
    for (key, below) in value.as_object().into_iter().flatten() {
        let property = &schema["properties"][key.as_str()];
        let (name, schema) = match property {
            Value::Null => ("*", &schema["additionalProperties"]),
            property => (key.as_str(), property),
        };
        let path = if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        };
        collect(&path, schema, below, used);
        used.insert(path);
    }
}

#[test]
fn every_pool_finds_pods_of_the_engines() {
    let documents = documents();
    let pods: Vec<_> = documents
        .iter()
        .filter(|(_, document)| document["kind"] == "Deployment")
        .map(|(_, document)| document["spec"]["template"]["metadata"]["labels"].clone())
        .collect();
    for (file, kind, document, _) in resources() {
        let selector = &document["spec"]["workloadSelector"];
        // Pairs of prefill and decode are a ModelServing's.
        if kind == "ModelServer" && selector["pdGroup"].is_null() {
            let labels = selector["matchLabels"].as_object().unwrap();
            let found = pods
                .iter()
                .any(|pod| labels.iter().all(|(key, value)| pod[key] == *value));
            assert!(found, "{file}: {labels:?}");
        }
    }
}

#[test]
fn an_api_server_accepts_every_resource() {
    let resources = resources();
    assert!(resources.len() > 20, "{}", resources.len());
    for (file, _, document, schema) in resources {
        let mut wrong = Vec::new();
        violations(
            "spec",
            &schema["properties"]["spec"],
            &document["spec"],
            &mut wrong,
        );
        assert!(wrong.is_empty(), "{file}: {wrong:#?}");
        let result = Validator::new().validate_with_defaults(&schema, &document, None);
        assert!(result.is_ok(), "{file}: {:?}", result.err());
    }
}

#[test]
fn an_api_server_would_refuse_what_breaks_the_schema() {
    let (_, _, document, schema) = resources()
        .into_iter()
        .find(|(file, kind, ..)| file == "simple.yaml" && kind == "ModelServer")
        .unwrap();
    let cases = [
        ("/inferenceEngine", Value::from("vllm")),
        ("/workloadPort/port", Value::from(0)),
        ("/workloadPort/port", Value::from("8000")),
        ("/workloadPort/port", Value::Null),
        ("/workloadSelector/matchLabels", Value::from("app=chat")),
        (
            "/workloadSelector/matchLabels/app",
            Value::from("no spaces"),
        ),
        ("/workloadSelector/matchLabel", serde_json::json!({})),
    ];
    for (pointer, value) in cases {
        let mut spec = document["spec"].clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = spec.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        parent.insert(key.to_owned(), value);
        let mut wrong = Vec::new();
        violations("spec", &schema["properties"]["spec"], &spec, &mut wrong);
        assert_eq!(wrong.len(), 1, "{pointer}: {wrong:?}");
    }
}

/// What an API server says to a value, in so far as our schemas go (`crds/tests/structural.rs` has their keywords); and
/// fields that it would drop without a word.
fn violations(path: &str, schema: &Value, value: &Value, wrong: &mut Vec<String>) {
    if schema["x-kubernetes-preserve-unknown-fields"] == true {
        return;
    }
    let number = |keyword: &str| schema[keyword].as_f64();
    let outside = |low: &str, high: &str, size: f64| {
        number(low).is_some_and(|low| size < low) || number(high).is_some_and(|high| size > high)
    };
    let fits = match (schema["type"].as_str(), value) {
        (Some("object"), Value::Object(map)) => !outside("minProperties", "-", map.len() as f64),
        (Some("array"), Value::Array(items)) => {
            !outside("minItems", "maxItems", items.len() as f64)
        }
        (Some("string"), Value::String(text)) => {
            let pattern = schema["pattern"].as_str();
            let matches = |pattern| regex::Regex::new(pattern).unwrap().is_match(text);
            pattern.is_none_or(matches)
                && !outside("minLength", "maxLength", text.chars().count() as f64)
        }
        (Some("integer"), Value::Number(n)) => {
            n.is_i64() && !outside("minimum", "maximum", n.as_f64().unwrap())
        }
        (Some("boolean"), Value::Bool(_)) => true,
        _ => false,
    };
    let listed = schema["enum"]
        .as_array()
        .is_none_or(|all| all.contains(value));
    if !fits || !listed {
        wrong.push(format!("{path}: {value} is not {schema}"));
        return;
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        if value.get(name.as_str().unwrap()).is_none() {
            wrong.push(format!("{path}: {name} is missing"));
        }
    }
    for item in value.as_array().into_iter().flatten() {
        violations(&format!("{path}[]"), &schema["items"], item, wrong);
    }
    for (key, below) in value.as_object().into_iter().flatten() {
        let path = format!("{path}.{key}");
        match (
            &schema["properties"][key.as_str()],
            &schema["additionalProperties"],
        ) {
            (Value::Null, Value::Null) => wrong.push(format!("{path} is not known")),
            (Value::Null, any) => violations(&path, any, below, wrong),
            (property, _) => violations(&path, property, below, wrong),
        }
    }
}
