//! What is wrong with a file, said so that it can be mended: where, what, and what to do.
//!
//! Not for errors that a program handles; nobody matches on a [`Problem`]'s words. Who shows some and not others goes by
//! its [`Topic`].

use std::fmt;

use serde::Serialize;

use crate::path::FieldPath;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The document (or file) is refused; its last good version stays in force.
    Error,
    /// It takes effect, but probably not as its author thinks.
    Warning,
}

/// What a problem is about, where that decides who hears of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Everybody's business.
    #[default]
    General,
    /// A document of a kind that is none of ours, which is passed over.
    OtherKind,
    /// True only of documents from files, where nobody looks for pods.
    FilesOnly,
    /// A route's target that is not among the documents.
    MissingTarget,
}

/// One thing that is wrong with one file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// File as the user named it, or the name of the stream that brought the document.
    pub file: String,
    /// 1-based line of the offending key or value; 0 when there is no text to point at.
    pub line: usize,
    /// `Kind namespace/name`; `None` when the file as a whole is meant.
    pub document: Option<String>,
    /// Path of the field, such as `spec.rules[0].targetModels[1].weight`; empty for the whole document.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
    /// What it is about.
    #[serde(skip)]
    pub topic: Topic,
}

impl Problem {
    /// Is it an error (and not a warning)?
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Problem {
    /// `file:line: path: message; remedy`, without the parts that are empty.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.message)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

/// Every problem found in one go; the error type of loading a file that must be right.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// In order of file, then line.
    pub problems: Vec<Problem>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Report {}

/// One problem is a report, too.
impl From<Box<Problem>> for Report {
    fn from(problem: Box<Problem>) -> Self {
        Self {
            problems: vec![*problem],
        }
    }
}

/// A finding about one document, before its place in a file is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) severity: Severity,
    pub(crate) path: FieldPath,
    pub(crate) message: String,
    pub(crate) remedy: String,
    pub(crate) topic: Topic,
    /// The key stands there twice: point at the second.
    pub(crate) duplicate: bool,
}

impl Finding {
    pub(crate) fn error(
        path: impl Into<FieldPath>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let (message, remedy) = (message.into(), remedy.into());
        Self {
            severity: Severity::Error,
            path: path.into(),
            message,
            remedy,
            topic: Topic::General,
            duplicate: false,
        }
    }

    pub(crate) fn about(self, topic: Topic) -> Self {
        Self { topic, ..self }
    }

    pub(crate) fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    pub(crate) fn warning(
        path: impl Into<FieldPath>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(path, message, remedy)
        }
    }
}

/// `; did you mean `x`?` when one of `known` is close to `word`, else the list of them.
pub(crate) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let distance = |candidate: &&str| {
        strsim::damerau_levenshtein(&word.to_lowercase(), &candidate.to_lowercase())
    };
    let close = |candidate: &&&str| distance(candidate) <= 1 + word.chars().count() / 3;
    if let Some(best) = known
        .iter()
        .filter(close)
        .min_by_key(|candidate| distance(candidate))
    {
        return format!("did you mean `{best}`?");
    }
    match known.len() {
        0 => "there is none to choose from".into(),
        1..=40 => format!("known here: {}", known.join(", ")),
        more => format!(
            "known here: {} and {} more",
            known[..40].join(", "),
            more - 40
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_place_message_and_remedy() {
        let mut problem = Problem {
            severity: Severity::Error,
            file: "routes.yaml".into(),
            line: 7,
            document: Some("ModelRoute default/chat".into()),
            path: "spec.rules[0]".into(),
            message: "no target".into(),
            remedy: "add one".into(),
            topic: Topic::General,
        };
        assert_eq!(
            problem.to_string(),
            "routes.yaml:7: spec.rules[0]: no target; add one"
        );
        (problem.line, problem.path) = (0, String::new());
        assert_eq!(problem.to_string(), "routes.yaml: no target; add one");
    }

    #[test]
    fn suggests_a_close_name_and_lists_names_when_none_is_close() {
        assert_eq!(
            did_you_mean("wieght", ["weight", "name"]),
            "did you mean `weight`?"
        );
        assert_eq!(
            did_you_mean("zzzzz", ["weight", "name"]),
            "known here: weight, name"
        );
        assert_eq!(did_you_mean("zzzzz", []), "there is none to choose from");
    }
}
