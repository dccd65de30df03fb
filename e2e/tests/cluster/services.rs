//! Services: their addresses and names lead to ready pods, from pods and from outside.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Pod, Service};
use sluice_e2e::cluster::{Look, Namespace, eventually, on_cluster};
use sluice_e2e::harness::client::without_reuse;

use super::manifests::{engines, shell};

async fn address(namespace: &Namespace, service: &str) -> Result<Ipv4Addr> {
    let service = namespace.api::<Service>().get(service).await?;
    let address = service.spec.and_then(|spec| spec.cluster_ip);
    Ok(address.context("it has an address")?.parse()?)
}

async fn answers(url: &str) -> Result<bool> {
    let answer = without_reuse().get(url).send().await;
    Ok(answer.is_ok_and(|answer| answer.status() == 200))
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn a_service_address_leads_to_whoever_is_ready() {
    on_cluster("service", |namespace| async move {
        namespace.apply(&engines(0, "")).await?;
        let url = format!(
            "http://{}:8000/health",
            address(&namespace, "engine").await?
        );
        ensure!(!answers(&url).await?, "nobody is there");
        namespace.apply(&engines(2, "")).await?;
        namespace.wait_ready("deployment/engine").await?;
        eventually("the Service answers", || async {
            Ok(Look::when(answers(&url).await?, &url))
        })
        .await?;
        for _ in 0..20 {
            ensure!(answers(&url).await?, "it answers every time");
        }
        namespace.apply(&engines(0, "")).await?;
        eventually("the Service answers no more", || async {
            Ok(Look::when(!answers(&url).await?, &url))
        })
        .await
    });
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn pods_know_services_by_name() {
    on_cluster("names", |namespace| async move {
        let script = "while :; do for name in engine engine.names.svc kubernetes.default.svc; do\n\
            echo asked $name; getent ahostsv4 $name; done; sleep 0.05; done";
        namespace.apply(&shell("asker", script, "", "")).await?;
        namespace.apply(&engines(0, "")).await?;
        let address = address(&namespace, "engine").await?;
        let pod = namespace.api::<Pod>().get("asker").await?;
        eventually("both names are known", || async {
            let log = namespace.running(&pod)?.log("main");
            // One line for each kind of socket; the name is in the first.
            let known = [
                format!("asked engine\n{address} "),
                format!("asked engine.names.svc\n{address} "),
                "asked kubernetes.default.svc\n10.0.".to_owned(),
            ];
            Ok(Look::when(
                known.iter().all(|text| log.contains(text)),
                &log,
            ))
        })
        .await
    });
}
