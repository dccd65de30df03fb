//! The custom resource definitions on a real API server: what it takes, completes and refuses.

use anyhow::{Result, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, ResourceExt};
use sluice_e2e::cluster::{Namespace, manifests, on_cluster};

const GROUP: &str = "networking.serving.volcano.sh";

fn route(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: {GROUP}/v1alpha1, kind: ModelRoute, metadata: {{name: {name}}}, spec: {spec}}}"
    )
}

/// A refusal must name the rule in our own words.
async fn refused(namespace: &Namespace, spec: &str, words: &str) -> Result<()> {
    match namespace.apply(&route("bad", spec)).await {
        Ok(_) => anyhow::bail!("taken: {spec}"),
        Err(error) => {
            let said = format!("{error:#}");
            ensure!(said.contains(words), "{spec}: {said}");
            Ok(())
        }
    }
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn our_definitions_are_established() {
    on_cluster("established", |namespace| async move {
        let crds: Api<CustomResourceDefinition> = Api::all(namespace.client());
        let names: Vec<_> = crds.list(&kube::api::ListParams::default()).await?.items;
        let names: Vec<_> = names.iter().map(ResourceExt::name_any).collect();
        for kind in ["modelroutes", "modelservers", "externalmodelproviders"] {
            let name = format!("{kind}.{GROUP}");
            ensure!(names.contains(&name), "{name} is not among {names:?}");
            manifests::established(&namespace.client(), &name).await?;
        }
        Ok(())
    });
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn a_bad_model_route_is_refused_in_words_and_a_good_one_taken() {
    on_cluster("routes", |namespace| async move {
        let target = "{modelServerName: a}";
        let both = "{modelServerName: a, externalModelProviderName: b}";
        let provider = "{externalModelProviderName: b}";
        for (spec, words) in [
            (
                format!("{{rules: [{{targetModels: [{target}]}}]}}"),
                "modelName and loraAdapters cannot both be empty",
            ),
            (
                format!("{{modelName: m, rules: [{{targetModels: [{both}]}}]}}"),
                "exactly one of modelServerName and externalModelProviderName",
            ),
            (
                "{modelName: m, rules: [{targetModels: [{modelServerName: a, weight: 0}]}]}"
                    .to_owned(),
                "cannot all be 0",
            ),
            (
                format!("{{loraAdapters: [l], rules: [{{targetModels: [{provider}]}}]}}"),
                "a route with loraAdapters cannot target",
            ),
            (
                "{modelName: m, rules: [{targetModels: []}]}".to_owned(),
                "targetModels",
            ),
            (
                format!("{{modelName: m, rulez: [{{targetModels: [{target}]}}]}}"),
                "rulez",
            ),
        ] {
            refused(&namespace, &spec, words).await?;
        }
        let good = format!("{{modelName: m, rules: [{{targetModels: [{target}]}}]}}");
        namespace.apply(&route("good", &good)).await?;
        let renamed = good.replace("modelName: m", "modelName: n");
        let answer = namespace.apply(&route("good", &renamed)).await;
        let said = format!(
            "{:#}",
            answer.err().unwrap_or_else(|| anyhow::anyhow!("taken"))
        );
        ensure!(said.contains("modelName is immutable"), "{said}");
        Ok(())
    });
}
