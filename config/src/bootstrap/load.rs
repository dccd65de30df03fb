//! Reads the bootstrap file, and says everything that is wrong with it at once.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use serde_json::Value;

use super::settings::{self, Setting, SettingOutcome};
use super::{Bootstrap, validate};
use crate::auth::JwtParams;
use crate::filters::{FilterCheck, FilterSet};
use crate::load::read_text;
use crate::path::{FieldPath, Place};
use crate::problem::{Finding, Problem, Report, Severity};
use crate::shape::{Format, Shape};
use crate::yaml::{self, Source};

static SHAPE: LazyLock<Shape> = LazyLock::new(|| Shape::of::<Bootstrap>(format));

/// Texts with a form; a test holds this against the defaults.
fn format(name: &str) -> Option<Format> {
    match name {
        "address" => Some(Format::SocketAddress),
        "clientIdle" | "clientRead" | "clientWrite" | "connect" | "firstByte" | "streamIdle"
        | "total" | "interval" | "budgetWindow" | "idleTimeout" | "debounce" | "delay"
        | "timeout" | "deadline" | "maxAge" | "refreshInterval" => Some(Format::Duration),
        _ => None,
    }
}

/// A bootstrap file read over settings from elsewhere.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What is meant.
    pub bootstrap: Bootstrap,
    /// Warnings.
    pub warnings: Vec<Problem>,
    /// What became of each setting.
    pub outcomes: Vec<SettingOutcome>,
}

impl Bootstrap {
    /// Reads and checks a bootstrap file; filter configurations are judged by `filters`. Gives the
    /// warnings beside it.
    ///
    /// # Errors
    /// Every problem of the file (warnings too) when one of them is an error.
    pub fn load(path: &Path, filters: &dyn FilterCheck) -> Result<(Self, Vec<Problem>), Report> {
        let loaded = Self::load_over(Some(path), &[], filters)?;
        Ok((loaded.bootstrap, loaded.warnings))
    }

    /// As [`load`](Self::load), with `settings` in place of the defaults of what the file does not say; without a
    /// file they are all there is.
    ///
    /// # Errors
    /// As [`load`](Self::load). A wrong setting is no error, only not applied.
    pub fn load_over(
        path: Option<&Path>,
        settings: &[Setting],
        filters: &dyn FilterCheck,
    ) -> Result<Loaded, Report> {
        let (name, text) = match path {
            None => (String::new(), String::new()),
            Some(path) => {
                let text = read_text(path)?;
                (path.display().to_string(), text)
            }
        };
        Self::parse_over(&name, text, settings, filters)
    }

    /// As [`load`](Self::load), from the text of the file called `name`. An empty text is all defaults.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse(
        name: &str,
        text: impl Into<String>,
        filters: &dyn FilterCheck,
    ) -> Result<(Self, Vec<Problem>), Report> {
        let loaded = Self::parse_over(name, text, &[], filters)?;
        Ok((loaded.bootstrap, loaded.warnings))
    }

    fn parse_over(
        name: &str,
        text: impl Into<String>,
        settings: &[Setting],
        filters: &dyn FilterCheck,
    ) -> Result<Loaded, Report> {
        let source = Source::new(name.to_owned(), text.into());
        let mut outcomes = Vec::new();
        let (bootstrap, findings) = read(&source, settings, &mut outcomes, filters)?;
        let mut problems: Vec<_> = findings
            .iter()
            .map(|finding| problem(&source, finding))
            .collect();
        problems.sort_by_key(|problem| problem.line);
        match bootstrap {
            Some(bootstrap) if !problems.iter().any(Problem::is_error) => Ok(Loaded {
                bootstrap,
                warnings: problems,
                outcomes,
            }),
            _ => Err(Report { problems }),
        }
    }

    /// Worker threads: as configured, else what the cgroup's CPU quota (v2 `cpu.max`, v1 `cfs_quota_us`)
    /// and the CPU affinity leave, at least one.
    pub fn threads(&self) -> usize {
        // The standard library reads both kinds of quota.
        let available = || std::thread::available_parallelism().map_or(1, usize::from);
        self.threads.unwrap_or_else(available)
    }

    /// Who may ask, if the file says so.
    ///
    /// # Errors
    /// What is wrong with `auth.jwt`, where it did not come from a file that was checked.
    pub fn jwt(&self) -> Result<Option<JwtParams>, Report> {
        let Some(jwt) = &self.auth.jwt else {
            return Ok(None);
        };
        let path = FieldPath::of("auth.jwt");
        match crate::auth::check(jwt, Place::Path(&path)) {
            (Some(params), _) => Ok(Some(params)),
            (None, findings) => {
                let source = Source::default();
                let problems = findings.iter().map(|finding| problem(&source, finding));
                Err(Report {
                    problems: problems.collect(),
                })
            }
        }
    }

    /// The filters that routes may override, judged by `check`.
    pub fn filter_set(&self, check: Arc<dyn FilterCheck>) -> FilterSet {
        FilterSet::new(&self.filters, check)
    }
}

fn read(
    source: &Source,
    settings: &[Setting],
    outcomes: &mut Vec<SettingOutcome>,
    filters: &dyn FilterCheck,
) -> Result<(Option<Bootstrap>, Vec<Finding>), Report> {
    let whole = |line: usize, message: String, remedy: &str| Report {
        problems: vec![Problem {
            line,
            ..problem(
                source,
                &Finding::error(FieldPath::default(), message, remedy),
            )
        }],
    };
    let documents = yaml::parse(source.text()).map_err(|error| {
        whole(
            error.line,
            format!("not YAML: {}", error.message),
            "mend the line",
        )
    })?;
    let mut documents = documents
        .into_iter()
        .filter(|document| !document.value.is_null());
    let mut document = documents.next().unwrap_or_else(yaml::YamlDocument::empty);
    if documents.next().is_some() {
        let remedy = "keep one; routes and ModelServers go to a file of their own";
        return Err(whole(
            1,
            "a bootstrap file is one document, this has several".into(),
            remedy,
        ));
    }
    let mut findings: Vec<Finding> = Vec::new();
    for path in document.duplicates {
        let finding = Finding::error(path, "this key stands here twice", "keep one of the two");
        findings.push(Finding {
            duplicate: true,
            ..finding
        });
    }
    let top = FieldPath::default();
    SHAPE.check(&mut document.value, Place::Path(&top), &mut findings);
    *outcomes = settings::apply(&mut document.value, settings, &SHAPE);
    let bootstrap = typed(document.value, &mut findings);
    if let Some(bootstrap) = &bootstrap {
        let meaning = validate::validate(bootstrap, filters);
        findings.extend(crate::document::without_echoes(&findings, meaning));
    }
    Ok((bootstrap, findings))
}

fn typed(value: Value, findings: &mut Vec<Finding>) -> Option<Bootstrap> {
    match serde_json::from_value(value) {
        Ok(bootstrap) => Some(bootstrap),
        Err(error) => {
            if findings.is_empty() {
                let message = format!("not a bootstrap file: {error}");
                findings.push(Finding::error(
                    FieldPath::default(),
                    message,
                    "compare it with the examples",
                ));
            }
            None
        }
    }
}

fn problem(source: &Source, finding: &Finding) -> Problem {
    let position = 0;
    Problem {
        severity: finding.severity,
        file: source.name.clone(),
        line: source.line(position, &finding.path, finding.duplicate),
        document: None,
        path: finding.path.to_string(),
        message: finding.message.clone(),
        remedy: finding.remedy.clone(),
        topic: finding.topic,
    }
}

impl Report {
    /// The errors alone.
    pub fn errors(&self) -> impl Iterator<Item = &Problem> {
        self.problems
            .iter()
            .filter(|problem| problem.severity == Severity::Error)
    }
}

#[cfg(test)]
mod tests;
