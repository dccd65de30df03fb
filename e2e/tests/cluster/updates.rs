//! Changes under load: nothing is lost while engines are replaced, weights shift, and what is wrong is refused.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use sluice_e2e::cluster::sluice::condition;
use sluice_e2e::cluster::{Load, Namespace, Sluice, on_cluster, on_sluice};

use super::manifests::{all, pool, route};

/// Tokens of a stream: at 20 ms each it takes 0.6 s.
const TOKENS: u32 = 30;

const CLIENTS: usize = 8;

async fn two_pools(namespace: &Namespace, model: &str, weights: [u32; 2]) -> Result<()> {
    let route = route(model, &[("old", weights[0]), ("new", weights[1])]);
    let documents = [pool("old", "old", 1), pool("new", "new", 1), route];
    namespace.apply(&all(&documents)).await?;
    for name in ["old", "new"] {
        namespace.wait_ready(&format!("deployment/{name}")).await?;
    }
    Ok(())
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn a_rolling_update_of_engines_under_load_loses_nothing() {
    on_sluice("update", |namespace, sluice| async move {
        let engines = pool("engine", "engine", 3);
        let route = route("rolling", &[("engine", 1)]);
        namespace.apply(&all(&[engines.clone(), route])).await?;
        namespace.wait_ready("deployment/engine").await?;
        sluice.serves("rolling", "engine").await?;
        let before = namespace.pods("app=engine").await?;
        let load = Load::start(sluice.url(), "rolling", CLIENTS, TOKENS);
        load.goes_on(CLIENTS).await?;
        let revised = engines.replace(r#"value: "1""#, r#"value: "2""#);
        ensure!(revised != engines, "there is a revision");
        namespace.apply(&revised).await?;
        namespace.wait_ready("deployment/engine").await?;
        for pod in &before {
            super::gone(&namespace, pod).await?;
        }
        load.goes_on(CLIENTS).await?;
        load.stop().await.without_failures()?;
        Ok(())
    });
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn a_new_weight_shifts_traffic_and_loses_nothing() {
    on_sluice("weight", |namespace, sluice| async move {
        two_pools(&namespace, "shifting", [100, 0]).await?;
        sluice.serves("shifting", "old").await?;
        let load = Load::start(sluice.url(), "shifting", CLIENTS, 2);
        load.goes_on(100).await?;
        let changed = Instant::now();
        namespace
            .apply(&route("shifting", &[("old", 0), ("new", 100)]))
            .await?;
        load.leaves("old", 20).await?;
        let record = load.stop().await.without_failures()?;
        let old = record.answers.iter().filter(|answer| answer.by == "old");
        let last = old
            .map(|answer| answer.asked)
            .max()
            .context("the old one answered")?;
        let took = last.saturating_duration_since(changed);
        super::say(&format!(
            "weight: the last request for the old pool came {took:?} after the change was sent"
        ));
        Ok(())
    });
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn a_bad_change_is_refused_by_the_webhook_and_nothing_changes() {
    on_sluice("refused", |namespace, sluice| async move {
        two_pools(&namespace, "guarded", [1, 0]).await?;
        sluice.serves("guarded", "old").await?;
        let load = Load::start(sluice.url(), "guarded", 2, 2);
        load.goes_on(10).await?;
        let answer = namespace.apply(&bad_route("guarded")).await;
        let said = format!("{:#}", answer.err().context("it was taken")?);
        for words in ["denied the request", "spec.rules[0].modelMatch", "regex"] {
            ensure!(said.contains(words), "{words}: {said}");
        }
        load.goes_on(50).await?;
        let record = load.stop().await.without_failures()?;
        ensure!(
            record.by_model().keys().eq(&["old"]),
            "{:?}",
            record.by_model()
        );
        Ok(())
    });
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn without_the_webhook_the_status_says_it_and_gateways_keep_the_last_good() {
    on_cluster("unguarded", |namespace| async move {
        let values = "control: {webhook: {enabled: false}}";
        let sluice = Sluice::install_for_itself(&namespace, values).await?;
        two_pools(&namespace, "unguarded", [1, 0]).await?;
        sluice.serves("unguarded", "old").await?;
        namespace.apply(&bad_route("unguarded")).await?;
        let resource = "ModelRoute/unguarded";
        let said = condition(&namespace, resource, "Accepted", "False", "Invalid").await?;
        ensure!(
            said.contains("spec.rules[0].modelMatch"),
            "it names the field: {said}"
        );
        condition(&namespace, resource, "Programmed", "False", "Rejected").await?;
        for _ in 0..20 {
            let by = sluice.served_by("unguarded").await?;
            ensure!(by == "old", "{by}");
        }
        namespace
            .apply(&route("unguarded", &[("old", 0), ("new", 1)]))
            .await?;
        condition(&namespace, resource, "Programmed", "True", "Programmed").await?;
        sluice.serves("unguarded", "new").await
    });
}

/// The definition takes it, and no gateway does.
fn bad_route(model: &str) -> String {
    let good = route(model, &[("new", 1)]);
    good.replace(
        "targetModels:",
        "modelMatch: {headers: {x: {regex: '('}}}, targetModels:",
    )
}
