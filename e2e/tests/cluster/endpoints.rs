//! Which pods gateways send requests to, while pods, labels and namespaces change.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use sluice_e2e::cluster::kubelet::ProbeKind;
use sluice_e2e::cluster::sluice::{condition, resources};
use sluice_e2e::cluster::{Load, Look, Namespace, Sluice, eventually, on_sluice};

use super::manifests::{all, pool, route, server};

async fn serving(namespace: &Namespace, sluice: &Sluice, model: &str, replicas: u32) -> Result<()> {
    let documents = [
        pool("engine", "engine", replicas),
        route(model, &[("engine", 1)]),
    ];
    namespace.apply(&all(&documents)).await?;
    namespace.wait_ready("deployment/engine").await?;
    sluice.serves(model, "engine").await?;
    counts(namespace, replicas, replicas, 0).await
}

/// Waits until the status of the ModelServer counts so many pods, ready ones and draining ones.
async fn counts(namespace: &Namespace, total: u32, ready: u32, draining: u32) -> Result<()> {
    let wanted = json!([total, ready, draining]);
    eventually(&format!("{wanted} are counted"), || async {
        let server = resources(namespace, "ModelServer").get("engine").await?;
        let status = &server.data["status"];
        let of = |name: &str| status[name].as_u64().unwrap_or(0);
        let seen = json!([of("endpoints"), of("ready"), of("draining")]);
        Ok(Look::when(seen == wanted, status))
    })
    .await
}

async fn patch(namespace: &Namespace, pod: &Pod, metadata: Value) -> Result<()> {
    let patch = Patch::Merge(json!({"metadata": metadata}));
    let pods = namespace.api::<Pod>();
    pods.patch(&pod.name_any(), &PatchParams::default(), &patch)
        .await?;
    Ok(())
}

/// Requests that a pod's engine has begun.
async fn begun(pod: &Pod) -> Result<f64> {
    let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
    let url = format!("http://{}:8000/metrics", address.context("an address")?);
    let text = reqwest::get(url).await?.text().await?;
    Ok(sluice_e2e::harness::client::sample(
        &text,
        "vllm:request_success_total",
        &[],
    ))
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn a_pod_marked_as_draining_gets_nothing_new_until_the_mark_goes() {
    on_sluice("marked", |namespace, sluice| async move {
        serving(&namespace, &sluice, "marked", 2).await?;
        let pod = namespace.pods("app=engine").await?.remove(0);
        patch(
            &namespace,
            &pod,
            json!({"annotations": {"sluice.dev/draining": "true"}}),
        )
        .await?;
        counts(&namespace, 2, 1, 1).await?;
        let load = Load::start(sluice.url(), "marked", 4, 2);
        load.goes_on(8).await?;
        let before = begun(&pod).await?;
        load.goes_on(100).await?;
        ensure!(begun(&pod).await? == before, "it is sent requests");
        patch(
            &namespace,
            &pod,
            json!({"annotations": {"sluice.dev/draining": null}}),
        )
        .await?;
        eventually("it is sent requests again", || async {
            let now = begun(&pod).await?;
            Ok(Look::when(now > before, now))
        })
        .await?;
        load.stop().await.without_failures()?;
        Ok(())
    });
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn a_pod_whose_label_goes_is_unbound() {
    on_sluice("unbound", |namespace, sluice| async move {
        serving(&namespace, &sluice, "unbound", 2).await?;
        let load = Load::start(sluice.url(), "unbound", 4, 2);
        load.goes_on(8).await?;
        let pod = namespace.pods("app=engine").await?.remove(0);
        patch(&namespace, &pod, json!({"labels": {"app": "put-aside"}})).await?;
        // The Deployment makes another one in its place.
        eventually("it is out", || async {
            let before = begun(&pod).await?;
            load.goes_on(20).await?;
            let after = begun(&pod).await?;
            Ok(Look::when(before == after, (before, after)))
        })
        .await?;
        load.stop().await.without_failures()?;
        Ok(())
    });
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn readiness_that_comes_and_goes_is_followed_each_time() {
    on_sluice("flapping", |namespace, sluice| async move {
        serving(&namespace, &sluice, "flapping", 2).await?;
        let load = Load::start(sluice.url(), "flapping", 4, 2);
        let pod = namespace.pods("app=engine").await?.remove(0);
        let running = namespace.running(&pod)?;
        for _ in 0..3 {
            running.fail_probe("engine", ProbeKind::Readiness, true);
            counts(&namespace, 2, 1, 0).await?;
            running.fail_probe("engine", ProbeKind::Readiness, false);
            counts(&namespace, 2, 2, 0).await?;
        }
        load.goes_on(20).await?;
        load.stop().await.without_failures()?;
        Ok(())
    });
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn a_server_deleted_while_in_use_is_named_and_comes_back() {
    on_sluice("deleted", |namespace, sluice| async move {
        serving(&namespace, &sluice, "half-deleted", 1).await?;
        namespace.remove(&server("engine", "engine")).await?;
        let resource = "ModelRoute/half-deleted";
        let said = condition(
            &namespace,
            resource,
            "ResolvedRefs",
            "False",
            "TargetNotFound",
        )
        .await?;
        ensure!(said.contains("engine"), "it is named: {said}");
        sluice.answers("half-deleted", 503, "engine").await?;
        namespace.apply(&server("engine", "engine")).await?;
        sluice.serves("half-deleted", "engine").await?;
        condition(&namespace, resource, "ResolvedRefs", "True", "ResolvedRefs").await?;
        Ok(())
    });
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn with_its_namespace_a_model_is_gone_and_others_serve_on() {
    on_sluice("stays", |namespace, sluice| async move {
        serving(&namespace, &sluice, "stays", 1).await?;
        let cluster = namespace.cluster();
        let other = cluster.namespace("leaves").await?;
        serving(&other, &sluice, "leaves", 1).await?;
        let load = Load::start(sluice.url(), "stays", 2, 2);
        other.delete().await?;
        sluice.answers("leaves", 404, "leaves").await?;
        load.goes_on(20).await?;
        load.stop().await.without_failures()?;
        Ok(())
    });
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn gateways_know_each_pod_by_address_and_zone() {
    on_sluice("zones", |namespace, sluice| async move {
        serving(&namespace, &sluice, "zoned", 3).await?;
        let pods = namespace.pods("app=engine").await?;
        let address = |pod: &Pod| pod.status.as_ref().and_then(|status| status.pod_ip.clone());
        let addresses: BTreeSet<_> = pods.iter().filter_map(address).collect();
        ensure!(addresses.len() == 3, "{addresses:?}");
        for gateway in sluice.gateways().await? {
            let url = format!(
                "http://{}:9090/metrics",
                address(&gateway).context("an address")?
            );
            eventually("each pod is in the gateway's metrics", || async {
                let text = reqwest::get(&url).await?.text().await?;
                let known = |it: &&String| text.contains(&format!("\"{it}:8000\""));
                let missing: Vec<_> = addresses.iter().filter(|it| !known(it)).collect();
                Ok(Look::when(missing.is_empty(), missing))
            })
            .await?;
        }
        Ok(())
    });
}
