use serde_json::json;

use super::*;

fn vllm(answer: &Value) -> Result<Vec<EventSource>, SourceError> {
    vllm_sources(answer.to_string().as_bytes(), "10.0.0.7")
}

#[test]
fn each_rank_of_vllm_is_a_source_with_the_engines_own_host() {
    let rank = |port: u16| {
        json!({"enable_kv_cache_events": true, "publisher": "zmq", "endpoint": format!("tcp://*:{port}"),
            "replay_endpoint": format!("tcp://0.0.0.0:{}", port + 100), "buffer_steps": 10000, "hwm": 100_000,
            "max_queue_size": 100_000, "topic": "kv"})
    };
    let sources = vllm(&json!({"1": rank(5558), "0": rank(5557)})).unwrap();
    assert_eq!(sources.len(), 2);
    let expected = EventSource {
        rank: Some(1),
        endpoint: "tcp://10.0.0.7:5558".to_owned(),
        replay: Some("tcp://10.0.0.7:5658".to_owned()),
        topic: "kv".to_owned(),
        block_size: None,
        bind: false,
    };
    assert_eq!(sources[1], expected);
}

#[test]
fn vllms_direction_follows_its_own_rule() {
    let source = |endpoint: &str| {
        let answer = json!({"0": {"enable_kv_cache_events": true, "publisher": "zmq", "endpoint": endpoint}});
        let source = vllm(&answer).unwrap().remove(0);
        (source.endpoint, source.bind)
    };
    let own = |endpoint: &str| endpoint.to_owned();
    assert_eq!(
        source("tcp://[::ffff:127.0.0.1]:28557"),
        (own("tcp://10.0.0.7:28557"), false)
    );
    assert_eq!(source("tcp://[::]:1"), (own("tcp://10.0.0.7:1"), false));
    assert_eq!(source("ipc:///run/kv"), (own("ipc:///run/kv"), false));
    // The engine connects: to us, it must be hoped.
    assert_eq!(
        source("tcp://10.0.0.1:5557"),
        (own("tcp://10.0.0.1:5557"), true)
    );
}

#[test]
fn an_engine_without_events_says_so() {
    assert!(matches!(vllm(&json!({})), Err(SourceError::Disabled)));
    let null = json!({"0": {"enable_kv_cache_events": true, "publisher": "null", "endpoint": "tcp://*:1"}});
    assert!(matches!(vllm(&null), Err(SourceError::Disabled)));
    let off = sglang_sources(b"{\"model_path\": \"m\"}", "h");
    assert!(matches!(off, Err(SourceError::Disabled)));
}

#[test]
fn ranks_of_sglang_count_ports_up() {
    let answer = json!({"version": "0.5.23", "kv_events": {"publisher": "zmq", "endpoint_host": "*",
        "endpoint_port_base": 5557, "topic": "", "block_size": 64, "dp_size": 2, "replay_endpoint_port_base": 6557,
        "load_endpoint_port_base": null, "load_topic": "load"}});
    let sources = sglang_sources(answer.to_string().as_bytes(), "fd00::7").unwrap();
    let expected = EventSource {
        rank: Some(1),
        endpoint: "tcp://[fd00::7]:5558".to_owned(),
        replay: Some("tcp://[fd00::7]:6558".to_owned()),
        topic: String::new(),
        block_size: Some(64),
        bind: false,
    };
    assert_eq!((sources.len(), &sources[1]), (2, &expected));
}

#[test]
fn nonsense_is_refused_with_a_reason() {
    let wrapped = json!({"kv_events": {"endpoint_port_base": 65_535, "dp_size": 2}});
    let error = sglang_sources(wrapped.to_string().as_bytes(), "h").unwrap_err();
    assert!(error.to_string().contains("no port for rank 1"), "{error}");
    let many = json!({"kv_events": {"endpoint_port_base": 1, "dp_size": 2000}});
    assert!(sglang_sources(many.to_string().as_bytes(), "h").is_err());
    for endpoint in [
        "inproc://x",
        "tcp://host",
        "tcp://:1",
        "tcp://h:70000",
        "ipc://",
    ] {
        let answer = json!({"0": {"enable_kv_cache_events": true, "publisher": "zmq", "endpoint": endpoint}});
        assert!(vllm(&answer).is_err(), "{endpoint}");
    }
    assert!(vllm_sources(b"<html>", "h").is_err());
    assert!(vllm(&json!({"x": {"enable_kv_cache_events": true, "publisher": "zmq", "endpoint": "tcp://*:1"}})).is_err());
}

#[test]
fn an_operator_names_the_direction() {
    let source = configured_source("bind tcp://0.0.0.0:5557", None).unwrap();
    assert_eq!(
        (source.bind, source.endpoint.as_str()),
        (true, "tcp://0.0.0.0:5557")
    );
    let source = configured_source("tcp://a:1", Some("tcp://a:2")).unwrap();
    assert_eq!(
        (source.bind, source.replay.as_deref()),
        (false, Some("tcp://a:2"))
    );
    assert!(!configured_source("connect tcp://a:1", None).unwrap().bind);
    assert!(configured_source("listen tcp://a:1", None).is_err());
    assert!(configured_source("tcp://a:1", Some("http://a")).is_err());
}
