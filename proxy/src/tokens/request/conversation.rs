//! Chat messages in the form a template sees: contents as one text or as parts, arguments of tool calls as maps.
//! The rules are those of `vllm/renderers/chat_utils/parse_chat_message_content.py`.

use serde_json::Value;

use super::{Body, ContentFormat, Reason, map};

pub(super) fn conversation(
    messages: Vec<Value>,
    format: ContentFormat,
) -> Result<Vec<Value>, Reason> {
    messages
        .into_iter()
        .map(|message| message_for_template(message, format).map(Value::Object))
        .collect()
}

fn message_for_template(message: Value, format: ContentFormat) -> Result<Body, Reason> {
    let Value::Object(mut message) = message else {
        return Err(Reason::Malformed);
    };
    let Some(Value::String(role)) = message.remove("role") else {
        return Err(Reason::Malformed);
    };
    // A tool's answer is one text whatever the template wants.
    let format = if role == "tool" {
        ContentFormat::Text
    } else {
        format
    };
    let content = content(message.remove("content").unwrap_or_default(), format)?;
    let mut seen = map([("role", Value::String(role)), ("content", content)]);
    match seen["role"].as_str() {
        Some("assistant") => assistant_fields(&mut message, &mut seen)?,
        Some("tool") => seen.extend(message.remove_entry("tool_call_id")),
        Some("developer") => {
            seen.insert(
                "tools".to_owned(),
                message.remove("tools").unwrap_or_default(),
            );
        }
        _ => {}
    }
    for name in ["name", "task"] {
        seen.extend(
            message
                .remove_entry(name)
                .filter(|(_, value)| value.is_string()),
        );
    }
    Ok(seen)
}

fn assistant_fields(message: &mut Body, seen: &mut Body) -> Result<(), Reason> {
    match message.remove("tool_calls").unwrap_or_default() {
        Value::Null => {}
        Value::Array(calls) if calls.is_empty() => {}
        Value::Array(calls) => {
            let calls: Result<Vec<_>, _> = calls.into_iter().map(tool_call).collect();
            seen.insert("tool_calls".to_owned(), Value::Array(calls?));
        }
        _ => return Err(Reason::Malformed),
    }
    let thoughts = ["reasoning", "reasoning_content"]
        .into_iter()
        .filter_map(|name| message.remove(name));
    if let Some(thoughts) = thoughts.into_iter().find(|thoughts| !thoughts.is_null()) {
        seen.insert("reasoning".to_owned(), thoughts.clone());
        seen.insert("reasoning_content".to_owned(), thoughts);
    }
    Ok(())
}

/// Templates want the arguments as a map; the API has them as JSON in a string.
fn tool_call(mut call: Value) -> Result<Value, Reason> {
    let Some(Value::Object(function)) = call.get_mut("function") else {
        return Err(Reason::Malformed);
    };
    let arguments = function.get_mut("arguments").map(Value::take);
    let parsed = match arguments {
        Some(Value::String(text)) => serde_json::from_str(&text).unwrap_or_default(),
        other => other.unwrap_or_default(),
    };
    let parsed = if parsed.is_object() {
        parsed
    } else {
        Value::Object(Body::new())
    };
    function.insert("arguments".to_owned(), parsed);
    Ok(call)
}

fn content(content: Value, format: ContentFormat) -> Result<Value, Reason> {
    let texts = match content {
        Value::Null => Vec::new(),
        Value::String(text) => vec![(text, Body::new())],
        Value::Array(parts) => {
            let texts: Result<Vec<_>, _> = parts.into_iter().map(part).collect();
            texts?.into_iter().flatten().collect()
        }
        _ => return Err(Reason::Malformed),
    };
    Ok(match format {
        ContentFormat::Text => {
            let texts: Vec<String> = texts
                .into_iter()
                .map(|(text, _)| text)
                .filter(|text| !text.is_empty())
                .collect();
            Value::String(texts.join("\n"))
        }
        ContentFormat::Parts => {
            let part = |(text, more): (String, Body)| {
                let mut part = map([("type", Value::from("text")), ("text", Value::String(text))]);
                part.extend(more);
                Value::Object(part)
            };
            Value::Array(texts.into_iter().map(part).collect())
        }
    })
}

/// The text of a part and its fields beyond the API's; nothing for a part without text.
fn part(part: Value) -> Result<Option<(String, Body)>, Reason> {
    let mut part = match part {
        Value::String(text) => return Ok(Some((text, Body::new()))),
        Value::Object(part) => part,
        _ => return Err(Reason::Malformed),
    };
    let kind = part.shift_remove("type");
    let field = match kind.as_ref().and_then(Value::as_str) {
        Some("text" | "input_text" | "output_text") => "text",
        Some("refusal") => "refusal",
        Some("thinking") => "thinking",
        Some(_) => return Err(Reason::Multimodal),
        None => return Err(Reason::Malformed),
    };
    match part.shift_remove(field) {
        Some(Value::String(text)) => {
            // Fields that the API's own types know are not handed on.
            for known in [
                "text",
                "uuid",
                "annotations",
                "logprobs",
                "closed",
                "prompt_cache_breakpoint",
            ] {
                part.shift_remove(known);
            }
            Ok(Some((text, part)))
        }
        None | Some(Value::Null) if field != "thinking" => Ok(None),
        _ => Err(Reason::Malformed),
    }
}
