//! Requests and what a template sees of them.

use serde_json::json;

use super::*;

fn read(kind: ApiKind, body: Value, format: ContentFormat) -> Result<Prompt, Reason> {
    prompt(kind, body.to_string().as_bytes(), |_| Some(format))
}

fn chat_as(kind: ApiKind, body: Value, format: ContentFormat) -> Chat {
    match read(kind, body, format) {
        Ok(Prompt::Chat(chat)) => chat,
        other => panic!("not a chat: {other:?}"),
    }
}

fn chat(body: Value) -> Chat {
    chat_as(ApiKind::Chat, body, ContentFormat::Text)
}

fn reason(kind: ApiKind, body: Value) -> Reason {
    read(kind, body, ContentFormat::Text).unwrap_err()
}

#[test]
fn contents_become_text_or_parts_as_the_template_wants() {
    let body = json!({"messages": [
        {"role": "system", "content": "Be terse."},
        {"role": "user", "content": [{"type": "text", "text": "One"}, {"type": "text", "text": ""}, {"type": "input_text", "text": "Two"}]},
        {"role": "assistant", "content": null},
    ]});
    assert_eq!(
        chat(body.clone()).context["messages"],
        json!([
            {"role": "system", "content": "Be terse."},
            {"role": "user", "content": "One\nTwo"},
            {"role": "assistant", "content": ""},
        ])
    );
    assert_eq!(
        chat_as(ApiKind::Chat, body, ContentFormat::Parts).context["messages"],
        json!([
            {"role": "system", "content": [{"type": "text", "text": "Be terse."}]},
            {"role": "user", "content": [{"type": "text", "text": "One"}, {"type": "text", "text": ""}, {"type": "text", "text": "Two"}]},
            {"role": "assistant", "content": []},
        ])
    );
}

#[test]
fn arguments_of_tool_calls_become_maps() {
    let body = json!({"messages": [{"role": "assistant", "reasoning_content": "hm", "tool_calls": [
        {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"b\": 1, \"a\": [2.0]}"}},
        {"id": "2", "type": "function", "function": {"name": "f", "arguments": "no JSON"}},
        {"id": "3", "type": "function", "function": {"name": "f"}},
    ]}, {"role": "tool", "tool_call_id": "1", "name": "f", "content": [{"type": "text", "text": "x"}], "extra": 1}]});
    let messages =
        chat_as(ApiKind::Chat, body, ContentFormat::Parts).context["messages"].to_string();
    assert_eq!(
        messages,
        json!([
            {"role": "assistant", "content": [], "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"b": 1, "a": [2.0]}}},
                {"id": "2", "type": "function", "function": {"name": "f", "arguments": {}}},
                {"id": "3", "type": "function", "function": {"name": "f", "arguments": {}}},
            ], "reasoning": "hm", "reasoning_content": "hm"},
            {"role": "tool", "content": "x", "tool_call_id": "1", "name": "f"},
        ])
        .to_string()
    );
}

#[test]
fn tools_are_written_out_in_the_engines_order() {
    let body = json!({"messages": [], "tools": [
        {"function": {"strict": true, "parameters": {"z": 1, "a": 2}, "name": "f"}, "type": "function"},
    ]});
    let chat = chat(body);
    assert!(chat.with_tools);
    assert_eq!(
        chat.context["tools"].to_string(),
        r#"[{"type":"function","function":{"name":"f","description":null,"parameters":{"z":1,"a":2},"strict":true}}]"#
    );
}

#[test]
fn fields_of_the_request_reach_the_template() {
    let plain = chat(json!({"messages": []}));
    assert_eq!(plain.context["add_generation_prompt"], true);
    assert_eq!(
        (
            plain.context["tools"].clone(),
            plain.context["documents"].clone()
        ),
        (Value::Null, Value::Null)
    );
    assert!(!plain.add_special_tokens && !plain.continue_final_message && !plain.with_tools);
    let full = chat(json!({
        "messages": [], "add_generation_prompt": false, "continue_final_message": true, "add_special_tokens": true,
        "documents": [{"title": "t"}], "chat_template_kwargs": {"enable_thinking": false, "x": 1}, "reasoning_effort": "low",
    }));
    assert!(full.add_special_tokens && full.continue_final_message);
    assert_eq!(full.context["enable_thinking"], false);
    assert_eq!(full.context["x"], 1);
    assert_eq!(full.context["reasoning_effort"], "low");
    assert_eq!(full.context["documents"], json!([{"title": "t"}]));
}

#[test]
fn what_is_not_known_for_sure_has_a_reason() {
    let image = json!({"type": "image_url", "image_url": {"url": "data:"}});
    for (body, expected) in [
        (
            json!({"messages": [{"role": "user", "content": [image]}]}),
            Reason::Multimodal,
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"text": "x"}]}]}),
            Reason::Malformed,
        ),
        (
            json!({"messages": [{"role": "user", "content": 1}]}),
            Reason::Malformed,
        ),
        (json!({"messages": [{"content": "x"}]}), Reason::Malformed),
        (json!({"messages": "x"}), Reason::Malformed),
        (json!({}), Reason::Malformed),
        (
            json!({"messages": [], "continue_final_message": true}),
            Reason::Malformed,
        ),
        (
            json!({"messages": [], "chat_template": "{{ 1 }}"}),
            Reason::Unsupported,
        ),
        (
            json!({"messages": [], "chat_template_kwargs": {"chat_template": "x"}}),
            Reason::Unsupported,
        ),
        (
            json!({"messages": [], "truncate_prompt_tokens": 10}),
            Reason::Unsupported,
        ),
        (
            json!({"messages": [], "tools": [{"type": "x"}]}),
            Reason::Malformed,
        ),
        (
            json!({"messages": [{"role": "assistant", "tool_calls": [{"type": "custom"}]}]}),
            Reason::Malformed,
        ),
    ] {
        assert_eq!(reason(ApiKind::Chat, body.clone()), expected, "{body}");
    }
    assert_eq!(
        prompt(ApiKind::Chat, b"{", |_| None).unwrap_err(),
        Reason::Malformed
    );
    assert_eq!(
        prompt(ApiKind::Chat, b"{\"messages\":[]}", |_| None).unwrap_err(),
        Reason::NoTemplate
    );
    let deep = format!(
        "{{\"messages\":{}{}}}",
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    assert_eq!(
        prompt(ApiKind::Chat, deep.as_bytes(), |_| None).unwrap_err(),
        Reason::Malformed
    );
}

#[test]
fn completions_and_embeddings_take_text_or_ids() {
    let text = |text: &str, add_special_tokens| Prompt::Text {
        text: text.to_owned(),
        add_special_tokens,
    };
    let completions = |prompt: Value| {
        read(
            ApiKind::Completions,
            json!({"prompt": prompt}),
            ContentFormat::Text,
        )
    };
    assert_eq!(completions(json!("x")), Ok(text("x", true)));
    assert_eq!(completions(json!(["x"])), Ok(text("x", true)));
    assert_eq!(completions(json!([1, 2])), Ok(Prompt::Ids([1, 2].into())));
    assert_eq!(completions(json!([[1, 2]])), Ok(Prompt::Ids([1, 2].into())));
    assert_eq!(completions(json!(["x", "y"])), Err(Reason::SeveralPrompts));
    for wrong in [
        json!(null),
        json!([]),
        json!([-1]),
        json!([1, "x"]),
        json!([5_000_000_000_u64]),
        json!({}),
    ] {
        assert_eq!(completions(wrong), Err(Reason::Malformed));
    }
    let bare = json!({"prompt": "x", "add_special_tokens": false});
    assert_eq!(
        read(ApiKind::Completions, bare, ContentFormat::Text),
        Ok(text("x", false))
    );
    assert_eq!(
        reason(ApiKind::Completions, json!({"prompt_embeds": "AAAA"})),
        Reason::Multimodal
    );
    assert_eq!(
        read(
            ApiKind::Embeddings,
            json!({"input": "x"}),
            ContentFormat::Text
        ),
        Ok(text("x", true))
    );
    assert_eq!(
        reason(ApiKind::Embeddings, json!({"messages": []})),
        Reason::Unsupported
    );
}

#[test]
fn responses_items_join_into_turns() {
    let body = json!({
        "instructions": "Be terse.",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
            {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Look it up."}]},
            {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{\"city\": \"Rome\"}"},
            {"type": "function_call", "call_id": "2", "name": "g", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "1", "output": "sun"},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Sun."}]},
        ],
        "tools": [{"type": "function", "name": "f", "parameters": {}}],
        "reasoning": {"effort": "high"},
    });
    let chat = chat_as(ApiKind::Responses, body, ContentFormat::Text);
    assert_eq!(
        chat.context["messages"],
        json!([
            {"role": "system", "content": "Be terse."},
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": "", "tool_calls": [
                {"id": "1", "function": {"name": "f", "arguments": {"city": "Rome"}}, "type": "function"},
                {"id": "2", "function": {"name": "g", "arguments": {}}, "type": "function"},
            ], "reasoning": "Look it up.", "reasoning_content": "Look it up."},
            {"role": "tool", "content": "sun", "tool_call_id": "1"},
            {"role": "assistant", "content": "Sun."},
        ])
    );
    assert_eq!(chat.context["reasoning_effort"], "high");
    assert_eq!(
        chat.context["tools"],
        json!([{"type": "function", "function": {"name": "f", "description": null, "parameters": {}}}])
    );
    let text = chat_as(
        ApiKind::Responses,
        json!({"input": "Hi"}),
        ContentFormat::Text,
    );
    assert_eq!(
        text.context["messages"],
        json!([{"role": "user", "content": "Hi"}])
    );
    let kept = json!({"input": "Hi", "previous_response_id": "resp_1"});
    assert_eq!(reason(ApiKind::Responses, kept), Reason::ServerState);
    assert_eq!(
        reason(
            ApiKind::Responses,
            json!({"input": [{"type": "item_reference"}]})
        ),
        Reason::Unsupported
    );
    assert_eq!(
        reason(
            ApiKind::Responses,
            json!({"input": "x", "tools": [{"type": "web_search"}]})
        ),
        Reason::Unsupported
    );
}

#[test]
fn an_unfinished_response_item_is_continued() {
    let body = json!({"input": [{"role": "user", "content": "x"}, {"role": "assistant", "status": "incomplete", "content": "One,"}]});
    let chat = chat_as(ApiKind::Responses, body, ContentFormat::Text);
    assert!(chat.continue_final_message);
    assert_eq!(chat.context["add_generation_prompt"], false);
}

#[test]
fn anthropic_messages_become_a_chat() {
    let body = json!({
        "system": [{"type": "text", "text": "x-anthropic-billing-header: 1"}, {"type": "text", "text": "Be terse."}],
        "messages": [
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "Look it up."},
                {"type": "text", "text": "One moment."},
                {"type": "tool_use", "id": "1", "name": "f", "input": {"city": "Rome"}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "sun"}, {"type": "text", "text": "21"}]},
                {"type": "text", "text": "And?"},
            ]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "2", "content": "x"}]},
        ],
        "tools": [{"name": "f", "input_schema": {"type": "object"}}],
    });
    let chat = chat_as(ApiKind::Messages, body, ContentFormat::Text);
    assert_eq!(
        chat.context["messages"],
        json!([
            {"role": "system", "content": "Be terse."},
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": "One moment.", "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"city": "Rome"}}},
            ], "reasoning": "Look it up.", "reasoning_content": "Look it up."},
            {"role": "tool", "content": "sun\n21", "tool_call_id": "1"},
            {"role": "user", "content": "And?"},
            {"role": "tool", "content": "x", "tool_call_id": "2"},
        ])
    );
    let image =
        json!({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]});
    assert_eq!(reason(ApiKind::Messages, image), Reason::Multimodal);
}

#[test]
fn labels_of_reasons_are_distinct() {
    let labels: std::collections::HashSet<_> =
        Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(labels.len(), Reason::ALL.len());
}
