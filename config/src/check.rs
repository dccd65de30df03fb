//! `check FILE...`: everything wrong with bootstrap and resource files, without serving them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::filters::{FilterCheck, FilterSet};
use crate::load::read_text;
use crate::problem::Problem;
use crate::{Bootstrap, Catalog, LoadedDocuments, yaml};

/// Checks files and folders together: a route may target a ModelServer of another file. A file without
/// `kind` and `apiVersion` is a bootstrap file; route overrides are held against its filters, and accepted
/// as they are when none is given. If it names a control loop, ModelServers may come from there.
pub fn check(paths: &[PathBuf], filters: Arc<dyn FilterCheck>) -> Vec<Problem> {
    let (bootstraps, resources): (Vec<&PathBuf>, Vec<_>) =
        paths.iter().partition(|path| is_bootstrap(path));
    let mut problems = Vec::new();
    let mut set = FilterSet::unknown();
    let mut pushed = false;
    for path in bootstraps {
        match Bootstrap::load(path, &*filters) {
            Ok((bootstrap, warnings)) => {
                set = bootstrap.filter_set(filters.clone());
                pushed |= bootstrap.source.push.is_some();
                problems.extend(warnings);
            }
            Err(report) => problems.extend(report.problems),
        }
    }
    if !resources.is_empty() {
        let loaded = LoadedDocuments::read_all(resources.into_iter().map(PathBuf::as_path));
        let mut catalog = match pushed {
            true => Catalog::with_push(set),
            false => Catalog::new(set),
        };
        let update = catalog.update(loaded, 0);
        problems.extend(update.problems.iter().cloned());
    }
    problems
}

/// Unreadable files are left to the resource loader, which says what is wrong with them.
fn is_bootstrap(path: &Path) -> bool {
    let Ok(text) = read_text(path) else {
        return false;
    };
    let Ok(documents) = yaml::parse(&text) else {
        return false;
    };
    let first = documents
        .into_iter()
        .map(|document| document.value)
        .find(|value| !value.is_null());
    match first {
        Some(Value::Object(map)) => !["kind", "apiVersion", "metadata", "spec"]
            .iter()
            .any(|key| map.contains_key(*key)),
        _ => false,
    }
}
