//! A record as one line: JSON with Kthena's field names and a few of ours, or Kthena's text layout.
//!
//! Clients choose the path, the model and the request id: nothing in them may end a line or start a field.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use sluice_config::bootstrap::AccessLogFormat;

use crate::telemetry::record::RequestRecord;

/// Appends one line.
pub(super) fn line(format: AccessLogFormat, record: &RequestRecord, out: &mut Vec<u8>) {
    match format {
        AccessLogFormat::Json => {
            serde_json::to_writer(&mut *out, &JsonLine::new(record))
                .expect("a struct of strings and numbers written to memory serialises");
        }
        AccessLogFormat::Text => out.extend_from_slice(text(record).as_bytes()),
    }
    out.push(b'\n');
}

/// First Kthena's fields in Kthena's order (its `gateway`, `http_route` and `inference_pool` have no meaning here),
/// then ours. Kthena's durations are whole milliseconds; ours have a fraction.
#[derive(Serialize)]
struct JsonLine<'a> {
    timestamp: String,
    method: &'a str,
    path: &'a str,
    protocol: &'static str,
    status_code: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<JsonError<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_origin: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_server: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    selected_pod: Option<&'a str>,
    request_id: &'a str,
    backend_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_status_code: Option<u16>,
    upstream_attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    input_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_tokens: Option<u64>,
    duration_total: u64,
    duration_request_processing: u64,
    duration_upstream_processing: u64,
    duration_response_processing: u64,
    attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_endpoint: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttft_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inter_token_mean_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inter_token_max_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cached_tokens: Option<u64>,
    tokens_estimated: bool,
    stream: bool,
    client_gone: bool,
    request_bytes: u64,
    response_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
}

#[derive(Serialize)]
struct JsonError<'a> {
    r#type: &'static str,
    message: &'a str,
}

impl<'a> JsonLine<'a> {
    fn new(record: &'a RequestRecord) -> Self {
        let gaps = record.gaps;
        Self {
            timestamp: rfc3339(record.started),
            method: record.method.as_str(),
            path: &record.path,
            protocol: protocol(record.protocol),
            status_code: record.status,
            error: record.error.as_ref().map(|error| JsonError {
                r#type: error.kind,
                message: &error.message,
            }),
            error_origin: record.error_origin,
            model_name: record.model.as_deref(),
            model_route: record.route.as_deref(),
            model_server: record.server.as_deref(),
            selected_pod: record.endpoint.as_deref(),
            request_id: &record.request_id,
            backend_type: backend_type(record),
            backend_name: record.server.as_deref(),
            upstream_model: record.upstream_model.as_deref(),
            upstream_status_code: record.upstream_status,
            upstream_attempts: record.attempts,
            input_tokens: record.input_tokens,
            output_tokens: record.output_tokens,
            duration_total: whole_millis(Some(record.total)),
            duration_request_processing: whole_millis(record.request_processing),
            duration_upstream_processing: whole_millis(record.upstream_processing),
            duration_response_processing: whole_millis(record.response_processing),
            attempts: record.attempts,
            endpoint: record.endpoint.as_deref(),
            first_endpoint: record.first_endpoint.as_deref(),
            ttft_ms: record.ttft.map(millis),
            inter_token_mean_ms: gaps.mean().map(millis),
            inter_token_max_ms: (gaps.count > 0).then(|| millis(gaps.max)),
            cached_tokens: record.cached_tokens,
            tokens_estimated: record.tokens_estimated,
            stream: record.stream,
            client_gone: record.client_gone,
            request_bytes: record.request_bytes,
            response_bytes: record.response_bytes,
            trace_id: record.trace_id.as_deref(),
            client: record.client.map(|address| address.to_string()),
            user_id: record.user.as_deref(),
        }
    }
}

/// `[time] "METHOD PATH PROTO" status error=.. model_name=.. .. tokens=in/out timings=TOTALms(req+upstream+resp) ..`
fn text(record: &RequestRecord) -> String {
    let mut line = format!("[{}] \"{} ", rfc3339(record.started), record.method);
    escape(&mut line, &record.path, |character| {
        character.is_ascii_graphic()
    });
    line.push_str(&format!(
        " {}\" {}",
        protocol(record.protocol),
        record.status
    ));
    if let Some(error) = &record.error {
        field(
            &mut line,
            "error",
            &format!("{}:{}", error.kind, error.message),
        );
    }
    let fields = [
        ("error_origin", record.error_origin),
        ("model_name", record.model.as_deref()),
        ("model_route", record.route.as_deref()),
        ("model_server", record.server.as_deref()),
        ("selected_pod", record.endpoint.as_deref()),
        ("request_id", Some(record.request_id.as_str())),
        ("backend_type", Some(backend_type(record))),
        ("backend_name", record.server.as_deref()),
        ("upstream_model", record.upstream_model.as_deref()),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            field(&mut line, name, value);
        }
    }
    if let Some(status) = record.upstream_status {
        field(&mut line, "upstream_status_code", &status.to_string());
    }
    field(&mut line, "upstream_attempts", &record.attempts.to_string());
    numbers(&mut line, record);
    line
}

/// The part of a text line that no client can choose.
fn numbers(line: &mut String, record: &RequestRecord) {
    let count =
        |tokens: Option<u64>| tokens.map_or_else(|| "-".to_owned(), |tokens| tokens.to_string());
    let _ = write!(
        line,
        " tokens={}/{} timings={}ms({}+{}+{})",
        count(record.input_tokens),
        count(record.output_tokens),
        whole_millis(Some(record.total)),
        whole_millis(record.request_processing),
        whole_millis(record.upstream_processing),
        whole_millis(record.response_processing),
    );
    if let Some(ttft) = record.ttft {
        let _ = write!(line, " ttft={}ms", millis(ttft));
    }
    let _ = write!(
        line,
        " cached_tokens={} stream={} client_gone={} bytes={}/{}",
        count(record.cached_tokens),
        record.stream,
        record.client_gone,
        record.request_bytes,
        record.response_bytes
    );
    if let Some(trace_id) = &record.trace_id {
        field(line, "trace_id", trace_id);
    }
    if let Some(user) = &record.user {
        field(line, "user_id", user);
    }
}

/// ` name=value`, the value quoted unless it is plainly one word.
fn field(line: &mut String, name: &str, value: &str) {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:/@+,*~%".contains(c);
    line.push(' ');
    line.push_str(name);
    line.push('=');
    if !value.is_empty() && value.chars().all(plain) {
        line.push_str(value);
        return;
    }
    line.push('"');
    escape(line, value, |c| {
        c == ' ' || c.is_ascii_graphic() || c.is_alphanumeric()
    });
    line.push('"');
}

/// Backslash forms for quotes, backslashes and whatever is not `allowed`: control and invisible characters could end
/// the line or repaint a terminal.
fn escape(line: &mut String, value: &str, allowed: impl Fn(char) -> bool) {
    for character in value.chars() {
        match character {
            '"' | '\\' => line.extend(['\\', character]),
            _ if allowed(character) => line.push(character),
            '\n' | '\r' | '\t' => line.extend(character.escape_default()),
            _ => line.extend(character.escape_unicode()),
        }
    }
}

fn backend_type(record: &RequestRecord) -> &'static str {
    if record.server.is_some() {
        "model_server"
    } else {
        "none"
    }
}

fn protocol(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_09 => "HTTP/0.9",
        http::Version::HTTP_10 => "HTTP/1.0",
        http::Version::HTTP_2 => "HTTP/2.0",
        http::Version::HTTP_3 => "HTTP/3.0",
        _ => "HTTP/1.1",
    }
}

fn whole_millis(duration: Option<Duration>) -> u64 {
    u64::try_from(duration.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds with microseconds as fraction.
fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}

/// UTC with milliseconds. Times before 1970 show as 1970.
fn rfc3339(time: SystemTime) -> String {
    let since_epoch = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let (days, seconds) = (
        since_epoch.as_secs() / 86_400,
        since_epoch.as_secs() % 86_400,
    );
    let (year, month, day) = civil_from_days(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        since_epoch.subsec_millis()
    )
}

/// Gregorian date of a day since 1970-01-01, counted in 400-year eras of years that begin in March, so that the leap
/// day comes last (the usual `civil_from_days`).
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let since_march_of_year_0 = days + 719_468;
    let era = since_march_of_year_0 / 146_097;
    let day_of_era = since_march_of_year_0 % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests;
