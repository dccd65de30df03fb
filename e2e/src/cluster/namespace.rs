//! One namespace of a cluster, where one test lives.

use std::collections::BTreeMap;

use anyhow::Context;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Namespace as NamespaceObject, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, DynamicObject, ListParams};
use kube::{Api, Client, Resource, ResourceExt};

use super::kubelet::RunningPod;
use super::process::Process;
use super::program::Program;
use super::wait::{Look, eventually};
use super::{Cluster, manifests, report};

/// A namespace. A cheap handle; it is deleted by [`Self::delete`] alone.
#[derive(Clone)]
pub struct Namespace {
    cluster: Cluster,
    name: String,
}

/// One address of a Service, out of its EndpointSlices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Ready, and not about to end.
    pub ready: bool,
    /// Ready, about to end or not.
    pub serving: bool,
    /// About to end.
    pub terminating: bool,
    /// The zone of its node.
    pub zone: Option<String>,
}

impl Namespace {
    pub(super) fn new(cluster: Cluster, name: &str) -> Self {
        Self {
            cluster,
            name: name.to_owned(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cluster it is in.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// A client that may do everything.
    pub fn client(&self) -> Client {
        self.cluster.client()
    }

    /// The objects of one kind.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client(), &self.name)
    }

    /// Applies manifests.
    ///
    /// # Errors
    /// As [`manifests::apply`].
    pub async fn apply(&self, manifests: &str) -> anyhow::Result<Vec<DynamicObject>> {
        manifests::apply(&self.client(), &self.name, manifests).await
    }

    /// Deletes what manifests name, without waiting.
    ///
    /// # Errors
    /// As [`manifests::delete`].
    pub async fn remove(&self, manifests: &str) -> anyhow::Result<()> {
        manifests::delete(&self.client(), &self.name, manifests).await
    }

    /// Waits until `deployment/NAME`, `statefulset/NAME` or `pod/NAME` is wholly rolled out and ready, with nothing
    /// left of earlier revisions.
    ///
    /// # Errors
    /// When it is not in time.
    pub async fn wait_ready(&self, what: &str) -> anyhow::Result<()> {
        let (kind, name) = what.split_once('/').context("not KIND/NAME")?;
        eventually(&format!("{what} is ready"), || async {
            match kind {
                "deployment" => {
                    let object = self.api::<Deployment>().get(name).await?;
                    Ok(deployed(&object))
                }
                "statefulset" => {
                    let object = self.api::<StatefulSet>().get(name).await?;
                    Ok(rolled_out(&object))
                }
                "pod" => {
                    let pod = self.api::<Pod>().get(name).await?;
                    Ok(Look::when(is_ready(&pod), &pod.status))
                }
                _ => anyhow::bail!("readiness of a {kind} is not known"),
            }
        })
        .await
    }

    /// The pods with these labels, in the order of their names.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn pods(&self, selector: &str) -> anyhow::Result<Vec<Pod>> {
        let parameters = ListParams::default().labels(selector);
        let mut pods = self.api::<Pod>().list(&parameters).await?.items;
        pods.sort_by_key(ResourceExt::name_any);
        Ok(pods)
    }

    /// A pod's processes.
    ///
    /// # Errors
    /// When no kubelet runs it.
    pub fn running(&self, pod: &Pod) -> anyhow::Result<RunningPod> {
        let uid = pod.uid().context("the pod has no UID")?;
        let running = self.cluster.running(&uid);
        running.with_context(|| format!("no kubelet runs pod {}", pod.name_any()))
    }

    /// What a Service leads to, by address.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn endpoints(&self, service: &str) -> anyhow::Result<BTreeMap<String, Endpoint>> {
        let selector = format!("kubernetes.io/service-name={service}");
        let parameters = ListParams::default().labels(&selector);
        let slices = self.api::<EndpointSlice>().list(&parameters).await?;
        let endpoints = slices.items.into_iter();
        let endpoints = endpoints.flat_map(|slice| slice.endpoints).flatten();
        let mut all = BTreeMap::new();
        for endpoint in endpoints {
            let conditions = endpoint.conditions.unwrap_or_default();
            for address in endpoint.addresses {
                let endpoint = Endpoint {
                    ready: conditions.ready == Some(true),
                    serving: conditions.serving == Some(true),
                    terminating: conditions.terminating == Some(true),
                    zone: endpoint.zone.clone(),
                };
                all.insert(address, endpoint);
            }
        }
        Ok(all)
    }

    /// A client with the rights of one of its service accounts.
    ///
    /// # Errors
    /// When it does not exist.
    pub async fn service_account(&self, name: &str) -> anyhow::Result<Client> {
        self.cluster.service_account(&self.name, name).await
    }

    /// Starts a program with the rights of one of its service accounts.
    ///
    /// # Errors
    /// As [`Cluster::run_as`].
    pub async fn run_as(&self, account: &str, program: Program) -> anyhow::Result<Process> {
        self.cluster.run_as(&self.name, account, program).await
    }

    /// Deletes it in the background: it takes some six seconds.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn delete(&self) -> anyhow::Result<()> {
        let namespaces: Api<NamespaceObject> = Api::all(self.client());
        namespaces
            .delete(&self.name, &DeleteParams::background())
            .await?;
        Ok(())
    }

    /// Its state in words, for a test that failed.
    pub async fn report(&self) -> String {
        report::of(self).await
    }
}

/// Whether the condition Ready holds.
pub(super) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| &status.conditions);
    conditions
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn deployed(object: &Deployment) -> Look<()> {
    let wanted = object.spec.replicas;
    let status = object.status.clone().unwrap_or_default();
    let seen = (
        status.updated_replicas,
        status.ready_replicas,
        status.replicas,
    );
    // Absent where zero.
    let counts = [seen.0, seen.1, seen.2].map(|count| count.unwrap_or(0));
    let current = status.observed_generation >= object.metadata.generation;
    Look::when(current && counts == [wanted.unwrap_or(1); 3], status)
}

fn rolled_out(object: &StatefulSet) -> Look<()> {
    let wanted = object.spec.replicas;
    let status = object.status.clone().unwrap_or_default();
    let counts = [
        status.updated_replicas.unwrap_or(0),
        status.ready_replicas.unwrap_or(0),
        status.replicas,
    ];
    let current = status.observed_generation >= object.metadata.generation;
    Look::when(current && counts == [wanted.unwrap_or(1); 3], status)
}
