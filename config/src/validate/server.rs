//! Rules of a ModelServer.

use std::collections::{BTreeMap, HashSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use kube::core::Duration;
use sluice_crds::networking::{
    EngineSpeed, ModelServerSpec, StaticEndpoint, TrafficPolicy, WorkloadPort, WorkloadSelector,
};

use super::{Checker, Origin, names};
use crate::path::Place;
use crate::problem::Topic;
use crate::scheduling;

const MAX_MODEL_CHARS: usize = 256;

impl Checker<'_> {
    pub(super) fn server(&mut self, spec: &ModelServerSpec, at: Place<'_>) {
        self.model(spec.model.as_deref(), at.key("model"));
        match &spec.workload_selector {
            Some(selector) => {
                let place = at.key("workloadSelector");
                self.selector(selector, place);
                if spec.endpoints.is_empty() && self.origin == Origin::File {
                    let remedy = "without Kubernetes no pods are found: list `endpoints`";
                    self.warn_about(
                        Topic::FilesOnly,
                        place,
                        "the ModelServer has no endpoints: accepted but not acted on",
                        remedy,
                    );
                }
            }
            None if spec.endpoints.is_empty() => {
                let remedy = "list `endpoints`, or write a `workloadSelector`";
                self.error(
                    at,
                    "the ModelServer has neither `endpoints` nor a `workloadSelector`",
                    remedy,
                );
            }
            None => {}
        }
        match &spec.workload_port {
            Some(port) => self.port(port, at.key("workloadPort")),
            None if spec.endpoints.is_empty() && spec.workload_selector.is_some() => {
                let remedy = "add `workloadPort: {port: 8000}`";
                self.error(
                    at.key("workloadPort"),
                    "required field `workloadPort` is missing",
                    remedy,
                );
            }
            None => {}
        }
        if let Some(policy) = &spec.traffic_policy {
            self.policy(policy, at.key("trafficPolicy"));
        }
        if spec.kv_connector.is_some() {
            let remedy = "requests are not split into prefill and decode";
            self.warn(
                at.key("kvConnector"),
                "accepted but not acted on: KV connectors",
                remedy,
            );
        }
        self.endpoints(&spec.endpoints, at.key("endpoints"));
        self.knowledge(spec, at);
    }

    /// What the gateway is told of the engines themselves.
    fn knowledge(&mut self, spec: &ModelServerSpec, at: Place<'_>) {
        if let Some(scheduling) = &spec.scheduling {
            let (_, findings) = scheduling::check(scheduling, at.key("scheduling"));
            self.findings.extend(findings);
        }
        if let Some(tokenizer) = &spec.tokenizer
            && tokenizer.path.trim().is_empty()
        {
            let remedy = "name the folder that holds `tokenizer.json`, or remove `tokenizer`";
            self.error(at.key("tokenizer").key("path"), "the path is empty", remedy);
        }
        if let Some(events) = &spec.kv_events {
            let at = at.key("kvEvents");
            self.port_number(events.port, at.key("port"));
            self.port_number(events.replay_port, at.key("replayPort"));
            if !(1..=256).contains(&events.ranks) {
                let message = format!("{} data-parallel ranks", events.ranks);
                self.error(at.key("ranks"), message, "write a number from 1 to 256");
            }
            if events.port.is_none() && events.replay_port.is_some() {
                let remedy = "write `port` too, or leave both to be asked of the engine";
                self.error(
                    at.key("replayPort"),
                    "there is a `replayPort` and no `port`",
                    remedy,
                );
            }
        }
        if let Some(metrics) = &spec.engine_metrics {
            let at = at.key("engineMetrics");
            self.port_number(metrics.port, at.key("port"));
            if !metrics.path.starts_with('/') {
                let message = format!("the path `{}` does not begin with `/`", metrics.path);
                self.error(at.key("path"), message, "write a path such as `/metrics`");
            }
        }
        if let Some(speed) = &spec.engine_speed {
            self.speed(speed, at.key("engineSpeed"));
        }
    }

    fn speed(&mut self, speed: &EngineSpeed, at: Place<'_>) {
        let numbers = [
            ("stepMilliseconds", speed.step_milliseconds),
            ("prefillTokensPerSecond", speed.prefill_tokens_per_second),
            (
                "contextMicrosecondsPerThousand",
                speed.context_microseconds_per_thousand,
            ),
            ("batchTokens", speed.batch_tokens.map(|n| n as f64)),
            ("kvTokens", speed.kv_tokens.map(|n| n as f64)),
        ];
        for (key, number) in numbers {
            if number.is_some_and(|number| !number.is_finite() || number <= 0.0) {
                self.error(
                    at.key(key),
                    "the number is not above zero",
                    "write what the engine does, or remove the field: it is learned",
                );
            }
        }
    }

    fn port_number(&mut self, port: Option<i32>, at: Place<'_>) {
        if let Some(port) = port
            && !(1..=65535).contains(&port)
        {
            let message = format!("the port {port} is out of range");
            self.error(at, message, "write a port from 1 to 65535");
        }
    }

    pub(super) fn model(&mut self, model: Option<&str>, at: Place<'_>) {
        match model {
            Some("") => self.error(
                at,
                "the model's name is empty",
                "write it, or remove the field",
            ),
            Some(model) if model.chars().count() > MAX_MODEL_CHARS => {
                let message =
                    format!("the model's name has more than {MAX_MODEL_CHARS} characters");
                self.error(at, message, "shorten it");
            }
            _ => {}
        }
    }

    fn selector(&mut self, selector: &WorkloadSelector, at: Place<'_>) {
        self.required_labels(&selector.match_labels, at.key("matchLabels"));
        let Some(group) = &selector.pd_group else {
            return;
        };
        let at = at.key("pdGroup");
        if !names::is_label_key(&group.group_key) {
            let message = format!("`{}` is not a label key", group.group_key);
            self.error(
                at.key("groupKey"),
                message,
                "name the label whose value ties the pods together",
            );
        }
        self.required_labels(&group.prefill_labels, at.key("prefillLabels"));
        self.required_labels(&group.decode_labels, at.key("decodeLabels"));
        if self.origin == Origin::File {
            let remedy = "requests are not split into prefill and decode";
            self.warn_about(
                Topic::FilesOnly,
                at,
                "accepted but not acted on: prefill/decode groups",
                remedy,
            );
        }
    }

    fn required_labels(&mut self, labels: &BTreeMap<String, String>, at: Place<'_>) {
        if labels.is_empty() {
            self.error(at, "no label is given", "write at least one `key: value`");
        }
        self.labels(labels, at);
    }

    fn labels(&mut self, labels: &BTreeMap<String, String>, at: Place<'_>) {
        let remedy =
            "use up to 63 letters, digits, `-`, `_` and `.`, with a letter or digit at both ends";
        for (key, value) in labels {
            if !names::is_label_key(key) {
                self.error(at.key(key), format!("`{key}` is not a label key"), remedy);
            }
            if !names::is_label_value(value) {
                self.error(
                    at.key(key),
                    format!("`{value}` is not a label value"),
                    remedy,
                );
            }
        }
    }

    fn port(&mut self, port: &WorkloadPort, at: Place<'_>) {
        self.port_number(Some(port.port), at.key("port"));
    }

    fn policy(&mut self, policy: &TrafficPolicy, at: Place<'_>) {
        let times = [
            ("timeout", &policy.timeout),
            ("streamIdleTimeout", &policy.stream_idle_timeout),
            ("totalTimeout", &policy.total_timeout),
        ];
        for (key, _) in times
            .iter()
            .filter(|(_, time)| time.as_ref().is_some_and(is_not_positive))
        {
            self.error(
                at.key(key),
                "the time is not above zero",
                "write a time such as `30s`, or remove it",
            );
        }
        let Some(retry) = &policy.retry else { return };
        let at = at.key("retry");
        if retry.attempts < 0 {
            self.error(
                at.key("attempts"),
                "the number is negative",
                "write 0 for no retry",
            );
        }
        if retry.retry_interval.is_negative() {
            self.error(
                at.key("retryInterval"),
                "the time is negative",
                "write 0s for no pause",
            );
        }
    }

    fn endpoints(&mut self, endpoints: &[StaticEndpoint], at: Place<'_>) {
        let mut seen = HashSet::new();
        for (index, endpoint) in endpoints.iter().enumerate() {
            let item = at.index(index);
            let address = &endpoint.address;
            if let Err(reason) = split_address(address) {
                let remedy =
                    "write host:port such as `10.0.0.1:8000`, `engine.local:8000` or `[::1]:8000`";
                self.error(item.key("address"), format!("{address:?} {reason}"), remedy);
            } else if !seen.insert(address.as_str()) {
                let message = format!("the endpoint {address} is listed twice in this ModelServer");
                self.error(item.key("address"), message, "remove one of the two");
            }
            if !endpoint.labels.is_empty() {
                self.labels(&endpoint.labels, item.key("labels"));
            }
        }
    }
}

fn is_not_positive(time: &Duration) -> bool {
    time.is_negative() || std::time::Duration::from(*time).is_zero()
}

/// Host (without brackets) and port of `host:port`; the error says what is wrong with it.
pub(crate) fn split_address(address: &str) -> Result<(&str, u16), &'static str> {
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once("]:").ok_or("has no `]:port` at its end")?;
            host.parse::<Ipv6Addr>()
                .map_err(|_| "has no IPv6 address in its brackets")?;
            (host, port)
        }
        None => {
            let (host, port) = address.rsplit_once(':').ok_or("has no port")?;
            if host.contains(':') {
                return Err(match host.contains("//") {
                    true => "is a URL, not an address",
                    false => "needs brackets around its IPv6 address",
                });
            }
            if host.contains('/') || port.contains('/') {
                return Err("is a URL, not an address");
            }
            let all_numeric = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
            let good = if all_numeric {
                host.parse::<Ipv4Addr>().is_ok()
            } else {
                is_host_name(host)
            };
            if !good {
                return Err("has no valid host");
            }
            (host, port)
        }
    };
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    match port.parse::<u16>() {
        Ok(port) if digits && port > 0 => Ok((host, port)),
        _ => Err("has no port from 1 to 65535"),
    }
}

/// DNS as resolvers take it: also upper case, underscores and a final dot.
fn is_host_name(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let byte = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let label = |l: &str| (1..=63).contains(&l.len()) && l.bytes().all(byte) && !l.starts_with('-');
    host.len() <= 253 && host.split('.').all(label)
}
