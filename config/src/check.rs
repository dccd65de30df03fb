//! `check FILE...`: everything wrong with bootstrap, resource and router configuration files, without serving them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::filters::{FilterCheck, FilterSet};
use crate::load::read_text;
use crate::problem::Problem;
use crate::router_configuration::{self, RouterConfiguration};
use crate::{Bootstrap, Catalog, LoadedDocuments, yaml};

/// What a file holds.
enum Content {
    Bootstrap,
    RouterConfiguration,
    Resources,
}

/// Checks files and folders together: a route may target a ModelServer of another file. A file without
/// `kind` and `apiVersion` is a bootstrap file, or Kthena's router configuration; route overrides are held against
/// the bootstrap file's filters, and accepted as they are when none is given. If it names a control loop, ModelServers
/// may come from there.
pub fn check(paths: &[PathBuf], filters: Arc<dyn FilterCheck>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut set = FilterSet::unknown();
    let mut pushed = false;
    let mut resources = Vec::new();
    for path in paths {
        match content(path) {
            Content::Resources => resources.push(path),
            Content::RouterConfiguration => problems.extend(
                RouterConfiguration::load(path)
                    .map_or_else(|report| report.problems, |(_, warnings)| warnings),
            ),
            Content::Bootstrap => match Bootstrap::load(path, &*filters) {
                Ok((bootstrap, warnings)) => {
                    set = bootstrap.filter_set(filters.clone());
                    pushed |= bootstrap.source.push.is_some();
                    problems.extend(warnings);
                }
                Err(report) => problems.extend(report.problems),
            },
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
fn content(path: &Path) -> Content {
    let documents = read_text(path).ok().map(|text| yaml::parse(&text));
    let Some(Ok(documents)) = documents else {
        return Content::Resources;
    };
    let values = || documents.iter().map(|document| &document.value);
    if values().any(router_configuration::is_one) {
        return Content::RouterConfiguration;
    }
    let resource = |map: &serde_json::Map<String, Value>| {
        let keys = ["kind", "apiVersion", "metadata", "spec"];
        keys.iter().any(|key| map.contains_key(*key))
    };
    match values().find(|value| !value.is_null()) {
        Some(Value::Object(map)) if !resource(map) => Content::Bootstrap,
        _ => Content::Resources,
    }
}
