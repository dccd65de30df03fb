//! The other surfaces, errors, adapters and protocols.

use serde_json::{Value, json};
use sluice_e2e::engine::{EngineOptions, EngineServer, Profile};

use crate::client::{
    call, chat, chat_body, data, drain, exchange, get, instant, post, read_until, send, stream_text,
};

#[tokio::test]
async fn adapters_are_loaded_listed_used_and_unloaded() {
    let engine = instant();
    let load = r#"{"lora_name":"lora-a","lora_path":"/adapters/a"}"#;
    let answer = exchange(&engine, "/v1/load_lora_adapter", &[], load);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(answer.contains("content-type: text/plain"));
    assert!(answer.ends_with("\r\n\r\nSuccess: LoRA adapter 'lora-a' added successfully."));
    let (status, body) = call(
        &engine,
        "/v1/load_lora_adapter",
        serde_json::from_str(load).unwrap(),
    )
    .await;
    assert_eq!(
        (status, body["error"]["type"].as_str()),
        (400, Some("InvalidUserInput"))
    );
    let missing = json!({"lora_name": "lora-b", "lora_path": "/missing"});
    assert_eq!(call(&engine, "/v1/load_lora_adapter", missing).await.0, 404);
    let models: Value = serde_json::from_str(&get(&engine, "/v1/models").await).unwrap();
    assert_eq!(
        (
            &models["data"][0]["id"],
            &models["data"][0]["max_model_len"]
        ),
        (&json!("tiny"), &json!(131_072))
    );
    assert_eq!(
        (&models["data"][1]["id"], &models["data"][1]["parent"]),
        (&json!("lora-a"), &json!("tiny"))
    );
    assert_eq!(models["data"][1]["max_model_len"], Value::Null);
    assert_eq!(
        call(
            &engine,
            "/v1/completions",
            json!({"model": "lora-a", "prompt": "a"})
        )
        .await
        .0,
        200
    );
    let answer = exchange(
        &engine,
        "/v1/unload_lora_adapter",
        &[],
        r#"{"lora_name":"lora-a"}"#,
    );
    assert!(answer.ends_with("Success: LoRA adapter 'lora-a' removed successfully."));
    assert_eq!(
        call(
            &engine,
            "/v1/completions",
            json!({"model": "lora-a", "prompt": "a"})
        )
        .await
        .0,
        404
    );
}

#[tokio::test]
async fn errors_are_worded_as_vllms() {
    let options = EngineOptions {
        max_model_len: 64,
        ..EngineOptions::instant("tiny")
    };
    let engine = EngineServer::start(options).unwrap();
    let path = "/v1/completions";
    let long = "a".repeat(4 * 65);
    for (body, status, kind, param, message) in [
        (
            json!({"model": "nope", "prompt": "a"}),
            404,
            "NotFoundError",
            json!("model"),
            "The model `nope` does not exist. Valid aliases: tiny.",
        ),
        (
            json!({"prompt": long, "stream": true}),
            400,
            "BadRequestError",
            json!("input_tokens"),
            "This model's maximum context length is 64 tokens. However, your prompt contains at least 65",
        ),
        (
            json!({"prompt": "a", "max_tokens": 1000}),
            400,
            "BadRequestError",
            json!("max_tokens"),
            "max_tokens=1000 cannot be greater than max_model_len=64",
        ),
        (
            json!({}),
            400,
            "Bad Request",
            json!("body.prompt"),
            "1 validation error:\n  {'type': 'missing'",
        ),
    ] {
        let (found, answer) = call(&engine, path, body).await;
        let error = &answer["error"];
        assert_eq!(
            (found, &error["code"], &error["type"], &error["param"]),
            (status, &json!(status), &json!(kind), &param)
        );
        assert!(
            error["message"].as_str().unwrap().starts_with(message),
            "{error}"
        );
    }
    let broken = exchange(&engine, path, &[], r#"{"model": "#);
    assert!(broken.starts_with("HTTP/1.1 400 Bad Request"), "{broken}");
    assert!(
        broken.contains("json_invalid") && broken.contains(r#""param":"body.10""#),
        "{broken}"
    );
    let client = reqwest::Client::new();
    let typed = client
        .post(format!("{}{path}", engine.url()))
        .header("content-type", "text/plain")
        .body("{}");
    assert_eq!(typed.send().await.unwrap().status(), 400);
    let missing = reqwest::get(format!("{}/nowhere", engine.url()))
        .await
        .unwrap();
    assert_eq!(
        (
            missing.status().as_u16(),
            missing.text().await.unwrap().as_str()
        ),
        (404, r#"{"detail":"Not Found"}"#)
    );
    assert_eq!(
        reqwest::get(format!("{}{path}", engine.url()))
            .await
            .unwrap()
            .status(),
        405
    );
}

#[tokio::test]
async fn responses_and_messages_stream_their_named_events() {
    let engine = instant();
    let names = |text: &str| -> Vec<String> {
        text.lines()
            .filter_map(|line| line.strip_prefix("event: "))
            .map(str::to_owned)
            .collect()
    };
    let text = stream_text(
        &engine,
        "/v1/responses",
        json!({"input": "hi", "max_output_tokens": 2, "stream": true}),
    )
    .await;
    let expected = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ];
    assert_eq!(names(&text), expected);
    let events = data(&text);
    assert!(
        events
            .iter()
            .enumerate()
            .all(|(index, event)| event["sequence_number"] == index)
    );
    assert_eq!(
        events.last().unwrap()["response"]["usage"]["output_tokens"],
        2
    );
    let ask =
        json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2, "stream": true});
    let text = stream_text(&engine, "/v1/messages", ask).await;
    let expected = [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ];
    assert_eq!(names(&text), expected);
    let (status, whole) = call(
        &engine,
        "/v1/responses",
        json!({"input": "hi", "max_output_tokens": 2}),
    )
    .await;
    assert_eq!((status, &whole["usage"]["output_tokens"]), (200, &json!(2)));
}

#[tokio::test]
async fn embeddings_and_tokens_are_functions_of_their_text() {
    let engine = instant();
    let (_, first) = call(&engine, "/v1/embeddings", json!({"input": ["abc", "abd"]})).await;
    let (_, again) = call(&engine, "/v1/embeddings", json!({"input": "abd"})).await;
    assert_eq!(first["data"][1]["embedding"], again["data"][0]["embedding"]);
    assert_ne!(first["data"][0]["embedding"], again["data"][0]["embedding"]);
    let (_, tokens) = call(&engine, "/tokenize", json!({"prompt": "hello world"})).await;
    assert_eq!(tokens["count"], 3);
    let (_, text) = call(&engine, "/detokenize", json!({"tokens": tokens["tokens"]})).await;
    assert_eq!(text["prompt"], "hello world");
}

#[tokio::test]
async fn echo_shows_what_arrived_whatever_its_framing() {
    let engine = instant();
    let body = "abc";
    let whole = exchange(
        &engine,
        "/any/path?q=1",
        &["x-echo: sha256", "X-Mixed-Case: Yes"],
        body,
    );
    let json: Value = serde_json::from_str(whole.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(
        json["sha256"],
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
    assert_eq!(
        (&json["bytes"], &json["headers"]["x-mixed-case"]),
        (&json!(3), &json!("Yes"))
    );
    assert_eq!(json["target"], "/any/path?q=1");
    let chunked = "POST /x HTTP/1.1\r\nhost: e\r\nx-echo: body\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n\
                   1\r\na\r\n2;ext=1\r\nbc\r\n0\r\ntrailer: 1\r\n\r\n";
    let answer = read_until(&mut send(&engine, chunked.as_bytes()), "\r\n\r\nabc");
    assert!(answer.contains("content-length: 3\r\n"));
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_on_one_connection() {
    let engine = instant();
    let mut bytes = post(
        "/v1/chat/completions",
        &["x-request-id: one"],
        &chat_body(1, false),
    );
    bytes.extend(post(
        "/v1/chat/completions",
        &["x-request-id: two", "connection: close"],
        &chat_body(1, true),
    ));
    let (answers, end) = drain(&mut send(&engine, &bytes));
    end.unwrap();
    assert!(answers.find("chatcmpl-one").unwrap() < answers.find("chatcmpl-two").unwrap());
    assert!(answers.ends_with("0\r\n\r\n"));
}

#[tokio::test]
async fn http2_with_prior_knowledge_is_spoken_on_the_same_port() {
    let engine = instant();
    let client = reqwest::Client::builder()
        .http2_prior_knowledge()
        .build()
        .unwrap();
    let url = format!("{}/v1/chat/completions", engine.url());
    let response = client
        .post(&url)
        .json(&chat(json!({"stream": true})))
        .send()
        .await
        .unwrap();
    assert_eq!(response.version(), reqwest::Version::HTTP_2);
    let text = response.text().await.unwrap();
    assert_eq!(data(&text).len(), 4);
    assert!(text.ends_with("data: [DONE]\n\n"));
    let cut = client
        .post(&url)
        .header("x-fault", "reset-mid-stream:2")
        .json(&chat(json!({"stream": true})));
    assert!(cut.send().await.unwrap().text().await.is_err());
    assert_eq!(engine.requests().faulted, 1);
}

#[tokio::test]
async fn a_modelled_engine_takes_its_time() {
    let options = EngineOptions {
        profile: Profile::H8B,
        ..EngineOptions::default()
    };
    let engine = EngineServer::start(options).unwrap();
    let started = std::time::Instant::now();
    call(
        &engine,
        "/v1/chat/completions",
        chat(json!({"max_tokens": 20})),
    )
    .await;
    // Twenty steps of at least W + B0 = 9.2 ms.
    assert!(
        started.elapsed() >= std::time::Duration::from_millis(184),
        "{:?}",
        started.elapsed()
    );
    let metrics = get(&engine, "/metrics").await;
    assert!(
        metrics.contains(
            "vllm:inter_token_latency_seconds_count{engine=\"0\",model_name=\"tiny\"} 19\n"
        )
    );
}
