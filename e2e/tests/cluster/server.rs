//! The control loop behind an API server that misbehaves: what serves goes on serving, and changes arrive in the end.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sluice_e2e::cluster::faults::{Detour, Gone};
use sluice_e2e::cluster::{Load, Look, Namespace, Sluice, eventually, on_cluster};

use super::manifests::{all, pool, route};

/// Sluice whose control loop reaches the API server on a detour; the model `NAMESPACE-0` is served all the time.
struct Disturbed {
    detour: Detour,
    namespace: Namespace,
    sluice: Sluice,
    load: Load,
    routes: usize,
}

impl Disturbed {
    async fn start(namespace: Namespace) -> Result<Self> {
        let detour = Detour::start(namespace.cluster().plane()).await?;
        let server = &detour.access().server;
        let address: SocketAddr = server.trim_start_matches("https://").parse()?;
        let values = format!(
            "control: {{env: [{{name: KUBERNETES_SERVICE_HOST, value: '{}'}}, {{name: KUBERNETES_SERVICE_PORT, value: '{}'}}]}}",
            address.ip(),
            address.port()
        );
        let sluice = Sluice::install_for_itself(&namespace, &values).await?;
        let model = format!("{}-0", namespace.name());
        let documents = [pool("engine", "engine", 1), route(&model, &[("engine", 1)])];
        namespace.apply(&all(&documents)).await?;
        sluice.serves(&model, "engine").await?;
        let load = Load::start(sluice.url(), &model, 2, 2);
        Ok(Self {
            detour,
            namespace,
            sluice,
            load,
            routes: 0,
        })
    }

    /// Applies one more route, past the detour.
    async fn change(&mut self) -> Result<String> {
        self.routes += 1;
        let model = format!("{}-{}", self.namespace.name(), self.routes);
        self.namespace
            .apply(&route(&model, &[("engine", 1)]))
            .await?;
        Ok(model)
    }

    /// One more change arrives.
    async fn follows(&mut self) -> Result<()> {
        let model = self.change().await?;
        self.sluice.serves(&model, "engine").await
    }

    async fn end(self) -> Result<()> {
        self.load.goes_on(10).await?;
        self.load.stop().await.without_failures()?;
        Ok(())
    }

    /// Waits until the control loop has been answered so with a new request.
    async fn is_told(&self, status: u16) -> Result<()> {
        let before = self.detour.requests().len();
        eventually(&format!("a request is answered with {status}"), || async {
            let requests = self.detour.requests();
            let told = requests
                .iter()
                .skip(before)
                .any(|request| request.status == status);
            Ok(Look::when(told, requests.len()))
        })
        .await
    }
}

fn disturbed<F, Fut>(name: &str, test: F)
where
    F: FnOnce(Disturbed) -> Fut + Send + 'static,
    Fut: Future<Output = Result<Disturbed>> + Send + 'static,
{
    on_cluster(name, |namespace| async move {
        test(Disturbed::start(namespace).await?).await?.end().await
    });
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn a_slow_server_only_delays_changes() {
    disturbed("slow", |mut it| async move {
        it.detour.delay(Duration::from_millis(700));
        it.follows().await?;
        it.follows().await?;
        Ok(it)
    });
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn an_overrun_server_is_given_time_and_changes_arrive_afterwards() {
    disturbed("overrun", |mut it| async move {
        it.detour.overrun(Some(Duration::from_secs(1)));
        // Watches that are open stay so.
        it.detour.link().cut();
        it.is_told(429).await?;
        let model = it.change().await?;
        it.load.goes_on(50).await?;
        let answer = it.sluice.ask(&model).await?;
        ensure!(
            answer.status == 404,
            "nobody can know it: {}",
            answer.status
        );
        it.detour.overrun(None);
        it.sluice.serves(&model, "engine").await?;
        Ok(it)
    });
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn what_is_forgotten_is_listed_again() {
    disturbed("forgetful", |mut it| async move {
        it.detour.forget(Some(Gone::Event));
        it.follows().await?;
        it.detour.forget(None);
        it.follows().await?;
        it.detour.forget(Some(Gone::Status));
        it.detour.link().cut();
        it.is_told(410).await?;
        let model = it.change().await?;
        it.detour.forget(None);
        it.sluice.serves(&model, "engine").await?;
        it.follows().await?;
        Ok(it)
    });
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn watches_that_end_all_the_time_miss_nothing() {
    disturbed("closing", |mut it| async move {
        it.detour.limit_watches(Some(Duration::from_millis(100)));
        for _ in 0..5 {
            it.follows().await?;
        }
        Ok(it)
    });
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn a_server_that_is_behind_is_followed_when_it_catches_up() {
    disturbed("behind", |mut it| async move {
        it.follows().await?;
        // From here on this is what it remembers.
        it.detour.forget(Some(Gone::Event));
        it.is_told(200).await?;
        it.detour.forget(None);
        it.follows().await?;
        it.detour.stay_behind(true);
        let model = it.change().await?;
        it.load.goes_on(50).await?;
        it.detour.stay_behind(false);
        it.sluice.serves(&model, "engine").await?;
        Ok(it)
    });
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn a_server_that_is_cut_off_refuses_or_hangs_takes_nothing_away() {
    disturbed("unreachable", |mut it| async move {
        it.detour.link().break_off();
        let unheard = it.change().await?;
        it.load.goes_on(50).await?;
        it.detour.link().close(false);
        it.sluice.serves(&unheard, "engine").await?;
        it.detour.link().hold(true);
        let held = it.change().await?;
        it.load.goes_on(50).await?;
        it.detour.link().hold(false);
        it.sluice.serves(&held, "engine").await?;
        let log = it.sluice.controls().await?;
        let log = it
            .namespace
            .running(log.first().context("it runs")?)?
            .log("control");
        ensure!(log.contains("cannot watch"), "it says why: {log}");
        Ok(it)
    });
}
