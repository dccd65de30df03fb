use std::time::Duration;

use super::*;
use crate::cache::members::MemberCache;
use crate::cache::subscribe::SubscriptionView;
use crate::telemetry::record::RecordError;
use crate::tokens::TokenPoolParams;

fn metrics() -> Metrics {
    let build = BuildInfo {
        version: "1.2.3",
        revision: "abc",
    };
    Metrics::new(build, SystemTime::UNIX_EPOCH + Duration::from_millis(1500))
}

fn served(model: &str) -> RequestRecord {
    let path = "/v1/chat/completions".to_owned();
    let started = SystemTime::UNIX_EPOCH;
    let id = "r".to_owned();
    let mut record = RequestRecord::new(
        started,
        http::Method::POST,
        path,
        http::Version::HTTP_11,
        id,
    );
    record.status = 200;
    record.model = Some(model.to_owned());
    record.known_model = true;
    record.route = Some(Arc::from("ns/route"));
    record.server = Some(Arc::from("ns/pool"));
    record.endpoint = Some(Arc::from("10.0.0.1:8000"));
    record.input_tokens = Some(100);
    record.output_tokens = Some(11);
    record.cached_tokens = Some(64);
    record.ttft = Some(Duration::from_millis(200));
    record.total = Duration::from_millis(1200);
    record
}

/// Fails unless every line is in the text.
fn assert_lines(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(
            text.lines().any(|found| found == *line),
            "no line {line} in\n{text}"
        );
    }
}

/// Sample lines, which is what grows with label values.
fn samples(text: &str) -> usize {
    text.lines().filter(|line| !line.starts_with('#')).count()
}

#[test]
fn a_served_request_shows_in_every_family() {
    let metrics = metrics();
    metrics.record(&served("llama"));
    assert_lines(
        &metrics.encode(),
        &[
            r#"sluice_requests_total{model="llama",route="ns/route",server="ns/pool",status_code="200",reason="ok"} 1"#,
            r#"sluice_request_duration_seconds_sum{model="llama",route="ns/route",server="ns/pool"} 1.2"#,
            r#"sluice_request_duration_seconds_bucket{le="1.0",model="llama",route="ns/route",server="ns/pool"} 0"#,
            r#"sluice_request_duration_seconds_bucket{le="2.5",model="llama",route="ns/route",server="ns/pool"} 1"#,
            r#"sluice_time_to_first_token_seconds_sum{model="llama",route="ns/route",server="ns/pool"} 0.2"#,
            r#"sluice_tokens_total{model="llama",type="input"} 100"#,
            r#"sluice_tokens_total{model="llama",type="output"} 11"#,
            r#"sluice_tokens_total{model="llama",type="cached"} 64"#,
            r#"gen_ai_server_request_duration_seconds_count{gen_ai_operation_name="chat",gen_ai_provider_name="openai",gen_ai_request_model="llama",error_type=""} 1"#,
            r#"gen_ai_server_time_to_first_token_seconds_sum{gen_ai_operation_name="chat",gen_ai_provider_name="openai",gen_ai_request_model="llama"} 0.2"#,
            r#"gen_ai_server_time_per_output_token_seconds_sum{gen_ai_operation_name="chat",gen_ai_provider_name="openai",gen_ai_request_model="llama"} 0.1"#,
            r#"gen_ai_client_token_usage_sum{gen_ai_operation_name="chat",gen_ai_provider_name="openai",gen_ai_request_model="llama",gen_ai_token_type="input"} 100.0"#,
        ],
    );
}

#[test]
fn a_failed_request_has_its_status_and_reason() {
    let metrics = metrics();
    let mut record = served("llama");
    record.status = 504;
    record.error = Some(RecordError::new("engine_timeout", "no answer"));
    metrics.record(&record);
    let text = metrics.encode();
    assert_lines(
        &text,
        &[
            r#"sluice_requests_total{model="llama",route="ns/route",server="ns/pool",status_code="504",reason="engine_timeout"} 1"#,
            r#"gen_ai_server_request_duration_seconds_count{gen_ai_operation_name="chat",gen_ai_provider_name="openai",gen_ai_request_model="llama",error_type="engine_timeout"} 1"#,
            r#"gen_ai_server_time_to_first_token_seconds_count{gen_ai_operation_name="chat",gen_ai_provider_name="openai",gen_ai_request_model="llama"} 0"#,
        ],
    );
    assert!(
        !text.contains("no answer"),
        "an error's message is no label"
    );
}

#[test]
fn unknown_models_are_one_label_value_and_add_no_series() {
    let metrics = metrics();
    let refused = |model: String| {
        let mut record = served(&model);
        record.known_model = false;
        (record.route, record.server, record.endpoint) = (None, None, None);
        record.status = 404;
        record.error = Some(RecordError::new("model_not_found", "none"));
        record
    };
    metrics.record(&refused("first".to_owned()));
    let before = samples(&metrics.encode());
    for number in 0..1000 {
        metrics.record(&refused(format!("made-up-{number}")));
    }
    let text = metrics.encode();
    assert_eq!(samples(&text), before);
    assert!(!text.contains("made-up"));
    assert_lines(
        &text,
        &[
            r#"sluice_requests_total{model="unknown",route="none",server="none",status_code="404",reason="model_not_found"} 1001"#,
        ],
    );
}

#[test]
fn a_request_without_a_model_is_labelled_none() {
    let metrics = metrics();
    let mut record = served("x");
    record.model = None;
    record.path = "/v1/models".to_owned();
    (record.route, record.server) = (None, None);
    metrics.record(&record);
    let text = metrics.encode();
    assert_lines(
        &text,
        &[
            r#"sluice_requests_total{model="none",route="none",server="none",status_code="200",reason="ok"} 1"#,
        ],
    );
    assert!(
        !text.contains("gen_ai_operation_name"),
        "listing models is no GenAI operation"
    );
}

#[test]
fn a_configuration_gone_wild_still_has_bounded_series() {
    let build = BuildInfo {
        version: "1.2.3",
        revision: "abc",
    };
    let metrics = Metrics::with_max_handles(build, SystemTime::UNIX_EPOCH, 3);
    for number in 0..10 {
        metrics
            .server(&format!("ns/{number}"))
            .attempt(AttemptReason::Ok);
        metrics.record(&served(&format!("model-{number}")));
    }
    let text = metrics.encode();
    assert_lines(
        &text,
        &[
            r#"sluice_attempts_total{server="ns/2",reason="ok"} 1"#,
            r#"sluice_attempts_total{server="unknown",reason="ok"} 7"#,
            r#"sluice_tokens_total{model="model-2",type="output"} 11"#,
            r#"sluice_tokens_total{model="unknown",type="output"} 77"#,
        ],
    );
    assert!(
        !text.contains("ns/3") && !text.contains("model-3"),
        "{text}"
    );
}

#[test]
fn gaps_are_seen_before_the_request_has_ended() {
    let metrics = metrics();
    let handles = metrics.handles(Some("ns/route"), Some("ns/pool"), Some("llama"));
    // One below, one on, one above the bound of 0.1 ms.
    for micros in [99, 100, 101] {
        handles.observe_gap(Duration::from_micros(micros));
    }
    assert_lines(
        &metrics.encode(),
        &[
            r#"sluice_inter_token_seconds_bucket{le="0.0001",model="llama",route="ns/route",server="ns/pool"} 2"#,
            r#"sluice_inter_token_seconds_bucket{le="+Inf",model="llama",route="ns/route",server="ns/pool"} 3"#,
            r#"sluice_inter_token_seconds_count{model="llama",route="ns/route",server="ns/pool"} 3"#,
            r#"sluice_inter_token_seconds_sum{model="llama",route="ns/route",server="ns/pool"} 0.0003"#,
        ],
    );
}

#[test]
fn handles_of_one_name_set_are_resolved_once() {
    let metrics = metrics();
    let resolve = |server| metrics.handles(Some("ns/route"), Some(server), Some("llama"));
    assert!(Arc::ptr_eq(&resolve("ns/a"), &resolve("ns/a")));
    assert!(!Arc::ptr_eq(&resolve("ns/a"), &resolve("ns/b")));
}

#[test]
fn pool_metrics_count_attempts_connections_and_flights() {
    let metrics = metrics();
    let pool = metrics.server("ns/pool");
    pool.attempt(AttemptReason::Connect);
    pool.attempt(AttemptReason::Ok);
    pool.connection(true);
    pool.skip();
    let (flying, landed) = (pool.in_flight(), pool.in_flight());
    drop(landed);
    assert_lines(
        &metrics.encode(),
        &[
            r#"sluice_attempts_total{server="ns/pool",reason="connect"} 1"#,
            r#"sluice_attempts_total{server="ns/pool",reason="stale"} 0"#,
            r#"sluice_pool_connections_total{server="ns/pool",kind="reused"} 1"#,
            r#"sluice_pool_connections_total{server="ns/pool",kind="new"} 0"#,
            r#"sluice_target_skipped_total{server="ns/pool"} 1"#,
            r#"sluice_in_flight{server="ns/pool"} 1"#,
        ],
    );
    drop(flying);
    assert_lines(
        &metrics.encode(),
        &[r#"sluice_in_flight{server="ns/pool"} 0"#],
    );
}

#[test]
fn every_attempt_reason_stands_at_its_own_index() {
    for (index, reason) in AttemptReason::ALL.into_iter().enumerate() {
        assert_eq!(reason as usize, index);
    }
}

#[test]
fn gateway_and_process_metrics_are_there() {
    let metrics = metrics();
    let active = metrics.active_request();
    metrics.config_generation.set(7);
    metrics.config_rejects.inc();
    metrics.set_config_problems(ProblemSource::Documents, 1, 3);
    metrics.set_config_problems(ProblemSource::RouterConfiguration, 1, 2);
    metrics.filter_failure("auth");
    metrics.body_budget_bytes.set(4096);
    assert_lines(
        &metrics.encode(),
        &[
            r#"sluice_build_info{version="1.2.3",revision="abc"} 1"#,
            "process_start_time_seconds 1.5",
            "sluice_active_requests 1",
            "sluice_config_generation 7",
            "sluice_config_rejects_total 1",
            r#"sluice_config_problems{severity="error"} 2"#,
            r#"sluice_config_problems{severity="warning"} 5"#,
            r#"sluice_filter_failures_total{filter="auth"} 1"#,
            "sluice_body_budget_bytes 4096",
            "sluice_access_log_dropped_total 0",
            "sluice_retry_budget_exhausted_total 0",
            "# EOF",
        ],
    );
    drop(active);
    assert_lines(&metrics.encode(), &["sluice_active_requests 0"]);
}

#[test]
fn names_that_left_the_configuration_leave_the_metrics() {
    let metrics = metrics();
    metrics.record(&served("old"));
    metrics.record(&served("new"));
    metrics.server("ns/pool").attempt(AttemptReason::Ok);
    let mut refused = served("x");
    refused.known_model = false;
    metrics.record(&refused);
    let old = metrics.handles(Some("ns/route"), Some("ns/pool"), Some("old"));

    metrics.retain(|kind, name| kind != NameKind::Model || name == "new");
    let text = metrics.encode();
    assert!(!text.contains("\"old\""), "{text}");
    assert!(
        text.contains("\"new\"") && text.contains("\"unknown\"") && text.contains("\"ns/pool\"")
    );
    let back = metrics.handles(Some("ns/route"), Some("ns/pool"), Some("old"));
    assert!(
        !Arc::ptr_eq(&old, &back),
        "a name that comes back gets visible series"
    );

    metrics.retain(|kind, _| kind != NameKind::Server);
    assert!(!metrics.encode().contains("ns/pool"));
}

#[test]
fn a_configured_name_with_quotes_cannot_forge_a_label() {
    let metrics = metrics();
    metrics.filter_failure("a\"b\\c\nd");
    assert_lines(
        &metrics.encode(),
        &[r#"sluice_filter_failures_total{filter="a\"b\\c\nd"} 1"#],
    );
}

/// A draining pod.
fn member(budget: &Arc<IndexBudget>, address: &str) -> Member {
    let mut server = sluice_config::snapshot::ModelServer::of("pool", &[address]);
    let configured = Arc::make_mut(&mut server.endpoints[0]);
    (configured.pod, configured.zone) = ("ns/p".into(), "z".into());
    configured.draining = true;
    Member {
        endpoint: crate::endpoints::Registry::default().endpoint(&server, &server.endpoints[0]),
        cache: MemberCache::new(&PoolCache::new(budget)),
        configured: Arc::clone(&server.endpoints[0]),
    }
}

fn shown(budget: &Arc<IndexBudget>, members: &[&Member]) -> ShownPool {
    ShownPool {
        server: Arc::from("ns/pool"),
        members: members.iter().map(|one| (*one).clone()).collect(),
        cache: PoolCache::new(budget),
    }
}

#[test]
fn the_push_stream_is_shown_once_one_is_followed() {
    let metrics = metrics();
    assert!(!metrics.encode().contains("sluice_push_"));
    let push = metrics.push();
    push.connected.set(1);
    push.batches.inc();
    push.observe_lag(Duration::from_millis(3));
    push.set_resources(&[(sluice_config::push::ResourceType::Endpoint, 7)]);
    assert_lines(
        &metrics.encode(),
        &[
            "sluice_push_connected 1",
            "sluice_push_batches_total 1",
            "sluice_push_reconnects_total 0",
            "sluice_push_rejected 0",
            "sluice_push_generation 0",
            r#"sluice_push_resources{type="Endpoint"} 7"#,
            "sluice_push_lag_seconds_sum 0.003",
            r#"sluice_push_lag_seconds_bucket{le="0.005"} 1"#,
        ],
    );
}

#[test]
fn endpoints_show_their_live_state_until_they_leave() {
    use crate::endpoints::load::Work;

    let budget = IndexBudget::new(1 << 20);
    let member = member(&budget, "a:1");
    let endpoint = &member.endpoint;
    let metrics = metrics();
    let none = metrics.encode();
    assert!(!none.contains("sluice_endpoint_"), "{none}");
    // Twice in one pool, which a series must survive.
    metrics.set_pools(vec![shown(&budget, &[&member, &member])]);
    let now = std::time::Instant::now();
    let work = Work {
        prompt_tokens: 500,
        cached_tokens: 100,
    };
    let _reservation = endpoint.load.reserve(work);
    let mut observation = endpoint.stats.dispatched(endpoint.load.load(), work, now);
    let first = now + Duration::from_millis(80);
    endpoint
        .stats
        .first_token(&mut observation, endpoint.load.load(), first);
    let text = metrics.encode();
    assert_lines(
        &text,
        &[
            "# TYPE sluice_endpoint_pending_tokens gauge",
            r#"sluice_endpoint_pending_tokens{server="ns/pool",endpoint="a:1"} 400.0"#,
            r#"sluice_endpoint_observations{server="ns/pool",endpoint="a:1"} 1.0"#,
            r#"sluice_endpoint_draining{server="ns/pool",endpoint="a:1"} 1.0"#,
            r#"sluice_endpoint_pod{server="ns/pool",endpoint="a:1",pod="ns/p",node="",zone="z",role="whole"} 1"#,
        ],
    );
    assert!(text.contains(r#"sluice_endpoint_time_to_first_token_milliseconds{server="ns/pool",endpoint="a:1",quantile="0.99"} 8"#));
    assert!(
        !text.contains("sluice_endpoint_reported_"),
        "nothing is reported"
    );
    metrics.set_pools(Vec::new());
    assert_eq!(samples(&metrics.encode()), samples(&none));
}

#[test]
fn endpoints_beyond_the_first_thousands_are_counted_and_not_shown() {
    let budget = IndexBudget::new(1 << 20);
    let member = member(&budget, "a:1");
    let metrics = metrics();
    metrics.set_pools(vec![shown(&budget, &vec![&member; 4_096])]);
    assert_lines(&metrics.encode(), &["sluice_endpoints_not_shown 0"]);
    metrics.set_pools(vec![shown(&budget, &vec![&member; 4_099])]);
    assert_lines(&metrics.encode(), &["sluice_endpoints_not_shown 3"]);
}

#[test]
fn what_is_known_of_caches_is_read_when_it_is_asked_for() {
    let metrics = metrics();
    let budget = IndexBudget::new(1 << 20);
    metrics.set_index_budget(&budget);
    let tokens = Arc::new(TokenPool::new(TokenPoolParams::default()).unwrap());
    metrics.set_token_pool(&tokens);
    let member = member(&budget, "10.0.0.1:8000");
    let pool = shown(&budget, &[&member]);
    let member = MemberCache::new(&pool.cache);
    let members = [Member {
        cache: Arc::clone(&member),
        ..pool.members[0].clone()
    }];
    metrics.set_pools(vec![ShownPool {
        members: members.into(),
        ..pool
    }]);
    member.import(&[(1, 256), (2, 256)]);
    let text = metrics.encode();
    let endpoint_labels = "server=\"ns/pool\",endpoint=\"10.0.0.1:8000\"";
    assert_lines(
        &text,
        &[
            "sluice_cache_index_blocks{server=\"ns/pool\",index=\"bytes\"} 2.0",
            "sluice_cache_index_pairs{server=\"ns/pool\",index=\"bytes\",kind=\"predicted\"} 2.0",
            "sluice_cache_index_pairs{server=\"ns/pool\",index=\"tokens\",kind=\"reported\"} 0.0",
            "sluice_cache_index_evicted_pairs_total{server=\"ns/pool\",index=\"bytes\"} 0",
            "sluice_cache_memory_bytes{kind=\"limit\"} 1048576.0",
            "sluice_tokenized_prompts_total{outcome=\"in_time\"} 0",
            "sluice_tokenized_prompts_total{outcome=\"queue_full\"} 0",
            "sluice_tokenizer_memo_bytes 0.0",
            &format!("sluice_kv_events_live{{{endpoint_labels}}} 0.0"),
        ],
    );
    // Nobody is followed: only whether they are live is shown.
    assert!(!text.contains("sluice_kv_event_subscriptions{"));
    member.set_live(true);
    member
        .following()
        .begin(vec![SubscriptionView::for_tests(7, 1)]);
    let text = metrics.encode();
    assert_lines(
        &text,
        &[
            &format!("sluice_kv_events_live{{{endpoint_labels}}} 1.0"),
            &format!("sluice_kv_event_subscriptions{{{endpoint_labels},state=\"connecting\"}} 1.0"),
            &format!("sluice_kv_event_batches_total{{{endpoint_labels}}} 7"),
            &format!("sluice_kv_event_gaps_total{{{endpoint_labels}}} 1"),
        ],
    );
    metrics.set_pools(Vec::new());
    assert!(!metrics.encode().contains("sluice_cache_index_blocks"));
}
