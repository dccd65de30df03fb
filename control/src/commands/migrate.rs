//! `sluice-control migrate -f VALUES`: values of Kthena's chart to values of ours.
//!
//! Every value that was given is accounted for: it has a place in the result, or a comment says why it has none, or that
//! nobody knows it. Kthena's defaults are written out where ours differ in what clients see.
//! Not for what was applied to the cluster: the documents stay as they are.

mod account;
mod table;

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Map, Value};

use self::account::{Account, account};

/// Largest file that is read.
const MAX_BYTES: u64 = 1 << 20;

/// Why nothing was migrated.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Its path.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// Larger than values ever are.
    #[error("{0} is larger than 1 MiB; is it a values file?")]
    TooLarge(String),
    /// Not YAML.
    #[error("{path}: not YAML: {message}")]
    Yaml {
        /// Its path.
        path: String,
        /// What the parser says.
        message: String,
    },
    /// YAML of another form.
    #[error("{0}: values are a mapping, such as `networking: {{...}}`")]
    NoMapping(String),
}

/// Prints the values on standard output, and a count on standard error.
///
/// # Errors
/// When the file is no file of values, or the result cannot be written out.
#[expect(clippy::print_stderr, reason = "a command's own words")]
pub fn run(path: &Path) -> anyhow::Result<ExitCode> {
    let values = read(path)?;
    let account = account(&values);
    super::print(&text(&account))?;
    eprintln!(
        "{} values taken over, {} without equivalent, {} unknown",
        account.taken,
        account
            .without
            .iter()
            .map(|(_, values)| values.len())
            .sum::<usize>(),
        account.unknown.len()
    );
    Ok(super::exit(true))
}

fn read(path: &Path) -> Result<Map<String, Value>, MigrateError> {
    let name = path.display().to_string();
    let failed = |source| MigrateError::Read {
        path: name.clone(),
        source,
    };
    if fs::metadata(path).map_err(failed)?.len() > MAX_BYTES {
        return Err(MigrateError::TooLarge(name));
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    let value = serde_yaml::from_str(&text).map_err(|error| MigrateError::Yaml {
        path: name.clone(),
        message: error.to_string(),
    })?;
    match value {
        // A file of comments is what an untouched chart has.
        Value::Null => Ok(Map::new()),
        Value::Object(map) => Ok(map),
        _ => Err(MigrateError::NoMapping(name)),
    }
}

/// The values, under comments on what they are and what is not among them.
fn text(account: &Account) -> String {
    let mut text = "\
# Values of the chart sluice, made from Kthena's by `sluice-control migrate`.
# ModelRoutes, ModelServers and ExternalModelProviders stay as they are; apply them unchanged.
"
    .to_owned();
    section(&mut text, "Notes", &account.notes);
    if !account.without.is_empty() {
        text.push_str("#\n# Without equivalent:\n");
    }
    for (reason, values) in &account.without {
        text.push_str(&format!("# - {reason}\n"));
        for value in values {
            text.push_str(&format!("#     {value}\n"));
        }
    }
    section(
        &mut text,
        "Unknown: no value of Kthena's chart",
        &account.unknown,
    );
    let values = Value::Object(account.values.clone());
    text.push_str(&serde_yaml::to_string(&values).expect("values have only string keys"));
    text
}

fn section(text: &mut String, title: &str, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    text.push_str(&format!("#\n# {title}:\n"));
    for line in lines {
        text.push_str(&format!("# - {line}\n"));
    }
}

#[cfg(test)]
mod tests;
