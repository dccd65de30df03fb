//! How a pool's endpoints are chosen: the policy and its numbers, as written.
//!
//! For: the bootstrap file's default and a ModelServer's own choice, which share this form, with Kthena's
//! `scheduler` block inside, key for key. Not for defaults and ranges: those stand where it is checked
//! (`sluice_config::scheduling`).

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Which policy chooses among a pool's endpoints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = open)]
pub struct SchedulingConfig {
    /// Name of the policy.
    #[serde(default)]
    pub policy: PolicyName,
    /// Weights of `mtl`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtl: Option<MtlConfig>,
    /// Of `least-latency`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub least_latency: Option<LeastLatencyConfig>,
    /// What makes a session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionConfig>,
    /// Kthena's plug-ins, with `policy: kthena`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<SchedulerConfig>,
}

/// The policies there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "each is described where it is written")]
pub enum PolicyName {
    #[default]
    Mtl,
    Lmetric,
    LeastRequest,
    LeastLatency,
    GpuUsage,
    PrefixCache,
    KvcacheAware,
    LoraAffinity,
    Random,
    RoundRobin,
    Session,
    BoundedHash,
    Sticky,
    Kthena,
}

impl PolicyName {
    /// Every policy, the default first.
    pub const ALL: [Self; 14] = [
        Self::Mtl,
        Self::Lmetric,
        Self::LeastRequest,
        Self::LeastLatency,
        Self::GpuUsage,
        Self::PrefixCache,
        Self::KvcacheAware,
        Self::LoraAffinity,
        Self::Random,
        Self::RoundRobin,
        Self::Session,
        Self::BoundedHash,
        Self::Sticky,
        Self::Kthena,
    ];

    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mtl => "mtl",
            Self::Lmetric => "lmetric",
            Self::LeastRequest => "least-request",
            Self::LeastLatency => "least-latency",
            Self::GpuUsage => "gpu-usage",
            Self::PrefixCache => "prefix-cache",
            Self::KvcacheAware => "kvcache-aware",
            Self::LoraAffinity => "lora-affinity",
            Self::Random => "random",
            Self::RoundRobin => "round-robin",
            Self::Session => "session",
            Self::BoundedHash => "bounded-hash",
            Self::Sticky => "sticky",
            Self::Kthena => "kthena",
        }
    }
}

/// Weights of the terms of `mtl`; 0 switches a term off.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = open)]
pub struct MtlConfig {
    /// Delay that the prefill inflicts on the requests already there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub inflicted: Option<f64>,
    /// Slower decoding, its own and that of others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub decode: Option<f64>,
    /// Price of the engine's time, paid by those who come later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub price: Option<f64>,
}

/// Of `least-latency`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = open)]
pub struct LeastLatencyConfig {
    /// Share of the time to first token in the cost; the rest is the time between tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1))]
    pub first_token_weight: Option<f64>,
}

/// Where a request's session is read from, the first that is there; after these the body's `user`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = open)]
pub struct SessionConfig {
    /// Header field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub header: Option<String>,
    /// Cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub cookie: Option<String>,
}

/// `scheduler` of Kthena's router configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = open)]
pub struct SchedulerConfig {
    /// Arguments of plug-ins, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub plugin_config: Vec<PluginConfig>,
    /// Which plug-ins take part.
    #[serde(default)]
    pub plugins: PluginsConfig,
}

/// Arguments of one plug-in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = open)]
pub struct PluginConfig {
    /// The plug-in.
    pub name: String,
    /// Its arguments.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    #[schemars(schema_with = "crate::structural::free_form")]
    pub args: Value,
}

/// Plug-ins by what they do. The keys are upper case in Kthena.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
#[schemars(transform = open)]
pub struct PluginsConfig {
    /// Plug-ins that remove endpoints.
    #[serde(default)]
    pub filter: FilterPlugins,
    /// Plug-ins that score endpoints.
    #[serde(default)]
    pub score: ScorePlugins,
}

/// Plug-ins that remove endpoints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = open)]
pub struct FilterPlugins {
    /// Names of those that take part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub enabled: Vec<String>,
    /// Names of those that do not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub disabled: Vec<String>,
}

/// Plug-ins that score endpoints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = open)]
pub struct ScorePlugins {
    /// Those that take part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub enabled: Vec<ScorePlugin>,
}

/// A plug-in with its weight.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = open)]
pub struct ScorePlugin {
    /// The plug-in.
    pub name: String,
    /// Factor of its score, which runs from 0 to 100.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub weight: u32,
}

fn one() -> u32 {
    1
}

/// Serde refuses unknown fields here, because the bootstrap file must; a CRD's schema may not say so.
fn open(schema: &mut Schema) {
    schema.remove("additionalProperties");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_policy_is_listed_under_its_written_name() {
        for (index, policy) in PolicyName::ALL.into_iter().enumerate() {
            assert_eq!(json!(policy), json!(policy.as_str()));
            assert_eq!(policy as usize, index);
        }
        assert!(serde_json::from_value::<PolicyName>(json!("least-requests")).is_err());
    }

    #[test]
    fn kthenas_router_configuration_is_read_as_it_stands() {
        let block = json!({
            "pluginConfig": [{"name": "least-request", "args": {"maxWaitingRequests": 10}}],
            "plugins": {
                "Filter": {"enabled": ["least-request"], "disabled": ["lora-affinity"]},
                "Score": {"enabled": [{"name": "prefix-cache", "weight": 2}, {"name": "random"}]},
            },
        });
        let scheduler: SchedulerConfig = serde_json::from_value(block).unwrap();
        assert_eq!(scheduler.plugins.filter.disabled, ["lora-affinity"]);
        let weights: Vec<u32> = (scheduler.plugins.score.enabled.iter())
            .map(|plugin| plugin.weight)
            .collect();
        assert_eq!(weights, [2, 1]);
    }

    #[test]
    fn the_schema_leaves_unknown_fields_to_the_reader() {
        let schema = schemars::schema_for!(SchedulingConfig)
            .to_value()
            .to_string();
        assert!(!schema.contains("additionalProperties"), "{schema}");
        assert!(serde_json::from_value::<SchedulingConfig>(json!({"polcy": "mtl"})).is_err());
    }
}
