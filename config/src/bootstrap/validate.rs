//! Rules of the bootstrap file that its schema cannot say.

use std::collections::HashMap;
use std::net::SocketAddr;

use kube::core::Duration;

use super::{Bootstrap, FilterConfig};
use crate::filters::FilterCheck;
use crate::path::{FieldPath, Place};
use crate::problem::{Finding, did_you_mean};

/// Header fields that the HTTP/1 parser can hold.
const MAX_HEADER_COUNT: usize = 256;
/// Request head that the HTTP/1 parser can hold, in bytes.
const MAX_HEADER_BYTES: usize = 1 << 20;
/// Below this no browser or SDK gets through, in bytes.
const MIN_HEADER_BYTES: usize = 1 << 10;
const MAX_THREADS: usize = 1024;

struct Checker {
    findings: Vec<Finding>,
}

/// Everything wrong with `bootstrap`.
pub(super) fn validate(bootstrap: &Bootstrap, filters: &dyn FilterCheck) -> Vec<Finding> {
    let mut checker = Checker {
        findings: Vec::new(),
    };
    checker.addresses(bootstrap);
    checker.sizes(bootstrap);
    checker.times(bootstrap);
    checker.files(bootstrap);
    if let Some(push) = &bootstrap.source.push {
        let push = super::push::validate(push, &FieldPath::of("source.push"));
        checker.findings.extend(push);
    }
    checker.filters(&bootstrap.filters, filters);
    if let Some(scheduling) = &bootstrap.scheduling {
        let path = FieldPath::of("scheduling");
        let (_, findings) = crate::scheduling::check(scheduling, Place::Path(&path));
        checker.findings.extend(findings);
    }
    if let Some(jwt) = &bootstrap.auth.jwt {
        let path = FieldPath::of("auth.jwt");
        let (_, findings) = crate::auth::check(jwt, Place::Path(&path));
        checker.findings.extend(findings);
    }
    checker.findings
}

impl Checker {
    fn error(&mut self, path: &str, message: impl Into<String>, remedy: impl Into<String>) {
        self.findings
            .push(Finding::error(FieldPath::of(path), message, remedy));
    }

    fn warn(&mut self, path: &str, message: impl Into<String>, remedy: impl Into<String>) {
        self.findings
            .push(Finding::warning(FieldPath::of(path), message, remedy));
    }

    fn range(&mut self, path: &str, value: usize, low: usize, high: usize) {
        if !(low..=high).contains(&value) {
            let message = format!("{value} is out of range");
            let remedy = match high {
                usize::MAX => format!("write {low} or more"),
                _ => format!("write a number from {low} to {high}"),
            };
            self.error(path, message, remedy);
        }
    }

    fn addresses(&mut self, bootstrap: &Bootstrap) {
        let listeners = FieldPath::of("listeners");
        if bootstrap.listeners.is_empty() {
            self.error(
                "listeners",
                "there is no listener",
                "add `- address: 0.0.0.0:8080`",
            );
        }
        let mut all: Vec<(FieldPath, SocketAddr)> = Vec::new();
        for (index, listener) in bootstrap.listeners.iter().enumerate() {
            all.push((listeners.index(index).key("address"), listener.address));
        }
        all.push((FieldPath::of("admin.address"), bootstrap.admin.address));
        all.push((FieldPath::of("metrics.address"), bootstrap.metrics.address));
        let mut seen: HashMap<SocketAddr, FieldPath> = HashMap::new();
        for (path, address) in all {
            // Port 0 asks the system for a free one.
            if address.port() == 0 {
                continue;
            }
            if let Some(first) = seen.get(&address) {
                let message = format!("{address} is taken by `{first}`");
                self.findings
                    .push(Finding::error(path, message, "choose another port"));
            } else {
                seen.insert(address, path);
            }
        }
        if !bootstrap.admin.address.ip().is_loopback() {
            let remedy = "use 127.0.0.1 unless the network keeps others away";
            self.warn(
                "admin.address",
                "debug endpoints are reachable from outside this host",
                remedy,
            );
        }
    }

    fn sizes(&mut self, bootstrap: &Bootstrap) {
        let limits = &bootstrap.limits;
        self.range("limits.bodyBytes", limits.body_bytes, 1, usize::MAX);
        self.range(
            "limits.headerBytes",
            limits.header_bytes,
            MIN_HEADER_BYTES,
            MAX_HEADER_BYTES,
        );
        self.range(
            "limits.headerCount",
            limits.header_count,
            1,
            MAX_HEADER_COUNT,
        );
        if limits.body_budget_bytes < limits.body_bytes {
            let message = format!(
                "the budget of {} bytes is below `limits.bodyBytes` of {}",
                limits.body_budget_bytes, limits.body_bytes
            );
            let remedy = "raise it: no body of the allowed size would be taken";
            self.error("limits.bodyBudgetBytes", message, remedy);
        }
        if let Some(threads) = bootstrap.threads {
            self.range("threads", threads, 1, MAX_THREADS);
        }
        self.range(
            "retry.budgetPercent",
            bootstrap.retry.budget_percent as usize,
            0,
            100,
        );
        self.range("accessLog.queue", bootstrap.access_log.queue, 1, 1 << 24);
        self.range("limits.indexBytes", limits.index_bytes, 1 << 20, usize::MAX);
        let tokenizers = &bootstrap.tokenizers;
        self.range("tokenizers.threads", tokenizers.threads, 1, MAX_THREADS);
        self.range(
            "tokenizers.memoBytes",
            tokenizers.memo_bytes,
            1 << 20,
            usize::MAX,
        );
    }

    fn times(&mut self, bootstrap: &Bootstrap) {
        let timeouts = &bootstrap.timeouts;
        let positive = [
            ("timeouts.clientIdle", timeouts.client_idle),
            ("timeouts.clientRead", timeouts.client_read),
            ("timeouts.clientWrite", timeouts.client_write),
            ("timeouts.connect", timeouts.connect),
            ("timeouts.firstByte", timeouts.first_byte),
            ("timeouts.streamIdle", timeouts.stream_idle),
            ("timeouts.total", timeouts.total),
            ("retry.budgetWindow", bootstrap.retry.budget_window),
            ("upstream.idleTimeout", bootstrap.upstream.idle_timeout),
            ("tokenizers.deadline", bootstrap.tokenizers.deadline),
            ("cache.maxAge", bootstrap.cache.max_age),
        ];
        for (path, time) in positive {
            if time.is_negative() || std::time::Duration::from(time).is_zero() {
                self.error(
                    path,
                    "the time is not above zero",
                    "write a time such as `30s`",
                );
            }
        }
        let shorter = |a: Duration, b: Duration| a < b;
        if shorter(timeouts.total, timeouts.first_byte) {
            let remedy = "raise `timeouts.total`, or lower this";
            self.warn(
                "timeouts.firstByte",
                "it is longer than `timeouts.total` and never runs out",
                remedy,
            );
        }
    }

    fn files(&mut self, bootstrap: &Bootstrap) {
        let listeners = FieldPath::of("listeners");
        for (index, listener) in bootstrap.listeners.iter().enumerate() {
            let Some(tls) = &listener.tls else { continue };
            for (key, file) in [("certFile", &tls.cert_file), ("keyFile", &tls.key_file)] {
                if file.as_os_str().is_empty() {
                    let path = listeners.index(index).key("tls").key(key);
                    self.findings.push(Finding::error(
                        path,
                        "the path is empty",
                        "name a PEM file",
                    ));
                }
            }
        }
        if bootstrap.access_log.output.is_empty() {
            self.error(
                "accessLog.output",
                "the output is empty",
                "write stdout, stderr or a file's path",
            );
        }
        let paths = [
            ("source.routes", &bootstrap.source.routes),
            (
                "source.routerConfiguration",
                &bootstrap.source.router_configuration,
            ),
            ("upstream.caFile", &bootstrap.upstream.ca_file),
            ("cache.file", &bootstrap.cache.file),
        ];
        for (path, file) in paths {
            if file
                .as_ref()
                .is_some_and(|file| file.as_os_str().is_empty())
            {
                self.error(
                    path,
                    "the path is empty",
                    "name a file, or remove the field",
                );
            }
        }
        if bootstrap.upstream.insecure_skip_verify {
            let remedy = "set `upstream.caFile` and remove this";
            self.warn(
                "upstream.insecureSkipVerify",
                "engines' certificates are not checked",
                remedy,
            );
        }
    }

    fn filters(&mut self, filters: &[FilterConfig], check: &dyn FilterCheck) {
        let list = FieldPath::of("filters");
        let list = Place::Path(&list);
        let mut seen: HashMap<&str, usize> = HashMap::new();
        for (index, filter) in filters.iter().enumerate() {
            let at = list.index(index);
            if filter.name.is_empty() {
                self.findings.push(Finding::error(
                    at.key("name"),
                    "the name is empty",
                    "name the filter",
                ));
            } else if let Some(first) = seen.get(filter.name.as_str()) {
                let message = format!("`filters[{first}]` is called `{}` too", filter.name);
                self.findings.push(Finding::error(
                    at.key("name"),
                    message,
                    "give each filter a name of its own",
                ));
            } else {
                seen.insert(&filter.name, index);
            }
            if let Some(finding) = check_filter(filter, at, check) {
                self.findings.push(finding);
            }
        }
    }
}

fn check_filter(filter: &FilterConfig, at: Place<'_>, check: &dyn FilterCheck) -> Option<Finding> {
    let kind = filter.kind.as_str();
    if let Some(kinds) = check.kinds()
        && !kinds.contains(&kind)
    {
        let remedy = did_you_mean(kind, kinds.iter().copied());
        return Some(Finding::error(
            at.key("type"),
            format!("there is no filter type `{kind}`"),
            remedy,
        ));
    }
    if filter.disabled && filter.config.is_null() {
        // Waits for a route's `config`.
        return None;
    }
    let reason = check.check(kind, &filter.config).err()?;
    let message = format!("wrong configuration for a filter of type {kind}: {reason}");
    Some(Finding::error(
        at.key("config"),
        message,
        "mend the configuration",
    ))
}
