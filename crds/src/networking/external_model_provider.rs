//! ExternalModelProvider: a model served by someone else's API.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::SecretKeySelector;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A hosted model API and how to authenticate to it.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "networking.serving.volcano.sh",
    version = "v1alpha1",
    kind = "ExternalModelProvider",
    namespaced,
    doc = "A model served by someone else's API, and how to authenticate to it.",
    status = "ExternalModelProviderStatus",
    derive = "PartialEq",
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.providerType"),
    printcolumn(name = "URL", type_ = "string", json_path = ".spec.baseURL"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Programmed",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Programmed\")].status"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[schemars(transform = crate::structural::plain)]
#[serde(rename_all = "camelCase")]
pub struct ExternalModelProviderSpec {
    /// Protocol family.
    #[serde(default)]
    pub provider_type: ProviderType,
    /// Overwrites `model` in forwarded bodies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub model: Option<String>,
    /// `https://` URL without user, query and fragment.
    #[serde(rename = "baseURL")]
    #[schemars(length(min = 1), regex(pattern = "^https://.+"))]
    #[x_kube(
        validation = Rule::new("!self.matches('^https://[^/]*@') && !self.matches('[?#]')")
            .message("baseURL must have no user, query or fragment")
    )]
    pub base_url: String,
    /// Accept any certificate.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[schemars(extend("default" = false))]
    pub insecure_skip_verify: bool,
    /// Credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<ProviderAuth>,
    /// Headers added to every request.
    // Reserved names are for the reader to refuse: a schema cannot speak of a map's keys, and Kubernetes
    // takes no rule whose cost it cannot bound.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("additionalProperties" = { "type": "string", "pattern": "^[^\\r\\n]*$" }))]
    pub headers: BTreeMap<String, String>,
}

/// Observed state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::structural::plain)]
#[serde(rename_all = "camelCase")]
pub struct ExternalModelProviderStatus {
    /// Generation the conditions speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Kthena's `Ready` and `CredentialsResolved`; `Accepted`, `ResolvedRefs` and `Programmed`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Protocol family of a provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "product names")]
pub enum ProviderType {
    #[default]
    OpenAI,
    Anthropic,
}

/// How the credential is sent, and where it is kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = Rule::new("!has(self.secretRef.optional) || !self.secretRef.optional")
        .message("secretRef.optional must be false or unset"),
    validation = Rule::new("self.secretRef.name != '' && self.secretRef.key != ''")
        .message("secretRef.name and secretRef.key must be set")
)]
#[serde(rename_all = "camelCase")]
pub struct ProviderAuth {
    /// Default: Bearer for OpenAI, APIKey for Anthropic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<AuthScheme>,
    /// Key of a labelled Secret in the same namespace.
    pub secret_ref: SecretKeySelector,
}

/// Header that carries the credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AuthScheme {
    /// `Authorization: Bearer`.
    Bearer,
    /// `x-api-key`.
    APIKey,
}
