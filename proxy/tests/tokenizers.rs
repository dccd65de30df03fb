//! Tokenizers against ids that the Python library of the same family gave
//! (`fixtures/tokenizers/make_tokenizers.py`).
#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::path::Path;

use serde_json::Value;
use sluice_proxy::tokens::encode::Memo;
use sluice_proxy::tokens::model::ModelTokenizer;
use sluice_proxy::tokens::request::Prompt;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tokenizers");

fn ids(value: &Value) -> Vec<u32> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|id| u32::try_from(id.as_u64().unwrap()).unwrap())
        .collect()
}

fn compare(name: &str) {
    let folder = Path::new(FIXTURES);
    let model = ModelTokenizer::load(&folder.join(format!("{name}.json"))).unwrap();
    let memo = Memo::new(1 << 20);
    let expected: Vec<Value> = serde_json::from_slice(
        &std::fs::read(folder.join(format!("{name}.expected.json"))).unwrap(),
    )
    .unwrap();
    // The second round answers from the memo.
    for round in 0..2 {
        for case in &expected {
            for (field, add_special_tokens) in [("ids", false), ("with_special", true)] {
                let text = case["text"].as_str().unwrap().to_owned();
                let ours = model
                    .ids(
                        &memo,
                        Prompt::Text {
                            text,
                            add_special_tokens,
                        },
                    )
                    .unwrap();
                assert_eq!(
                    *ours,
                    ids(&case[field]),
                    "{name}, {field}, round {round}: {:?}",
                    case["text"]
                );
            }
        }
    }
    assert!(
        memo.hits_and_misses().0 > 0,
        "the second round answers from the memo"
    );
}

#[test]
fn byte_level_ids_are_those_of_the_python_library() {
    compare("byte-level");
}

#[test]
fn metaspace_ids_are_those_of_the_python_library() {
    compare("metaspace");
}
