//! Published chat templates over conversations, against what transformers renders.
//!
//! `fixtures/templates/make_expected.py` wrote the expected texts. Set `SLUICE_TEMPLATES` to another folder of
//! templates with its own `expected.json` to hold more of them against transformers.
#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};
use sluice_proxy::tokens::template::{ChatTemplate, ContentFormat, STACK_BYTES};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/templates");

fn json(path: &Path) -> Map<String, Value> {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The day `make_expected.py` pretends: 2024-07-26 15:04:09.
fn fixed_day() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_722_006_249)
}

/// What differs from transformers, one line each.
fn differences(folder: &Path) -> Vec<String> {
    let cases = json(&Path::new(FIXTURES).join("cases.json"));
    let mut differences = Vec::new();
    for (name, expected) in json(&folder.join("expected.json")) {
        let source = std::fs::read_to_string(folder.join(&name)).unwrap();
        let template = match ChatTemplate::compile(&source, fixed_day) {
            Ok(template) => template,
            Err(error) => {
                differences.push(format!("{name}: {error}"));
                continue;
            }
        };
        for (case_name, case) in &cases {
            let context = case["context"].as_object().unwrap();
            let rendered = if case.get("continue_final_message").is_some() {
                template.render_continued(context.clone())
            } else {
                template.render(context)
            };
            match (rendered, expected[case_name].as_str()) {
                (Ok(text), Some(expected)) if text == expected => {}
                (Err(_), None) => {}
                (ours, theirs) => {
                    differences.push(format!(
                        "{name}, {case_name}:\n  ours   {ours:?}\n  theirs {theirs:?}"
                    ));
                }
            }
        }
    }
    differences
}

#[test]
fn published_templates_render_as_transformers_renders_them() {
    let folder =
        std::env::var_os("SLUICE_TEMPLATES").map_or_else(|| PathBuf::from(FIXTURES), PathBuf::from);
    let worker = std::thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(move || differences(&folder))
        .unwrap();
    let differences = worker.join().unwrap();
    assert!(
        differences.is_empty(),
        "{}\n{} differ",
        differences.join("\n"),
        differences.len()
    );
}

#[test]
fn content_formats_are_those_vllm_detects() {
    let format = |name: &str| {
        let source = std::fs::read_to_string(Path::new(FIXTURES).join(name)).unwrap();
        ChatTemplate::compile(&source, fixed_day)
            .unwrap()
            .content_format()
    };
    for name in [
        "qwen-2.5.jinja",
        "qwen-3.jinja",
        "mistral-nemo.jinja",
        "smollm-2.jinja",
        "deepseek-v3.1.jinja",
    ] {
        assert_eq!(format(name), ContentFormat::Text, "{name}");
    }
}
