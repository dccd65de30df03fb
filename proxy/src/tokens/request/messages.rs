//! Anthropic's Messages API as a chat, by vLLM's `entrypoints/anthropic/serving.py`: system texts become one
//! message, blocks become contents, tool calls and answers of tools.

use serde_json::Value;

use super::{Body, Reason, map};

/// A line of Claude Code's that changes with every request; vLLM drops the block that starts with it.
const BILLING_HEADER: &str = "x-anthropic-billing-header";

pub(super) fn as_chat(mut body: Body) -> Result<Body, Reason> {
    let Some(Value::Array(messages)) = body.remove("messages") else {
        return Err(Reason::Malformed);
    };
    let mut system = String::new();
    add_system(&mut system, &body.remove("system").unwrap_or_default());
    let (inner, messages): (Vec<_>, Vec<_>) = messages
        .into_iter()
        .partition(|message| message["role"] == "system");
    for message in inner {
        add_system(&mut system, &message["content"]);
    }
    let mut converted = Vec::with_capacity(messages.len() + 1);
    if !system.is_empty() {
        converted.push(Value::Object(map([
            ("role", Value::from("system")),
            ("content", Value::String(system)),
        ])));
    }
    for message in messages {
        add_message(&mut converted, message)?;
    }
    let mut chat = map([
        ("messages", Value::Array(converted)),
        ("tools", tools(body.remove("tools"))?),
    ]);
    if let Some(effort) = body
        .get_mut("output_config")
        .and_then(|config| config.get_mut("effort"))
    {
        chat.insert("reasoning_effort".to_owned(), effort.take());
    }
    chat.extend(body.remove_entry("chat_template_kwargs"));
    Ok(chat)
}

fn add_system(system: &mut String, content: &Value) {
    match content {
        Value::String(text) => system.push_str(text),
        Value::Array(blocks) => blocks
            .iter()
            .filter(|block| block["type"] == "text")
            .filter_map(|block| block["text"].as_str())
            .filter(|text| !text.starts_with(BILLING_HEADER))
            .for_each(|text| system.push_str(text)),
        _ => {}
    }
}

/// What the blocks of one message become.
#[derive(Default)]
struct Blocks {
    parts: Vec<Value>,
    calls: Vec<Value>,
    thoughts: Option<String>,
}

/// Answers of tools come before the rest of the message that brings them, as messages of their own.
fn add_message(converted: &mut Vec<Value>, mut message: Value) -> Result<(), Reason> {
    let role = message["role"].take();
    let is_user = role == "user";
    let mut out = map([("role", role)]);
    match message["content"].take() {
        Value::Array(content) => {
            let mut blocks = Blocks::default();
            for block in content {
                add_block(&mut blocks, converted, is_user, block)?;
            }
            out.extend(
                blocks
                    .thoughts
                    .map(|thoughts| ("reasoning".to_owned(), Value::String(thoughts))),
            );
            if !blocks.calls.is_empty() {
                out.insert("tool_calls".to_owned(), Value::Array(blocks.calls));
            }
            if !blocks.parts.is_empty() {
                out.insert("content".to_owned(), Value::Array(blocks.parts));
            }
        }
        text @ Value::String(_) => {
            out.insert("content".to_owned(), text);
        }
        _ => return Err(Reason::Malformed),
    }
    if !is_user || out.contains_key("content") {
        converted.push(Value::Object(out));
    }
    Ok(())
}

fn add_block(
    blocks: &mut Blocks,
    converted: &mut Vec<Value>,
    is_user: bool,
    mut block: Value,
) -> Result<(), Reason> {
    match block["type"].as_str() {
        Some("text") => {
            let text = block["text"].take();
            if text.as_str().is_some_and(|text| !text.is_empty()) {
                blocks.parts.push(Value::Object(map([
                    ("type", Value::from("text")),
                    ("text", text),
                ])));
            }
        }
        Some("thinking") => {
            let thought = block["thinking"].as_str().ok_or(Reason::Malformed)?;
            blocks.thoughts.get_or_insert_default().push_str(thought);
        }
        Some("redacted_thinking") => {}
        Some("tool_use") => {
            let function = map([
                ("name", block["name"].take()),
                ("arguments", block["input"].take()),
            ]);
            blocks.calls.push(Value::Object(map([
                ("id", block["id"].take()),
                ("type", Value::from("function")),
                ("function", Value::Object(function)),
            ])));
        }
        Some("tool_result") if is_user => {
            let content = tool_answer(block["content"].take())?;
            converted.push(Value::Object(map([
                ("role", Value::from("tool")),
                ("tool_call_id", block["tool_use_id"].take()),
                ("content", Value::String(content)),
            ])));
        }
        Some("image" | "document") => return Err(Reason::Multimodal),
        _ => return Err(Reason::Unsupported),
    }
    Ok(())
}

fn tool_answer(content: Value) -> Result<String, Reason> {
    match content {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text),
        Value::Array(blocks) => {
            let text = |block: &Value| match block["type"].as_str() {
                Some("text") => Ok(block["text"].as_str().unwrap_or_default().to_owned()),
                Some("image") => Err(Reason::Multimodal),
                _ => Err(Reason::Unsupported),
            };
            let texts: Result<Vec<_>, _> = blocks.iter().map(text).collect();
            Ok(texts?.join("\n"))
        }
        _ => Err(Reason::Malformed),
    }
}

fn tools(tools: Option<Value>) -> Result<Value, Reason> {
    let Some(Value::Array(tools)) = tools.filter(|tools| !tools.is_null()) else {
        return Ok(Value::Null);
    };
    let tools: Result<Vec<_>, _> = tools
        .into_iter()
        .map(|mut tool| {
            // Tools of the server's own have no schema.
            if !tool["input_schema"].is_object() {
                return Err(Reason::Unsupported);
            }
            let function = map([
                ("name", tool["name"].take()),
                ("description", tool["description"].take()),
                ("parameters", tool["input_schema"].take()),
            ]);
            Ok(Value::Object(map([
                ("type", Value::from("function")),
                ("function", Value::Object(function)),
            ])))
        })
        .collect();
    Ok(Value::Array(tools?))
}
