//! CustomResourceDefinitions as YAML files, one for each kind.
//!
//! For: `crdgen` and the test that holds the checked-in files to the types.
//! Not for: applying them to a cluster (the Helm chart does that).

use std::path::Path;
use std::{fs, io};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Number, Value};

use crate::networking::{ExternalModelProvider, ModelRoute, ModelServer};

/// What a reader of a file needs to know first.
const HEADER: &str = "\
# Generated from the types in crds/src by `cargo run -p sluice-crds --bin crdgen`. Do not edit.
";

/// One file of `crds/yaml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// `GROUP_PLURAL.yaml`.
    pub file_name: String,
    /// YAML with a header comment.
    pub text: String,
}

/// The definition of every kind, in a fixed order.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    vec![
        ExternalModelProvider::crd(),
        ModelRoute::crd(),
        ModelServer::crd(),
    ]
}

/// The files that `crds/yaml` must hold: these and no others.
pub fn manifests() -> Vec<Manifest> {
    definitions().iter().map(manifest).collect()
}

fn manifest(definition: &CustomResourceDefinition) -> Manifest {
    let mut value = serde_json::to_value(definition).expect("a definition has only string keys");
    whole_numbers(&mut value);
    let yaml = serde_yaml::to_string(&value).expect("every JSON value has a YAML form");
    Manifest {
        file_name: format!(
            "{}_{}.yaml",
            definition.spec.group, definition.spec.names.plural
        ),
        text: format!("{HEADER}{yaml}"),
    }
}

/// Bounds are floats in the schema's Rust type; `maximum: 65535.0` would read as a mistake.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(float) = number.as_f64()
                && number.is_f64()
                && float.fract() == 0.0
                && float.abs() < 2f64.powi(53)
            {
                *number = Number::from(float as i64);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(entries) => entries.values_mut().for_each(whole_numbers),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// Writes every file and removes the YAML files of kinds that are no more. Answers the names it changed.
///
/// # Errors
///
/// When `directory` cannot be created, read or written.
pub fn write(directory: &Path) -> io::Result<Vec<String>> {
    fs::create_dir_all(directory)?;
    let stale = stale(directory)?;
    let manifests = manifests();
    for name in &stale {
        let path = directory.join(name);
        match manifests
            .iter()
            .find(|manifest| manifest.file_name == *name)
        {
            Some(manifest) => fs::write(path, &manifest.text)?,
            None => fs::remove_file(path)?,
        }
    }
    Ok(stale)
}

/// Names of files in `directory` that are missing, differ from what the types say, or belong to no kind.
///
/// # Errors
///
/// When `directory` or a file in it cannot be read.
pub fn stale(directory: &Path) -> io::Result<Vec<String>> {
    let manifests = manifests();
    let mut stale = Vec::new();
    for manifest in &manifests {
        match fs::read_to_string(directory.join(&manifest.file_name)) {
            Ok(text) if text == manifest.text => {}
            Ok(_) => stale.push(manifest.file_name.clone()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                stale.push(manifest.file_name.clone());
            }
            Err(error) => return Err(error),
        }
    }
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let known = manifests.iter().any(|manifest| manifest.file_name == name);
        if name.ends_with(".yaml") && !known {
            stale.push(name);
        }
    }
    Ok(stale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checked_in_files_are_what_the_types_say() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("yaml");
        let stale = stale(&directory).unwrap();
        assert!(
            stale.is_empty(),
            "run `cargo run -p sluice-crds --bin crdgen`; stale: {stale:?}"
        );
    }

    #[test]
    fn a_changed_a_missing_and_a_left_over_file_are_all_named() {
        let directory = tempfile::tempdir().unwrap();
        let names: Vec<_> = manifests()
            .into_iter()
            .map(|manifest| manifest.file_name)
            .collect();
        assert_eq!(write(directory.path()).unwrap(), names);
        assert_eq!(stale(directory.path()).unwrap(), Vec::<String>::new());

        fs::write(directory.path().join(&names[0]), "edited").unwrap();
        fs::remove_file(directory.path().join(&names[1])).unwrap();
        fs::write(directory.path().join("zz_gone.yaml"), "").unwrap();
        fs::write(directory.path().join("README.md"), "kept").unwrap();
        let expected = [&names[0], &names[1], "zz_gone.yaml"];
        assert_eq!(stale(directory.path()).unwrap(), expected);

        assert_eq!(write(directory.path()).unwrap(), expected);
        assert_eq!(stale(directory.path()).unwrap(), Vec::<String>::new());
        assert!(directory.path().join("README.md").exists());
    }

    #[test]
    fn whole_floats_are_written_as_integers_and_others_stay() {
        let mut value = serde_json::json!({ "maximum": 65535.0, "minimum": 0.5, "maxItems": 16 });
        whole_numbers(&mut value);
        let want = serde_json::json!({ "maximum": 65535, "minimum": 0.5, "maxItems": 16 });
        assert_eq!(value.to_string(), want.to_string());
    }
}
