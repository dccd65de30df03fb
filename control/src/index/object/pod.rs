//! A pod: the part of the API's object that is read, and what is kept of it.
//!
//! The API's own type would read every container, volume and managed field of ten thousand pods, to drop them again.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Pod as KubePod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use serde::{Deserialize, Deserializer};

use super::super::labels::Labels;
use super::{ObjectKey, key_of};

/// Annotation (or label) by which a rollout says that a pod is to get nothing new.
const DRAINING: &str = "sluice.dev/draining";

/// Labels that name a pod's revision, the strongest first: Kthena's, those of StatefulSets and of Deployments.
const REVISIONS: [&str; 3] = [
    "modelserving.volcano.sh/revision",
    "controller-revision-hash",
    "pod-template-hash",
];

/// May a pod serve?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodState {
    /// No: not running, not ready, or without an address.
    Idle,
    /// Yes.
    Serving,
    /// It finishes what it has.
    Draining,
}

/// What is kept of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Namespace and name.
    pub key: ObjectKey,
    /// `metadata.uid`.
    pub uid: Box<str>,
    /// Labels.
    pub labels: Labels,
    /// Its node; empty before it has one.
    pub node: Arc<str>,
    /// Its address.
    pub address: Option<IpAddr>,
    /// Is it in phase Running?
    pub running: bool,
    /// May it serve?
    pub state: PodState,
}

impl Pod {
    /// From the API's object; `None` without a name.
    pub fn of(pod: PodObject) -> Option<Self> {
        let key = key_of(&pod.metadata)?;
        let status = pod.status;
        let address = status.pod_ip.as_deref().and_then(|ip| ip.parse().ok());
        let running = status.phase.as_deref() == Some("Running");
        let mut this = Self {
            key,
            uid: pod.metadata.uid.clone().unwrap_or_default().into(),
            labels: Labels::default(),
            node: pod.spec.node_name.unwrap_or_default().into(),
            address,
            running,
            state: PodState::Idle,
        };
        let mut conditions = status.conditions.iter().flatten();
        let ready = conditions.find(|condition| condition.kind == "Ready");
        if running && address.is_some() {
            this.state = state(&pod.metadata, ready);
        }
        this.labels = pod.metadata.labels.into_iter().flatten().collect();
        Some(this)
    }

    /// What it was made from; empty if nobody says.
    pub fn revision(&self) -> &str {
        let label = |key: &&str| self.labels.get(key);
        REVISIONS.iter().find_map(label).unwrap_or_default()
    }
}

/// Of a pod that runs and has an address.
fn state(metadata: &ObjectMeta, ready: Option<&PodCondition>) -> PodState {
    let is_ready = ready.is_some_and(|ready| ready.status == "True");
    if let Some(deletion) = &metadata.deletion_timestamp {
        // Engines fail their probes as soon as they are told to stop; requests under way must not lose their endpoint
        // for that. No memory of what was is needed: a pod whose readiness ended after the deletion began was ready
        // until then.
        let grace = metadata.deletion_grace_period_seconds.unwrap_or(0);
        let began = deletion.0.as_second() - grace;
        let ended = ready.and_then(|ready| ready.last_transition_time.as_ref());
        let was_ready = ended.is_some_and(|time| time.0.as_second() >= began);
        return match is_ready || was_ready {
            true => PodState::Draining,
            false => PodState::Idle,
        };
    }
    match is_ready {
        false => PodState::Idle,
        true if is_marked(metadata) => PodState::Draining,
        true => PodState::Serving,
    }
}

fn is_marked(metadata: &ObjectMeta) -> bool {
    let marked = |map: &Option<BTreeMap<String, String>>| {
        map.as_ref()
            .and_then(|map| map.get(DRAINING))
            .is_some_and(|value| value != "false")
    };
    marked(&metadata.annotations) || marked(&metadata.labels)
}

/// The part of the API's object that is read.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct PodObject {
    /// Without managed fields and owners.
    #[serde(deserialize_with = "metadata")]
    pub metadata: ObjectMeta,
    #[serde(default)]
    spec: PodSpec,
    #[serde(default)]
    status: PodStatus,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSpec {
    node_name: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodStatus {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    conditions: Option<Vec<PodCondition>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    last_transition_time: Option<Time>,
}

fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Fields {
        name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        labels: Option<BTreeMap<String, String>>,
        annotations: Option<BTreeMap<String, String>>,
        deletion_timestamp: Option<Time>,
        deletion_grace_period_seconds: Option<i64>,
    }
    let fields = Fields::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name: fields.name,
        namespace: fields.namespace,
        uid: fields.uid,
        resource_version: fields.resource_version,
        labels: fields.labels,
        annotations: fields.annotations,
        deletion_timestamp: fields.deletion_timestamp,
        deletion_grace_period_seconds: fields.deletion_grace_period_seconds,
        ..ObjectMeta::default()
    })
}

/// As the API's own type, so that a client asks for the same objects.
impl Resource for PodObject {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind(dynamic: &()) -> Cow<'_, str> {
        KubePod::kind(dynamic)
    }

    fn group(dynamic: &()) -> Cow<'_, str> {
        KubePod::group(dynamic)
    }

    fn version(dynamic: &()) -> Cow<'_, str> {
        KubePod::version(dynamic)
    }

    fn plural(dynamic: &()) -> Cow<'_, str> {
        KubePod::plural(dynamic)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests;
