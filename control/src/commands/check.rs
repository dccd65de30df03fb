//! `sluice-control check -f PATH...`: everything wrong with manifests, before they are applied.
//!
//! As `sluice-proxy check`, but these are for a cluster: documents of other kinds are no business of ours and not worth a
//! word, pods are found there, and what is not in the files may be there already, so a target that is missing is a warning.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use sluice_config::{AnyFilter, Problem, Severity, Topic};

/// Checks files, and folders with all that is below them. Prints all problems; fails when one is an error.
///
/// # Errors
/// When the result cannot be written out.
pub fn run(paths: &[PathBuf]) -> io::Result<ExitCode> {
    let problems = check(paths);
    let errors = problems.iter().filter(|problem| problem.is_error()).count();
    let mut text = String::new();
    for problem in &problems {
        let severity = if problem.is_error() {
            "error"
        } else {
            "warning"
        };
        text.push_str(&format!("{severity}: {problem}\n"));
    }
    let warnings = problems.len() - errors;
    text.push_str(&format!("{errors} errors, {warnings} warnings\n"));
    super::print(&text)?;
    Ok(super::exit(errors == 0))
}

fn check(paths: &[PathBuf]) -> Vec<Problem> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            walk(path, &mut files);
        } else {
            files.push(path.clone());
        }
    }
    let problems = sluice_config::check(&files, Arc::new(AnyFilter));
    problems
        .into_iter()
        .filter(|problem| problem.is_error() || !is_no_business_of_ours(problem.topic))
        .map(for_a_cluster)
        .collect()
}

/// Manifests below `folder`, in order of name. What cannot be read is left in, so that it is reported.
fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return files.push(folder.to_owned());
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        // `..data` is how Kubernetes mounts a ConfigMap; `.git` and the like are nobody's manifests.
        if name.starts_with(b".") {
            continue;
        }
        // Links to folders are not followed: they may lead in circles.
        if path.is_dir() && !path.is_symlink() {
            walk(&path, files);
        } else if is_manifest(&path) {
            files.push(path);
        }
    }
}

/// Values of charts, kustomizations and the like lie beside manifests, and say nothing of a kind.
fn is_manifest(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    if !extension.is_some_and(|extension| ["yaml", "yml", "json"].contains(&extension)) {
        return false;
    }
    let Ok(text) = fs::read_to_string(path) else {
        return true;
    };
    let first = serde_yaml::Deserializer::from_str(&text)
        .map(Value::deserialize)
        .find(|value| !matches!(value, Ok(Value::Null)));
    match first {
        Some(Ok(Value::Object(map))) => ["kind", "apiVersion", "metadata", "spec"]
            .iter()
            .any(|key| map.contains_key(*key)),
        // No YAML, or YAML of some other form: let it be said.
        Some(_) => true,
        None => false,
    }
}

fn is_no_business_of_ours(topic: Topic) -> bool {
    match topic {
        Topic::OtherKind | Topic::FilesOnly => true,
        Topic::General | Topic::MissingTarget => false,
    }
}

fn for_a_cluster(problem: Problem) -> Problem {
    if problem.topic != Topic::MissingTarget {
        return problem;
    }
    Problem {
        severity: Severity::Warning,
        message: format!("{} among these files", problem.message),
        ..problem
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTE: &str = "\
apiVersion: networking.serving.volcano.sh/v1alpha1
kind: ModelRoute
metadata: {name: chat}
spec:
  modelName: chat
  rules:
  - targetModels: [{modelServerName: pool}]
";
    const SERVER: &str = "\
apiVersion: networking.serving.volcano.sh/v1alpha1
kind: ModelServer
metadata: {name: pool}
spec:
  inferenceEngine: vLLM
  workloadSelector:
    matchLabels: {app: pool}
    pdGroup: {groupKey: group, prefillLabels: {role: p}, decodeLabels: {role: d}}
  workloadPort: {port: 8000}
";
    const OTHERS: &str = "\
apiVersion: v1
kind: Service
metadata: {name: web}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
";

    /// A folder of these files.
    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn problems(files: &[(&str, &str)]) -> Vec<String> {
        let folder = folder(files);
        let root = format!("{}/", folder.path().display());
        check(&[folder.path().to_owned()])
            .iter()
            .map(|problem| format!("{:?} {problem}", problem.severity).replace(&root, ""))
            .collect()
    }

    #[test]
    fn folders_are_read_with_all_below_and_other_kinds_are_passed_over() {
        let mixed = format!("{OTHERS}---\n{ROUTE}");
        let none: [&str; 0] = [];
        let files = [
            ("a/b/route.yaml", mixed.as_str()),
            ("c/server.yml", SERVER),
            ("web.yaml", OTHERS),
            ("values.yaml", "replicas: 2\n"),
            ("kustomization.yaml", "resources: [web.yaml]\n"),
            ("notes.txt", "kind: nothing"),
            (".hidden/bad.yaml", "kind: ["),
            ("comment.yaml", "# nothing\n"),
        ];
        assert_eq!(problems(&files), none);
    }

    #[test]
    fn an_error_is_named_with_its_file_line_field_and_remedy() {
        let wrong = ROUTE.replace(
            "modelServerName: pool",
            "modelServerName: pool, weight: 101",
        );
        let found = problems(&[("deep/route.yaml", &wrong), ("server.yaml", SERVER)]);
        assert_eq!(found.len(), 1, "{found:?}");
        let start = "Error deep/route.yaml:7: spec.rules[0].targetModels[0].weight: ";
        assert!(found[0].starts_with(start), "{found:?}");
    }

    #[test]
    fn a_target_that_may_be_in_the_cluster_is_a_warning() {
        let found = problems(&[("route.yaml", ROUTE)]);
        assert_eq!(found.len(), 1, "{found:?}");
        let start =
            "Warning route.yaml:7: spec.rules[0].targetModels[0].modelServerName: there is no";
        assert!(found[0].starts_with(start), "{found:?}");
    }

    #[test]
    fn what_is_no_yaml_or_not_there_is_an_error() {
        let found = problems(&[("bad.yaml", "kind: [")]);
        assert!(found[0].starts_with("Error bad.yaml"), "{found:?}");
        let missing = check(&["/nowhere/at/all.yaml".into()]);
        assert!(missing[0].is_error());
    }
}
