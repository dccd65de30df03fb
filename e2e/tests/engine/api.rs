//! The surfaces: what comes back, to the byte where vLLM's bytes are known.

use serde_json::json;
use sluice_e2e::engine::{EngineOptions, EngineServer};

use crate::client::{call, chat, data, get, instant, stream_text};

#[tokio::test]
async fn a_chat_stream_is_written_as_vllm_writes_it() {
    let engine = instant();
    let request = reqwest::Client::new()
        .post(format!("{}/v1/chat/completions", engine.url()))
        .header("x-request-id", "rid-abc")
        .json(&chat(
            json!({"stream": true, "max_tokens": 2, "stream_options": {"include_usage": true}}),
        ));
    let response = request.send().await.unwrap();
    assert_eq!(
        response.headers()["content-type"],
        "text/event-stream; charset=utf-8"
    );
    assert_eq!(response.headers()["x-request-id"], "rid-abc");
    let text = response.text().await.unwrap();
    let created = data(&text)[0]["created"].to_string();
    let (whole, _) = text.split_once("\n\ndata: [DONE]\n\n").unwrap();
    let words: Vec<_> = data(&text)
        .iter()
        .filter_map(|event| event["choices"][0]["delta"]["content"].as_str())
        .map(str::to_owned)
        .collect();
    let head = format!(
        r#"data: {{"id":"chatcmpl-rid-abc","object":"chat.completion.chunk","created":{created},"model":"tiny","choices":["#
    );
    let expected = [
        format!(
            r#"{head}{{"index":0,"delta":{{"role":"assistant","content":""}},"logprobs":null,"finish_reason":null}}],"prompt_token_ids":null}}"#
        ),
        format!(
            r#"{head}{{"index":0,"delta":{{"content":"{}"}},"logprobs":null,"finish_reason":null,"token_ids":null}}]}}"#,
            words[1]
        ),
        format!(
            r#"{head}{{"index":0,"delta":{{"content":"{}"}},"logprobs":null,"finish_reason":"length","stop_reason":null,"token_ids":null}}]}}"#,
            words[2]
        ),
        format!(
            r#"{head}],"usage":{{"prompt_tokens":15,"total_tokens":17,"completion_tokens":2,"prompt_tokens_details":{{"cached_tokens":0}}}}}}"#
        ),
    ];
    assert_eq!(whole, expected.join("\n\n"));
}

#[tokio::test]
async fn usage_is_streamed_only_when_asked_for() {
    let engine = instant();
    let path = "/v1/chat/completions";
    let plain = stream_text(&engine, path, chat(json!({"stream": true}))).await;
    assert!(!plain.contains("usage"));
    assert!(plain.ends_with("data: [DONE]\n\n"));
    let options = json!({"include_usage": true, "continuous_usage_stats": true});
    let events = data(
        &stream_text(
            &engine,
            path,
            chat(json!({"stream": true, "stream_options": options})),
        )
        .await,
    );
    let counts: Vec<_> = events
        .iter()
        .map(|event| event["usage"]["completion_tokens"].as_u64().unwrap())
        .collect();
    assert_eq!(counts, [1, 1, 2, 3, 3]);
    assert_eq!(events.last().unwrap()["choices"], json!([]));
}

#[tokio::test]
async fn streamed_and_whole_answers_hold_the_same_text() {
    let engine = instant();
    let (status, whole) = call(
        &engine,
        "/v1/chat/completions",
        chat(json!({"max_tokens": 20})),
    )
    .await;
    assert_eq!(status, 200);
    assert_eq!(whole["usage"]["completion_tokens"], 20);
    assert_eq!(whole["choices"][0]["finish_reason"], "length");
    let text = stream_text(
        &engine,
        "/v1/chat/completions",
        chat(json!({"max_tokens": 20, "stream": true})),
    )
    .await;
    let joined: String = data(&text)
        .iter()
        .map(|event| {
            event["choices"][0]["delta"]["content"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(whole["choices"][0]["message"]["content"], joined);
    assert_eq!(joined.len(), 80);
}

#[tokio::test]
async fn text_follows_seed_and_prompt() {
    let text = async |seed: u64, prompt: &str| {
        let engine = EngineServer::start(EngineOptions {
            seed,
            ..EngineOptions::instant("tiny")
        })
        .unwrap();
        call(&engine, "/v1/completions", json!({"prompt": prompt}))
            .await
            .1["choices"][0]["text"]
            .clone()
    };
    let first = text(1, "abc").await;
    assert_eq!(
        first.as_str().unwrap().len(),
        16 * 4,
        "the default is 16 tokens"
    );
    assert_eq!(first, text(1, "abc").await);
    assert_ne!(first, text(2, "abc").await);
    assert_ne!(first, text(1, "abd").await);
}

#[tokio::test]
async fn completions_take_strings_lists_and_tokens() {
    let engine = instant();
    for (prompt, choices, tokens) in [
        (json!("abcdefgh"), 1, 2),
        (json!(["abcd", "efghi"]), 2, 3),
        (json!([5, 6, 7]), 1, 3),
        (json!([[5, 6], [7]]), 2, 3),
    ] {
        let (status, body) = call(
            &engine,
            "/v1/completions",
            json!({"prompt": prompt, "max_tokens": 2}),
        )
        .await;
        assert_eq!(status, 200, "{prompt}");
        assert_eq!(
            body["choices"].as_array().unwrap().len(),
            choices,
            "{prompt}"
        );
        assert_eq!(body["usage"]["prompt_tokens"], tokens, "{prompt}");
        assert_eq!(body["usage"]["completion_tokens"], 2 * choices, "{prompt}");
    }
}

#[tokio::test]
async fn several_choices_and_stop_strings_are_honoured() {
    let engine = instant();
    let (_, body) = call(
        &engine,
        "/v1/chat/completions",
        chat(json!({"n": 2, "max_tokens": 8})),
    )
    .await;
    let text = body["choices"][0]["message"]["content"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_ne!(body["choices"][1]["message"]["content"], text.as_str());
    let stop = &text[8..11];
    let (_, body) = call(
        &engine,
        "/v1/chat/completions",
        chat(json!({"stop": stop, "max_tokens": 8})),
    )
    .await;
    let choice = &body["choices"][0];
    assert_eq!(choice["finish_reason"], "stop");
    assert_eq!(choice["stop_reason"], stop);
    assert_eq!(
        choice["message"]["content"],
        text[..text.find(stop).unwrap()]
    );
}

#[tokio::test]
async fn the_second_identical_prompt_is_cached_in_whole_blocks_and_not_across_adapters() {
    let options = EngineOptions {
        loras: vec!["lora-a".to_owned()],
        ..EngineOptions::instant("tiny")
    };
    let engine = EngineServer::start(options).unwrap();
    let prompt = "x".repeat(4 * 186);
    for (model, expected) in [("tiny", 0), ("tiny", 176), ("lora-a", 0), ("lora-a", 176)] {
        let (_, body) = call(
            &engine,
            "/v1/completions",
            json!({"model": model, "prompt": prompt}),
        )
        .await;
        assert_eq!(
            body["usage"]["prompt_tokens_details"]["cached_tokens"], expected,
            "{model}"
        );
    }
    let metrics = get(&engine, "/metrics").await;
    assert!(
        metrics.contains("vllm:prefix_cache_queries_total{engine=\"0\",model_name=\"tiny\"} 744\n"),
        "{metrics}"
    );
    assert!(
        metrics.contains("vllm:prefix_cache_hits_total{engine=\"0\",model_name=\"tiny\"} 352\n")
    );
    assert!(
        metrics.contains(
            "vllm:time_to_first_token_seconds_count{engine=\"0\",model_name=\"tiny\"} 4\n"
        )
    );
    assert!(
        metrics.contains("vllm:generation_tokens_total{engine=\"0\",model_name=\"tiny\"} 64\n")
    );
}

#[tokio::test]
async fn a_conversation_finds_its_last_turn_in_the_cache() {
    let engine = instant();
    let mut messages = vec![json!({"role": "user", "content": "tell me a long story, please"})];
    let (_, body) = call(
        &engine,
        "/v1/chat/completions",
        json!({"messages": messages, "max_tokens": 64}),
    )
    .await;
    let prompt = body["usage"]["prompt_tokens"].as_u64().unwrap();
    messages.push(body["choices"][0]["message"].clone());
    messages.push(json!({"role": "user", "content": "go on"}));
    let (_, body) = call(
        &engine,
        "/v1/chat/completions",
        json!({"messages": messages}),
    )
    .await;
    let cached = body["usage"]["prompt_tokens_details"]["cached_tokens"]
        .as_u64()
        .unwrap();
    assert_eq!(
        cached,
        (prompt + 63) / 16 * 16,
        "prompt of {prompt} and 63 of the 64 generated tokens"
    );
}
