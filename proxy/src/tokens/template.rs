//! Chat templates: messages in, the prompt's text out, byte for byte as Hugging Face's `apply_chat_template`
//! renders them (jinja2 with `trim_blocks`, `lstrip_blocks`, loop controls and its own `tojson`).
//!
//! A template is code from a model's publisher: it runs within a fuel and an output limit, reaches nothing but
//! its inputs and the date, and a template that loops or raises gives an error value. Which messages it sees
//! is [`super::request`]'s work.

use std::io;
use std::time::SystemTime;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value};

mod clock;
mod content;
mod continuation;
mod generation;
mod json;
mod scanner;

#[cfg(test)]
mod tests;

pub use content::ContentFormat;

/// Work a render may do: about an instruction or 64 bytes of text each. A conversation of a MiB takes some
/// 100,000; the limit ends an endless loop within a second.
const FUEL: u64 = 2_000_000;

/// Stack of a thread that renders, address space that is not touched unless needed: a template can nest lists as
/// deep as its fuel lasts, and they are dropped level by level.
pub const STACK_BYTES: usize = 256 << 20;

/// Text a render may give. No model reads prompts of this size.
const MAX_OUTPUT_BYTES: usize = 16 << 20;

/// Source of a template: the largest public ones are some 30 KiB.
const MAX_SOURCE_BYTES: usize = 1 << 20;

/// The name of the only template of an environment.
const NAME: &str = "chat";

/// Why a template gave no text. Texts of templates are not repeated: they may hold prompts.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The source is larger than any known template.
    #[error("chat template has {0} bytes, more than the {MAX_SOURCE_BYTES} allowed")]
    SourceTooLarge(usize),
    /// The source does not compile.
    #[error(
        "chat template does not compile, it may use a Jinja feature that is not supported: {0}"
    )]
    Syntax(String),
    /// The template called `raise_exception`: it refuses this conversation.
    #[error("chat template refuses the conversation by raise_exception")]
    Raised,
    /// The template ran out of fuel, or wrote more text than allowed.
    #[error("chat template does too much work or writes too much text, it may loop")]
    TooMuchWork,
    /// The last message cannot be continued: it has no text, or the template leaves it out.
    #[error("chat template does not show the final message that is to be continued")]
    NotContinued,
    /// An operation of the template failed, such as an attribute of something that is not there.
    #[error("chat template fails on the conversation: {0:?}")]
    Failed(ErrorKind),
}

/// A compiled template. Cheap to share, not to clone.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    content_format: ContentFormat,
}

impl ChatTemplate {
    /// Compiles `source`; `now` is what `strftime_now` reads.
    ///
    /// # Errors
    /// When the source is too large or is not the dialect that is understood.
    pub fn compile(source: &str, now: fn() -> SystemTime) -> Result<Self, TemplateError> {
        if source.len() > MAX_SOURCE_BYTES {
            return Err(TemplateError::SourceTooLarge(source.len()));
        }
        let mut environment = dialect(now);
        environment
            .add_template_owned(NAME, generation::without_generation_tags(source))
            .map_err(|error| TemplateError::Syntax(error.to_string()))?;
        Ok(Self {
            environment,
            content_format: content::content_format(source),
        })
    }

    /// Whether messages are to carry their content as text or as parts.
    pub fn content_format(&self) -> ContentFormat {
        self.content_format
    }

    /// The text of the template over `context`, a map with `messages`, `tools` and the rest. For a thread with
    /// [`STACK_BYTES`] of stack, unless the template is trusted.
    ///
    /// # Errors
    /// When the template raises, fails, or exceeds its limits.
    pub fn render(
        &self,
        context: &serde_json::Map<String, serde_json::Value>,
    ) -> Result<String, TemplateError> {
        let template = self
            .environment
            .get_template(NAME)
            .expect("compile added the template under this name");
        let mut text = Bounded(Vec::new());
        let context = Value::from_pairs(
            context
                .iter()
                .map(|(key, value)| (key.as_str(), from_json(value))),
        );
        template
            .render_captured_to(context, &mut text)
            .map_err(|error| failure(&error))?;
        String::from_utf8(text.0).map_err(|_| TemplateError::Failed(ErrorKind::WriteFailure))
    }

    /// As [`Self::render`], ending inside the last message (`continue_final_message`).
    ///
    /// # Errors
    /// As for `render`, and when the last message has no text or does not show.
    pub fn render_continued(
        &self,
        mut context: serde_json::Map<String, serde_json::Value>,
    ) -> Result<String, TemplateError> {
        let message =
            continuation::tag_final_message(&mut context).ok_or(TemplateError::NotContinued)?;
        continuation::cut_at_tag(self.render(&context)?, &message)
            .ok_or(TemplateError::NotContinued)
    }
}

/// Jinja as Hugging Face sets it up: `_compile_jinja_template` of transformers' `chat_template_utils.py`.
fn dialect(now: fn() -> SystemTime) -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_syntax(
        SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
            .expect("the default delimiters are valid"),
    );
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_fuel(Some(FUEL));
    environment.set_debug(false);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_filter("tojson", json::tojson);
    environment.add_test("sequence", is_sequence);
    environment.add_test("iterable", is_iterable);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("dict", |pairs: Kwargs| -> Result<Value, Error> {
        let values: Result<Vec<_>, Error> = pairs
            .args()
            .map(|key| Ok((key.to_owned(), pairs.get::<Value>(key)?)))
            .collect();
        Ok(Value::from_pairs(values?))
    });
    environment.add_function("strftime_now", move |format: &str| {
        clock::strftime(format, now())
    });
    environment
}

/// jinja2's `sequence`: whatever has a length and is read by `[]`, so texts and maps too.
fn is_sequence(value: &Value) -> bool {
    matches!(
        value.kind(),
        ValueKind::Seq | ValueKind::Map | ValueKind::String
    )
}

/// jinja2's `iterable`: `None` is not, an undefined value is.
fn is_iterable(value: &Value) -> bool {
    !value.is_none() && value.try_iter().is_ok()
}

fn raise_exception(_message: &Value) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, "raised").with_source(Raised))
}

/// Marks an error as the template's own.
#[derive(Debug, thiserror::Error)]
#[error("raised by the template")]
struct Raised;

fn failure(error: &Error) -> TemplateError {
    let mut source = Some(error as &(dyn std::error::Error + 'static));
    while let Some(cause) = source {
        if cause.is::<Raised>() {
            return TemplateError::Raised;
        }
        source = cause.source();
    }
    match error.kind() {
        ErrorKind::OutOfFuel | ErrorKind::WriteFailure => TemplateError::TooMuchWork,
        kind => TemplateError::Failed(kind),
    }
}

/// JSON as a template's value. Depth is bounded by the JSON reader.
fn from_json(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(bool) => Value::from(*bool),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::from(number),
            (None, Some(number)) => Value::from(number),
            _ => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => Value::from(text.as_str()),
        serde_json::Value::Array(items) => items.iter().map(from_json).collect(),
        serde_json::Value::Object(map) => Value::from_pairs(
            map.iter()
                .map(|(key, value)| (key.as_str(), from_json(value))),
        ),
    }
}

/// A buffer that refuses more than a prompt may have.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_OUTPUT_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
