//! Resources that are not as they should be, and what their statuses say.

use anyhow::ensure;
use k8s_openapi::api::core::v1::Event;
use kube::api::ListParams;
use sluice_e2e::cluster::sluice::condition;
use sluice_e2e::cluster::{
    Cluster, ClusterOptions, Look, Sluice, eventually, manifests, on_cluster,
};

use super::manifests::{all, example, pool, route};

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn a_secret_without_its_label_is_asked_for_by_name() {
    on_cluster("secrets", |namespace| async move {
        let values = "control: {secretNamespaces: [secrets]}";
        Sluice::install_for_itself(&namespace, values).await?;
        let good = example("external-provider")?;
        let label = "networking.serving.volcano.sh/external-model-provider-credential: \"true\"";
        let bare = good.replace(label, "without: label");
        ensure!(bare != good, "the example has the label");
        namespace.apply(&bare).await?;
        let provider = "ExternalModelProvider/hosted";
        let resolved = "CredentialsResolved";
        let said = condition(
            &namespace,
            provider,
            resolved,
            "False",
            "CredentialNotFound",
        )
        .await?;
        for words in ["hosted-credential", "external-model-provider-credential"] {
            ensure!(said.contains(words), "{words}: {said}");
        }
        namespace.apply(&good).await?;
        condition(&namespace, provider, resolved, "True", "CredentialResolved").await?;
        condition(&namespace, provider, "Ready", "True", "Ready").await?;
        Ok(())
    });
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn a_route_ahead_of_its_server_and_engines_tells_what_it_waits_for() {
    on_cluster("early", |namespace| async move {
        let sluice = Sluice::install_for_itself(&namespace, "").await?;
        namespace.apply(&route("early", &[("engine", 1)])).await?;
        let resource = "ModelRoute/early";
        let said = condition(
            &namespace,
            resource,
            "ResolvedRefs",
            "False",
            "TargetNotFound",
        )
        .await?;
        ensure!(said.contains("engine"), "it names the server: {said}");
        namespace
            .apply(&super::manifests::server("engine", "engine"))
            .await?;
        condition(&namespace, resource, "ResolvedRefs", "True", "ResolvedRefs").await?;
        let server = "ModelServer/engine";
        let said = condition(
            &namespace,
            server,
            "ResolvedRefs",
            "False",
            "NoMatchingPods",
        )
        .await?;
        ensure!(said.contains("app=engine"), "it names the selector: {said}");
        sluice.answers("early", 503, "no endpoint").await?;
        namespace.apply(&pool("engine", "engine", 1)).await?;
        condition(&namespace, server, "ResolvedRefs", "True", "ResolvedRefs").await?;
        sluice.serves("early", "engine").await?;
        eventually("transitions are events", || async {
            let events = namespace
                .api::<Event>()
                .list(&ListParams::default())
                .await?;
            let reasons: Vec<_> = events
                .items
                .into_iter()
                .filter(|event| event.involved_object.kind.as_deref() == Some("ModelRoute"))
                .filter_map(|event| event.reason)
                .collect();
            let there = reasons.iter().any(|reason| reason == "TargetNotFound");
            Ok(Look::when(there, reasons))
        })
        .await
    });
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn definitions_that_are_missing_or_older_are_named_and_waited_for() {
    on_cluster("undefined-host", |_| async move {
        let cluster = Cluster::start_with(ClusterOptions {
            crds: false,
            ..ClusterOptions::default()
        })
        .await?;
        let namespace = cluster.namespace("undefined").await?;
        let sluice = Sluice::install_undefined(&namespace, "").await?;
        eventually("it says what is missing", || async {
            let controls = sluice.controls().await?;
            let mut logs = String::new();
            for pod in &controls {
                logs.push_str(&namespace.running(pod)?.log("control"));
            }
            let told = logs.contains("sluice-control crds");
            Ok(Look::when(told, logs))
        })
        .await?;
        // An older definition, in which a status is nothing of its own.
        let crds = manifests::crds()?;
        let older = crds.replace("subresources:\n      status: {}\n", "");
        ensure!(older != crds, "there are subresources");
        namespace.apply(&older).await?;
        sluice.ready().await?;
        let documents = [
            pool("engine", "engine", 1),
            route("older", &[("engine", 1)]),
        ];
        namespace.apply(&all(&documents)).await?;
        sluice.serves("older", "engine").await?;
        namespace.apply(&crds).await?;
        condition(
            &namespace,
            "ModelRoute/older",
            "Programmed",
            "True",
            "Programmed",
        )
        .await?;
        Ok(())
    });
}
