//! Random batches and loads of files: what they make bit by bit is what the same state makes at once.

use std::collections::BTreeMap;

use proptest::prelude::*;
use sluice_config::push::{Batch, ResourceType, Upsert};
use sluice_config::snapshot::Snapshot;
use sluice_config::{Catalog, FilterSet, LoadedDocuments};

use crate::bed::{Bed, With, endpoint_message, provider, route, server, upsert};

/// One change.
#[derive(Debug, Clone)]
enum Step {
    Put(Upsert),
    Remove(ResourceType, String),
    Files(Vec<String>),
    Refused(usize),
}

fn name() -> impl Strategy<Value = String> {
    "[a-d]"
}

fn put_server() -> impl Strategy<Value = Upsert> {
    (name(), 0..3_u8).prop_map(|(name, variant)| {
        let server = server(&name);
        match variant {
            0 => server,
            1 => server.with("spec.model", r#""renamed""#),
            _ => server.with("spec.endpoints", r#"[{"address": "10.0.0.1:8000"}]"#),
        }
    })
}

fn put_route() -> impl Strategy<Value = Upsert> {
    let targets = prop::collection::vec((name(), 1..3_u32), 1..3);
    (name(), 1..3_u8, targets, any::<bool>()).prop_map(|(name, day, targets, regex)| {
        let targets: Vec<(&str, u32)> = targets.iter().map(|(n, w)| (n.as_str(), *w)).collect();
        let route = route(&name, &format!("2025-01-0{day}T00:00:00Z"), &targets);
        match regex {
            true => route.with("spec.loraAdapters", r#"["x", "y"]"#),
            false => route,
        }
    })
}

fn put_endpoint() -> impl Strategy<Value = Upsert> {
    let pools = prop::collection::btree_set(name(), 1..3);
    (name(), 1..4_u8, pools, any::<bool>()).prop_map(|(pod, host, pools, draining)| {
        let pools: Vec<&str> = pools.iter().map(String::as_str).collect();
        let mut message = endpoint_message(&pod, &format!("10.0.0.{host}"), &pools);
        message.draining = draining;
        upsert(
            ResourceType::Endpoint,
            &format!("default/{pod}:8000"),
            &message,
        )
    })
}

fn step() -> impl Strategy<Value = Step> {
    let kinds = [
        ResourceType::ModelServer,
        ResourceType::ModelRoute,
        ResourceType::Endpoint,
        ResourceType::ExternalModelProvider,
    ];
    let remove = (0..4_usize, name()).prop_map(move |(kind, name)| {
        let port = if kind == 2 { ":8000" } else { "" };
        Step::Remove(kinds[kind], format!("default/{name}{port}"))
    });
    let file = prop_oneof![
        name().prop_map(|name| {
            format!(
                "apiVersion: networking.serving.volcano.sh/v1alpha1\nkind: ModelServer\n\
                 metadata: {{name: {name}}}\nspec:\n  inferenceEngine: SGLang\n  endpoints:\n  \
                 - address: 10.1.1.1:1\n---\n"
            )
        }),
        (name(), name()).prop_map(|(name, target)| {
            format!(
                "apiVersion: networking.serving.volcano.sh/v1alpha1\nkind: ModelRoute\n\
                 metadata: {{name: {name}}}\nspec:\n  modelName: file\n  rules:\n  - targetModels:\n    \
                 - modelServerName: {target}\n---\n"
            )
        }),
    ];
    prop_oneof![
        3 => put_server().prop_map(Step::Put),
        4 => put_route().prop_map(Step::Put),
        6 => put_endpoint().prop_map(Step::Put),
        1 => name().prop_map(|name| Step::Put(provider(&name, "key"))),
        4 => remove,
        1 => prop::collection::vec(file, 0..4).prop_map(Step::Files),
        1 => (0..3_usize).prop_map(Step::Refused),
    ]
}

/// All that a snapshot says, but its number.
fn shown(snapshot: &Snapshot) -> String {
    let Snapshot {
        routes,
        servers,
        by_model,
        by_lora,
        ..
    } = snapshot;
    let by_model: BTreeMap<_, _> = by_model.iter().collect();
    let by_lora: BTreeMap<_, _> = by_lora.iter().collect();
    format!("{routes:#?} {servers:#?} {by_model:?} {by_lora:?}")
}

fn load(files: &[String]) -> LoadedDocuments {
    LoadedDocuments::from_text("f.yaml", &format!("# x\n{}", files.concat()))
}

/// A resource of each kind that is refused.
fn wrong(kind: usize) -> Upsert {
    match kind {
        0 => server("a").with("spec.inferenceEngine", r#""none""#),
        1 => route("a", "2025-01-01T00:00:00Z", &[("b", 0)]),
        _ => {
            let message = endpoint_message("a", "nowhere", &["a"]);
            upsert(ResourceType::Endpoint, "default/a:8000", &message)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn a_snapshot_made_bit_by_bit_is_the_one_made_at_once(
        batches in prop::collection::vec(prop::collection::vec(step(), 1..6), 1..12),
    ) {
        let mut bed = Bed::new();
        let mut state: BTreeMap<(ResourceType, String), Upsert> = BTreeMap::new();
        let mut last_files = Vec::new();
        let mut any_files = false;
        for steps in batches {
            let mut batch: BTreeMap<(ResourceType, String), Option<Upsert>> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Put(upsert) => {
                        let key = (upsert.kind, upsert.name.clone());
                        state.insert(key.clone(), upsert.clone());
                        batch.insert(key, Some(upsert));
                    }
                    Step::Remove(kind, name) => {
                        state.remove(&(kind, name.clone()));
                        batch.insert((kind, name), None);
                    }
                    Step::Files(files) => {
                        bed.catalog.update(load(&files), 1);
                        (last_files, any_files) = (files, true);
                    }
                    Step::Refused(kind) => {
                        let wrong = wrong(kind);
                        batch.entry((wrong.kind, wrong.name.clone())).or_insert(Some(wrong));
                    }
                }
            }
            let removals = batch.iter().filter(|(_, one)| one.is_none()).map(|(key, _)| key.clone());
            let removals = removals.collect();
            bed.push(&Batch { upserts: batch.into_values().flatten().collect(), removals });
        }
        let mut fresh = Catalog::with_push(FilterSet::unknown());
        fresh.push(&Batch { upserts: state.into_values().collect(), removals: Vec::new() }, 1);
        // Twice, as what a file's route needs may have left its file: that is the one thing that hangs on what was.
        if any_files {
            fresh.update(load(&last_files), 1);
            bed.catalog.update(load(&[]), 1);
            bed.catalog.update(load(&last_files), 1);
        }
        prop_assert_eq!(shown(&bed.snapshot()), shown(fresh.snapshot()));
    }
}
