//! What the cluster must know to call the webhook: the ValidatingWebhookConfiguration.
//!
//! Only its content; [`Upkeep`](crate::upkeep::Upkeep) applies it and puts it back.

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    RuleWithOperations, ServiceReference, ValidatingWebhook, ValidatingWebhookConfiguration,
    WebhookClientConfig,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    LabelSelector, LabelSelectorRequirement, ObjectMeta,
};
use serde_json::{Value, json};
use sluice_config::Kind;
use sluice_crds::networking::{GROUP, VERSION};

use super::PATHS;
use crate::certificates::Trust;
use crate::upkeep::is_ours;

/// How long the API server waits for a verdict.
pub(super) const TIMEOUT_SECONDS: i32 = 5;

/// The label that every namespace bears with its name.
const NAMESPACE_LABEL: &str = "kubernetes.io/metadata.name";

/// What becomes of a write while the webhook cannot be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum FailurePolicy {
    /// It is refused.
    #[default]
    Fail,
    /// It is stored unchecked; gateways keep their last good version of what is wrong.
    Ignore,
}

/// Where the API server finds the webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// By a Service.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Its port.
        port: u16,
    },
    /// By a URL, to which the paths are appended: where the API server is no part of the cluster's network.
    Url(String),
}

/// What is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Name of the configuration.
    pub name: String,
    /// Where it is.
    pub target: Target,
    /// While it is not there.
    pub failure_policy: FailurePolicy,
    /// Namespaces whose objects it sees; empty: all.
    pub namespaces: Vec<String>,
}

impl Registration {
    /// What to apply to the configuration as it is. One that someone else made (the chart) lacks only our authority; where
    /// there is none, all of it is ours. Without `trust`, the bundle is left to others (cert-manager's injector).
    pub(crate) fn object(&self, trust: Option<&Trust>, present: Option<&Value>) -> Option<Value> {
        match present.filter(|present| !is_ours(present)) {
            Some(theirs) => Some(with_authority(theirs, trust?)),
            None => {
                let webhooks = PATHS.map(|(kind, path)| self.webhook(kind, path, trust));
                Some(object(&self.name, webhooks.to_vec()))
            }
        }
    }

    /// What to apply where the webhook is switched off: a configuration of ours that was left as it was would hold up
    /// every write.
    pub(crate) fn nothing(&self, present: Option<&Value>) -> Option<Value> {
        present
            .filter(|present| is_ours(present))
            .map(|_| object(&self.name, Vec::new()))
    }

    fn webhook(&self, kind: Kind, path: &str, trust: Option<&Trust>) -> ValidatingWebhook {
        let plural = format!("{}s", kind.name().to_lowercase());
        ValidatingWebhook {
            name: format!("{}.{GROUP}", kind.name().to_lowercase()),
            admission_review_versions: vec!["v1".into()],
            client_config: self.client(path, trust),
            failure_policy: Some(format!("{:?}", self.failure_policy)),
            match_policy: Some("Equivalent".into()),
            namespace_selector: Some(self.selector()),
            rules: Some(vec![RuleWithOperations {
                api_groups: Some(vec![GROUP.into()]),
                api_versions: Some(vec![VERSION.into()]),
                operations: Some(vec!["CREATE".into(), "UPDATE".into()]),
                resources: Some(vec![plural]),
                scope: Some("Namespaced".into()),
            }]),
            side_effects: "None".into(),
            timeout_seconds: Some(TIMEOUT_SECONDS),
            ..ValidatingWebhook::default()
        }
    }

    fn client(&self, path: &str, trust: Option<&Trust>) -> WebhookClientConfig {
        let ca_bundle = trust.map(|trust| ByteString(trust.bundle.clone().into_bytes()));
        match &self.target {
            Target::Service {
                namespace,
                name,
                port,
            } => WebhookClientConfig {
                ca_bundle,
                service: Some(ServiceReference {
                    namespace: namespace.clone(),
                    name: name.clone(),
                    path: Some(path.to_owned()),
                    port: Some(i32::from(*port)),
                }),
                url: None,
            },
            Target::Url(base) => WebhookClientConfig {
                ca_bundle,
                service: None,
                url: Some(format!("{}{path}", base.trim_end_matches('/'))),
            },
        }
    }

    /// Namespaces that we do not serve are none of our business.
    fn selector(&self) -> LabelSelector {
        if self.namespaces.is_empty() {
            return LabelSelector::default();
        }
        LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: NAMESPACE_LABEL.into(),
                operator: "In".into(),
                values: Some(self.namespaces.clone()),
            }]),
            match_labels: None,
        }
    }
}

/// The bundle, in every webhook of the configuration, and nothing else.
fn with_authority(present: &Value, trust: &Trust) -> Value {
    let bundle = ByteString(trust.bundle.clone().into_bytes());
    let webhooks = present["webhooks"].as_array().into_iter().flatten();
    let webhooks: Vec<Value> = webhooks
        .map(|webhook| json!({ "name": webhook["name"], "clientConfig": { "caBundle": bundle } }))
        .collect();
    json!({
        "apiVersion": present["apiVersion"],
        "kind": present["kind"],
        "metadata": { "name": present["metadata"]["name"] },
        "webhooks": webhooks,
    })
}

fn object(name: &str, webhooks: Vec<ValidatingWebhook>) -> Value {
    let configuration = ValidatingWebhookConfiguration {
        metadata: ObjectMeta {
            name: Some(name.into()),
            labels: Some(crate::own_labels()),
            ..ObjectMeta::default()
        },
        webhooks: Some(webhooks),
    };
    serde_json::to_value(configuration).expect("a configuration has only string keys")
}
