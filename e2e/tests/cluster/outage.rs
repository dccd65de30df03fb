//! Programs that die and networks that are cut: gateways serve what they know, from disk if need be, and everything
//! agrees again afterwards.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use sluice_e2e::cluster::kubelet::RunningPod;
use sluice_e2e::cluster::sluice::condition;
use sluice_e2e::cluster::{Cluster, Load, Look, Namespace, Sluice, eventually, on_cluster};

use super::manifests::{all, pool, route};

/// Sluice for a namespace alone, and a model of the namespace's name that is served.
async fn serving(namespace: &Namespace, values: &str) -> Result<Sluice> {
    let sluice = Sluice::install_for_itself(namespace, values).await?;
    let model = namespace.name();
    let documents = [pool("engine", "engine", 1), route(model, &[("engine", 1)])];
    namespace.apply(&all(&documents)).await?;
    sluice.serves(model, "engine").await?;
    Ok(sluice)
}

/// One more route is taken and arrives.
async fn follows(namespace: &Namespace, sluice: &Sluice, model: &str) -> Result<()> {
    taken(namespace, model).await?;
    sluice.serves(model, "engine").await
}

/// Applies one more route, until the webhook can be asked.
async fn taken(namespace: &Namespace, model: &str) -> Result<()> {
    eventually("a route is taken", || async {
        let route = route(model, &[("engine", 1)]);
        namespace.apply(&route).await?;
        Ok(Look::Done(()))
    })
    .await
}

async fn gateway(namespace: &Namespace, sluice: &Sluice) -> Result<RunningPod> {
    running(namespace, sluice.gateways().await?)
}

async fn control(namespace: &Namespace, sluice: &Sluice) -> Result<RunningPod> {
    running(namespace, sluice.controls().await?)
}

fn running(namespace: &Namespace, pods: Vec<Pod>) -> Result<RunningPod> {
    namespace.running(pods.first().context("there is a pod")?)
}

/// Kills a container, and waits until there is another process in its place.
async fn restart(pod: &RunningPod, container: &str) -> Result<()> {
    let before = pod.process(container).context("it runs")?;
    pod.kill(container)?;
    eventually(&format!("{container} runs again"), || async {
        let now = pod.process(container);
        Ok(Look::when(now.is_some_and(|now| now != before), now))
    })
    .await
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn without_a_control_plane_a_restarted_gateway_serves_and_all_agree_afterwards() {
    on_cluster("dark-host", |_| async move {
        let cluster = Cluster::start().await?;
        let namespace = cluster.namespace("dark").await?;
        let sluice = serving(&namespace, "").await?;
        let control = control(&namespace, &sluice).await?;
        let gateway = gateway(&namespace, &sluice).await?;
        let load = Load::start(sluice.url(), "dark", 2, 2);
        cluster.plane().kill_api_server().await;
        control.kill("control")?;
        load.goes_on(50).await?;
        load.stop().await.without_failures()?;
        restart(&gateway, "proxy").await?;
        sluice.serves("dark", "engine").await?;
        let log = gateway.log("proxy");
        ensure!(
            log.contains("last good state"),
            "it says what it serves: {log}"
        );
        cluster.plane().start_api_server().await?;
        follows(&namespace, &sluice, "light").await?;
        sluice.serves("dark", "engine").await
    });
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn a_control_loop_that_is_killed_at_any_time_is_not_missed() {
    on_cluster("killed-control", |namespace| async move {
        let sluice = serving(&namespace, "").await?;
        let load = Load::start(sluice.url(), namespace.name(), 2, 2);
        for number in 0..3 {
            let control = control(&namespace, &sluice).await?;
            // In the middle of a change.
            let model = format!("after-kill-{number}");
            taken(&namespace, &model).await?;
            restart(&control, "control").await?;
            sluice.serves(&model, "engine").await?;
        }
        load.stop().await.without_failures()?;
        Ok(())
    });
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn a_gateway_that_is_cut_off_from_control_serves_and_catches_up() {
    on_cluster("cut-off", |namespace| async move {
        let sluice = serving(&namespace, "control: {webhook: {enabled: false}}").await?;
        let control = control(&namespace, &sluice).await?;
        let load = Load::start(sluice.url(), namespace.name(), 2, 2);
        control.connect(false).await?;
        namespace.apply(&route("unheard", &[("engine", 1)])).await?;
        load.goes_on(50).await?;
        let answer = sluice.ask("unheard").await?;
        ensure!(answer.status == 404, "nobody told it: {}", answer.status);
        control.connect(true).await?;
        sluice.serves("unheard", "engine").await?;
        load.stop().await.without_failures()?;
        Ok(())
    });
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn state_on_disk_that_cannot_be_read_is_named_and_replaced() {
    on_cluster("disk", |namespace| async move {
        let sluice = serving(&namespace, "").await?;
        let gateway = gateway(&namespace, &sluice).await?;
        let file = gateway.volume("state").join("state");
        let good = std::fs::read(&file).with_context(|| file.display().to_string())?;
        let mut damaged = good.clone();
        *damaged.last_mut().context("it is empty")? ^= 1;
        let half = good[..good.len() / 2].to_vec();
        for bad in [damaged, half, b"from the future".to_vec()] {
            std::fs::write(&file, &bad)?;
            let ignored = || gateway.log("proxy").matches("is ignored").count();
            let before = ignored();
            restart(&gateway, "proxy").await?;
            sluice.serves(namespace.name(), "engine").await?;
            ensure!(
                ignored() == before + 1,
                "it says so: {}",
                gateway.log("proxy")
            );
            eventually("it is replaced", || async {
                let now = std::fs::read(&file)?;
                Ok(Look::when(now != bad, "it is as it was"))
            })
            .await?;
        }
        Ok(())
    });
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn another_replica_leads_when_the_leader_dies() {
    on_cluster("leaders", |namespace| async move {
        let sluice = serving(&namespace, "control: {replicas: 2}").await?;
        let leader = leader(&namespace, None).await?;
        let pods = namespace.api::<Pod>();
        pods.delete(&leader, &kube::api::DeleteParams::default())
            .await?;
        let next = self::leader(&namespace, Some(&leader)).await?;
        ensure!(next != leader, "{next}");
        follows(&namespace, &sluice, "led").await?;
        // Only the leader writes statuses.
        condition(&namespace, "ModelRoute/led", "Accepted", "True", "Accepted").await?;
        Ok(())
    });
}

/// The pod that holds the lease, other than a certain one.
async fn leader(namespace: &Namespace, not: Option<&str>) -> Result<String> {
    let lease = namespace.api::<Lease>();
    eventually("somebody leads", || async {
        let lease = lease.get("sluice-control").await?;
        let holder = lease
            .spec
            .and_then(|spec| spec.holder_identity)
            .unwrap_or_default();
        let pod = holder.split('_').next().unwrap_or_default().to_owned();
        let new = !pod.is_empty() && Some(pod.as_str()) != not;
        Ok(Look::some(new.then_some(pod), holder))
    })
    .await
}
