//! Kthena's acceptance scenarios of the router, on `config/examples/kthena` as they are, with engines as pods.
//!
//! R1 simple route, R2 several models behind one name, R6 canary, R9 adapters, R10 duplicate routes, R16 webhook.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use kube::ResourceExt;
use serde::Deserialize;
use serde_json::Value;
use sluice_e2e::cluster::sluice::{answering, condition, resources};
use sluice_e2e::cluster::{Look, Namespace, Sluice, eventually, on_sluice};
use tokio::sync::OnceCell;

use super::manifests::{example, examples_folder, route};

const SMALL: &str = "org/chat-small";
const LARGE: &str = "org/chat-large";

/// Not among the examples that [`examples`] applies in any order.
const NEWER: &str = "duplicate-newer";

static EXAMPLES: OnceCell<Namespace> = OnceCell::const_new();

/// A namespace with every example applied and its engines ready. All tests here share it: model names are the same
/// in every namespace.
async fn examples(sluice: &Sluice) -> Result<Namespace> {
    let made = EXAMPLES.get_or_try_init(|| async {
        let namespace = sluice.namespace().cluster().namespace("kthena").await?;
        for (_, text) in texts()? {
            namespace.apply(&text).await?;
        }
        for deployment in ["chat-small", "chat-large", "chat-adapters"] {
            namespace
                .wait_ready(&format!("deployment/{deployment}"))
                .await?;
        }
        older_than_a_second(&namespace, "shared-name-older").await?;
        namespace.apply(&example(NEWER)?).await?;
        anyhow::Ok(namespace)
    });
    Ok(made.await?.clone())
}

/// Every example but [`NEWER`], by name.
fn texts() -> Result<Vec<(String, String)>> {
    let mut texts = Vec::new();
    for entry in std::fs::read_dir(examples_folder())? {
        let path = entry?.path();
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name != NEWER {
            texts.push((name.clone(), example(&name)?));
        }
    }
    Ok(texts)
}

/// Kubernetes counts ages in seconds.
async fn older_than_a_second(namespace: &Namespace, route: &str) -> Result<()> {
    let born = resources(namespace, "ModelRoute").get(route).await?;
    let born = born.creation_timestamp().context("it has an age")?.0;
    eventually("a second is over", || async {
        let age = k8s_openapi::jiff::Timestamp::now().duration_since(born);
        Ok(Look::when(age.as_millis() > 1000, age))
    })
    .await
}

async fn answers_by(sluice: &Sluice, model: &str, count: usize) -> Result<BTreeMap<String, usize>> {
    let mut counts = BTreeMap::new();
    for _ in 0..count {
        *counts.entry(sluice.served_by(model).await?).or_default() += 1;
    }
    Ok(counts)
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn r1_a_simple_route_answers() {
    on_sluice("r1", |_, sluice| async move {
        let namespace = examples(&sluice).await?;
        sluice.serves("chat", SMALL).await?;
        let programmed = condition(
            &namespace,
            "ModelRoute/chat",
            "Programmed",
            "True",
            "Programmed",
        );
        let said = programmed.await?;
        ensure!(said.contains("acknowledged by"), "{said}");
        condition(
            &namespace,
            "ModelRoute/chat",
            "ResolvedRefs",
            "True",
            "ResolvedRefs",
        )
        .await?;
        Ok(())
    });
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn r2_a_header_chooses_the_model() {
    on_sluice("r2", |_, sluice| async move {
        examples(&sluice).await?;
        sluice.serves("chat-tiers", SMALL).await?;
        for (header, by) in [("premium", LARGE), ("free", SMALL), ("", SMALL)] {
            let answer = sluice
                .ask_with("chat-tiers", &[("user-type", header)])
                .await?;
            let seen = answering(&answer)?;
            ensure!(seen == by, "user-type {header:?} is answered by {seen}");
        }
        Ok(())
    });
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn r6_a_canary_gets_its_share_and_weights_need_no_sum() {
    on_sluice("r6", |_, sluice| async move {
        let namespace = examples(&sluice).await?;
        sluice.serves("chat-canary", LARGE).await?;
        share(&sluice, 0.30).await?;
        let example = example("canary")?;
        let changed = example.replace("weight: 70", "weight: 50");
        ensure!(changed != example, "the example says 70");
        namespace.apply(&changed).await?;
        let route = "ModelRoute/chat-canary";
        condition(&namespace, route, "Programmed", "True", "Programmed").await?;
        share(&sluice, 0.375).await
    });
}

/// Five points of 500 requests are 2.4 standard deviations: of 2,000 they are almost five.
async fn share(sluice: &Sluice, wanted: f64) -> Result<()> {
    let counts = answers_by(sluice, "chat-canary", 2000).await?;
    let next = counts.get(LARGE).copied().unwrap_or(0);
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let share = next as f64 / 2000.0;
    ensure!(
        (share - wanted).abs() < 0.05,
        "{wanted} of requests were due to the canary: {counts:?}"
    );
    Ok(())
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn r9_adapters_are_served_beside_their_base_model() {
    on_sluice("r9", |_, sluice| async move {
        examples(&sluice).await?;
        for (model, by) in [
            ("chat-base", "org/chat-base"),
            ("support", "support"),
            ("sql", "sql"),
        ] {
            sluice.serves(model, by).await?;
        }
        sluice
            .answers("unknown-adapter", 404, "unknown-adapter")
            .await
    });
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn r10_of_two_routes_the_older_serves_and_the_newer_follows_it() {
    on_sluice("r10", |_, sluice| async move {
        let namespace = examples(&sluice).await?;
        let newer = "ModelRoute/shared-name-newer";
        let said = condition(&namespace, newer, "Conflicted", "True", "Shadowed").await?;
        ensure!(
            said.contains("shared-name-older"),
            "it names the other: {said}"
        );
        for _ in 0..20 {
            let by = sluice.served_by("shared-name").await?;
            ensure!(by == SMALL, "{by}");
        }
        namespace.remove(&example("duplicate-older")?).await?;
        sluice.serves("shared-name", LARGE).await?;
        condition(&namespace, newer, "Conflicted", "False", "NoConflict").await?;
        Ok(())
    });
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn r16_what_is_wrong_is_refused_with_field_and_remedy() {
    on_sluice("r16", |namespace, _| async move {
        namespace.apply(&route("fine", &[("anything", 1)])).await?;
        let lora = "loraAdapters: ['']\n  rules: [{targetModels: [{modelServerName: a}]}]";
        let regex = "modelName: m\n  rules: [{modelMatch: {headers: {x: {regex: '('}}}, targetModels: [{modelServerName: a}]}]";
        let port = "inferenceEngine: vLLM\n  workloadSelector: {matchLabels: {app: a}}\n  workloadPort: {port: 70000}";
        for (kind, spec, words) in [
            ("ModelRoute", lora, ["spec.loraAdapters[0]", ""]),
            (
                "ModelRoute",
                regex,
                ["spec.rules[0].modelMatch.headers.x.regex", "regex"],
            ),
            ("ModelServer", port, ["spec.workloadPort.port", "65535"]),
        ] {
            let document = format!(
                "apiVersion: networking.serving.volcano.sh/v1alpha1\nkind: {kind}\nmetadata: {{name: bad}}\nspec:\n  {spec}\n"
            );
            let answer = namespace.apply(&document).await;
            let said = format!(
                "{:#}",
                answer.err().with_context(|| format!("taken: {spec}"))?
            );
            ensure!(
                words.iter().all(|word| said.contains(word)),
                "{spec}: {said}"
            );
        }
        Ok(())
    });
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn every_example_is_taken_unchanged_and_acknowledged() {
    on_sluice("examples", |_, sluice| async move {
        let namespace = examples(&sluice).await?;
        let mut count = 0;
        for (name, text) in texts()? {
            if name == "duplicate-older" {
                continue; // another test deletes it
            }
            for (kind, name) in ours(&text)? {
                let resource = format!("{kind}/{name}");
                condition(&namespace, &resource, "Accepted", "True", "Accepted").await?;
                condition(&namespace, &resource, "Programmed", "True", "Programmed").await?;
                count += 1;
            }
        }
        ensure!(count >= 20, "{count} resources");
        Ok(())
    });
}

/// Kind and name of each of our resources in a text.
fn ours(text: &str) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        let document = Value::deserialize(document)?;
        let version = document["apiVersion"].as_str().unwrap_or_default();
        if version.starts_with("networking.serving.volcano.sh/") {
            let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            found.push((word(&document["kind"]), word(&document["metadata"]["name"])));
        }
    }
    Ok(found)
}
