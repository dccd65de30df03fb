use std::sync::Arc;

use super::*;
use crate::telemetry::record::{GapSummary, RecordError};

/// 2024-01-15T10:30:45.123Z.
const STARTED_MILLIS: u64 = 1_705_314_645_123;

fn served() -> RequestRecord {
    let started = SystemTime::UNIX_EPOCH + Duration::from_millis(STARTED_MILLIS);
    let path = "/v1/chat/completions".to_owned();
    let mut record = RequestRecord::new(
        started,
        http::Method::POST,
        path,
        http::Version::HTTP_11,
        "req-1".to_owned(),
    );
    record.status = 200;
    record.model = Some("llama".to_owned());
    record.known_model = true;
    record.route = Some(Arc::from("default/chat"));
    record.server = Some(Arc::from("default/pool"));
    record.first_endpoint = Some(Arc::from("10.0.0.1:8000"));
    record.endpoint = Some(Arc::from("10.0.0.2:8000"));
    record.upstream_model = Some("meta/llama".to_owned());
    record.upstream_status = Some(200);
    record.attempts = 2;
    record.input_tokens = Some(12);
    record.output_tokens = Some(34);
    record.cached_tokens = Some(8);
    record.stream = true;
    record.request_bytes = 321;
    record.response_bytes = 6543;
    record.ttft = Some(Duration::from_micros(45_678));
    record.total = Duration::from_millis(2350);
    record.request_processing = Some(Duration::from_millis(45));
    record.upstream_processing = Some(Duration::from_millis(2300));
    record.response_processing = Some(Duration::from_millis(5));
    record.gaps = GapSummary {
        count: 2,
        sum: Duration::from_millis(30),
        max: Duration::from_millis(20),
    };
    record.trace_id = Some("0af7651916cd43dd8448eb211c80319c".to_owned());
    record.client = Some([127, 0, 0, 1].into());
    record
}

/// Refused before a route was found.
fn refused() -> RequestRecord {
    let path = "/v1/completions".to_owned();
    let started = SystemTime::UNIX_EPOCH;
    let mut record = RequestRecord::new(
        started,
        http::Method::POST,
        path,
        http::Version::HTTP_2,
        "req-2".to_owned(),
    );
    record.status = 404;
    record.error = Some(RecordError::new(
        "model_not_found",
        "no route serves this model",
    ));
    record.error_origin = Some("client");
    record.model = Some("gpt-0".to_owned());
    record
}

fn written(format: AccessLogFormat, record: &RequestRecord) -> String {
    let mut out = Vec::new();
    line(format, record, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn a_served_request_is_this_json_line() {
    let expected = concat!(
        r#"{"timestamp":"2024-01-15T10:30:45.123Z","method":"POST","path":"/v1/chat/completions","#,
        r#""protocol":"HTTP/1.1","status_code":200,"model_name":"llama","model_route":"default/chat","#,
        r#""model_server":"default/pool","selected_pod":"10.0.0.2:8000","request_id":"req-1","#,
        r#""backend_type":"model_server","backend_name":"default/pool","upstream_model":"meta/llama","#,
        r#""upstream_status_code":200,"upstream_attempts":2,"input_tokens":12,"output_tokens":34,"#,
        r#""duration_total":2350,"duration_request_processing":45,"duration_upstream_processing":2300,"#,
        r#""duration_response_processing":5,"attempts":2,"endpoint":"10.0.0.2:8000","#,
        r#""first_endpoint":"10.0.0.1:8000","ttft_ms":45.678,"inter_token_mean_ms":15.0,"#,
        r#""inter_token_max_ms":20.0,"cached_tokens":8,"tokens_estimated":false,"stream":true,"#,
        r#""client_gone":false,"request_bytes":321,"response_bytes":6543,"#,
        r#""trace_id":"0af7651916cd43dd8448eb211c80319c","client":"127.0.0.1"}"#,
        "\n"
    );
    assert_eq!(written(AccessLogFormat::Json, &served()), expected);
}

#[test]
fn a_refused_request_is_this_json_line() {
    let expected = concat!(
        r#"{"timestamp":"1970-01-01T00:00:00.000Z","method":"POST","path":"/v1/completions","#,
        r#""protocol":"HTTP/2.0","status_code":404,"#,
        r#""error":{"type":"model_not_found","message":"no route serves this model"},"error_origin":"client","#,
        r#""model_name":"gpt-0","request_id":"req-2","backend_type":"none","upstream_attempts":0,"#,
        r#""duration_total":0,"duration_request_processing":0,"duration_upstream_processing":0,"#,
        r#""duration_response_processing":0,"attempts":0,"tokens_estimated":false,"stream":false,"#,
        r#""client_gone":false,"request_bytes":0,"response_bytes":0}"#,
        "\n"
    );
    assert_eq!(written(AccessLogFormat::Json, &refused()), expected);
}

#[test]
fn a_served_request_is_this_text_line() {
    let expected = concat!(
        r#"[2024-01-15T10:30:45.123Z] "POST /v1/chat/completions HTTP/1.1" 200 model_name=llama "#,
        "model_route=default/chat model_server=default/pool selected_pod=10.0.0.2:8000 request_id=req-1 ",
        "backend_type=model_server backend_name=default/pool upstream_model=meta/llama ",
        "upstream_status_code=200 upstream_attempts=2 tokens=12/34 timings=2350ms(45+2300+5) ",
        "ttft=45.678ms cached_tokens=8 stream=true client_gone=false bytes=321/6543 ",
        "trace_id=0af7651916cd43dd8448eb211c80319c\n"
    );
    assert_eq!(written(AccessLogFormat::Text, &served()), expected);
}

#[test]
fn a_refused_request_is_this_text_line() {
    let expected = concat!(
        r#"[1970-01-01T00:00:00.000Z] "POST /v1/completions HTTP/2.0" 404 "#,
        r#"error="model_not_found:no route serves this model" error_origin=client model_name=gpt-0 "#,
        "request_id=req-2 backend_type=none upstream_attempts=0 tokens=-/- timings=0ms(0+0+0) ",
        "cached_tokens=- stream=false client_gone=false bytes=0/0\n"
    );
    assert_eq!(written(AccessLogFormat::Text, &refused()), expected);
}

/// Each tries to end the line, its quotes, or its field.
const FORGERIES: [&str; 6] = [
    "x\n[2024-01-15T10:30:45.123Z] \"GET / HTTP/1.1\" 200",
    "x\" 200 model_name=forged",
    "x\\\" selected_pod=forged",
    "x tokens=0/0",
    "x\r\u{85}\u{2028}\u{1b}[2J\u{202e}",
    "",
];

#[test]
fn no_path_or_model_forges_a_json_line_or_field() {
    for forgery in FORGERIES {
        let mut record = served();
        record.path = forgery.to_owned();
        record.model = Some(forgery.to_owned());
        record.request_id = forgery.to_owned();
        let line = written(AccessLogFormat::Json, &record);
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        for field in ["path", "model_name", "request_id"] {
            assert_eq!(value[field], forgery);
        }
        assert_eq!(value["selected_pod"], "10.0.0.2:8000");
    }
}

#[test]
fn no_path_or_model_forges_a_text_line_or_field() {
    for forgery in FORGERIES {
        let mut record = served();
        record.path = forgery.to_owned();
        record.model = Some(forgery.to_owned());
        record.request_id = forgery.to_owned();
        record.error = Some(RecordError::new("kind", forgery));
        let line = written(AccessLogFormat::Text, &record);
        let body = line.strip_suffix('\n').unwrap();
        assert!(
            !body
                .chars()
                .any(|c| c.is_control() || "\u{2028}\u{202e}".contains(c)),
            "{line}"
        );
        let outside = outside_quotes(body);
        assert!(
            !outside.contains("forged") && outside.matches("tokens=").count() == 2,
            "{line}"
        );
        assert_eq!(outside.matches("selected_pod=").count(), 1, "{line}");
        assert_eq!(outside.matches("model_name=").count(), 1, "{line}");
        let request = body.split('"').nth(1).unwrap();
        assert!(
            request.contains('\\') || request.matches(' ').count() == 2,
            "{line}"
        );
    }
}

/// What a reader that knows quotes and backslashes takes for names and bare values.
fn outside_quotes(line: &str) -> String {
    let (mut quoted, mut escaped, mut outside) = (false, false, String::new());
    for character in line.chars() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if !quoted => outside.push(character),
            _ => {}
        }
    }
    assert!(!quoted, "quotes do not close: {line}");
    outside
}

#[test]
fn a_user_is_told_and_forges_nothing() {
    let mut record = served();
    record.user = Some("anna\n\"admin\" status=200".to_owned());
    let json = written(AccessLogFormat::Json, &record);
    assert!(
        json.contains(r#""user_id":"anna\n\"admin\" status=200"}"#),
        "{json}"
    );
    let text = written(AccessLogFormat::Text, &record);
    assert!(
        text.ends_with(" user_id=\"anna\\n\\\"admin\\\" status=200\"\n"),
        "{text}"
    );
    assert_eq!(text.lines().count(), 1);
}

#[test]
fn dates_follow_the_gregorian_calendar() {
    let at = |seconds| rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    for (seconds, expected) in [
        (951_782_399, "2000-02-28T23:59:59.000Z"),
        (951_782_400, "2000-02-29T00:00:00.000Z"),
        (1_709_164_800, "2024-02-29T00:00:00.000Z"),
        (1_735_689_599, "2024-12-31T23:59:59.000Z"),
        (4_107_542_400, "2100-03-01T00:00:00.000Z"),
    ] {
        assert_eq!(at(seconds), expected);
    }
    assert_eq!(
        rfc3339(SystemTime::UNIX_EPOCH - Duration::from_secs(1)),
        "1970-01-01T00:00:00.000Z"
    );
}
