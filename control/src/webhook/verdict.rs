//! Whether an object may be stored, and what its author is told.
//!
//! Pure: one review in, one verdict out.

use serde_json::Value;
use sluice_config::{FilterSet, Problem, judge};

use super::review::Review;

/// Errors in the words of a denial; the rest is counted.
const MAX_ERRORS: usize = 20;

/// Warnings passed on, and their length: the API server cuts more.
const MAX_WARNINGS: usize = 16;
const MAX_WARNING_BYTES: usize = 256;

/// What is wrong, and whether that is a reason to refuse.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    problems: Vec<Problem>,
    /// Why errors are no reason: said in front of each.
    excuse: Option<&'static str>,
}

impl Verdict {
    pub(super) fn of(review: &Review) -> Self {
        let is_stored = matches!(review.operation.as_str(), "CREATE" | "UPDATE");
        let is_part = review
            .sub_resource
            .as_deref()
            .is_some_and(|part| !part.is_empty());
        if !is_stored || is_part {
            return Self::default();
        }
        let object = &review.object;
        // It only waits for its finalizers, and must be able to lose them.
        if !object["metadata"]["deletionTimestamp"].is_null() {
            return Self::default();
        }
        let problems = judge(document(object), "the API server", &FilterSet::unknown()).problems;
        // Stored while the webhook was off, or by older rules: labels and finalizers may be written all the same.
        let is_old = review.operation == "UPDATE" && object["spec"] == review.old_object["spec"];
        Self {
            problems,
            excuse: is_old.then_some("wrong since before"),
        }
    }

    pub(super) fn is_allowed(&self) -> bool {
        self.excuse.is_some() || self.errors().next().is_none()
    }

    pub(super) fn errors(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter().filter(|problem| problem.is_error())
    }

    /// Every error with its field and what to do.
    pub(super) fn message(&self) -> String {
        let count = self.errors().count();
        let mut lines: Vec<String> = self.errors().take(MAX_ERRORS).map(line).collect();
        if count > MAX_ERRORS {
            lines.push(format!("and {} more", count - MAX_ERRORS));
        }
        match lines.as_slice() {
            [only] => only.clone(),
            lines => format!("{count} errors:\n- {}", lines.join("\n- ")),
        }
    }

    /// What is no reason to refuse.
    pub(super) fn into_warnings(self) -> Vec<String> {
        let allowed = self.is_allowed();
        let excuse = self.excuse;
        self.problems
            .iter()
            .filter(|problem| allowed || !problem.is_error())
            .take(MAX_WARNINGS)
            .map(|problem| match excuse.filter(|_| problem.is_error()) {
                Some(excuse) => short(format!("{excuse}: {}", line(problem))),
                None => short(line(problem)),
            })
            .collect()
    }

    /// Denials are worth a line; what the author can read already is not repeated in full.
    pub(super) fn log(&self, review: &Review) {
        let (kind, object) = (&review.kind.kind, review.object_name());
        let operation = &review.operation;
        if self.is_allowed() {
            tracing::debug!(kind, object, operation, "allowed");
            return;
        }
        let errors = self.errors().count();
        let first = self.errors().next().map(line).unwrap_or_default();
        tracing::info!(kind, object, operation, errors, first, "refused");
    }
}

/// The object as gateways get it: without what others write into it.
fn document(object: &Value) -> Value {
    let mut document = object.clone();
    if let Some(map) = document.as_object_mut() {
        map.remove("status");
    }
    let metadata = document.get_mut("metadata");
    if let Some(metadata) = metadata.and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
        // The name comes later.
        let prefix = metadata.get("generateName").and_then(Value::as_str);
        if let (Some(prefix), None) = (prefix, metadata.get("name")) {
            let name = format!("{prefix}x");
            metadata.insert("name".into(), name.into());
        }
    }
    document
}

fn line(problem: &Problem) -> String {
    let mut line = match problem.path.as_str() {
        "" => problem.message.clone(),
        path => format!("{path}: {}", problem.message),
    };
    if !problem.remedy.is_empty() {
        line.push_str("; ");
        line.push_str(&problem.remedy);
    }
    line
}

/// Cut to what the API server passes on.
fn short(mut text: String) -> String {
    const CUT: &str = "...";
    if text.len() > MAX_WARNING_BYTES {
        let end = text.floor_char_boundary(MAX_WARNING_BYTES - CUT.len());
        text.truncate(end);
        text.push_str(CUT);
    }
    text
}
