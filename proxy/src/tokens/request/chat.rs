//! Chat completions: which fields of the request the template sees (`build_chat_params` of vLLM's
//! `entrypoints/openai/chat_completion/protocol.py`, and transformers' `apply_chat_template`).

use serde_json::Value;

use super::conversation::conversation;
use super::{Body, Chat, ContentFormat, Prompt, Reason, flag, map};

pub(super) fn prompt(
    mut body: Body,
    format: impl Fn(bool) -> Option<ContentFormat>,
) -> Result<Prompt, Reason> {
    if body
        .get("chat_template")
        .is_some_and(|template| !template.is_null())
    {
        return Err(Reason::Unsupported);
    }
    let add_generation_prompt = flag(&body, "add_generation_prompt", true)?;
    let continue_final_message = flag(&body, "continue_final_message", false)?;
    if add_generation_prompt && continue_final_message {
        return Err(Reason::Malformed);
    }
    let add_special_tokens = flag(&body, "add_special_tokens", false)?;
    let Some(Value::Array(messages)) = body.remove("messages") else {
        return Err(Reason::Malformed);
    };
    let tools = tools(body.remove("tools"))?;
    let with_tools = tools.is_array();
    let messages = conversation(messages, format(with_tools).ok_or(Reason::NoTemplate)?)?;
    let mut context = template_parameters(&mut body)?;
    context.extend(map([
        ("messages", Value::Array(messages)),
        ("tools", tools),
        ("documents", body.remove("documents").unwrap_or_default()),
        ("add_generation_prompt", Value::Bool(add_generation_prompt)),
    ]));
    Ok(Prompt::Chat(Chat {
        context,
        with_tools,
        continue_final_message,
        add_special_tokens,
    }))
}

/// `chat_template_kwargs`, and the parameters that other fields set.
fn template_parameters(body: &mut Body) -> Result<Body, Reason> {
    let mut parameters = match body.remove("chat_template_kwargs") {
        None | Some(Value::Null) => Body::new(),
        Some(Value::Object(parameters)) => parameters,
        Some(_) => return Err(Reason::Malformed),
    };
    // The engine refuses these two; the others are arguments of the call, not of the template.
    const ARGUMENTS: [&str; 6] = [
        "chat_template",
        "tokenize",
        "continue_final_message",
        "padding",
        "truncation",
        "max_length",
    ];
    if ARGUMENTS.iter().any(|name| parameters.contains_key(*name)) {
        return Err(Reason::Unsupported);
    }
    if let Some(Value::String(effort)) = body.remove("reasoning_effort") {
        let thinks = Value::Bool(effort != "none");
        parameters.entry("enable_thinking").or_insert(thinks);
        parameters.insert("reasoning_effort".to_owned(), Value::String(effort));
    }
    Ok(parameters)
}

/// Tools as vLLM's request types write them out: known fields first, absent ones as null, others after.
fn tools(tools: Option<Value>) -> Result<Value, Reason> {
    match tools {
        None | Some(Value::Null) => Ok(Value::Null),
        Some(Value::Array(tools)) => Ok(Value::Array(
            tools.into_iter().map(tool).collect::<Result<_, _>>()?,
        )),
        Some(_) => Err(Reason::Malformed),
    }
}

fn tool(tool: Value) -> Result<Value, Reason> {
    let Value::Object(mut tool) = tool else {
        return Err(Reason::Malformed);
    };
    let Some(Value::Object(mut function)) = tool.shift_remove("function") else {
        return Err(Reason::Malformed);
    };
    let mut field = |name| function.shift_remove(name).unwrap_or_default();
    let mut written = map([
        ("name", field("name")),
        ("description", field("description")),
        ("parameters", field("parameters")),
    ]);
    written.extend(function);
    let kind = tool
        .shift_remove("type")
        .unwrap_or_else(|| Value::from("function"));
    let mut whole = map([("type", kind), ("function", Value::Object(written))]);
    whole.extend(tool);
    Ok(Value::Object(whole))
}
