//! The Responses API as a chat: `instructions` and `input` items become messages, by vLLM's
//! `entrypoints/openai/responses/utils.py`.

use serde_json::Value;

use super::{Body, Reason, map};

pub(super) fn as_chat(mut body: Body) -> Result<Body, Reason> {
    let set = |name: &str| body.get(name).is_some_and(|value| !value.is_null());
    if set("previous_response_id") || set("conversation") || set("previous_input_messages") {
        return Err(Reason::ServerState);
    }
    if set("prompt") {
        return Err(Reason::Unsupported);
    }
    let mut messages = Vec::new();
    if let Some(Value::String(instructions)) = body.remove("instructions")
        && !instructions.is_empty()
    {
        messages.push(message("system", Value::String(instructions)));
    }
    let mut continued = false;
    match body.remove("input") {
        Some(Value::String(text)) => messages.push(message("user", Value::String(text))),
        Some(Value::Array(items)) => {
            continued = items.last().is_some_and(is_unfinished);
            let first = messages.len();
            for item in items {
                add_item(&mut messages, first, item)?;
            }
        }
        _ => return Err(Reason::Malformed),
    }
    let mut chat = map([
        ("messages", Value::Array(messages)),
        ("tools", tools(body.remove("tools"))?),
        ("add_generation_prompt", Value::Bool(!continued)),
        ("continue_final_message", Value::Bool(continued)),
    ]);
    if let Some(effort) = body
        .get_mut("reasoning")
        .and_then(|reasoning| reasoning.get_mut("effort"))
    {
        chat.insert("reasoning_effort".to_owned(), effort.take());
    }
    chat.extend(body.remove_entry("chat_template_kwargs"));
    Ok(chat)
}

fn message(role: &str, content: Value) -> Value {
    Value::Object(map([("role", Value::from(role)), ("content", content)]))
}

/// A message or thought that the client wants continued.
fn is_unfinished(item: &Value) -> bool {
    matches!(item["type"].as_str(), None | Some("message" | "reasoning"))
        && matches!(item["status"].as_str(), Some("in_progress" | "incomplete"))
}

/// Adds an item as a message, or to the assistant's message before it: a turn's thoughts, calls and text are
/// items of their own. Messages before `first` are not the input's.
fn add_item(messages: &mut Vec<Value>, first: usize, mut item: Value) -> Result<(), Reason> {
    let (field, value) = match item["type"].as_str() {
        Some("function_call") => ("tool_calls", function_call(&mut item)?),
        Some("function_call_output") => {
            let mut answer = map([
                ("role", Value::from("tool")),
                ("content", item["output"].take()),
            ]);
            answer.insert("tool_call_id".to_owned(), item["call_id"].take());
            messages.push(Value::Object(answer));
            return Ok(());
        }
        Some("reasoning") => ("reasoning", Value::String(thoughts(&item)?)),
        None | Some("message") if item["role"] == "assistant" => {
            ("content", Value::String(first_text(&item["content"])))
        }
        None | Some("message") if item["role"].is_string() => {
            messages.push(item);
            return Ok(());
        }
        _ => return Err(Reason::Unsupported),
    };
    let previous = messages[first..]
        .last_mut()
        .filter(|message| message["role"] == "assistant");
    match previous {
        Some(previous) if previous[field].is_null() => previous[field] = value,
        Some(previous) if field == "tool_calls" => {
            let (Value::Array(calls), Value::Array(more)) = (&mut previous[field], value) else {
                return Err(Reason::Malformed);
            };
            calls.extend(more);
        }
        _ => messages.push(Value::Object(map([
            ("role", Value::from("assistant")),
            (field, value),
        ]))),
    }
    Ok(())
}

fn function_call(item: &mut Value) -> Result<Value, Reason> {
    if item["namespace"].is_string() {
        return Err(Reason::Unsupported);
    }
    let function = map([
        ("name", item["name"].take()),
        ("arguments", item["arguments"].take()),
    ]);
    let call = map([
        ("id", item["call_id"].take()),
        ("function", Value::Object(function)),
        ("type", Value::from("function")),
    ]);
    Ok(Value::Array(vec![Value::Object(call)]))
}

fn thoughts(item: &Value) -> Result<String, Reason> {
    if item["encrypted_content"].is_string() {
        return Err(Reason::Unsupported);
    }
    let content = &item["content"];
    let has_content = content
        .as_array()
        .is_some_and(|content| !content.is_empty());
    Ok(first_text(if has_content {
        content
    } else {
        &item["summary"]
    }))
}

/// The first text of a content, which is all that vLLM reads of an assistant's.
fn first_text(content: &Value) -> String {
    let first = content.get(0).unwrap_or(content);
    first
        .as_str()
        .or_else(|| first["text"].as_str())
        .unwrap_or_default()
        .to_owned()
}

/// Tools of this API are flat; those of chat have their function in a field.
fn tools(tools: Option<Value>) -> Result<Value, Reason> {
    let Some(Value::Array(tools)) =
        tools.filter(|tools| tools.as_array().is_some_and(|tools| !tools.is_empty()))
    else {
        return Ok(Value::Null);
    };
    let tools: Result<Vec<_>, _> = tools
        .into_iter()
        .map(|tool| match tool {
            Value::Object(mut tool) if tool.get("type").is_some_and(|kind| kind == "function") => {
                tool.shift_remove("type");
                Ok(Value::Object(map([
                    ("type", Value::from("function")),
                    ("function", Value::Object(tool)),
                ])))
            }
            _ => Err(Reason::Unsupported),
        })
        .collect();
    Ok(Value::Array(tools?))
}
