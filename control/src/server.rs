//! Everything put together: which part gets what from which, and in which order they end.
//!
//! Not for what the parts do.

mod following;
mod measure;
mod signals;
mod tasks;
mod tls;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ApiResource, DynamicObject};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::watch;

use self::following::Following;
use self::signals::Signals;
use self::tasks::Tasks;
use self::tls::Tls;
use crate::authenticate::{Authenticator, TokenReviewer};
use crate::certificates::Trust;
use crate::client;
use crate::flags::{PushTls, RunFlags};
use crate::grants::Grants;
use crate::leader::{Elector, Leadership};
use crate::listener::Listener;
use crate::metrics::Metrics;
use crate::operations::{Operations, Readiness, debug_router};
use crate::push::{Push, PushLimits, listener};
use crate::replicas::{Book, Replicas, ReplicasParams};
use crate::state::PushState;
use crate::upkeep::{Upkeep, is_ours};
use crate::webhook::{Registration, Target, Webhook};

/// How long parts have to finish what they are at.
const GRACE: Duration = Duration::from_secs(10);

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start, when a part of it fails for good, or when a second signal cut its end short.
pub fn run(flags: &RunFlags) -> anyhow::Result<()> {
    // Whoever else is compiled in, TLS is ring's; a second call changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(async {
        let signals = Signals::new().context("cannot listen for signals")?;
        let (client, default_namespace) = client::connect(&flags.cluster).await?;
        Server::start(flags, client, &default_namespace)
            .await?
            .run(signals)
            .await
    });
    // What hangs in a file system or a resolver must not hold up the end.
    runtime.shutdown_background();
    result
}

/// The running process.
struct Server {
    tasks: Tasks,
    stop: watch::Sender<bool>,
    stop_operations: watch::Sender<bool>,
}

/// What all parts need.
struct Common<'a> {
    flags: &'a RunFlags,
    client: Client,
    namespace: String,
    pod: String,
    leadership: Leadership,
    stopped: watch::Receiver<bool>,
}

impl Server {
    async fn start(
        flags: &RunFlags,
        client: Client,
        default_namespace: &str,
    ) -> anyhow::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = Tasks::default();
        let namespace = flags.cluster.pod_namespace.as_deref();
        let namespace = namespace.unwrap_or(default_namespace).to_owned();
        let pod = pod_name(flags);
        let leadership = elect(
            flags,
            &client,
            &namespace,
            &pod,
            stopped.clone(),
            &mut tasks,
        )?;
        let common = Common {
            flags,
            client,
            namespace,
            pod,
            leadership,
            stopped,
        };
        let mut metrics = Metrics::new(SystemTime::now());
        let mut readiness = Readiness::default();
        let tls = Tls::start(&common, &mut tasks)?;
        let (state, push) = common.push(&tls, &mut tasks)?;
        let webhook = common.webhook(&tls, &mut tasks).await?;

        let replicas = common.replicas(&tls, &push, &mut tasks)?;
        let following = Following::start(&common, &state, &push, replicas, &mut tasks);

        measure::readiness(&common, &following, &tls, &mut readiness);
        measure::metrics(
            &common,
            &state,
            &push,
            &webhook,
            &following,
            &tls,
            &mut metrics,
        );
        let stop_operations = common
            .operations(metrics, readiness, &state, &push, &mut tasks)
            .await?;
        let (pod, namespace) = (&common.pod, &common.namespace);
        tracing::info!(
            pod,
            namespace,
            push = %flags.push.push_address,
            webhook = flags.webhook.webhook,
            leader_elect = flags.election.leader_elect,
            version = env!("CARGO_PKG_VERSION"),
            "running"
        );
        Ok(Self {
            tasks,
            stop,
            stop_operations,
        })
    }

    /// Until a signal, and the orderly end after it.
    async fn run(mut self, mut signals: Signals) -> anyhow::Result<()> {
        let failure = tokio::select! {
            signal = signals.next() => {
                tracing::info!(signal, "shutting down");
                None
            }
            failure = self.tasks.failed() => Some(failure),
        };
        // The lease is released, streams and webhook calls end; probes are answered to the last.
        self.stop.send_replace(true);
        tokio::select! {
            () = self.tasks.finish(GRACE) => {}
            _ = signals.next() => anyhow::bail!("a second signal: ended at once"),
        }
        self.stop_operations.send_replace(true);
        match failure {
            Some(failure) => Err(failure),
            None => {
                tracing::info!("ended");
                Ok(())
            }
        }
    }
}

impl Common<'_> {
    /// The state that gateways are pushed, and the port on which they get it.
    fn push(&self, tls: &Tls, tasks: &mut Tasks) -> anyhow::Result<(Arc<PushState>, Push)> {
        let flags = &self.flags.push;
        let grants = Grants::parse(&flags.grants, &self.namespace)?;
        let grants = match &self.flags.replicas.replica_identity {
            Some(identity) => grants.with_replicas(identity.clone()),
            None => grants,
        };
        let authenticator = if flags.insecure_push {
            Authenticator::insecure()
        } else {
            Authenticator::new(Some(TokenReviewer::new(self.client.clone())))
        };
        if flags.push_tls_mode == PushTls::Off && !flags.insecure_push {
            tracing::warn!(
                "--push-tls-mode=off: tokens and credentials cross the network in clear, unless a mesh protects them"
            );
        }
        let state = Arc::new(PushState::new(self.pod.clone()));
        let stopped = self.stopped.clone();
        let limits = PushLimits::default();
        let push = Push::new(state.clone(), authenticator, grants, limits, stopped);
        let socket = listener::bind(flags.push_address)
            .with_context(|| format!("cannot listen on --push-address {}", flags.push_address))?;
        let serve = listener::serve(socket, push.clone(), tls.push_settings());
        tasks.spawn_until_stop("push", serve);
        Ok((state, push))
    }

    /// Listens to the other replicas while this one leads.
    fn replicas(&self, tls: &Tls, push: &Push, tasks: &mut Tasks) -> anyhow::Result<Arc<Book>> {
        let flags = &self.flags.replicas;
        let is_tls = flags.replicas.iter().any(|address| address.tls);
        anyhow::ensure!(
            !is_tls || tls.push_brings_authority(),
            "--replicas: https, but nothing says whose certificates are right: put the authority's into ca.crt beside \
             the push port's tls.crt, or write http where --push-tls-mode is off"
        );
        let book = Arc::new(Book::new(push.instance(), push.acks().clone()));
        let params = ReplicasParams {
            addresses: flags.replicas.clone(),
            token_file: flags.replica_token_file.clone(),
            trust: tls.push_trust(),
        };
        let replicas = Replicas::new(params, self.leadership.clone(), book.clone());
        tasks.spawn("replicas", replicas.run());
        Ok(book)
    }

    /// The webhook and its registration, or what is left to do without one.
    async fn webhook(&self, tls: &Tls, tasks: &mut Tasks) -> anyhow::Result<Webhook> {
        let flags = &self.flags.webhook;
        let webhook = Webhook::default();
        let registration = self.registration();
        if !flags.webhook {
            let wanted =
                move |_: Option<&Trust>, present: Option<&Value>| registration.nothing(present);
            tasks.spawn(
                "registration",
                self.keep_registration(wanted, tls, true).run(),
            );
            return Ok(webhook);
        }
        let config = tls.webhook_config()?;
        let router = webhook.router();
        let listener = Listener::bind(flags.webhook_address, router, Some(config)).await;
        let listener = listener.with_context(|| {
            format!(
                "cannot listen on --webhook-address {}",
                flags.webhook_address
            )
        })?;
        tasks.spawn_until_stop("webhook", listener.serve(self.stopped.clone()));
        // With certificates of others, that they are trusted may be others' business too.
        let brings_authority = tls.webhook_brings_authority();
        let wanted = move |trust: Option<&Trust>, present: Option<&Value>| {
            if trust.is_none() && brings_authority {
                return None;
            }
            registration.object(trust, present)
        };
        tasks.spawn(
            "registration",
            self.keep_registration(wanted, tls, false).run(),
        );
        Ok(webhook)
    }

    fn registration(&self) -> Registration {
        let flags = &self.flags.webhook;
        let name = flags.webhook_configuration.clone();
        let target = match &flags.webhook_url {
            Some(url) => Target::Url(url.to_string()),
            None => Target::Service {
                namespace: self.namespace.clone(),
                name: flags.webhook_service_name.clone(),
                port: flags.webhook_service_port,
            },
        };
        Registration {
            name: name.unwrap_or_else(|| format!("sluice-control-{}", self.namespace)),
            target,
            failure_policy: flags.failure_policy,
            namespaces: self.flags.cluster.namespaces.clone(),
        }
    }

    fn keep_registration(
        &self,
        wanted: impl Fn(Option<&Trust>, Option<&Value>) -> Option<Value> + Send + Sync + 'static,
        tls: &Tls,
        optional: bool,
    ) -> Upkeep {
        let resource = ApiResource::erase::<ValidatingWebhookConfiguration>(&());
        Upkeep {
            api: Api::<DynamicObject>::all_with(self.client.clone(), &resource),
            name: self.registration().name,
            wanted: Box::new(wanted),
            optional,
            trust: tls.webhook_trust(),
            leadership: self.leadership.clone(),
        }
    }

    /// The ConfigMap from which gateways know our authority.
    fn publish_authority(&self, trust: watch::Receiver<Option<Trust>>) -> Upkeep {
        let name = self.flags.certificates.certificate_secret.clone();
        let resource = ApiResource::erase::<ConfigMap>(&());
        let map = name.clone();
        let wanted = move |trust: Option<&Trust>, present: Option<&Value>| {
            let mut object = json!({
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": { "name": map },
                "data": { "ca.crt": trust?.bundle },
            });
            if present.is_none_or(is_ours) {
                object["metadata"]["labels"] = json!(crate::own_labels());
            }
            Some(object)
        };
        Upkeep {
            api: Api::namespaced_with(self.client.clone(), &self.namespace, &resource),
            name,
            wanted: Box::new(wanted),
            optional: false,
            trust,
            leadership: self.leadership.clone(),
        }
    }

    /// The ports for people and probes. The first lives until the very end.
    async fn operations(
        &self,
        metrics: Metrics,
        readiness: Readiness,
        state: &Arc<PushState>,
        push: &Push,
        tasks: &mut Tasks,
    ) -> anyhow::Result<watch::Sender<bool>> {
        let (stop, stopped) = watch::channel(false);
        let ports = [
            (
                "--operations-address",
                self.flags.operations_address,
                Operations { metrics, readiness }.router(),
            ),
            (
                "--debug-address",
                self.flags.debug_address,
                debug_router(state.clone(), push.acks().clone()),
            ),
        ];
        for (flag, address, router) in ports {
            let listener = Listener::bind(address, router, None).await;
            let listener =
                listener.with_context(|| format!("cannot listen on {flag} {address}"))?;
            tasks.spawn(flag, listener.serve(stopped.clone()));
        }
        Ok(stop)
    }
}

/// Stands for election, or leads without one.
fn elect(
    flags: &RunFlags,
    client: &Client,
    namespace: &str,
    pod: &str,
    mut stopped: watch::Receiver<bool>,
    tasks: &mut Tasks,
) -> anyhow::Result<Leadership> {
    let flags = &flags.election;
    if !flags.leader_elect {
        return Ok(Leadership::always());
    }
    let namespace = flags.lease_namespace.as_deref().unwrap_or(namespace);
    // A restarted pod has its name again, and must not take the lease of its former self for its own.
    let identity = format!("{pod}_{:08x}", rand::random::<u32>());
    let terms = flags.terms().checked()?;
    let (elector, leadership) = Elector::new(
        client.clone(),
        namespace,
        &flags.lease_name,
        identity,
        terms,
    );
    let run = elector.run(async move {
        let _ = stopped.wait_for(|&stop| stop).await;
    });
    tasks.spawn_until_stop("election", run);
    Ok(leadership)
}

fn pod_name(flags: &RunFlags) -> String {
    let host = || {
        std::env::var("HOSTNAME")
            .ok()
            .filter(|name| !name.is_empty())
    };
    let name = flags.cluster.pod_name.clone().or_else(host);
    name.unwrap_or_else(|| "sluice-control".into())
}
