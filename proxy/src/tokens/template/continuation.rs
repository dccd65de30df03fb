//! `continue_final_message`: the prompt ends inside the last message, so that the model goes on with it.
//!
//! As transformers does it: a tag is put behind the last message's text, and what the template writes from the
//! tag on is cut off. A template that trims the message trims the tag's last space with it, which tells.

use serde_json::{Map, Value};

const TAG: &str = "CONTINUE_FINAL_MESSAGE_TAG ";

/// Puts the tag behind the last text of the last of `context.messages`. The text before the tag, or nothing where
/// there is none to continue.
pub(super) fn tag_final_message(context: &mut Map<String, Value>) -> Option<String> {
    let last = context.get_mut("messages")?.as_array_mut()?.last_mut()?;
    let text = match last.get_mut("content")? {
        Value::Array(parts) => parts
            .iter_mut()
            .rev()
            .find_map(|part| part.get_mut("text"))?,
        text => text,
    };
    let Value::String(text) = text else {
        return None;
    };
    let before = text.clone();
    text.push_str(TAG);
    Some(before)
}

/// `rendered` up to the tag; nothing where the template left out the message.
pub(super) fn cut_at_tag(mut rendered: String, message: &str) -> Option<String> {
    let at = rendered.rfind(TAG.trim_end())?;
    if !rendered.contains(message.trim()) {
        return None;
    }
    let spaces_kept = rendered[at..].starts_with(TAG);
    rendered.truncate(at);
    if !spaces_kept {
        rendered.truncate(rendered.trim_end().len());
    }
    Some(rendered)
}
