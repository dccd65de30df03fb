//! From a JSON value to a [`Document`]: its kind, its name, its shape.

use std::sync::{Arc, LazyLock};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use sluice_crds::networking::{
    ExternalModelProviderSpec, GROUP, ModelRouteSpec, ModelServerSpec, VERSION,
};

use super::{DEFAULT_NAMESPACE, Document, DocumentPlace, Identity, Kind, Resource};
use crate::path::{FieldPath, Place};
use crate::problem::{Finding, Problem, Topic, did_you_mean};
use crate::shape::{Format, Shape};

/// What one value turned out to be.
#[derive(Debug)]
pub(crate) enum Reading {
    /// One of ours, right or wrong.
    Document(Arc<Document>),
    /// Not one of ours (a warning), or nobody can tell whose it is (an error).
    Problem(Problem),
}

/// Schemas by kind, built once.
struct Shapes {
    metadata: Shape,
    route: Shape,
    server: Shape,
    provider: Shape,
}

static SHAPES: LazyLock<Shapes> = LazyLock::new(|| Shapes {
    metadata: Shape::of::<ObjectMeta>(|_| None),
    route: Shape::of::<ModelRouteSpec>(|_| None),
    server: Shape::of::<ModelServerSpec>(server_format),
    provider: Shape::of::<ExternalModelProviderSpec>(|_| None),
});

/// The durations of a ModelServer; a test holds this against the schema's field names.
fn server_format(name: &str) -> Option<Format> {
    match name {
        "timeout" | "retryInterval" | "streamIdleTimeout" | "totalTimeout" => {
            Some(Format::Duration)
        }
        _ => None,
    }
}

const FIELDS: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];

/// Reads one document. `duplicates` are keys, below the document's top, that stand there twice.
pub(crate) fn read(value: Value, duplicates: Vec<FieldPath>, place: DocumentPlace) -> Reading {
    let top = FieldPath::default();
    let refuse = |path: FieldPath, message: String, remedy: String| {
        Reading::Problem(place.problem(None, &Finding::error(path, message, remedy)))
    };
    let Value::Object(mut map) = value else {
        let remedy = "start it with `apiVersion:` and `kind:`".to_owned();
        return refuse(
            top,
            "expected a resource document, a mapping".into(),
            remedy,
        );
    };
    let kind = match kind_of(&map) {
        Ok(kind) => kind,
        Err(finding) => return Reading::Problem(place.problem(None, &finding)),
    };
    let text = |key: &str| {
        map.get("metadata")
            .and_then(|m| m.get(key))
            .and_then(Value::as_str)
    };
    let Some(name) = text("name")
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
    else {
        let message = format!("this {} has no name", kind.name());
        return refuse(
            FieldPath::of("metadata"),
            message,
            "add `metadata: {name: ...}`".into(),
        );
    };
    let namespace = text("namespace")
        .filter(|n| !n.is_empty())
        .unwrap_or(DEFAULT_NAMESPACE)
        .to_owned();
    let mut findings: Vec<Finding> = duplicates.into_iter().map(duplicate).collect();
    check_shape(kind, &mut map, &mut findings);
    let resource = typed(kind, Value::Object(map), &mut findings).map(Arc::new);
    Reading::Document(Arc::new(Document {
        identity: Identity {
            kind,
            namespace,
            name,
        },
        resource,
        findings,
        place,
    }))
}

/// The kind, or why this document is not one of ours.
fn kind_of(map: &Map<String, Value>) -> Result<Kind, Finding> {
    let text = |key: &str| {
        map.get(key).and_then(Value::as_str).ok_or_else(|| {
            let remedy =
                format!("write `apiVersion: {GROUP}/{VERSION}` and `kind: ModelRoute` or another");
            Finding::error(
                FieldPath::of(key),
                format!("required field `{key}` is missing"),
                remedy,
            )
        })
    };
    let (name, api_version) = (text("kind")?, text("apiVersion")?);
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name);
    match kind {
        Some(kind) if group == GROUP && version == VERSION => Ok(kind),
        Some(_) if group == GROUP => Err(Finding::error(
            FieldPath::of("apiVersion"),
            format!("version `{version}` of {name} is not known"),
            format!("write `{GROUP}/{VERSION}`"),
        )),
        None if group == GROUP => Err(Finding::error(
            FieldPath::of("kind"),
            format!("unknown kind `{name}`"),
            did_you_mean(name, Kind::ALL.map(Kind::name)),
        )),
        _ if Kind::ALL.iter().any(|ours| is_near(name, ours.name())) => Err(Finding::error(
            FieldPath::of("kind"),
            format!("unknown kind `{name}` of `{api_version}`"),
            format!(
                "write `apiVersion: {GROUP}/{VERSION}`; {}",
                did_you_mean(name, Kind::ALL.map(Kind::name))
            ),
        )),
        _ => Err(Finding::warning(
            FieldPath::of("kind"),
            format!("ignored: kind {name} of {api_version}"),
            format!("only kinds of {GROUP}/{VERSION} are read here"),
        )
        .about(Topic::OtherKind)),
    }
}

/// A slip of the hand away: ignored, such a document would silently take its routes with it.
fn is_near(name: &str, ours: &str) -> bool {
    strsim::damerau_levenshtein(name, ours) <= 2
}

fn duplicate(path: FieldPath) -> Finding {
    let remedy = "keep one of the two";
    Finding {
        duplicate: true,
        ..Finding::error(path, "this key stands here twice", remedy)
    }
}

fn check_shape(kind: Kind, map: &mut Map<String, Value>, findings: &mut Vec<Finding>) {
    // Written by controllers and never read here.
    map.shift_remove("status");
    let top = FieldPath::default();
    let place = Place::Path(&top);
    map.retain(|key, _| {
        let known = FIELDS.contains(&key.as_str());
        if !known {
            let message = format!("unknown field `{key}`");
            findings.push(Finding::error(
                place.key(key),
                message,
                did_you_mean(key, FIELDS),
            ));
        }
        known
    });
    let shapes = &*SHAPES;
    let spec_shape = match kind {
        Kind::ModelRoute => &shapes.route,
        Kind::ModelServer => &shapes.server,
        Kind::ExternalModelProvider => &shapes.provider,
    };
    for (key, shape) in [("metadata", &shapes.metadata), ("spec", spec_shape)] {
        match map.get_mut(key).filter(|value| !value.is_null()) {
            Some(value) => shape.check(value, place.key(key), findings),
            None => findings.push(Finding::error(
                place.key(key),
                format!("required field `{key}` is missing"),
                format!("add `{key}:`"),
            )),
        }
    }
}

fn typed(kind: Kind, value: Value, findings: &mut Vec<Finding>) -> Option<Resource> {
    let resource = match kind {
        Kind::ModelRoute => parse(value).map(Resource::Route),
        Kind::ModelServer => parse(value).map(Resource::Server),
        Kind::ExternalModelProvider => parse(value).map(Resource::Provider),
    };
    match resource {
        Ok(resource) => Some(resource),
        Err(error) => {
            // Usually the echo of a finding; never lost when it is not.
            if findings.is_empty() {
                let message = format!("not a {}: {error}", kind.name());
                findings.push(Finding::error(
                    FieldPath::default(),
                    message,
                    "compare it with the examples",
                ));
            }
            None
        }
    }
}

fn parse<T: DeserializeOwned>(value: Value) -> Result<T, serde_json::Error> {
    serde_json::from_value(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_of_a_model_server_is_known() {
        let schema = schemars::schema_for!(ModelServerSpec).to_value();
        let mut properties = Vec::new();
        for definition in schema["$defs"].as_object().unwrap().values() {
            properties.extend(definition["properties"].as_object().into_iter().flatten());
        }
        let names = properties.iter().map(|(name, _)| name.as_str());
        let times: Vec<&str> = names
            .filter(|n| {
                n.to_lowercase().contains("timeout") || n.to_lowercase().contains("interval")
            })
            .collect();
        assert!(times.len() >= 4, "{times:?}");
        for name in times {
            assert_eq!(server_format(name), Some(Format::Duration), "{name}");
        }
    }
}
