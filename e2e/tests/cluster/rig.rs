//! The rig itself: Deployments, Services and pods behave as in a real cluster.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::DeleteParams;
use sluice_e2e::cluster::kubelet::ProbeKind;
use sluice_e2e::cluster::{Cluster, Look, Namespace, eventually, on_cluster};

use super::manifests::engines;

async fn the_service_leads_to(namespace: &Namespace, count: usize) -> Result<()> {
    eventually(&format!("the Service leads to {count} engines"), || async {
        let endpoints = namespace.endpoints("engine").await?;
        let ready = endpoints.values().filter(|endpoint| endpoint.ready).count();
        Ok(Look::when(
            ready == count && endpoints.len() == count,
            endpoints,
        ))
    })
    .await
}

async fn every_engine_answers(namespace: &Namespace) -> Result<()> {
    for address in namespace.endpoints("engine").await?.keys() {
        let url = format!("http://{address}:8000/v1/models");
        let answer = reqwest::get(&url).await.context(url)?;
        ensure!(
            answer.status() == 200,
            "{address} answers {}",
            answer.status()
        );
    }
    Ok(())
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod
        .status
        .iter()
        .flat_map(|status| &status.container_statuses);
    statuses.flatten().map(|status| status.restart_count).sum()
}

fn ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| &status.conditions);
    let mut conditions = conditions.flatten();
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn a_deployment_of_engines_is_ready_in_its_service() {
    on_cluster("ready", |namespace| async move {
        namespace.apply(&engines(3, "")).await?;
        namespace.wait_ready("deployment/engine").await?;
        the_service_leads_to(&namespace, 3).await?;
        every_engine_answers(&namespace).await?;
        let endpoints = namespace.endpoints("engine").await?;
        ensure!(
            endpoints.values().all(|endpoint| endpoint.zone.is_some()),
            "zones come from the nodes: {endpoints:?}"
        );
        Ok(())
    });
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn a_rolling_update_replaces_every_pod() {
    on_cluster("rolling", |namespace| async move {
        namespace.apply(&engines(3, "")).await?;
        namespace.wait_ready("deployment/engine").await?;
        let before = namespace.pods("app=engine").await?;
        namespace.apply(&engines(3, ", --seed=2")).await?;
        namespace.wait_ready("deployment/engine").await?;
        the_service_leads_to(&namespace, 3).await?;
        for pod in &before {
            super::gone(&namespace, pod).await?;
        }
        every_engine_answers(&namespace).await
    });
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn a_killed_engine_is_restarted_and_ready_again() {
    on_cluster("killed", |namespace| async move {
        namespace.apply(&engines(1, "")).await?;
        namespace.wait_ready("deployment/engine").await?;
        let pod = namespace.pods("app=engine").await?.remove(0);
        namespace.running(&pod)?.kill("engine")?;
        eventually("the engine is restarted and ready", || async {
            let pod = namespace.api::<Pod>().get(&pod.name_any()).await?;
            let seen = (restarts(&pod), ready(&pod));
            Ok(Look::when(seen == (1, true), seen))
        })
        .await?;
        let pod = namespace.api::<Pod>().get(&pod.name_any()).await?;
        let status = pod.status.unwrap_or_default();
        let last = status.container_statuses.unwrap_or_default().remove(0);
        let last = last.last_state.and_then(|state| state.terminated);
        ensure!(
            last.as_ref().is_some_and(|end| end.exit_code == 137),
            "{last:?}"
        );
        every_engine_answers(&namespace).await
    });
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn a_failed_readiness_probe_takes_an_engine_out_of_its_service() {
    on_cluster("unready", |namespace| async move {
        namespace.apply(&engines(2, "")).await?;
        the_service_leads_to(&namespace, 2).await?;
        let pod = namespace.pods("app=engine").await?.remove(0);
        let running = namespace.running(&pod)?;
        running.fail_probe("engine", ProbeKind::Readiness, true);
        let ready = || async {
            let endpoints = namespace.endpoints("engine").await?;
            anyhow::Ok(endpoints.values().filter(|endpoint| endpoint.ready).count())
        };
        eventually("one engine is out", || async {
            let ready = ready().await?;
            Ok(Look::when(ready == 1, ready))
        })
        .await?;
        running.fail_probe("engine", ProbeKind::Readiness, false);
        eventually("it is back", || async {
            let ready = ready().await?;
            Ok(Look::when(ready == 2, ready))
        })
        .await?;
        let pod = namespace.api::<Pod>().get(&pod.name_any()).await?;
        ensure!(restarts(&pod) == 0, "readiness restarts nothing");
        Ok(())
    });
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn a_frozen_engine_answers_nothing_until_it_is_thawed() {
    on_cluster("frozen", |namespace| async move {
        namespace.apply(&engines(1, "")).await?;
        the_service_leads_to(&namespace, 1).await?;
        let pod = namespace.pods("app=engine").await?.remove(0);
        let address = pod.status.clone().and_then(|status| status.pod_ip);
        let url = format!(
            "http://{}:8000/health",
            address.context("it has an address")?
        );
        let running = namespace.running(&pod)?;
        running.freeze("engine").await?;
        let asked = tokio::time::timeout(Duration::from_millis(300), reqwest::get(&url)).await;
        ensure!(asked.is_err(), "a frozen engine answered: {asked:?}");
        running.thaw("engine")?;
        ensure!(
            reqwest::get(&url).await?.status() == 200,
            "it answers again"
        );
        Ok(())
    });
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn a_namesake_of_a_deleted_pod_gets_a_process_and_a_status_of_its_own() {
    on_cluster("namesake", |namespace| async move {
        let pods = namespace.api::<Pod>();
        let manifest = super::manifests::shell("twin", "exec sleep 1000", "", "");
        namespace.apply(&manifest).await?;
        namespace.wait_ready("pod/twin").await?;
        let first = pods.get("twin").await?;
        let process = namespace
            .running(&first)?
            .process("main")
            .context("it runs")?;
        // By force: the API server forgets it at once, and the kubelet learns of it afterwards.
        let force = DeleteParams::default().grace_period(0);
        pods.delete("twin", &force).await?;
        namespace.apply(&manifest).await?;
        namespace.wait_ready("pod/twin").await?;
        let second = pods.get("twin").await?;
        ensure!(first.uid() != second.uid(), "it is another pod");
        eventually("the first one's process is gone", || async {
            let alive = std::path::Path::new(&format!("/proc/{process}")).exists();
            Ok(Look::when(!alive, alive))
        })
        .await
    });
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn pods_outlive_an_api_server_that_is_killed_and_comes_back() {
    on_cluster("outage", |_| async move {
        let cluster = Cluster::start().await?;
        let namespace = cluster.namespace("outage").await?;
        namespace.apply(&engines(2, "")).await?;
        the_service_leads_to(&namespace, 2).await?;
        let before = namespace.pods("app=engine").await?;
        cluster.plane().kill_api_server().await;
        let running: Vec<_> = before.iter().map(|pod| namespace.running(pod)).collect();
        running.into_iter().collect::<Result<Vec<_>>>()?[0].kill("engine")?;
        cluster.plane().start_api_server().await?;
        eventually("the restart is told and all is ready", || async {
            let pods = namespace.pods("app=engine").await?;
            let seen: Vec<_> = pods.iter().map(|pod| (restarts(pod), ready(pod))).collect();
            let restarted = seen.iter().map(|pod| pod.0).sum::<i32>() == 1;
            let all_ready = seen.iter().all(|pod| pod.1);
            Ok(Look::when(restarted && all_ready && seen.len() == 2, seen))
        })
        .await?;
        let after = namespace.pods("app=engine").await?;
        let same = |(old, new): (&Pod, &Pod)| old.uid() == new.uid();
        ensure!(before.iter().zip(&after).all(same), "the pods are the same");
        // Controllers and scheduler have found it again too.
        namespace.apply(&engines(3, "")).await?;
        the_service_leads_to(&namespace, 3).await?;
        every_engine_answers(&namespace).await
    });
}
