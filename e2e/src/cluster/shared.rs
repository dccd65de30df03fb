//! One cluster for all tests of a test program, and one with Sluice, each started by the first that needs it.
//!
//! All tests run on one runtime, because the cluster's clients and kubelets live on it.

use std::any::Any;
use std::fs::File;
use std::future::Future;
use std::io::Write;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Instant;

use anyhow::{Context, ensure};
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;
use tracing_subscriber::EnvFilter;

use super::sluice::{AUDIT_POLICY, Sluice};
use super::{Cluster, ClusterOptions, ControlPlaneOptions, Namespace};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    log_to_file();
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().build().expect("a runtime starts")
});

static SHARED: OnceCell<Cluster> = OnceCell::const_new();

/// Another cluster: Sluice's webhook judges whatever is applied anywhere in it.
static SLUICE: OnceCell<Sluice> = OnceCell::const_new();

/// Runs a test in a new namespace of the shared cluster; where it fails, the namespace's state is printed.
///
/// # Panics
/// When the test fails, or the cluster does not start.
pub fn on_cluster<F, Fut>(name: &str, test: F)
where
    F: FnOnce(Namespace) -> Fut,
    Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let namespace = RUNTIME.block_on(async { shared().await?.namespace(name).await });
    let namespace = namespace.unwrap_or_else(|error| panic!("no cluster: {error:#}"));
    run(&namespace, test(namespace.clone()));
}

/// Runs a test in a new namespace of a cluster that has Sluice, installed by its chart with two of each program. Also
/// fails when Sluice was denied anything.
///
/// # Panics
/// When the test fails, or the cluster does not start.
pub fn on_sluice<F, Fut>(name: &str, test: F)
where
    F: FnOnce(Namespace, Sluice) -> Fut,
    Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let place = RUNTIME.block_on(async {
        let sluice = with_sluice().await?;
        let namespace = sluice.namespace().cluster().namespace(name).await?;
        anyhow::Ok((namespace, sluice.clone()))
    });
    let (namespace, sluice) = place.unwrap_or_else(|error| panic!("no Sluice: {error:#}"));
    let test = test(namespace.clone(), sluice.clone());
    run(&namespace, async move {
        test.await?;
        let denied = sluice.denied()?;
        ensure!(denied.is_empty(), "Sluice is denied {denied:?}");
        Ok(())
    });
}

fn run(namespace: &Namespace, test: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
    let began = Instant::now();
    let outcome = RUNTIME.block_on(async { tokio::spawn(test).await });
    let failure = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(format!("{error:#}")),
        Err(error) => Some(panic_text(error.into_panic())),
    };
    let Some(failure) = failure else {
        let seconds = began.elapsed().as_secs_f64();
        say(&format!("{}: {seconds:.1} s", namespace.name()));
        RUNTIME.block_on(namespace.delete()).ok();
        return;
    };
    let report = RUNTIME.block_on(namespace.report());
    panic!("{failure}\n{report}");
}

async fn shared() -> anyhow::Result<&'static Cluster> {
    let start = async || {
        let began = Instant::now();
        let cluster = Cluster::start().await?;
        told("cluster: usable", began);
        Ok(cluster)
    };
    SHARED.get_or_try_init(start).await
}

async fn with_sluice() -> anyhow::Result<&'static Sluice> {
    let start = async || {
        let began = Instant::now();
        let cluster = Cluster::start_with(ClusterOptions {
            control_plane: ControlPlaneOptions {
                audit_policy: Some(AUDIT_POLICY.to_owned()),
                ..ControlPlaneOptions::default()
            },
            ..ClusterOptions::default()
        })
        .await?;
        told("another cluster: usable", began);
        let began = Instant::now();
        let namespace = cluster.namespace("sluice-system").await?;
        let values = "{proxy: {replicas: 2}, control: {replicas: 2}}";
        let sluice = match Sluice::install(&namespace, values).await {
            Ok(sluice) => sluice,
            Err(error) => anyhow::bail!("{error:#}\n{}", namespace.report().await),
        };
        told("Sluice: installed and serving", began);
        Ok(sluice)
    };
    SLUICE.get_or_try_init(start).await
}

fn told(what: &str, began: Instant) {
    say(&format!(
        "{what} after {:.1} s",
        began.elapsed().as_secs_f64()
    ));
}

fn panic_text(panic: Box<dyn Any + Send>) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or(panic.downcast_ref::<&str>().copied());
    text.unwrap_or("it panicked").to_owned()
}

/// Past the capture of the test runner: times are for whoever runs the tests, also when they pass.
fn say(text: &str) {
    writeln!(std::io::stderr(), "{text}").ok();
}

/// What kubelets do and clients meet is in `harness.log`, beside the clusters' folders.
fn log_to_file() {
    let file = || -> anyhow::Result<File> {
        let folder = std::env::var_os("SLUICE_CLUSTER_FOLDER").context("not set")?;
        Ok(File::create(PathBuf::from(folder).join("harness.log"))?)
    };
    if let Ok(file) = file() {
        let filter = EnvFilter::new("sluice_e2e=debug,kube_client=off,warn");
        let subscriber = tracing_subscriber::fmt().with_env_filter(filter);
        subscriber
            .with_ansi(false)
            .with_writer(file)
            .try_init()
            .ok();
    }
}
