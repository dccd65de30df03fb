//! YAML text to JSON values, one per document, with duplicate keys noted.
//!
//! Not for meaning: nothing here knows a kind or a field. Values come from `serde_yaml`; line numbers,
//! which it does not keep, come from a second parse in [`lines`] that only a problem pays for.

mod lines;
mod value;

use std::sync::OnceLock;

use serde::de::DeserializeSeed;
use serde_json::Value;

pub(crate) use self::lines::Lines;
use crate::path::FieldPath;

/// One document of a stream.
#[derive(Debug)]
pub(crate) struct YamlDocument {
    pub(crate) value: Value,
    /// Keys that stand twice in one mapping; `value` has the first.
    pub(crate) duplicates: Vec<FieldPath>,
}

impl YamlDocument {
    /// A mapping with nothing in it.
    pub(crate) fn empty() -> Self {
        Self {
            value: Value::Object(serde_json::Map::new()),
            duplicates: Vec::new(),
        }
    }
}

/// Text that could not be read as YAML.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    pub(crate) line: usize,
    pub(crate) message: String,
}

/// All documents of `text`, empty ones as null so that positions stay true.
pub(crate) fn parse(text: &str) -> Result<Vec<YamlDocument>, SyntaxError> {
    let mut documents = Vec::new();
    let top = FieldPath::default();
    for deserializer in serde_yaml::Deserializer::from_str(text) {
        let mut duplicates = Vec::new();
        let seed = value::Tree::new(&top, &mut duplicates);
        let value = seed
            .deserialize(deserializer)
            .map_err(|error| SyntaxError {
                // A text that ends too soon fails on the line after its last.
                line: error
                    .location()
                    .map_or(1, |location| location.line())
                    .min(text.lines().count().max(1)),
                message: plain_message(&error),
            })?;
        documents.push(YamlDocument { value, duplicates });
    }
    Ok(documents)
}

/// The parser's words without its " at line 3 column 4": the line stands in front already.
fn plain_message(error: &serde_yaml::Error) -> String {
    let text = error.to_string();
    match text.find(" at line ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

/// A text and, once asked for, where its fields are.
#[derive(Debug, Default)]
pub(crate) struct Source {
    /// File or stream as the user knows it.
    pub(crate) name: String,
    text: String,
    lines: OnceLock<Lines>,
}

impl Source {
    pub(crate) fn new(name: String, text: String) -> Self {
        Self {
            name,
            text,
            lines: OnceLock::new(),
        }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// 1-based line of `path` in the document at position `document`, as near as it can be told.
    pub(crate) fn line(&self, document: usize, path: &FieldPath, duplicate: bool) -> usize {
        if self.text.is_empty() {
            return 0;
        }
        self.lines
            .get_or_init(|| Lines::of(&self.text))
            .find(document, path, duplicate)
    }
}

#[cfg(test)]
mod tests;
