//! Sluice in a cluster, as its users have it: the chart's objects, pods with the identities that the chart makes, and
//! nothing else. Not for gateways or control loops that run beside the cluster ([`super::Program`]).

use std::time::Duration;

use anyhow::{Context, ensure};
use futures::future::try_join;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Api;
use kube::api::{DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use reqwest::Client;
use serde_json::{Value, json};

use super::wait::{Look, eventually};
use super::{Namespace, chart};
use crate::harness::client::{self, Answer, chat};

/// API group of what Sluice serves.
const GROUP: &str = "networking.serving.volcano.sh";

/// One of each program and short times; tests say what they want otherwise.
const VALUES: &str = "
log: {format: text}
proxy:
  replicas: 1
  drain: {delay: 1s, timeout: 20s}
  terminationGracePeriodSeconds: 30
control: {replicas: 1}
";

/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// An audit policy by which [`Sluice::denied`] learns what was asked.
pub const AUDIT_POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata, userGroups: [system:serviceaccounts]}
- {level: None}
";

/// An installation. A cheap handle.
#[derive(Clone)]
pub struct Sluice {
    namespace: Namespace,
    url: String,
    client: Client,
}

impl Sluice {
    /// Installs the chart with these values into a namespace, and waits until it serves.
    ///
    /// # Errors
    /// When something is refused or not ready in time.
    pub async fn install(namespace: &Namespace, values: &str) -> anyhow::Result<Self> {
        let sluice = Self::begin(namespace, values, true).await?;
        sluice.ready().await?;
        Ok(sluice)
    }

    /// [`Self::install`] for that namespace's resources alone, with permissions in it alone: several of them do not meet.
    ///
    /// # Errors
    /// As [`Self::install`].
    pub async fn install_for_itself(namespace: &Namespace, values: &str) -> anyhow::Result<Self> {
        let mut all: Value = serde_yaml::from_str(values).context("values")?;
        if all.is_null() {
            all = json!({});
        }
        all["control"]["namespaces"] = json!([namespace.name()]);
        Self::install(namespace, &all.to_string()).await
    }

    /// [`Self::install`] without the custom resource definitions and without the wait.
    ///
    /// # Errors
    /// When something is refused.
    pub async fn install_undefined(namespace: &Namespace, values: &str) -> anyhow::Result<Self> {
        Self::begin(namespace, values, false).await
    }

    async fn begin(namespace: &Namespace, values: &str, definitions: bool) -> anyhow::Result<Self> {
        let folder = namespace.cluster().folder().join("chart");
        let values = [VALUES, values];
        let documents = chart::render(namespace.name(), &folder, &values, definitions).await?;
        namespace.apply(&documents).await?;
        let service = namespace.api::<Service>().get("sluice-proxy").await?;
        let address = service.spec.and_then(|spec| spec.cluster_ip);
        Ok(Self {
            namespace: namespace.clone(),
            url: format!("http://{}", address.context("the Service has an address")?),
            client: client::without_reuse(),
        })
    }

    /// Waits until both programs are ready, and the webhook, if there is one, answers.
    ///
    /// # Errors
    /// When they are not in time.
    pub async fn ready(&self) -> anyhow::Result<()> {
        let ready = |what| self.namespace.wait_ready(what);
        try_join(
            ready("deployment/sluice-control"),
            ready("deployment/sluice-proxy"),
        )
        .await?;
        eventually("the webhook answers", || async {
            let rules = json!([{"targetModels": [{"modelServerName": "probe"}]}]);
            let probe: DynamicObject = serde_json::from_value(json!({
                "apiVersion": format!("{GROUP}/v1alpha1"),
                "kind": "ModelRoute",
                "metadata": {"name": "probe"},
                "spec": {"modelName": "probe", "rules": rules},
            }))?;
            let dry = PostParams {
                dry_run: true,
                ..PostParams::default()
            };
            resources(&self.namespace, "ModelRoute")
                .create(&dry, &probe)
                .await?;
            Ok(Look::Done(()))
        })
        .await
    }

    /// Where it is installed.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// `http://ADDRESS` of the gateways' Service.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The gateways' pods, without those that are ending.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn gateways(&self) -> anyhow::Result<Vec<Pod>> {
        self.component("proxy").await
    }

    /// The control loop's pods, without those that are ending.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn controls(&self) -> anyhow::Result<Vec<Pod>> {
        self.component("control").await
    }

    async fn component(&self, name: &str) -> anyhow::Result<Vec<Pod>> {
        let selector = format!("app.kubernetes.io/component={name}");
        let mut pods = self.namespace.pods(&selector).await?;
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(pods)
    }

    /// Asks a model through the gateways' Service.
    ///
    /// # Errors
    /// When no answer came.
    pub async fn ask(&self, model: &str) -> anyhow::Result<Answer> {
        self.ask_with(model, &[]).await
    }

    /// [`Self::ask`] with header fields.
    ///
    /// # Errors
    /// When no answer came.
    pub async fn ask_with(&self, model: &str, headers: &[(&str, &str)]) -> anyhow::Result<Answer> {
        let url = format!("{}/v1/chat/completions", self.url);
        let mut request = self.client.post(url).json(&chat(model, "Hello", 2, false));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.timeout(PATIENCE).send().await?;
        Ok(client::read(answer).await)
    }

    /// The model that answers, by its own name.
    ///
    /// # Errors
    /// When the answer is not one.
    pub async fn served_by(&self, model: &str) -> anyhow::Result<String> {
        answering(&self.ask(model).await?)
    }

    /// Waits until a model is answered by a certain one.
    ///
    /// # Errors
    /// When it is not in time.
    pub async fn serves(&self, model: &str, by: &str) -> anyhow::Result<()> {
        eventually(&format!("{model} is answered by {by}"), || async {
            let seen = self.served_by(model).await?;
            Ok(Look::when(seen == by, seen))
        })
        .await
    }

    /// Waits until a model is answered with a status, with some text in the body.
    ///
    /// # Errors
    /// When it is not in time.
    pub async fn answers(&self, model: &str, status: u16, text: &str) -> anyhow::Result<()> {
        eventually(&format!("{model} is answered with {status}"), || async {
            let answer = self.ask(model).await?;
            let body = answer.text();
            let so = answer.status == status && body.contains(text);
            Ok(Look::when(so, (answer.status, body)))
        })
        .await
    }

    /// What the service accounts of its namespace were denied, from the record that [`AUDIT_POLICY`] makes.
    ///
    /// # Errors
    /// When the cluster keeps no record.
    pub fn denied(&self) -> anyhow::Result<Vec<String>> {
        let prefix = format!("system:serviceaccount:{}:", self.namespace.name());
        let record = self.namespace.cluster().plane().audit()?;
        let own = |event: &&Value| {
            let user = event["user"]["username"].as_str();
            user.is_some_and(|user| user.starts_with(&prefix))
        };
        let own: Vec<_> = record.iter().filter(own).collect();
        ensure!(!own.is_empty(), "nothing is on record for {prefix}*");
        let denied = own.iter().filter(forbidden);
        let words = denied.map(|event| format!("{} {}", event["verb"], event["requestURI"]));
        Ok(words.collect())
    }
}

/// By who asks. (A namespace that is ending refuses with the same status whatever is new in it.)
fn forbidden(event: &&&Value) -> bool {
    event["annotations"]["authorization.k8s.io/decision"] == "forbid"
}

/// The model that an answer comes from, by its own name.
///
/// # Errors
/// When it is not a good answer.
pub fn answering(answer: &Answer) -> anyhow::Result<String> {
    let body = answer.text();
    ensure!(answer.status == 200, "{}: {body}", answer.status);
    let body: Value = serde_json::from_str(&body).with_context(|| body.clone())?;
    let model = body["model"].as_str();
    Ok(model.context("no model in the answer")?.to_owned())
}

/// Sluice's resources of one kind.
pub fn resources(namespace: &Namespace, kind: &str) -> Api<DynamicObject> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, "v1alpha1", kind));
    Api::namespaced_with(namespace.client(), namespace.name(), &kind)
}

/// Conditions of one of our resources.
async fn conditions(
    namespace: &Namespace,
    kind: &str,
    name: &str,
) -> anyhow::Result<Vec<Condition>> {
    let object = resources(namespace, kind).get(name).await?;
    let generation = object.metadata.generation;
    let conditions = object.data["status"]["conditions"].as_array().cloned();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let conditions = conditions
        .unwrap_or_default()
        .into_iter()
        .map(|condition| Condition {
            current: condition["observedGeneration"].as_i64() == generation,
            kind: text(&condition["type"]),
            status: text(&condition["status"]),
            reason: text(&condition["reason"]),
            message: text(&condition["message"]),
        });
    Ok(conditions.collect())
}

/// A condition of a resource.
#[derive(Debug)]
struct Condition {
    /// Speaks of the resource as it is now.
    current: bool,
    kind: String,
    status: String,
    reason: String,
    message: String,
}

/// Waits until a condition is current and as wanted; returns its message.
///
/// # Errors
/// When it is not in time.
pub async fn condition(
    namespace: &Namespace,
    resource: &str,
    kind: &str,
    status: &str,
    reason: &str,
) -> anyhow::Result<String> {
    let (resource_kind, name) = resource.split_once('/').context("not KIND/NAME")?;
    eventually(
        &format!("{resource} is {kind}={status} {reason}"),
        || async {
            let all = conditions(namespace, resource_kind, name).await?;
            let found = all.iter().find(|condition| {
                condition.current
                    && (condition.kind.as_str(), condition.status.as_str()) == (kind, status)
                    && condition.reason == reason
            });
            Ok(Look::some(
                found.map(|condition| condition.message.clone()),
                format!("{all:?}"),
            ))
        },
    )
    .await
}
