use std::time::Duration;

use serde_json::json;
use sluice_crds::networking::{ModelRouteSpec, ModelServerSpec};

use super::text::parse_duration;
use super::*;

/// `path: message; remedy` of every finding, and what is left of the value.
fn check<T: JsonSchema>(value: Value) -> (Vec<String>, Value) {
    let shape = Shape::of::<T>(|name| (name == "timeout").then_some(Format::Duration));
    let (mut value, mut findings) = (value, Vec::new());
    let top = crate::path::FieldPath::of("spec");
    shape.check(&mut value, Place::Path(&top), &mut findings);
    let texts = findings
        .iter()
        .map(|f| format!("{}: {}; {}", f.path, f.message, f.remedy));
    (texts.collect(), value)
}

#[test]
fn reports_every_unknown_field_and_keeps_the_rest() {
    let (texts, rest) = check::<ModelRouteSpec>(json!({
        "modelNmae": "m",
        "rules": [{"targetModels": [{"modelServerName": "a", "wieght": 1}]}],
    }));
    assert_eq!(
        texts,
        [
            "spec.modelNmae: unknown field `modelNmae`; did you mean `modelName`?",
            "spec.rules[0].targetModels[0].wieght: unknown field `wieght`; did you mean `weight`?",
        ]
    );
    assert_eq!(
        rest,
        json!({"rules": [{"targetModels": [{"modelServerName": "a"}]}]})
    );
}

#[test]
fn reports_wrong_types_ranges_words_and_missing_fields() {
    let (texts, _) = check::<ModelRouteSpec>(json!({
        "modelName": 7,
        "loraAdapters": "x",
        "rules": [{"targetModels": [{"weight": -1}, {"weight": "5"}]}, {}],
        "rateLimit": {"unit": "fortnight"},
    }));
    let has = |text: &str| assert!(texts.iter().any(|t| t == text), "{text}: {texts:#?}");
    has("spec.modelName: expected text, found the number 7; put it in quotes");
    has("spec.loraAdapters: expected a list, found the text \"x\"; start each item with `- `");
    has(
        "spec.rules[0].targetModels[0].weight: -1 is out of range; use a whole number from 0 to 100",
    );
    has(
        "spec.rules[0].targetModels[1].weight: expected a whole number, found the text \"5\"; \
         write the number without quotes and without a unit",
    );
    has(
        "spec.rules[1].targetModels: required field `targetModels` is missing; add `targetModels:`",
    );
    has(
        "spec.rateLimit.unit: `fortnight` is none of second, minute, hour, day, month; \
         known here: second, minute, hour, day, month",
    );
    assert_eq!(texts.len(), 6, "{texts:#?}");
}

#[test]
fn drops_nulls_and_checks_durations() {
    let (texts, rest) = check::<ModelServerSpec>(json!({
        "inferenceEngine": "vllm",
        "model": null,
        "trafficPolicy": {"timeout": "5 minutes"},
    }));
    assert_eq!(texts.len(), 2, "{texts:#?}");
    assert!(texts[0].ends_with("did you mean `vLLM`?"), "{texts:?}");
    assert!(texts[1].starts_with("spec.trafficPolicy.timeout: \"5 minutes\" is not a duration"));
    let harmless = json!({"inferenceEngine": "vLLM", "trafficPolicy": {}});
    assert_eq!(rest, harmless);
}

#[test]
fn free_form_values_are_left_alone() {
    let value = json!({"rules": [], "filters": {"f": {"config": {"any": [null, 1]}}}});
    let (texts, rest) = check::<ModelRouteSpec>(value.clone());
    assert_eq!((texts, rest), (vec![], value));
}

#[test]
fn parses_durations_as_go_does_and_never_panics() {
    let good = [
        ("1h30m", 5400.0),
        ("250ms", 0.25),
        ("0", 0.0),
        ("+1.5s", 1.5),
        (".5s", 0.5),
    ];
    for (text, seconds) in good {
        assert_eq!(
            parse_duration(text),
            Ok(Duration::from_secs_f64(seconds)),
            "{text}"
        );
        assert_eq!(
            text.parse::<kube::core::Duration>().unwrap(),
            parse_duration(text).unwrap()
        );
    }
    for text in [
        "",
        "5",
        "s",
        "1s-5s",
        "-1s",
        "1e300h",
        "9999999999999h",
        "1d",
        "1 s",
        "nans",
        ".",
        ".s",
    ] {
        assert!(parse_duration(text).is_err(), "{text}");
    }
}
