use serde_json::{Value, json};

use super::*;
use crate::problem::Finding;
use crate::shape::Shape;

/// Reads a block as documents are read: its shape first, then its meaning; findings as `path: message; remedy`.
fn read(mut block: Value) -> (SchedulingParams, Vec<String>) {
    let top = FieldPath::of("scheduling");
    let mut findings = Vec::new();
    Shape::of::<SchedulingConfig>(|_| None).check(&mut block, Place::Path(&top), &mut findings);
    let config: SchedulingConfig = serde_json::from_value(block).unwrap();
    let (params, meaning) = check(&config, Place::Path(&top));
    findings.extend(meaning);
    let said = |finding: &Finding| {
        let kind = if finding.is_error() { "" } else { "warning: " };
        format!(
            "{kind}{}: {}; {}",
            finding.path, finding.message, finding.remedy
        )
    };
    (params, findings.iter().map(said).collect())
}

#[test]
fn an_empty_block_is_the_default() {
    let (params, findings) = read(json!({}));
    assert_eq!(params, SchedulingParams::default());
    assert!(findings.is_empty(), "{findings:?}");
}

#[test]
fn every_policy_can_be_chosen_by_name() {
    for name in PolicyName::ALL {
        let (_, findings) = read(json!({"policy": name.as_str()}));
        assert!(findings.is_empty(), "{name:?}: {findings:?}");
    }
}

#[test]
fn an_unknown_policy_is_refused_with_a_guess() {
    let (_, findings) = read(json!({"policy": "least-requests"}));
    assert_eq!(findings.len(), 1);
    assert!(
        findings[0].starts_with("scheduling.policy: `least-requests` is none of mtl,")
            && findings[0].ends_with("did you mean `least-request`?"),
        "{findings:?}"
    );
}

#[test]
fn numbers_are_taken_where_written_and_defaults_elsewhere() {
    let (params, findings) = read(json!({"mtl": {"decode": 0.3}}));
    let expected = MtlParams {
        decode: 0.3,
        ..MtlParams::default()
    };
    assert_eq!(params.policy, PolicyParams::Mtl(expected));
    assert!(findings.is_empty(), "{findings:?}");
}

#[test]
fn numbers_out_of_range_are_refused() {
    let (_, findings) = read(json!({"mtl": {"price": -1.0}}));
    assert_eq!(
        findings,
        [
            "scheduling.mtl.price: -1 is out of range; write a number from 0 to 1000; the default is 1"
        ]
    );
    let (_, findings) =
        read(json!({"policy": "least-latency", "leastLatency": {"firstTokenWeight": 1.5}}));
    assert!(
        findings[0].starts_with("scheduling.leastLatency.firstTokenWeight: 1.5"),
        "{findings:?}"
    );
}

#[test]
fn sessions_are_read_from_a_header_in_lower_case_and_a_cookie() {
    let block = json!({"policy": "session", "session": {"header": "X-Chat", "cookie": "sid"}});
    let (params, findings) = read(block);
    assert!(findings.is_empty(), "{findings:?}");
    assert_eq!(params.session.header, "x-chat");
    assert_eq!(params.session.cookie.as_deref(), Some("sid"));
    let (_, findings) = read(json!({"session": {"cookie": "a b"}}));
    assert!(
        findings[0].starts_with("scheduling.session.cookie: \"a b\" is no name of a cookie"),
        "{findings:?}"
    );
}

#[test]
fn a_block_of_another_policy_is_not_passed_over_in_silence() {
    let (_, findings) = read(json!({"policy": "random", "mtl": {}}));
    assert_eq!(
        findings,
        [
            "warning: scheduling.mtl: `mtl` has no effect with policy random; write `policy: mtl`, or remove it"
        ]
    );
    let (_, findings) = read(json!({"scheduler": {}}));
    assert!(
        findings.iter().any(|f| f.starts_with(
            "scheduling.scheduler: Kthena's plug-ins are configured, but the policy is mtl"
        )),
        "{findings:?}"
    );
}

fn kthena(scheduler: Value) -> (KthenaParams, Vec<String>) {
    let (params, findings) = read(json!({"policy": "kthena", "scheduler": scheduler}));
    match params.policy {
        PolicyParams::Kthena(kthena) => (kthena, findings),
        other => panic!("{other:?}"),
    }
}

#[test]
fn kthenas_block_gives_filters_weights_and_arguments() {
    let (params, findings) = kthena(json!({
        "pluginConfig": [
            {"name": "least-request", "args": {"maxWaitingRequests": 4}},
            {"name": "least-latency", "args": {"TTFTTPOTWeightFactor": 0.2}},
            {"name": "gpu-usage"},
        ],
        "plugins": {
            "Filter": {"enabled": ["least-request", "lora-affinity"], "disabled": ["lora-affinity"]},
            "Score": {"enabled": [{"name": "kvcache-aware", "weight": 3}, {"name": "gpu-usage"}]},
        },
    }));
    let expected = KthenaParams {
        filters: vec![FilterPlugin::LeastRequest],
        scores: vec![(ScorePlugin::KvcacheAware, 3), (ScorePlugin::GpuUsage, 1)],
        max_waiting_requests: 4.0,
        first_token_weight: 0.2,
    };
    assert_eq!(params, expected);
    let both =
        "warning: scheduling.scheduler.plugins.Filter.enabled[1]: `lora-affinity` is enabled";
    assert!(
        findings.len() == 1 && findings[0].starts_with(both),
        "{findings:?}"
    );
}

#[test]
fn unknown_plugins_and_arguments_are_refused_with_a_guess() {
    let (_, findings) = kthena(json!({
        "pluginConfig": [
            {"name": "prefix-cache", "args": {"maxBlockToMatch": 1, "blockSizeToHash": 64}},
            {"name": "least-request", "args": {"maxWaitingRequests": "4"}},
            {"name": "least-latency", "args": [0.5]},
        ],
        "plugins": {
            "Filter": {"enabled": ["least-requests"]},
            "Score": {"enabled": [{"name": "prefix_cache"}, {"name": "random"}, {"name": "random"}]},
        },
    }));
    let starts = [
        "scheduling.scheduler.plugins.Filter.enabled[0]: there is no such plug-in here: `least-requests`; did you mean `least-request`?",
        "scheduling.scheduler.plugins.Score.enabled[0].name: there is no such plug-in here: `prefix_cache`; did you mean `prefix-cache`?",
        "scheduling.scheduler.plugins.Score.enabled[2].name: `random` scores already",
        "scheduling.scheduler.pluginConfig[0].args.maxBlockToMatch: `prefix-cache` has no argument `maxBlockToMatch`; did you mean `maxBlocksToMatch`?",
        "warning: scheduling.scheduler.pluginConfig[0].args.blockSizeToHash: `blockSizeToHash` has no effect",
        "scheduling.scheduler.pluginConfig[1].args.maxWaitingRequests: `maxWaitingRequests` is no number",
        "scheduling.scheduler.pluginConfig[2].args: the arguments are no mapping",
    ];
    assert_eq!(findings.len(), starts.len(), "{findings:#?}");
    for (finding, start) in findings.iter().zip(starts) {
        assert!(finding.starts_with(start), "{finding} <> {start}");
    }
}

#[test]
fn random_gives_way_to_plugins_that_know_something() {
    let scores =
        json!({"plugins": {"Score": {"enabled": [{"name": "random"}, {"name": "gpu-usage"}]}}});
    let (params, findings) = kthena(scores);
    assert_eq!(params.scores, [(ScorePlugin::GpuUsage, 1)]);
    assert!(findings[0].contains("`random` is left out"), "{findings:?}");
    let (params, _) = kthena(json!({"plugins": {"Score": {"enabled": [{"name": "random"}]}}}));
    assert_eq!(params.scores, [(ScorePlugin::Random, 1)]);
}
