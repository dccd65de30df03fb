//! What engines say of themselves: adapters and context length are heeded, garbage harms nobody.

use serde_json::Value;
use sluice_config::Bootstrap;
use sluice_e2e::harness::client::{ask, chat, http1};
use sluice_e2e::harness::{Gateway, Manner, ScriptedEngine, model_route, model_server, wait_until};

use crate::bed::{Bed, engine, routes, text, turns};

fn asking(bootstrap: &mut Bootstrap) {
    bootstrap.engines.metrics = true;
}

#[tokio::test]
async fn requests_for_an_adapter_go_where_it_is_loaded() {
    let adapted = engine(|options| options.loras = vec!["polite".into()]);
    let bed = Bed::with(vec![engine(|_| {}), adapted], "", asking).await;
    let route = model_route("sim", "sim", &[("sim", 1)])
        .replace("modelName: sim", "modelName: sim\n  loraAdapters: [polite]");
    let server = routes(&bed.engines, "");
    let server = server.split_once("---\n").unwrap().0;
    bed.gateway
        .replace_routes(&format!("{server}---\n{route}"))
        .await;
    let mut body = turns(&["hello"]);
    body["model"] = "polite".into();
    bed.explained(&body, "the adapters are known", |explained| {
        bed.row(explained, 0)["rank"].is_null()
    })
    .await;
    let explained = bed.explain(&body).await;
    assert_eq!(explained["lora"], true);
    assert_eq!(bed.row(&explained, 1)["rank"], 1);
    let reason = bed.row(&explained, 0)["reason"].as_str().unwrap();
    assert!(reason.contains("adapter"), "{reason}");
    for _ in 0..10 {
        bed.ask(&body).await;
    }
    assert_eq!(bed.received(), [0, 10]);
}

#[tokio::test]
async fn a_prompt_goes_to_no_engine_whose_context_it_clearly_exceeds() {
    let small = engine(|options| options.max_model_len = 1_024);
    let bed = Bed::with(vec![small, engine(|_| {})], "", asking).await;
    let long = turns(&[&text("long", 20_000)]);
    bed.explained(&long, "the context lengths are known", |explained| {
        bed.row(explained, 0)["rank"].is_null()
    })
    .await;
    let explained = bed.explain(&long).await;
    let reason = bed.row(&explained, 0)["reason"].as_str().unwrap();
    assert!(reason.contains("max_model_len"), "{reason}");
    for number in 0..10 {
        bed.ask(&turns(&[&text(&format!("long{number}"), 20_000)]))
            .await;
    }
    assert_eq!(bed.received(), [0, 10]);
    let short = bed.explain(&turns(&["short"])).await;
    assert!(bed.row(&short, 0)["rank"].is_number(), "{short}");
}

/// Pages of metrics that are none.
fn pages() -> Vec<Vec<u8>> {
    let page = |status: &str, body: &[u8]| {
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), body].concat()
    };
    let absurd = "vllm:num_requests_running NaN\nvllm:num_requests_waiting -Inf\n\
                  vllm:kv_cache_usage_perc 1e999\nvllm:num_requests_running{ 3\n\
                  vllm:cache_config_info{block_size=\"-1\",num_gpu_blocks=\"99999999999999999999\"} NaN\n";
    let huge = "vllm:num_requests_running{model_name=\"x\"} 1\n".repeat(1 << 20);
    vec![
        page("404 Not Found", b"{\"detail\":\"Not Found\"}"),
        page("200 OK", absurd.as_bytes()),
        page("200 OK", huge.as_bytes()),
        page("200 OK", &[0xff; 4096]),
        page("200 OK", "x".repeat(4 << 20).as_bytes()),
        b"no http at all\r\n\r\n".to_vec(),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_that_are_garbage_fail_no_request() {
    let (mut scripted, mut engines, mut file) = (Vec::new(), Vec::new(), String::new());
    for (number, page) in pages().into_iter().enumerate() {
        let metrics = ScriptedEngine::start(page, Manner::Close).await;
        let engine = engine(|_| {});
        let name = format!("sim{number}");
        let port = metrics.addr().port();
        let extra = format!("model: sim\nengineMetrics: {{port: {port}}}");
        file += &model_server(&name, &[engine.addr()], &extra);
        file += &model_route(&name, &name, &[(&name, 1)]);
        scripted.push(metrics);
        engines.push(engine);
    }
    let gateway = Gateway::builder(file).with(asking).start().await;
    wait_until("every page was asked for", || async {
        scripted.iter().all(|page| !page.heads().is_empty())
    })
    .await;
    for (number, engine) in engines.iter().enumerate() {
        let body = chat(&format!("sim{number}"), "hello", 4, number % 2 == 0);
        for _ in 0..20 {
            let answer = ask(&http1(), &gateway.url(""), "x", None, &body).await;
            assert_eq!((answer.status, answer.complete), (200, true), "{number}");
        }
        assert_eq!(engine.requests().received, 20);
        let url = gateway.admin_url("/debug/explain");
        let explained = http1().post(url).json(&body).send().await.unwrap();
        let explained: Value = explained.json().await.unwrap();
        let cost = &explained["candidates"][0]["costMs"];
        assert!(cost.as_f64().is_some_and(f64::is_finite), "{explained}");
    }
    gateway.settled().await;
}
