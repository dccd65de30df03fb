//! Which pods gateways send requests to, while pods, labels and namespaces change.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use sluice_e2e::cluster::kubelet::ProbeKind;
use sluice_e2e::cluster::sluice::{condition, resources};
use sluice_e2e::cluster::{Load, Look, Namespace, Sluice, eventually, on_cluster, on_sluice};
use sluice_e2e::harness::client;

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

/// Waits until a stretch of load leaves a pod alone: no status says when each gateway has heard of a change.
async fn left_alone(load: &Load, pod: &Pod, stretch: usize) -> Result<()> {
    eventually("it is left alone", || async {
        let before = answered(pod).await?;
        load.goes_on(stretch).await?;
        let after = answered(pod).await?;
        Ok(Look::when(before == after, (before, after)))
    })
    .await
}

/// Requests that a pod's engine has answered.
async fn answered(pod: &Pod) -> Result<f64> {
    let text = metrics(pod, 8000).await?;
    Ok(client::sample(&text, "vllm:request_success_total", &[]))
}

async fn metrics(pod: &Pod, port: u16) -> Result<String> {
    let url = format!("http://{}:{port}/metrics", address(pod)?);
    Ok(reqwest::get(url).await?.text().await?)
}

fn address(pod: &Pod) -> Result<&str> {
    let status = pod.status.as_ref();
    let address = status.and_then(|status| status.pod_ip.as_deref());
    address.context("it has no address")
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
        left_alone(&load, &pod, 100).await?;
        let before = answered(&pod).await?;
        patch(
            &namespace,
            &pod,
            json!({"annotations": {"sluice.dev/draining": null}}),
        )
        .await?;
        eventually("it is sent requests again", || async {
            let now = answered(&pod).await?;
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
        left_alone(&load, &pod, 20).await?;
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
        let addresses: BTreeSet<_> = pods.iter().map(address).collect::<Result<_>>()?;
        ensure!(addresses.len() == 3, "{addresses:?}");
        for gateway in sluice.gateways().await? {
            eventually("each pod is in the gateway's metrics", || async {
                let text = metrics(&gateway, 9090).await?;
                let known = |it: &&&str| text.contains(&format!("\"{it}:8000\""));
                let missing: Vec<_> = addresses.iter().filter(|it| !known(it)).collect();
                Ok(Look::when(missing.is_empty(), missing))
            })
            .await?;
        }
        Ok(())
    });
}

/// Pods that no kubelet runs: only their objects count here.
const MANY: u32 = 5000;

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn a_selector_may_match_thousands_of_pods() {
    on_cluster("thousands", |namespace| async move {
        let sluice = Sluice::install_for_itself(&namespace, "").await?;
        let began = Instant::now();
        let pods = namespace.api::<Pod>();
        let made = stream::iter(0..MANY).map(|number| make_ready(&pods, number));
        made.buffer_unordered(32).try_collect::<()>().await?;
        super::say(&format!(
            "thousands: {MANY} pods made in {:?}",
            began.elapsed()
        ));
        let documents = [
            server("engine", "engine"),
            route("crowded", &[("engine", 1)]),
        ];
        let began = Instant::now();
        namespace.apply(&all(&documents)).await?;
        counts(&namespace, MANY, MANY, 0).await?;
        condition(
            &namespace,
            "ModelServer/engine",
            "Programmed",
            "True",
            "Programmed",
        )
        .await?;
        super::say(&format!(
            "thousands: acknowledged after {:?}",
            began.elapsed()
        ));
        let gateway = sluice.gateways().await?.remove(0);
        drain(&namespace, "pod-0", &gateway).await?;
        let control = sluice.controls().await?.remove(0);
        let process = namespace
            .running(&control)?
            .process("control")
            .context("it runs")?;
        let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
        let peak = status
            .lines()
            .find(|line| line.starts_with("VmHWM"))
            .unwrap_or_default();
        super::say(&format!("thousands: the control loop's {peak}"));
        Ok(())
    });
}

/// Marks a pod as draining, until the gateway says that one is.
async fn drain(namespace: &Namespace, name: &str, gateway: &Pod) -> Result<()> {
    let draining = async || {
        let text = metrics(gateway, 9090).await?;
        anyhow::Ok(client::sample(&text, "sluice_endpoint_draining", &[]) > 0.0)
    };
    ensure!(!draining().await?, "nothing drains yet");
    let pod = namespace.api::<Pod>().get(name).await?;
    patch(
        namespace,
        &pod,
        json!({"annotations": {"sluice.dev/draining": "true"}}),
    )
    .await?;
    eventually("one drains", || async {
        Ok(Look::when(draining().await?, "none"))
    })
    .await
}

async fn make_ready(pods: &Api<Pod>, number: u32) -> Result<()> {
    let name = format!("pod-{number}");
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"app": "engine"}},
        "spec": {"schedulerName": "nobody", "containers": [{"name": "engine", "image": "none"}]},
    }))?;
    pods.create(&PostParams::default(), &pod).await?;
    let address = format!("10.246.{}.{}", number / 250, number % 250 + 1);
    let status = json!({"status": {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": [{"type": "Ready", "status": "True"}],
    }});
    pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(status))
        .await?;
    Ok(())
}
