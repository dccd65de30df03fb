//! `sluice-control crds`: the definitions of every kind, for `kubectl apply --server-side -f -`.

use std::io;
use std::process::ExitCode;

use sluice_crds::manifest;

/// Prints them.
///
/// # Errors
/// When they cannot be written out.
pub fn run() -> io::Result<ExitCode> {
    super::print(&text())?;
    Ok(ExitCode::SUCCESS)
}

/// One YAML document for each.
fn text() -> String {
    let mut text = String::new();
    for manifest in manifest::manifests() {
        text.push_str("---\n");
        text.push_str(&manifest.text);
    }
    text
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::Value;

    use super::*;

    #[test]
    fn every_document_is_a_definition_that_can_be_applied() {
        let text = text();
        let names: Vec<String> = serde_yaml::Deserializer::from_str(&text)
            .map(|document| {
                let value = Value::deserialize(document).unwrap();
                assert_eq!(value["kind"], "CustomResourceDefinition");
                assert_eq!(value["apiVersion"], "apiextensions.k8s.io/v1");
                value["spec"]["names"]["kind"].as_str().unwrap().to_owned()
            })
            .collect();
        assert_eq!(
            names,
            ["ExternalModelProvider", "ModelRoute", "ModelServer"]
        );
    }
}
