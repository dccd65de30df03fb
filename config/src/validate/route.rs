//! Rules of a ModelRoute.

use std::collections::HashSet;

use sluice_crds::networking::{
    DEFAULT_WEIGHT, FilterOverride, ModelMatch, ModelRouteSpec, RateLimit, Rule, StringMatch,
    TargetModel,
};

use super::{Checker, names};
use crate::path::Place;
use crate::problem::did_you_mean;

const MAX_LORA_ADAPTERS: usize = 10;
const MAX_RULES: usize = 16;
const MAX_TARGETS: usize = 16;
/// As many as Gateway API takes. Each may be a pattern.
const MAX_HEADERS: usize = 16;
const MAX_WEIGHT: u32 = 100;

impl Checker<'_> {
    pub(super) fn route(&mut self, spec: &ModelRouteSpec, at: Place<'_>) {
        if spec.model_name.is_empty() && spec.lora_adapters.is_empty() {
            let remedy = "set `modelName`, or list `loraAdapters`";
            self.error(
                at,
                "the route names neither a model nor a LoRA adapter",
                remedy,
            );
        }
        self.lora_adapters(&spec.lora_adapters, at.key("loraAdapters"));
        let rules = at.key("rules");
        self.at_most(rules, spec.rules.len(), MAX_RULES, "rules");
        if spec.rules.is_empty() {
            self.warn(
                rules,
                "a route without rules matches nothing",
                "add a rule with `targetModels`",
            );
        }
        for (index, rule) in spec.rules.iter().take(MAX_RULES).enumerate() {
            self.rule(rule, !spec.lora_adapters.is_empty(), rules.index(index));
        }
        if let Some(limit) = &spec.rate_limit {
            self.rate_limit(limit, at.key("rateLimit"));
        }
        if !spec.parent_refs.is_empty() {
            let parents = at.key("parentRefs");
            let remedy =
                "the route is served on every listener; remove `parentRefs` to silence this";
            self.warn(
                parents,
                "accepted but not acted on: Gateway API parents",
                remedy,
            );
            for (index, parent) in spec.parent_refs.iter().enumerate() {
                if parent.name.is_empty() {
                    let at = parents.index(index);
                    self.error(at.key("name"), "the name is empty", "name the Gateway");
                }
            }
        }
        let filters = at.key("filters");
        for (name, filter) in &spec.filters {
            self.filter(name, filter, filters.key(name));
        }
    }

    fn lora_adapters(&mut self, adapters: &[String], at: Place<'_>) {
        self.at_most(at, adapters.len(), MAX_LORA_ADAPTERS, "LoRA adapters");
        let mut seen = HashSet::new();
        for (index, name) in adapters.iter().enumerate() {
            if name.is_empty() {
                self.error(
                    at.index(index),
                    "the name of a LoRA adapter is empty",
                    "write its name or remove it",
                );
            } else if !seen.insert(name) {
                let message = format!("the LoRA adapter `{name}` is listed twice");
                self.warn(at.index(index), message, "remove one");
            }
        }
    }

    fn rule(&mut self, rule: &Rule, has_lora: bool, at: Place<'_>) {
        if let Some(model_match) = &rule.model_match {
            self.model_match(model_match, at.key("modelMatch"));
        }
        let targets = at.key("targetModels");
        if rule.target_models.is_empty() {
            return self.error(
                targets,
                "the rule has no target",
                "add a `- modelServerName:`",
            );
        }
        self.at_most(targets, rule.target_models.len(), MAX_TARGETS, "targets");
        let total: u64 = rule
            .target_models
            .iter()
            .map(|t| u64::from(t.weight.unwrap_or(DEFAULT_WEIGHT)))
            .sum();
        if total == 0 {
            let remedy = "give at least one target a weight above zero";
            self.error(targets, "the weights of the targets add up to zero", remedy);
        }
        for (index, target) in rule.target_models.iter().enumerate() {
            self.target(target, has_lora, targets.index(index));
        }
    }

    fn target(&mut self, target: &TargetModel, has_lora: bool, at: Place<'_>) {
        let server = target.model_server_name.as_deref();
        let provider = target.external_model_provider_name.as_deref();
        match (server, provider) {
            (None, None) => {
                let message = "the target names neither a ModelServer nor an ExternalModelProvider";
                self.error(at, message, "set `modelServerName`");
            }
            (Some(_), Some(_)) => {
                let message = "the target names both a ModelServer and an ExternalModelProvider";
                self.error(
                    at,
                    message,
                    "keep one of `modelServerName` and `externalModelProviderName`",
                );
            }
            (Some(""), None) => {
                self.error(
                    at.key("modelServerName"),
                    "the name is empty",
                    "name a ModelServer",
                );
            }
            (Some(_), None) => {}
            (None, Some(name)) => {
                self.provider_target(name, has_lora, at.key("externalModelProviderName"))
            }
        }
        if let Some(weight) = target.weight.filter(|weight| *weight > MAX_WEIGHT) {
            let message = format!("the weight {weight} is above {MAX_WEIGHT}");
            let remedy =
                "weights are shares relative to the rule's other targets: scale them to 0..100";
            self.error(at.key("weight"), message, remedy);
        }
    }

    fn provider_target(&mut self, name: &str, has_lora: bool, at: Place<'_>) {
        if name.is_empty() {
            self.error(at, "the name is empty", "name an ExternalModelProvider");
        }
        if has_lora {
            let message = "a route with `loraAdapters` cannot target an ExternalModelProvider";
            self.error(at, message, "route the adapters in a document of their own");
        }
        let remedy = "requests that fall to this target are answered with an error";
        self.warn(
            at,
            "accepted but not acted on: external providers are not called yet",
            remedy,
        );
    }

    fn model_match(&mut self, model_match: &ModelMatch, at: Place<'_>) {
        let headers = at.key("headers");
        let count = model_match.headers.len();
        self.at_most(headers, count, MAX_HEADERS, "headers");
        for (name, string_match) in model_match.headers.iter().take(MAX_HEADERS) {
            let at = headers.key(name);
            if !names::is_header_name(name) {
                let message = format!("`{name}` is not a header name");
                self.error(at, message, "use letters, digits and `-`, without a colon");
            }
            self.string_match(string_match, at);
        }
        if let Some(uri) = &model_match.uri {
            self.string_match(uri, at.key("uri"));
        }
    }

    fn string_match(&mut self, string_match: &StringMatch, at: Place<'_>) {
        let set = [
            ("exact", &string_match.exact),
            ("prefix", &string_match.prefix),
            ("regex", &string_match.regex),
        ];
        let mut set = set.iter().filter(|(_, value)| value.is_some());
        if let (Some((first, _)), Some((second, _))) = (set.next(), set.next()) {
            let message = format!("`{first}` is used and `{second}` is not");
            self.warn(
                at.key(second),
                message,
                format!("keep one of `{first}` and `{second}`"),
            );
        }
        if let Some(pattern) = &string_match.regex
            && let Err(reason) = self.regexes.compile(pattern)
        {
            let message = format!("not a regular expression: {reason}");
            let remedy = "mend the pattern; look-around and back-references are not supported";
            self.error(at.key("regex"), message, remedy);
        }
    }

    fn rate_limit(&mut self, limit: &RateLimit, at: Place<'_>) {
        let budgets = [
            ("inputTokensPerUnit", limit.input_tokens_per_unit),
            ("outputTokensPerUnit", limit.output_tokens_per_unit),
        ];
        for (key, _) in budgets.iter().filter(|(_, tokens)| *tokens == Some(0)) {
            let remedy = "write 1 or more, or remove it for no limit";
            self.error(
                at.key(key),
                "a limit of zero tokens lets nothing pass",
                remedy,
            );
        }
        let redis = limit
            .global
            .as_ref()
            .and_then(|global| global.redis.as_ref());
        if redis.is_some_and(|redis| redis.address.is_empty()) {
            let (global, redis) = (at.key("global"), "redis");
            let redis = global.key(redis);
            self.error(
                redis.key("address"),
                "the address is empty",
                "write host:port",
            );
        }
        let remedy = "no token is counted; remove `rateLimit` to silence this";
        self.warn(at, "accepted but not acted on: rate limits", remedy);
    }

    fn filter(&mut self, name: &str, filter: &FilterOverride, at: Place<'_>) {
        let kind = match self.filters.kind(name) {
            Ok(None) => return,
            Ok(Some(kind)) => kind,
            Err(known) => {
                let message = format!("no filter is called `{name}` in the bootstrap file");
                let remedy = did_you_mean(name, known);
                return self
                    .findings
                    .push(crate::problem::Finding::error(at, message, remedy));
            }
        };
        if let Some(config) = &filter.config
            && let Err(reason) = self.filters.check(kind, config)
        {
            let message = format!("wrong configuration for a filter of type {kind}: {reason}");
            self.findings.push(crate::problem::Finding::error(
                at.key("config"),
                message,
                "mend the configuration",
            ));
        }
    }
}
