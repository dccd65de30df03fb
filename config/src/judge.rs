//! One document judged by itself, for those who ask before it takes effect: an admission webhook, a status.
//!
//! Not for rules between documents (`catalog`): what a reference points at may come later.

use serde_json::Value;

use crate::document::{DocumentPlace, Reading, read, without_echoes};
use crate::filters::FilterSet;
use crate::problem::Problem;
use crate::validate::{Regexes, validate};

/// Everything wrong with `value` by itself, by the same rules as for files; route overrides are held against `filters`.
/// The problems name no file and no line.
pub fn judge(value: Value, filters: &FilterSet) -> Vec<Problem> {
    let document = match read(value, Vec::new(), DocumentPlace::default()) {
        Reading::Document(document) => document,
        Reading::Problem(problem) => return vec![problem],
    };
    let mut findings = document.findings.clone();
    if let Some(resource) = &document.resource {
        let meaning = validate(
            &document.identity,
            resource,
            filters,
            &mut Regexes::default(),
        );
        findings.extend(without_echoes(&document.findings, meaning));
    }
    findings
        .iter()
        .map(|finding| document.problem(finding))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn route(target: Value) -> Value {
        json!({
            "apiVersion": "networking.serving.volcano.sh/v1alpha1",
            "kind": "ModelRoute",
            "metadata": { "name": "chat" },
            "spec": { "modelName": "chat", "rules": [{ "targetModels": [target] }] },
        })
    }

    #[test]
    fn a_target_that_is_not_there_yet_is_no_fault() {
        let value = route(json!({ "modelServerName": "later" }));
        assert_eq!(judge(value, &FilterSet::unknown()), []);
    }

    #[test]
    fn each_problem_has_its_path_and_remedy_but_no_line() {
        let value = route(json!({ "modelServerNam": "pool", "weight": 101 }));
        let problems = judge(value, &FilterSet::unknown());
        let paths: Vec<&str> = problems.iter().map(|problem| &*problem.path).collect();
        let target = "spec.rules[0].targetModels[0]";
        assert!(
            paths.contains(&&*format!("{target}.modelServerNam")),
            "{paths:?}"
        );
        assert!(paths.contains(&&*format!("{target}.weight")), "{paths:?}");
        assert!(problems.iter().all(|p| p.line == 0 && !p.remedy.is_empty()));
    }

    #[test]
    fn what_is_no_document_of_ours_is_said_to_be_none() {
        let problems = judge(json!([]), &FilterSet::unknown());
        assert!(problems[0].is_error(), "{problems:?}");
        let other = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "x" } });
        assert!(!judge(other, &FilterSet::unknown())[0].is_error());
    }
}
