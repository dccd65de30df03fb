//! The files of a model's folder that a tokenizer needs, read within bounds.
//!
//! Templates come from, first found: `chat_template.jinja` (with `additional_chat_templates/tool_use.jinja`),
//! `chat_template.json`, `tokenizer_config.json`; the order of transformers.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::TokenizerError;

/// The largest public `tokenizer.json` are some 35 MB.
const MAX_BYTES: u64 = 64 << 20;

/// What [`read`] found.
pub(super) struct Files {
    pub(super) tokenizer_path: PathBuf,
    pub(super) tokenizer: Vec<u8>,
    /// `tokenizer_config.json`, completed by `special_tokens_map.json`; empty without them.
    pub(super) config: Map<String, Value>,
    pub(super) default_template: Option<TemplateSource>,
    pub(super) tool_template: Option<TemplateSource>,
}

/// A template and the file it came from.
pub(super) struct TemplateSource {
    pub(super) path: PathBuf,
    pub(super) source: String,
}

/// Reads the folder at `path`, or the one file there.
pub(super) fn read(path: &Path) -> Result<Files, TokenizerError> {
    if !path.is_dir() {
        return Ok(Files {
            tokenizer_path: path.to_owned(),
            tokenizer: required(path)?,
            config: Map::new(),
            default_template: None,
            tool_template: None,
        });
    }
    let tokenizer_path = path.join("tokenizer.json");
    let tokenizer = required(&tokenizer_path)?;
    let config_path = path.join("tokenizer_config.json");
    let mut config = optional_map(&config_path)?;
    for (key, value) in optional_map(&path.join("special_tokens_map.json"))? {
        config.entry(key).or_insert(value);
    }
    let (default_template, tool_template) = templates(path, &config_path, &config)?;
    // The templates are hashed by themselves, and a list of them can be long.
    config.remove("chat_template");
    config.remove("added_tokens_decoder");
    Ok(Files {
        tokenizer_path,
        tokenizer,
        config,
        default_template,
        tool_template,
    })
}

type Templates = (Option<TemplateSource>, Option<TemplateSource>);

fn templates(
    folder: &Path,
    config_path: &Path,
    config: &Map<String, Value>,
) -> Result<Templates, TokenizerError> {
    let jinja = folder.join("chat_template.jinja");
    if let Some(default) = optional_text(&jinja)? {
        let tool = folder
            .join("additional_chat_templates")
            .join("tool_use.jinja");
        let tool_source = optional_text(&tool)?;
        let tool_template = tool_source.map(|source| TemplateSource { path: tool, source });
        return Ok((
            Some(TemplateSource {
                path: jinja,
                source: default,
            }),
            tool_template,
        ));
    }
    let json = folder.join("chat_template.json");
    let in_json = optional_map(&json)?;
    let (path, template) = match in_json.get("chat_template") {
        Some(template) => (json.as_path(), Some(template)),
        None => (config_path, config.get("chat_template")),
    };
    named_templates(path, template.unwrap_or(&Value::Null))
}

/// One template, or a list of `{"name": ..., "template": ...}` with `default` and `tool_use`.
fn named_templates(path: &Path, template: &Value) -> Result<Templates, TokenizerError> {
    let source = |text: &str| TemplateSource {
        path: path.to_owned(),
        source: text.to_owned(),
    };
    match template {
        Value::Null => Ok((None, None)),
        Value::String(text) => Ok((Some(source(text)), None)),
        Value::Array(named) => {
            let find = |name: &str| {
                let entry = named.iter().find(|entry| entry["name"] == name)?;
                entry["template"].as_str().map(source)
            };
            Ok((find("default"), find("tool_use")))
        }
        _ => Err(invalid(
            path,
            "chat_template is neither a text nor a list of named templates",
        )),
    }
}

fn invalid(path: &Path, message: impl ToString) -> TokenizerError {
    TokenizerError::Invalid {
        path: path.to_owned(),
        message: message.to_string(),
    }
}

fn optional_map(path: &Path) -> Result<Map<String, Value>, TokenizerError> {
    match optional(path)? {
        None => Ok(Map::new()),
        Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| invalid(path, error)),
    }
}

fn optional_text(path: &Path) -> Result<Option<String>, TokenizerError> {
    let text = optional(path)?.map(String::from_utf8).transpose();
    text.map_err(|error| invalid(path, error))
}

fn optional(path: &Path) -> Result<Option<Vec<u8>>, TokenizerError> {
    match required(path) {
        Err(TokenizerError::Read { source, .. })
            if source.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(None)
        }
        read => read.map(Some),
    }
}

fn required(path: &Path) -> Result<Vec<u8>, TokenizerError> {
    let failed = |source| TokenizerError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    let too_large = |bytes| TokenizerError::TooLarge {
        path: path.to_owned(),
        bytes,
        limit: MAX_BYTES,
    };
    if bytes > MAX_BYTES {
        return Err(too_large(bytes));
    }
    // The size of what is not a plain file, or is being written, says little.
    let mut content = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0));
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut content)
        .map_err(failed)?;
    if content.len() as u64 > MAX_BYTES {
        return Err(too_large(content.len() as u64));
    }
    Ok(content)
}
