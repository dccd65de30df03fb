//! One document, judged by itself: what it says and all that is wrong with it.
//!
//! For: those who hold documents one at a time, as the control loop and its webhook do, and must come to the same
//! verdict as the gateway. Not for what only several documents show (targets that exist): that is
//! [`Catalog`](crate::Catalog)'s.

use std::sync::Arc;

use serde_json::Value;

use crate::document::{Document, DocumentPlace, Reading, Resource, read, without_echoes};
use crate::filters::FilterSet;
use crate::problem::Problem;
use crate::validate::{Origin, Regexes, validate};
use crate::yaml::Source;

/// What came of a document.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// Its content; `None` when it is of no kind of ours, or its shape is so wrong that it has no typed form. With
    /// an error among the problems, it may hold stand-ins for what could not be read: not to be acted on.
    pub resource: Option<Resource>,
    /// Errors and warnings, those of its shape first.
    pub problems: Vec<Problem>,
}

impl Judgement {
    /// Would a gateway take it into force?
    pub fn accepted(&self) -> bool {
        self.resource.is_some() && !self.problems.iter().any(Problem::is_error)
    }
}

/// Judges `value` as a gateway judges what is pushed to it; it came from `source` (a word for people: a file's name, "the cluster").
pub fn judge(value: Value, source: &str, filters: &FilterSet) -> Judgement {
    let place = DocumentPlace {
        source: Arc::new(Source::new(source.to_owned(), String::new())),
        ..DocumentPlace::default()
    };
    let document = match read(value, Vec::new(), place) {
        Reading::Document(document) => document,
        Reading::Problem(problem) => {
            return Judgement {
                resource: None,
                problems: vec![problem],
            };
        }
    };
    let problems = problems(&document, Origin::Push, (filters, &mut Regexes::default()));
    Judgement {
        resource: Arc::into_inner(document)
            .and_then(|document| document.resource)
            .map(Arc::unwrap_or_clone),
        problems,
    }
}

/// What documents are held against.
pub(crate) type Judge<'a> = (&'a FilterSet, &'a mut Regexes);

/// All that is wrong with a document by itself: with its shape first, then with what it means.
pub(crate) fn problems(
    document: &Document,
    origin: Origin,
    (filters, regexes): Judge<'_>,
) -> Vec<Problem> {
    let shape = &document.findings;
    let meaning = document.resource.as_ref().map(|resource| {
        let meaning = validate(&document.identity, resource, origin, filters, regexes);
        without_echoes(shape, meaning)
    });
    let shape = shape.iter().map(|finding| document.problem(finding));
    let mut problems: Vec<_> = shape.collect();
    for finding in meaning.into_iter().flatten() {
        problems.push(document.problem(&finding));
    }
    problems
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn route(spec: Value) -> Value {
        json!({
            "apiVersion": "networking.serving.volcano.sh/v1alpha1",
            "kind": "ModelRoute",
            "metadata": { "name": "chat", "namespace": "models" },
            "spec": spec,
        })
    }

    fn verdict(value: Value) -> Judgement {
        judge(value, "the cluster", &FilterSet::unknown())
    }

    #[test]
    fn a_good_document_is_accepted_with_its_content() {
        let good = verdict(route(json!({
            "modelName": "chat",
            "rules": [{ "targetModels": [{ "modelServerName": "a" }] }],
        })));
        assert!(good.accepted(), "{good:?}");
        assert!(matches!(good.resource, Some(Resource::Route(_))));
    }

    #[test]
    fn what_is_wrong_with_shape_and_meaning_is_named_by_its_path() {
        let bad = verdict(route(json!({
            "modelName": "chat",
            "rulez": [],
            "rules": [{ "targetModels": [{ "weight": 5 }] }],
        })));
        assert!(!bad.accepted());
        let paths: Vec<_> = bad.problems.iter().map(|p| p.path.as_str()).collect();
        assert_eq!(paths, ["spec.rulez", "spec.rules[0].targetModels[0]"]);
        assert_eq!(bad.problems[0].file, "the cluster");
    }

    #[test]
    fn a_document_of_another_kind_is_not_accepted() {
        let other = verdict(json!({ "apiVersion": "v1", "kind": "Pod" }));
        assert!(!other.accepted());
        assert_eq!(other.resource, None);
        assert_eq!(other.problems.len(), 1);
    }
}
