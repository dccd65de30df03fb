//! One model's tokenizer and chat template, from a folder as Hugging Face lays it out, or from a lone
//! `tokenizer.json`. Nothing is downloaded.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Map, Value};
use xxhash_rust::xxh3::Xxh3Default;

use super::encode::{Cutting, EncodeError, Encoder, Memo};
use super::request::{Chat, Prompt, Reason};
use super::template::{ChatTemplate, ContentFormat, TemplateError};

mod files;

#[cfg(test)]
mod tests;

/// Why a tokenizer could not be loaded: which file, what is wrong with it, what to do.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A file that must be there cannot be read.
    #[error(
        "cannot read {path}: {source}; check that the tokenizer's path is mounted and holds a tokenizer.json"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file is larger than any tokenizer's.
    #[error(
        "{path} has {bytes} bytes, more than the {limit} allowed; is it a tokenizer and not the model's weights?"
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// What is allowed.
        limit: u64,
    },
    /// A file is not JSON, or not the JSON it should be.
    #[error("{path} is not valid: {message}; copy it anew from the model's folder")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong and where.
        message: String,
    },
    /// The tokenizer's definition is refused by the library.
    #[error("{path}: {source}; it may need a newer version of the tokenizers library")]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is refused.
        source: EncodeError,
    },
    /// The chat template does not compile.
    #[error("{path}: {source}; chat requests need it, remove it to tokenise only completions")]
    Template {
        /// The file it came from.
        path: PathBuf,
        /// What is wrong.
        source: TemplateError,
    },
}

/// A loaded model: shared, never changed. The same files give the same [`fingerprint`](Self::fingerprint).
pub struct ModelTokenizer {
    encoder: Encoder,
    default_template: Option<ChatTemplate>,
    /// For requests with tools, where the model names one.
    tool_template: Option<ChatTemplate>,
    /// `bos_token` and the like, as templates see them.
    special_tokens: Map<String, Value>,
    /// Ids that the tokenizer's class puts around a text, where `tokenizer_config.json` overrides the definition.
    wrapped: Option<(Vec<u32>, Vec<u32>)>,
    fingerprint: u64,
}

impl ModelTokenizer {
    /// Loads the folder or the `tokenizer.json` at `path`. Reads files and checks the tokenizer against itself:
    /// up to a second of work, not for a worker thread.
    ///
    /// # Errors
    /// When a file is missing, too large or not what it should be.
    pub fn load(path: &Path) -> Result<Arc<Self>, TokenizerError> {
        let files = files::read(path)?;
        let mut hasher = Xxh3Default::new();
        hasher.update(&files.tokenizer);
        for template in files.default_template.iter().chain(&files.tool_template) {
            hasher.update(template.source.as_bytes());
        }
        hasher.update(Value::from(files.config.clone()).to_string().as_bytes());
        let fingerprint = hasher.digest();
        let encoder = Encoder::new(&files.tokenizer, fingerprint).map_err(|source| {
            TokenizerError::Tokenizer {
                path: files.tokenizer_path.clone(),
                source,
            }
        })?;
        let compile = |template: Option<files::TemplateSource>| {
            template.map_or(Ok(None), |template| {
                ChatTemplate::compile(&template.source, SystemTime::now)
                    .map(Some)
                    .map_err(|source| TokenizerError::Template {
                        path: template.path,
                        source,
                    })
            })
        };
        let special_tokens = special_tokens(&files.config);
        let wrapped = wrapped(&files.config, &special_tokens, &encoder);
        Ok(Arc::new(Self {
            default_template: compile(files.default_template)?,
            tool_template: compile(files.tool_template)?,
            special_tokens,
            wrapped,
            encoder,
            fingerprint,
        }))
    }

    /// Names this tokenizer, template and special tokens: ids of models with the same fingerprint are the same.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// How prompts are cut for the memo; `Nowhere` means that every prompt is encoded as a whole.
    pub fn cutting(&self) -> Cutting {
        self.encoder.cutting()
    }

    /// The form of content the template for such a request wants; nothing without a template.
    pub fn content_format(&self, with_tools: bool) -> Option<ContentFormat> {
        self.template(with_tools).map(ChatTemplate::content_format)
    }

    /// The ids of a prompt. For a thread with [`super::template::STACK_BYTES`] of stack.
    ///
    /// # Errors
    /// The reason why there are none.
    pub fn ids(&self, memo: &Memo, prompt: Prompt) -> Result<Arc<[u32]>, Reason> {
        let (text, special) = match prompt {
            Prompt::Ids(ids) => return Ok(ids),
            Prompt::Text {
                text,
                add_special_tokens,
            } => (text, add_special_tokens),
            Prompt::Chat(chat) => {
                let special = chat.add_special_tokens;
                (self.render(chat)?, special)
            }
        };
        let ids = match &self.wrapped {
            Some((before, after)) if special => {
                let ids = self.encoder.encode(memo, &text, false);
                ids.map(|ids| [before.as_slice(), &ids, after].concat())
            }
            _ => self.encoder.encode(memo, &text, special),
        };
        ids.map(Arc::from).map_err(|_| Reason::Encode)
    }

    /// The text of a conversation.
    ///
    /// # Errors
    /// Without a template, or when it refuses the conversation or fails.
    pub fn render(&self, chat: Chat) -> Result<String, Reason> {
        let template = self.template(chat.with_tools).ok_or(Reason::NoTemplate)?;
        let mut context = self.special_tokens.clone();
        context.extend(chat.context);
        let rendered = if chat.continue_final_message {
            template.render_continued(context)
        } else {
            template.render(&context)
        };
        rendered.map_err(|error| match error {
            TemplateError::Raised => Reason::TemplateRefused,
            _ => Reason::TemplateFailed,
        })
    }

    fn template(&self, with_tools: bool) -> Option<&ChatTemplate> {
        self.tool_template
            .as_ref()
            .filter(|_| with_tools)
            .or(self.default_template.as_ref())
    }
}

impl std::fmt::Debug for ModelTokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelTokenizer")
            .field("fingerprint", &self.fingerprint)
            .field("cutting", &self.cutting())
            .field(
                "templates",
                &(
                    self.default_template.is_some(),
                    self.tool_template.is_some(),
                ),
            )
            .finish_non_exhaustive()
    }
}

/// transformers' `special_tokens_map`: what its configuration names, as text.
const SPECIAL_TOKENS: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

fn special_tokens(config: &Map<String, Value>) -> Map<String, Value> {
    SPECIAL_TOKENS
        .iter()
        .filter_map(|&name| Some((name.to_owned(), Value::from(token_text(config.get(name)?)?))))
        .collect()
}

/// A token is its text, or a map with its text and flags.
fn token_text(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token["content"].as_str())
}

/// `LlamaTokenizer` sets its own post-processor from `add_bos_token` and `add_eos_token`, whatever
/// `tokenizer.json` says; DeepSeek's models rely on it.
fn wrapped(
    config: &Map<String, Value>,
    special_tokens: &Map<String, Value>,
    encoder: &Encoder,
) -> Option<(Vec<u32>, Vec<u32>)> {
    let class = config.get("tokenizer_class")?.as_str()?;
    if !matches!(class, "LlamaTokenizer" | "LlamaTokenizerFast") {
        return None;
    }
    let add_bos = config.get("add_bos_token")?.as_bool()?;
    let add_eos = config
        .get("add_eos_token")
        .and_then(Value::as_bool)
        .unwrap_or(false);
    let id = |wanted: bool, name: &str| match wanted {
        false => Some(Vec::new()),
        true => Some(vec![encoder.token_id(special_tokens.get(name)?.as_str()?)?]),
    };
    Some((id(add_bos, "bos_token")?, id(add_eos, "eos_token")?))
}
