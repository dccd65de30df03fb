//! Every example, and every shape of a Kthena manifest, loads without an error.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sluice_config::scheduling::SchedulingConfig;
use sluice_config::{AnyFilter, Bootstrap, Catalog, FilterSet, LoadedDocuments, Update, check};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn files(name: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder(name)).expect("the folder is part of the crate");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("listed").path()).collect();
    // Folders of examples have tests of their own (kthena_examples.rs).
    paths.retain(|path| path.is_file());
    paths.sort();
    paths
}

fn load(path: &Path) -> Update {
    Catalog::new(FilterSet::unknown()).update(LoadedDocuments::read(path), 1)
}

#[test]
fn every_example_is_right_and_says_how_to_run_it() {
    let files = files("examples");
    assert_eq!(files.len(), 11, "{files:?}");
    for path in files {
        let problems = check(std::slice::from_ref(&path), Arc::new(AnyFilter));
        assert!(problems.is_empty(), "{problems:#?}");
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("# ") && text.contains("#   sluice-proxy "),
            "{path:?}"
        );
    }
}

#[test]
fn the_full_bootstrap_example_shows_the_defaults() {
    let path = folder("examples/sluice.yaml");
    let (mut shown, _) = Bootstrap::load(&path, &AnyFilter).unwrap();
    assert_eq!(shown.filters.len(), 2);
    shown.filters.clear();
    assert!(shown.source.routes.take().is_some());
    assert_eq!(shown.scheduling.take(), Some(SchedulingConfig::default()));
    assert_eq!(shown, Bootstrap::default());
}

#[test]
fn the_example_of_push_shows_every_field() {
    let path = folder("examples/sluice-push.yaml");
    let (shown, _) = Bootstrap::load(&path, &AnyFilter).unwrap();
    let push = shown.source.push.unwrap();
    assert!(push.ca_file.is_some() && push.token_file.is_some() && push.state_file.is_some());
    let text = fs::read_to_string(path).unwrap();
    let fields = serde_json::to_value(&push).unwrap();
    for field in fields.as_object().unwrap().keys() {
        assert!(text.contains(&format!("{field}:")), "{field}");
    }
}

#[test]
fn the_examples_of_routes_compile_to_what_they_say() {
    let canary = load(&folder("examples/canary.yaml")).snapshot;
    let weights: Vec<u32> = canary.routes[0].rules[0]
        .targets
        .iter()
        .map(|t| t.weight)
        .collect();
    assert_eq!(weights, [95, 5]);
    let lora = load(&folder("examples/lora.yaml")).snapshot;
    assert_eq!(
        (&lora.by_model["qwen"], &lora.by_lora["sql"]),
        (&vec![0], &vec![0])
    );
    let matches = load(&folder("examples/match.yaml")).snapshot;
    let rules = &matches.routes[0].rules;
    assert!(
        rules[1]
            .headers
            .iter()
            .all(|(name, _)| *name == name.to_lowercase())
    );
    assert!(rules[1].headers[1].1.matches("42") && !rules[1].headers[1].1.matches("x42"));
    assert!(rules[2].uri.matches("/v1/completions"));
    let engines = load(&folder("examples/engines.yaml")).snapshot;
    let sglang = engines
        .servers
        .iter()
        .find(|server| server.name == "sglang")
        .unwrap();
    assert_eq!(sglang.endpoints[1].host, "fd00::1:2");
    assert_eq!(sglang.endpoints[1].address, "[fd00::1:2]:30000");
    let tls = load(&folder("examples/tls.yaml")).snapshot;
    assert!(tls.servers[0].tls && tls.servers[0].http2);
}

#[test]
fn every_kthena_manifest_loads_unchanged() {
    let files = files("tests/kthena");
    assert_eq!(files.len(), 24, "{files:?}");
    for path in &files {
        let update = load(path);
        let errors: Vec<_> = update
            .problems
            .iter()
            .filter(|problem| problem.is_error())
            .collect();
        assert!(errors.is_empty(), "{errors:#?}");
        assert_eq!(update.rejected, 0, "{path:?}");
        assert!(!update.snapshot.servers.is_empty(), "{path:?}");
    }
}

#[test]
fn what_is_accepted_but_not_acted_on_is_warned_about() {
    let warned = |file: &str, path: &str| {
        let update = load(&folder("tests/kthena").join(file));
        let found = update.problems.iter().find(|problem| problem.path == path);
        let problem = found.unwrap_or_else(|| panic!("{file} {path}: {:#?}", update.problems));
        assert!(
            problem.message.contains("accepted but not acted on"),
            "{problem}"
        );
        assert!(problem.line > 1, "{problem}");
    };
    warned("modelroute-rate-limit-local.yaml", "spec.rateLimit");
    warned("modelroute-parent-refs.yaml", "spec.parentRefs");
    warned("modelserver-simple.yaml", "spec.workloadSelector");
    warned("modelserver-pd-nixl.yaml", "spec.workloadSelector.pdGroup");
    warned("modelserver-pd-nixl.yaml", "spec.kvConnector");
    warned(
        "external-provider-mix.yaml",
        "spec.rules[0].targetModels[1].externalModelProviderName",
    );
    warned("external-provider-mix.yaml", "spec");
}
