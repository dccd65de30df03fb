//! What one pass over a request body found: offsets into the body and small decoded values, so that it can live
//! beside the body's `Bytes` without borrowing from it.

use std::fmt;
use std::ops::Range;

use super::key::Key;

/// What a request body says. A field of a shape we do not know is absent here, not an error: the engine judges it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// The `model` field.
    pub model: ModelField,
    /// Whether `stream` is `true`; absent and other types count as `false`.
    pub stream: bool,
    /// Value of `stream`, whatever its type.
    pub stream_span: Option<Range<usize>>,
    /// The `stream_options` object; absent too when it is no object (see [`Facts::member`]).
    pub stream_options: Option<StreamOptions>,
    /// The output limit engines go by when several are sent: `max_completion_tokens`, then `max_tokens`, then
    /// `max_output_tokens`, passing over those that are not whole numbers.
    pub max_tokens: Option<MaxTokens>,
    /// Choices asked for.
    pub n: Option<u64>,
    /// Prompt parts in document order: the first [`MAX_PROMPT_SPANS`], and whole arrays.
    pub prompt: Vec<PromptSpan>,
    /// Whether there were more prompt parts than `prompt` holds; the sums below count them all.
    pub prompt_truncated: bool,
    /// Bytes of prompt text as sent: escapes counted as written, quotes not.
    pub prompt_bytes: usize,
    /// Token ids in token arrays of `prompt` and `input`.
    pub prompt_tokens: usize,
    /// Tool definitions, whatever their shape.
    pub tools: Option<Range<usize>>,
    /// End user: `user`, else `metadata.user_id`. Never empty.
    pub user: Option<String>,
    /// Session hint, the first present of `session_id`, `metadata.session_id`, `prompt_cache_key`,
    /// `conversation` (as a string) and `previous_response_id`. Never empty.
    pub session: Option<String>,
    /// `cache_salt`. Never empty.
    pub cache_salt: Option<String>,
    /// Offset just after the object's `{`.
    pub object_start: usize,
    /// Offset of the object's closing `}`.
    pub object_end: usize,
    /// Whether the object has no members.
    pub is_empty_object: bool,
    /// Where the fields we know stand, in document order.
    pub members: Vec<Member>,
}

/// Most prompt parts listed in [`Facts::prompt`]: bounds what a body of many tiny strings makes us hold.
pub const MAX_PROMPT_SPANS: usize = 16_384;

impl Facts {
    /// Where a field we act on stands, whatever its type.
    pub fn member(&self, key: Key) -> Option<&Member> {
        self.members.iter().find(|member| member.key == key)
    }

    /// The model's name, unescaped, if there is one.
    pub fn model_name(&self) -> Option<&str> {
        match &self.model {
            ModelField::Present(field) => Some(&field.value),
            _ => None,
        }
    }

    /// Whether the client itself asked for usage in the stream.
    pub fn includes_usage(&self) -> bool {
        self.stream_options
            .as_ref()
            .is_some_and(|options| options.include_usage == Some(true))
    }
}

/// Where a field stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Which field.
    pub key: Key,
    /// Offset of the key's opening quote.
    pub start: usize,
    /// The value, quotes or brackets with it.
    pub span: Range<usize>,
}

/// The `model` field, and why there is none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ModelField {
    /// No such key.
    #[default]
    Missing,
    /// Not a string; `null` counts here.
    WrongType {
        /// What it is.
        found: JsonKind,
    },
    /// Empty or white space only.
    Empty,
    /// A name.
    Present(StringField),
}

/// A decoded string and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StringField {
    /// The string, unescaped.
    pub value: String,
    /// The value in the body, quotes included.
    pub span: Range<usize>,
}

/// The `stream_options` object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamOptions {
    /// The whole object.
    pub span: Range<usize>,
    /// `include_usage`, if it is a boolean.
    pub include_usage: Option<bool>,
    /// Value of `include_usage`, whatever its type.
    pub include_usage_span: Option<Range<usize>>,
    /// Whether the object has no members.
    pub empty: bool,
    /// Whether `continuous_usage_stats` is `true` (vLLM, SGLang: usage in every chunk).
    pub continuous_usage_stats: bool,
}

/// An output limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaxTokens {
    /// Which of the three fields.
    pub key: Key,
    /// Tokens.
    pub value: u64,
    /// The number in the body.
    pub span: Range<usize>,
}

/// A part of the prompt. For strings the span is what stands between the quotes, escapes as sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptSpan {
    /// What the part is.
    pub kind: PromptKind,
    /// Where it stands.
    pub span: Range<usize>,
}

/// What a prompt part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PromptKind {
    /// The whole `messages` array, brackets included. Its text follows as parts of their own.
    Messages,
    /// The whole array of a Responses `input` item list, brackets included. Its text follows.
    Items,
    /// A message's or item's role.
    Role,
    /// Text of a message or item: string content, or the text of one content part.
    Content,
    /// Text of a completion's `prompt`.
    Prompt,
    /// One array of token ids, brackets included.
    Tokens,
    /// Text of `input` (embeddings, Responses).
    Input,
    /// Text of `instructions`.
    Instructions,
    /// Text of Anthropic's `system`.
    System,
    /// Text of `query` or `text_1`.
    Query,
    /// Text of `documents` or `text_2`.
    Document,
    /// A content part that is no text: an image, sound, a file. The whole value, quotes or brackets included.
    Media,
    /// Tool calls of an earlier turn, which engines render into the prompt. The whole value.
    Calls,
}

impl PromptKind {
    /// Whether the part is prompt text, counted in [`Facts::prompt_bytes`].
    pub fn is_text(self) -> bool {
        !matches!(
            self,
            Self::Messages | Self::Items | Self::Role | Self::Tokens | Self::Media | Self::Calls
        )
    }
}

/// Type of a JSON value, told by its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonKind {
    /// `null`.
    Null,
    /// `true` or `false`.
    Boolean,
    /// A number.
    Number,
    /// A string.
    String,
    /// An array.
    Array,
    /// An object.
    Object,
}

impl fmt::Display for JsonKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Null => "null",
            Self::Boolean => "boolean",
            Self::Number => "number",
            Self::String => "string",
            Self::Array => "array",
            Self::Object => "object",
        })
    }
}
