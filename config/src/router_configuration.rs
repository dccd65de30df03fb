//! Kthena's router configuration (`routerConfiguration` of the ConfigMap `kthena-router-config`) as a source of
//! defaults: how endpoints are chosen, and who may ask.
//!
//! The file holds the configuration itself, or the ConfigMap around it. What Kthena does not know it ignores, and so
//! does this, with a warning; but not below `auth`: a misspelt field there would open the gateway.
//! Not for watching the file, nor for what it means to requests.

use std::path::Path;
use std::sync::LazyLock;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sluice_crds::networking::{PolicyName, SchedulerConfig, SchedulingConfig};

use crate::auth::{self, JwtConfig, JwtParams};
use crate::document::without_echoes;
use crate::load::{self, read_text};
use crate::path::{FieldPath, Place};
use crate::problem::{Finding, Problem, Report};
use crate::scheduling::{self, SchedulingParams};
use crate::shape::Shape;
use crate::yaml::{self, Source, YamlDocument};

/// Key of the ConfigMap; a mounted one has the suffix.
const KEYS: [&str; 2] = ["routerConfiguration", "routerConfiguration.yaml"];

/// What a router configuration says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RouterConfiguration {
    /// How endpoints are chosen where a ModelServer does not say.
    pub scheduling: Option<SchedulingParams>,
    /// Who may ask.
    pub jwt: Option<JwtParams>,
}

/// As written, but for `auth`.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct Written {
    scheduler: Option<SchedulerConfig>,
    #[schemars(schema_with = "anything")]
    auth: Value,
}

/// `auth` as written.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
struct WrittenAuth {
    issuer: String,
    audiences: Vec<String>,
    jwks_uri: String,
}

fn anything(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::Schema::default()
}

static SHAPE: LazyLock<Shape> = LazyLock::new(|| Shape::of::<Written>(|_| None).lenient());
static AUTH: LazyLock<Shape> = LazyLock::new(|| Shape::of::<WrittenAuth>(|_| None));

impl RouterConfiguration {
    /// Reads and checks a file. Gives the warnings beside it.
    ///
    /// # Errors
    /// Every problem of the file (warnings too) when one of them is an error. An empty file is one: it looks like this
    /// for a moment where an editor truncates before it writes, and would let everybody in meanwhile.
    pub fn load(path: &Path) -> Result<(Self, Vec<Problem>), Report> {
        let text = read_text(path)?;
        let name = path.display().to_string();
        if text.trim().is_empty() {
            let remedy = "write a configuration, or `{}` for none";
            let message = "the file is empty";
            return Err(load::problem(&name, 0, message, remedy).into());
        }
        Self::parse(&name, text)
    }

    /// As [`load`](Self::load), from the text of the file called `name`.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse(name: &str, text: impl Into<String>) -> Result<(Self, Vec<Problem>), Report> {
        let text = Text::find(name, text.into())?;
        let (configuration, findings) = read(text.document()?);
        let mut problems: Vec<_> = findings.iter().map(|one| text.problem(one)).collect();
        problems.sort_by_key(|problem| problem.line);
        match problems.iter().any(Problem::is_error) {
            true => Err(Report { problems }),
            false => Ok((configuration, problems)),
        }
    }
}

/// Is this YAML document a router configuration, rather than a bootstrap file or a resource?
pub(crate) fn is_one(value: &Value) -> bool {
    if value["kind"] == "ConfigMap" {
        return KEYS.iter().any(|key| value["data"][*key].is_string());
    }
    let bare = value.get("kind").is_none() && value.get("apiVersion").is_none();
    let auth = ["issuer", "audiences", "jwksUri"];
    let auth = auth.iter().any(|key| value["auth"].get(key).is_some());
    bare && (value.get("scheduler").is_some() || auth)
}

fn read(mut document: YamlDocument) -> (RouterConfiguration, Vec<Finding>) {
    let mut findings: Vec<Finding> = Vec::new();
    for path in document.duplicates {
        let finding = Finding::error(path, "this key stands here twice", "keep one of the two");
        findings.push(Finding {
            duplicate: true,
            ..finding
        });
    }
    let top = FieldPath::default();
    misplaced(&document.value, Place::Path(&top), &mut findings);
    SHAPE.check(&mut document.value, Place::Path(&top), &mut findings);
    let written: Written = match serde_json::from_value(document.value) {
        Ok(written) => written,
        Err(error) => {
            if !findings.iter().any(Finding::is_error) {
                let message = format!("not a router configuration: {error}");
                findings.push(Finding::error(top, message, "compare it with Kthena's"));
            }
            return (RouterConfiguration::default(), findings);
        }
    };
    let (scheduling, meaning) = scheduler(written.scheduler);
    findings.extend(without_echoes(&findings, meaning));
    let (jwt, meaning) = authentication(written.auth);
    findings.extend(meaning);
    (RouterConfiguration { scheduling, jwt }, findings)
}

/// `jwksUri` anywhere but in `auth`: passed over as unknown it would leave the gateway open.
fn misplaced(value: &Value, at: Place<'_>, findings: &mut Vec<Finding>) {
    let top = matches!(at, Place::Path(_));
    match value {
        Value::Object(map) => {
            for (key, value) in map.iter().filter(|(key, _)| !top || *key != "auth") {
                let place = at.key(key);
                if key.eq_ignore_ascii_case("jwksUri") {
                    let message =
                        format!("`{key}` stands outside of `auth`, where nobody looks at it");
                    findings.push(Finding::error(place, message, "move it below `auth:`"));
                }
                misplaced(value, place, findings);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                misplaced(item, at.index(index), findings);
            }
        }
        _ => {}
    }
}

fn scheduler(scheduler: Option<SchedulerConfig>) -> (Option<SchedulingParams>, Vec<Finding>) {
    if scheduler.is_none() {
        return (None, Vec::new());
    }
    let config = SchedulingConfig {
        policy: PolicyName::Kthena,
        scheduler,
        ..SchedulingConfig::default()
    };
    let top = FieldPath::default();
    let (params, findings) = scheduling::check(&config, Place::Path(&top));
    (Some(params), findings)
}

/// As in Kthena, tokens are asked for where `jwksUri` is set.
fn authentication(mut written: Value) -> (Option<JwtParams>, Vec<Finding>) {
    let (path, mut findings) = (FieldPath::of("auth"), Vec::new());
    let at = Place::Path(&path);
    if written.is_null() {
        return (None, findings);
    }
    AUTH.check(&mut written, at, &mut findings);
    if findings.iter().any(Finding::is_error) {
        return (None, findings);
    }
    let written: WrittenAuth = match serde_json::from_value(written) {
        Ok(written) => written,
        Err(error) => {
            let message = format!("not an `auth` block: {error}");
            findings.push(Finding::error(at, message, "compare it with Kthena's"));
            return (None, findings);
        }
    };
    if written.jwks_uri.is_empty() {
        if !written.issuer.is_empty() || !written.audiences.is_empty() {
            let message = "nobody is asked for a token: there is no `jwksUri`";
            let remedy = "write `jwksUri: https://...`, or remove `auth`";
            findings.push(Finding::error(at, message, remedy));
        }
        return (None, findings);
    }
    let config = JwtConfig {
        issuer: written.issuer,
        audiences: written.audiences,
        jwks_uri: Some(written.jwks_uri),
        ..JwtConfig::default()
    };
    let (params, meaning) = auth::check(&config, at);
    findings.extend(meaning);
    (params, findings)
}

/// The configuration's text, and where in the file it stands.
struct Text {
    /// The file.
    file: Source,
    /// The text of a ConfigMap's key, its path and its position among the file's documents.
    inner: Option<Inner>,
}

struct Inner {
    source: Source,
    path: FieldPath,
    position: usize,
}

impl Text {
    fn find(name: &str, text: String) -> Result<Self, Box<Problem>> {
        let bare = |text| Self {
            file: Source::new(name.to_owned(), text),
            inner: None,
        };
        // What is no YAML is said when the text is read.
        let Ok(documents) = yaml::parse(&text) else {
            return Ok(bare(text));
        };
        let map = |document: &YamlDocument| document.value["kind"] == "ConfigMap";
        let Some(position) = documents.iter().position(map) else {
            return Ok(bare(text));
        };
        let data = &documents[position].value["data"];
        let found = KEYS
            .iter()
            .find_map(|key| Some((*key, data[*key].as_str()?)));
        let Some((key, inner)) = found else {
            let finding = Finding::error(
                FieldPath::of("data"),
                format!("the ConfigMap has no text called `{}`", KEYS[0]),
                "name the file of Kthena's ConfigMap `kthena-router-config`",
            );
            let file = bare(text).file;
            return Err(Box::new(problem(&file, position, &finding)));
        };
        let inner = Inner {
            source: Source::new(name.to_owned(), inner.to_owned()),
            path: FieldPath::of("data").key(key),
            position,
        };
        Ok(Self {
            inner: Some(inner),
            ..bare(text)
        })
    }

    /// The configuration's first document; an empty text is one that says nothing.
    fn document(&self) -> Result<YamlDocument, Box<Problem>> {
        let source = self
            .inner
            .as_ref()
            .map_or(&self.file, |inner| &inner.source);
        let not_yaml = |error: yaml::SyntaxError| {
            let message = format!("not YAML: {}", error.message);
            let finding = Finding::error(FieldPath::default(), message, "mend the line");
            Box::new(Problem {
                line: self.outer(error.line),
                ..self.problem(&finding)
            })
        };
        let documents = yaml::parse(source.text()).map_err(not_yaml)?;
        let mut said = documents.into_iter().filter(|one| !one.value.is_null());
        let document = said.next().unwrap_or_else(YamlDocument::empty);
        if said.next().is_some() {
            let message = "a router configuration is one document, this has several";
            let finding = Finding::error(FieldPath::default(), message, "keep one");
            return Err(Box::new(self.problem(&finding)));
        }
        Ok(document)
    }

    fn problem(&self, finding: &Finding) -> Problem {
        let Some(inner) = &self.inner else {
            return problem(&self.file, 0, finding);
        };
        let problem = problem(&inner.source, 0, finding);
        Problem {
            line: self.outer(problem.line),
            ..problem
        }
    }

    /// A line of the configuration as a line of the file: a block of text begins below its key.
    fn outer(&self, line: usize) -> usize {
        match &self.inner {
            None => line,
            Some(inner) => line + self.file.line(inner.position, &inner.path, false),
        }
    }
}

fn problem(source: &Source, position: usize, finding: &Finding) -> Problem {
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

#[cfg(test)]
mod tests;
