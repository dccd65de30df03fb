//! The client of the API server, as the flags say.

mod patience;

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use futures::future::BoxFuture;
use http::Request;
use kube::client::{Body, ClientBuilder};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::time::{Instant, sleep_until};
use tower::{Layer, Service};

use self::patience::Patience;
use crate::flags::ClusterFlags;

/// For the head of an answer. The API server itself ends what takes it a minute.
const PATIENCE: Patience = Patience(Duration::from_secs(70));

/// A client, and the namespace that its credentials name.
///
/// # Errors
/// When there are no credentials, or they are of no use.
pub async fn connect(flags: &ClusterFlags) -> anyhow::Result<(Client, String)> {
    let config = config(flags).await?;
    let namespace = config.default_namespace.clone();
    let builder =
        ClientBuilder::try_from(config).context("the cluster's credentials are of no use")?;
    let builder = builder.with_layer(&PATIENCE);
    let client = if flags.kube_api_qps > 0.0 {
        builder
            .with_layer(&Throttle::new(flags.kube_api_qps, flags.kube_api_burst))
            .build()
    } else {
        builder.build()
    };
    Ok((client, namespace))
}

async fn config(flags: &ClusterFlags) -> anyhow::Result<Config> {
    let options = KubeConfigOptions {
        context: flags.context.clone(),
        ..KubeConfigOptions::default()
    };
    if let Some(path) = &flags.kubeconfig {
        let file = Kubeconfig::read_from(path)
            .with_context(|| format!("cannot read the kubeconfig {}", path.display()))?;
        let config = Config::from_custom_kubeconfig(file, &options).await;
        return config.with_context(|| format!("cannot use the kubeconfig {}", path.display()));
    }
    if flags.context.is_some() {
        let config = Config::from_kubeconfig(&options).await;
        return config.context("cannot use the kubeconfig");
    }
    Config::infer()
        .await
        .context("there is neither a kubeconfig nor a service account: give --kubeconfig")
}

/// Lets so many requests through a second, as Kubernetes' own clients do (`--kube-api-qps`).
#[derive(Debug, Clone)]
struct Throttle {
    bucket: Arc<Mutex<Bucket>>,
}

/// Held without an await: a few lines of arithmetic.
#[derive(Debug)]
struct Bucket {
    interval: Duration,
    /// As far ahead of the clock as requests may be.
    slack: Duration,
    /// When the next request would go if none might go early.
    next: Instant,
}

impl Throttle {
    fn new(rate: f64, burst: u32) -> Self {
        let interval = Duration::from_secs_f64(1.0 / rate.max(0.001));
        let burst = if burst > 0 {
            f64::from(burst)
        } else {
            (rate * 2.0).max(1.0)
        };
        let bucket = Bucket {
            interval,
            slack: interval.mul_f64(burst - 1.0),
            next: Instant::now(),
        };
        Self {
            bucket: Arc::new(Mutex::new(bucket)),
        }
    }
}

impl Bucket {
    /// When a request that comes `now` may go.
    fn admit(&mut self, now: Instant) -> Instant {
        let due = self.next.max(now);
        self.next = due + self.interval;
        due.checked_sub(self.slack)
            .map_or(now, |early| early.max(now))
    }
}

impl<S> Layer<S> for Throttle {
    type Service = Throttled<S>;

    fn layer(&self, inner: S) -> Throttled<S> {
        Throttled {
            inner,
            bucket: self.bucket.clone(),
        }
    }
}

#[derive(Debug)]
struct Throttled<S> {
    inner: S,
    bucket: Arc<Mutex<Bucket>>,
}

impl<S> Service<Request<Body>> for Throttled<S>
where
    S: Service<Request<Body>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let start = bucket.admit(Instant::now());
        drop(bucket);
        // Nothing is sent before it is polled.
        let response = self.inner.call(request);
        Box::pin(async move {
            sleep_until(start).await;
            response.await
        })
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::Api;

    use super::*;
    use crate::testing::ApiServer;

    #[tokio::test(start_paused = true)]
    async fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
        let throttle = Throttle::new(10.0, 5);
        let client = Client::new(throttle.layer(ApiServer::new()), "default");
        let maps: Api<ConfigMap> = Api::default_namespaced(client);
        let start = Instant::now();
        for count in 1..=25u32 {
            maps.get_opt("none").await.unwrap();
            let late = count.saturating_sub(5) * 100;
            let took = u32::try_from(start.elapsed().as_millis()).unwrap();
            assert!(took.abs_diff(late) <= 2, "{count}: {took} ms");
        }
        // What was not used does not pile up.
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let start = Instant::now();
        for _ in 0..6 {
            maps.get_opt("none").await.unwrap();
        }
        assert!(start.elapsed().as_millis().abs_diff(100) <= 2);
    }

    #[tokio::test]
    async fn a_kubeconfig_that_is_not_there_is_named() {
        let flags = <crate::flags::Flags as clap::Parser>::parse_from([
            "sluice-control",
            "--kubeconfig=/nowhere/kubeconfig",
        ]);
        let error = connect(&flags.run.cluster).await.err().expect("an error");
        assert!(
            format!("{error:#}").contains("/nowhere/kubeconfig"),
            "{error:#}"
        );
    }
}
