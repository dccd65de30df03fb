//! Kthena's `scheduler` block, as meant. Arguments that bound what Kthena can see of a prompt are taken and do
//! nothing: whole prompts are matched here, and every holder scores.

use serde_json::{Map, Value};
use sluice_crds::networking::{FilterPlugins, PluginConfig, SchedulerConfig, ScorePlugins};

use super::check::number;
use crate::path::Place;
use crate::problem::{Finding, did_you_mean};

/// A plug-in that removes endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FilterPlugin {
    /// Those where too many requests wait.
    LeastRequest,
    /// Those without the adapter.
    LoraAffinity,
}

/// A plug-in that scores endpoints from 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScorePlugin {
    /// Few requests in flight and waiting.
    LeastRequest,
    /// KV cache free.
    GpuUsage,
    /// Low latency as measured here.
    LeastLatency,
    /// Share of the prompt cached.
    PrefixCache,
    /// Share of the prompt cached.
    KvcacheAware,
    /// Chance.
    Random,
}

/// Kthena's plug-ins with their weights.
#[derive(Debug, Clone, PartialEq)]
pub struct KthenaParams {
    /// In order.
    pub filters: Vec<FilterPlugin>,
    /// Each with its weight; each at most once.
    pub scores: Vec<(ScorePlugin, u32)>,
    /// An endpoint where this many wait is filtered out.
    pub max_waiting_requests: f64,
    /// Share of the time to first token in `least-latency`, 0 to 1.
    pub first_token_weight: f64,
}

impl Default for KthenaParams {
    /// As Kthena's chart installs it.
    fn default() -> Self {
        let scores = [
            ScorePlugin::LeastRequest,
            ScorePlugin::GpuUsage,
            ScorePlugin::LeastLatency,
            ScorePlugin::PrefixCache,
        ];
        Self {
            filters: vec![FilterPlugin::LeastRequest],
            scores: scores.map(|plugin| (plugin, 1)).to_vec(),
            max_waiting_requests: 10.0,
            first_token_weight: 0.5,
        }
    }
}

const FILTERS: [(&str, FilterPlugin); 2] = [
    ("least-request", FilterPlugin::LeastRequest),
    ("lora-affinity", FilterPlugin::LoraAffinity),
];

const SCORES: [(&str, ScorePlugin); 6] = [
    ("least-request", ScorePlugin::LeastRequest),
    ("gpu-usage", ScorePlugin::GpuUsage),
    ("least-latency", ScorePlugin::LeastLatency),
    ("prefix-cache", ScorePlugin::PrefixCache),
    ("kvcache-aware", ScorePlugin::KvcacheAware),
    ("random", ScorePlugin::Random),
];

/// Arguments of each plug-in, and whether they do anything here.
const ARGUMENTS: [(&str, &[(&str, bool)]); 7] = [
    ("least-request", &[("maxWaitingRequests", true)]),
    ("least-latency", &[("TTFTTPOTWeightFactor", true)]),
    (
        "prefix-cache",
        &[
            ("blockSizeToHash", false),
            ("maxBlocksToMatch", false),
            ("maxHashCacheSize", false),
            ("topKMatches", false),
        ],
    ),
    (
        "kvcache-aware",
        &[
            ("blockSizeToHash", false),
            ("maxBlocksToMatch", false),
            ("vllmTokenizerPort", false),
            ("sglangTokenizerPort", false),
        ],
    ),
    ("gpu-usage", &[]),
    ("lora-affinity", &[]),
    ("random", &[]),
];

/// What the block means and what is wrong with it.
pub(super) fn check(
    scheduler: &SchedulerConfig,
    at: Place<'_>,
    findings: &mut Vec<Finding>,
) -> KthenaParams {
    let plugins = at.key("plugins");
    let mut params = KthenaParams {
        filters: filters(&scheduler.plugins.filter, plugins.key("Filter"), findings),
        scores: scores(&scheduler.plugins.score, plugins.key("Score"), findings),
        ..KthenaParams::default()
    };
    let list = at.key("pluginConfig");
    for (index, plugin) in scheduler.plugin_config.iter().enumerate() {
        arguments(plugin, list.index(index), &mut params, findings);
    }
    params
}

/// The entry called `name`, or a finding that says which there are.
fn named<T: Copy>(
    name: &str,
    known: &[(&str, T)],
    at: Place<'_>,
    findings: &mut Vec<Finding>,
) -> Option<T> {
    if let Some((_, found)) = known.iter().find(|(known, _)| *known == name) {
        return Some(*found);
    }
    let remedy = did_you_mean(name, known.iter().map(|(known, _)| *known));
    findings.push(Finding::error(
        at,
        format!("there is no such plug-in here: `{name}`"),
        remedy,
    ));
    None
}

fn filters(
    written: &FilterPlugins,
    at: Place<'_>,
    findings: &mut Vec<Finding>,
) -> Vec<FilterPlugin> {
    let list = at.key("disabled");
    let disabled: Vec<FilterPlugin> = (written.disabled.iter().enumerate())
        .filter_map(|(index, name)| named(name, &FILTERS, list.index(index), findings))
        .collect();
    let list = at.key("enabled");
    let mut enabled = Vec::new();
    for (index, name) in written.enabled.iter().enumerate() {
        let Some(plugin) = named(name, &FILTERS, list.index(index), findings) else {
            continue;
        };
        if disabled.contains(&plugin) {
            let message = format!("`{name}` is enabled and disabled: it stays off");
            let remedy = "keep one of the two";
            findings.push(Finding::warning(list.index(index), message, remedy));
        } else if !enabled.contains(&plugin) {
            enabled.push(plugin);
        }
    }
    enabled
}

fn scores(
    written: &ScorePlugins,
    at: Place<'_>,
    findings: &mut Vec<Finding>,
) -> Vec<(ScorePlugin, u32)> {
    let list = at.key("enabled");
    let mut enabled: Vec<(ScorePlugin, u32)> = Vec::new();
    let before = findings.len();
    for (index, entry) in written.enabled.iter().enumerate() {
        let place = list.index(index);
        let Some(plugin) = named(&entry.name, &SCORES, place.key("name"), findings) else {
            continue;
        };
        if enabled.iter().any(|(other, _)| *other == plugin) {
            let message = format!("`{}` scores already", entry.name);
            let remedy = "keep one entry, with the weight that is meant";
            findings.push(Finding::error(place.key("name"), message, remedy));
            continue;
        }
        enabled.push((plugin, entry.weight));
    }
    // Of wrong entries it is said already what is wrong.
    if findings.len() == before && enabled.iter().all(|(_, weight)| *weight == 0) {
        let message = "no plug-in scores: chance alone decides";
        let remedy = "enable some, such as `- {name: prefix-cache, weight: 1}`";
        findings.push(Finding::warning(list, message, remedy));
    }
    let random = |(plugin, _): &(ScorePlugin, u32)| *plugin == ScorePlugin::Random;
    if enabled.len() > 1 && enabled.iter().any(random) {
        enabled.retain(|entry| !random(entry));
        let message = "`random` is left out, as in Kthena, where others score too";
        findings.push(Finding::warning(list, message, "remove it"));
    }
    enabled
}

fn arguments(
    plugin: &PluginConfig,
    at: Place<'_>,
    params: &mut KthenaParams,
    findings: &mut Vec<Finding>,
) {
    let Some(known) = named(&plugin.name, &ARGUMENTS, at.key("name"), findings) else {
        return;
    };
    let place = at.key("args");
    let none = Map::new();
    let args = match &plugin.args {
        Value::Null => &none,
        Value::Object(args) => args,
        _ => {
            let remedy = "write `key: value` lines below it";
            findings.push(Finding::error(
                place,
                "the arguments are no mapping",
                remedy,
            ));
            return;
        }
    };
    for (key, value) in args {
        let at = place.key(key);
        match known.iter().find(|(name, _)| name == key) {
            None => {
                let message = format!("`{}` has no argument `{key}`", plugin.name);
                let remedy = did_you_mean(key, known.iter().map(|(name, _)| *name));
                findings.push(Finding::error(at, message, remedy));
            }
            Some((_, false)) => {
                let message = format!("`{key}` has no effect: whole prompts are matched");
                findings.push(Finding::warning(at, message, "remove it"));
            }
            Some((_, true)) => argument(key, value, at, params, findings),
        }
    }
}

fn argument(
    key: &str,
    value: &Value,
    at: Place<'_>,
    params: &mut KthenaParams,
    findings: &mut Vec<Finding>,
) {
    let Some(value) = value.as_f64() else {
        findings.push(Finding::error(
            at,
            format!("`{key}` is no number"),
            "write a number, without quotes",
        ));
        return;
    };
    let (field, most) = match key {
        "maxWaitingRequests" => (&mut params.max_waiting_requests, 1e6),
        _ => (&mut params.first_token_weight, 1.0),
    };
    *field = number(at, Some(value), *field, most, findings);
}
