use serde_json::{Value, json};

use super::split_address;
use crate::bootstrap::FilterConfig;
use crate::{Catalog, FilterSet, LoadedDocuments};

/// `path: message; remedy` of every error of one document, then of every warning.
fn findings(kind: &str, spec: Value) -> (Vec<String>, Vec<String>) {
    let filter = |name: &str, kind: &str| FilterConfig {
        name: name.into(),
        kind: kind.into(),
        config: Value::Null,
        disabled: false,
        fail_policy: Default::default(),
    };
    let check = |kind: &str, config: &Value| match config["bad"] {
        Value::Null => Ok(()),
        _ => Err(format!("{kind} knows no `bad`")),
    };
    let filters = [filter("edge-cors", "cors"), filter("tags", "headers")];
    let filters = FilterSet::new(&filters, std::sync::Arc::new(check));
    let api_version = "networking.serving.volcano.sh/v1alpha1";
    let document = json!({
        "apiVersion": api_version, "kind": kind, "metadata": {"name": "x"}, "spec": spec,
    });
    let server = json!({
        "apiVersion": api_version, "kind": "ModelServer", "metadata": {"name": "s"},
        "spec": {"inferenceEngine": "vLLM", "endpoints": [{"address": "h:1"}]},
    });
    let loaded = LoadedDocuments::from_values("f", vec![document, server]);
    let problems = Catalog::new(filters).update(loaded, 1).problems;
    let (errors, warnings): (Vec<_>, Vec<_>) = problems.iter().partition(|p| p.is_error());
    let text = |problem: &&crate::Problem| problem.to_string().trim_start_matches("f: ").to_owned();
    (
        errors.iter().map(text).collect(),
        warnings.iter().map(text).collect(),
    )
}

#[track_caller]
fn assert_findings(found: Vec<String>, starts: &[&str]) {
    assert_eq!(found.len(), starts.len(), "{found:#?}");
    for start in starts {
        let text = found.iter().find(|text| text.starts_with(start));
        let text = text.unwrap_or_else(|| panic!("no {start} in {found:#?}"));
        assert!(text.contains("; "), "a remedy follows: {text}");
    }
}

#[test]
fn reports_everything_wrong_with_a_route() {
    let target = json!({"modelServerName": "s"});
    let (errors, warnings) = findings(
        "ModelRoute",
        json!({
            "loraAdapters": ["a", "", "a"],
            "rules": [
                {"targetModels": []},
                {"targetModels": [{"modelServerName": "s", "weight": 0}, {"modelServerName": "s", "weight": 0}]},
                {"targetModels": [{}, {"modelServerName": "s", "externalModelProviderName": "p"}]},
                {"targetModels": [{"modelServerName": ""}, {"modelServerName": "s", "weight": 101}]},
                {"targetModels": [{"externalModelProviderName": "p"}]},
                {"targetModels": [target], "modelMatch": {
                    "headers": {"x y": {"exact": "a"}, "ok": {"exact": "a", "prefix": "b"}},
                    "uri": {"regex": "a(b"},
                }},
                {"targetModels": [target], "modelMatch": {"uri": {"regex": "\\w{1000}{1000}"}}},
            ],
            "rateLimit": {"inputTokensPerUnit": 0, "global": {"redis": {"address": ""}}},
            "parentRefs": [{"name": ""}],
            "filters": {"edge-cros": {}, "tags": {"config": {"bad": 1}}, "edge-cors": {"disabled": true}},
        }),
    );
    assert_findings(
        errors,
        &[
            "spec.loraAdapters[1]: the name of a LoRA adapter is empty",
            "spec.rules[0].targetModels: the rule has no target; add a `- modelServerName:`",
            "spec.rules[1].targetModels: the weights of the targets add up to zero; \
             give at least one target a weight above zero",
            "spec.rules[2].targetModels[0]: the target names neither",
            "spec.rules[2].targetModels[1]: the target names both",
            "spec.rules[3].targetModels[0].modelServerName: the name is empty",
            "spec.rules[3].targetModels[1].weight: 101 is out of range",
            "spec.rules[4].targetModels[0].externalModelProviderName: a route with `loraAdapters` cannot",
            "spec.rules[5].modelMatch.headers[\"x y\"]: `x y` is not a header name",
            "spec.rules[5].modelMatch.uri.regex: not a regular expression: unclosed group",
            "spec.rules[6].modelMatch.uri.regex: not a regular expression: it compiles to more than",
            "spec.rateLimit.inputTokensPerUnit: 0 is out of range",
            "spec.rateLimit.global.redis.address: the address is empty",
            "spec.parentRefs[0].name: the name is empty",
            "spec.filters.edge-cros: no filter is called `edge-cros` in the bootstrap file; \
             did you mean `edge-cors`?",
            "spec.filters.tags.config: wrong configuration for a filter of type headers: headers knows no",
        ],
    );
    assert_findings(
        warnings,
        &[
            "spec.loraAdapters[2]: the LoRA adapter `a` is listed twice",
            "spec.rules[4].targetModels[0].externalModelProviderName: accepted but not acted on",
            "spec.rules[5].modelMatch.headers.ok.prefix: `exact` is used and `prefix` is not",
            "spec.rateLimit: accepted but not acted on",
            "spec.parentRefs: accepted but not acted on",
        ],
    );
}

#[test]
fn limits_the_numbers_of_rules_targets_and_adapters() {
    let target = json!({"modelServerName": "s"});
    let headers: serde_json::Map<_, _> = (0..17)
        .map(|n| (format!("x-{n:02}"), json!({"regex": "("})))
        .collect();
    let rule = json!({"targetModels": vec![target; 17], "modelMatch": {"headers": headers}});
    let names: Vec<String> = (0..11).map(|n| n.to_string()).collect();
    let (errors, _) = findings(
        "ModelRoute",
        json!({"loraAdapters": names, "rules": vec![rule; 17]}),
    );
    // No more rules than that are looked at, and no more of their patterns.
    assert_eq!(errors.len(), 2 + 16 * (2 + 16), "{errors:?}");
    let of_numbers = errors.into_iter().filter(|error| error.contains("at most"));
    assert_findings(
        of_numbers.take(4).collect(),
        &[
            "spec.loraAdapters: 11 LoRA adapters, at most 10 are allowed",
            "spec.rules: 17 rules, at most 16 are allowed",
            "spec.rules[0].targetModels: 17 targets, at most 16 are allowed",
            "spec.rules[0].modelMatch.headers: 17 headers, at most 16 are allowed",
        ],
    );
    let (errors, warnings) = findings("ModelRoute", json!({"rules": []}));
    assert_findings(
        errors,
        &["spec: the route names neither a model nor a LoRA adapter"],
    );
    assert_findings(
        warnings,
        &["spec.rules: a route without rules matches nothing"],
    );
}

#[test]
fn reports_everything_wrong_with_a_server() {
    let (errors, warnings) = findings(
        "ModelServer",
        json!({
            "inferenceEngine": "vLLM",
            "model": "m".repeat(257),
            "workloadSelector": {
                "matchLabels": {},
                "pdGroup": {"groupKey": "", "prefillLabels": {"a b": "c"}, "decodeLabels": {"a": "c/d"}},
            },
            "workloadPort": {"port": 0},
            "trafficPolicy": {"timeout": "0s", "totalTimeout": "0", "retry": {"attempts": -1}},
            "kvConnector": {"type": "nixl"},
            "endpoints": [{"address": "h"}, {"address": "h:1"}, {"address": "h:1", "labels": {"-": "x"}}],
        }),
    );
    assert_findings(
        errors,
        &[
            "spec.model: the model's name has more than 256 characters",
            "spec.workloadSelector.matchLabels: no label is given",
            "spec.workloadSelector.pdGroup.groupKey: `` is not a label key",
            "spec.workloadSelector.pdGroup.prefillLabels[\"a b\"]: `a b` is not a label key",
            "spec.workloadSelector.pdGroup.decodeLabels.a: `c/d` is not a label value",
            "spec.workloadPort.port: 0 is out of range",
            "spec.trafficPolicy.timeout: the time is not above zero",
            "spec.trafficPolicy.totalTimeout: the time is not above zero",
            "spec.trafficPolicy.retry.attempts: -1 is out of range",
            "spec.endpoints[0].address: \"h\" has no port",
            "spec.endpoints[2].address: the endpoint h:1 is listed twice",
            "spec.endpoints[2].labels.-: `-` is not a label key",
        ],
    );
    assert_findings(
        warnings,
        &[
            "spec.workloadSelector.pdGroup: accepted",
            "spec.kvConnector: accepted",
        ],
    );
}

#[test]
fn what_a_server_says_of_its_engines_is_checked() {
    let (errors, _) = findings(
        "ModelServer",
        json!({
            "inferenceEngine": "vLLM",
            "endpoints": [{"address": "h:1"}],
            "tokenizer": {"path": " "},
            "kvEvents": {"replayPort": 5558, "ranks": 0},
            "engineMetrics": {"port": 70000, "path": "metrics"},
            "engineSpeed": {"stepMilliseconds": 0, "kvTokens": 1},
        }),
    );
    assert_findings(
        errors,
        &[
            "spec.tokenizer.path: the path is empty",
            "spec.kvEvents.replayPort: there is a `replayPort` and no `port`",
            "spec.kvEvents.ranks: 0",
            "spec.engineMetrics.port: ",
            "spec.engineMetrics.path: the path `metrics` does not begin with `/`",
            "spec.engineSpeed.stepMilliseconds: the number is not above zero",
        ],
    );
}

#[test]
fn a_server_needs_endpoints_or_a_selector() {
    let (errors, _) = findings("ModelServer", json!({"inferenceEngine": "vLLM"}));
    assert_findings(
        errors,
        &["spec: the ModelServer has neither `endpoints` nor a `workloadSelector`"],
    );
    // The misspelt field is the only thing to say.
    let (errors, _) = findings(
        "ModelServer",
        json!({"inferenceEngine": "vLLM", "endpoint": []}),
    );
    assert_findings(
        errors,
        &["spec.endpoint: unknown field `endpoint`; did you mean `endpoints`?"],
    );
    let selector = json!({"matchLabels": {"app": "x"}});
    let (errors, warnings) = findings(
        "ModelServer",
        json!({"inferenceEngine": "vLLM", "workloadSelector": selector}),
    );
    assert_findings(
        errors,
        &["spec.workloadPort: required field `workloadPort` is missing"],
    );
    assert_findings(
        warnings,
        &["spec.workloadSelector: the ModelServer has no endpoints"],
    );
}

#[test]
fn reports_everything_wrong_with_a_provider() {
    let provider = |url: &str| {
        let secret = json!({"name": "", "key": "", "optional": true});
        json!({
            "baseURL": url, "model": "", "auth": {"secretRef": secret},
            "headers": {"Host": "x", "a b": "x", "x-ok": "a\r\nb"},
        })
    };
    let (errors, warnings) = findings("ExternalModelProvider", provider("http://a"));
    assert_findings(
        errors,
        &[
            "spec.model: the model's name is empty",
            "spec.baseURL: the URL does not start with https://",
            "spec.auth.secretRef.name: the Secret has no name",
            "spec.auth.secretRef.key: the Secret's key is empty",
            "spec.auth.secretRef.optional: the credential cannot be optional",
            "spec.headers.Host: the header `Host` is set by the gateway",
            "spec.headers[\"a b\"]: `a b` is not a header name",
            "spec.headers.x-ok: the value has a control character",
        ],
    );
    assert_findings(warnings, &["spec: accepted but not acted on"]);
    for url in [
        "https://",
        "https:///v1",
        "https://u@h/",
        "https://h/?q",
        "https://h/#f",
        "https://h h",
    ] {
        let (errors, _) = findings("ExternalModelProvider", provider(url));
        assert!(
            errors.iter().any(|error| error.starts_with("spec.baseURL")),
            "{url}"
        );
    }
    let (errors, _) = findings(
        "ExternalModelProvider",
        json!({"baseURL": "https://api.example.com/v1"}),
    );
    assert_findings(errors, &[]);
}

#[test]
fn splits_addresses() {
    assert_eq!(split_address("10.0.0.1:80"), Ok(("10.0.0.1", 80)));
    assert_eq!(split_address("[::1]:8000"), Ok(("::1", 8000)));
    assert_eq!(
        split_address("Engine_0.local.:65535"),
        Ok(("Engine_0.local.", 65535))
    );
    let bad = [
        "",
        ":80",
        "h",
        "h:",
        "h:0",
        "h:65536",
        "h:+80",
        "h:80x",
        "::1:80",
        "[::1]",
        "[::1]80",
        "[h]:80",
        "http://h:80",
        "http://h",
        "h/p:80",
        "h:80/p",
        "256.0.0.1:80",
        "1.2.3:80",
        "-h:80",
        "a..b:80",
        "h h:80",
    ];
    for address in bad {
        assert!(split_address(address).is_err(), "{address}");
    }
}
