//! Families labelled by model, path and destination, and the handles resolved from them.

use std::sync::{Arc, OnceLock};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::{Registry, Unit};

use super::super::buckets;
use super::super::family::Family;
use super::super::histogram::Histogram;
use super::super::labels::Name;
use super::labels::{DurationLabels, RequestLabels, TokenLabels};
use super::words;
use crate::telemetry::record::RequestRecord;

#[derive(Debug, Clone)]
pub(super) struct Families {
    requests: Family<RequestLabels, Counter>,
    duration: Family<DurationLabels, Histogram>,
    tokens: Family<TokenLabels, Counter>,
}

/// Resolved metrics of one (model, path, route, backend, upstream model). Each is made when it is first needed, so that
/// no series shows of what never happened.
#[derive(Debug)]
pub(super) struct DestinationMetrics {
    families: Families,
    model: Name,
    path: &'static str,
    route: Name,
    server: Name,
    upstream_model: Name,
    /// The common outcome: status 200, no error.
    succeeded: OnceLock<(Counter, Histogram)>,
    input: OnceLock<Counter>,
    output: OnceLock<Counter>,
}

impl Families {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let families = Self {
            requests: Family::default(),
            duration: Family::new(|| Histogram::new(&buckets::KTHENA_REQUEST)),
            tokens: Family::default(),
        };
        registry.register("requests", "Finished requests", families.requests.clone());
        registry.register_with_unit(
            "request_duration",
            "From the request head to the end of the answer",
            Unit::Seconds,
            families.duration.clone(),
        );
        registry.register("tokens", "Tokens", families.tokens.clone());
        families
    }

    pub(super) fn retain(&self, keep: impl Fn(&Name, &Name, &Name, &Name) -> bool) {
        self.requests
            .retain(|l| keep(&l.model, &l.model_route, &l.backend_name, &l.upstream_model));
        self.duration
            .retain(|l| keep(&l.model, &l.model_route, &l.backend_name, &l.upstream_model));
        self.tokens
            .retain(|l| keep(&l.model, &l.model_route, &l.backend_name, &l.upstream_model));
    }
}

impl DestinationMetrics {
    pub(super) fn new(
        families: &Families,
        model: &str,
        path: &'static str,
        route: &str,
        server: &str,
        upstream_model: &str,
    ) -> Self {
        let name = |text: &str| Name(Arc::from(text));
        Self {
            families: families.clone(),
            model: name(model),
            path,
            route: name(route),
            server: name(server),
            upstream_model: name(upstream_model),
            succeeded: OnceLock::new(),
            input: OnceLock::new(),
            output: OnceLock::new(),
        }
    }

    /// Are these its names, of one with its model?
    pub(super) fn is(&self, path: &str, route: &str, server: &str, upstream_model: &str) -> bool {
        self.path == path
            && *self.route.0 == *route
            && *self.server.0 == *server
            && *self.upstream_model.0 == *upstream_model
    }

    pub(super) fn kept(&self, keep: impl Fn(&Name, &Name, &Name, &Name) -> bool) -> bool {
        keep(&self.model, &self.route, &self.server, &self.upstream_model)
    }

    /// Everything that a finished request adds.
    pub(super) fn record(&self, record: &RequestRecord) {
        let (status, error) = (words::status_code(record), words::error_type(record));
        if (status, error) == (200, words::SUCCESS) {
            let (requests, duration) = self
                .succeeded
                .get_or_init(|| (self.requests(status, error), self.duration(status)));
            requests.inc();
            duration.observe_duration(record.total);
        } else {
            self.requests(status, error).inc();
            self.duration(status).observe_duration(record.total);
        }
        let tokens = [
            (record.input_tokens, "input", &self.input),
            (record.output_tokens, "output", &self.output),
        ];
        for (count, kind, counter) in tokens {
            if let Some(count) = count.filter(|count| *count > 0) {
                counter.get_or_init(|| self.tokens(kind)).inc_by(count);
            }
        }
    }

    fn requests(&self, status_code: u16, error_type: &'static str) -> Counter {
        self.families.requests.child(&RequestLabels {
            model: self.model.clone(),
            path: self.path,
            status_code,
            error_type,
            model_route: self.route.clone(),
            backend_type: words::backend_type(&self.server.0),
            backend_name: self.server.clone(),
            upstream_model: self.upstream_model.clone(),
        })
    }

    fn duration(&self, status_code: u16) -> Histogram {
        self.families.duration.child(&DurationLabels {
            model: self.model.clone(),
            path: self.path,
            status_code,
            model_route: self.route.clone(),
            backend_type: words::backend_type(&self.server.0),
            backend_name: self.server.clone(),
            upstream_model: self.upstream_model.clone(),
        })
    }

    fn tokens(&self, token_type: &'static str) -> Counter {
        self.families.tokens.child(&TokenLabels {
            model: self.model.clone(),
            path: self.path,
            token_type,
            model_route: self.route.clone(),
            backend_type: words::backend_type(&self.server.0),
            backend_name: self.server.clone(),
            upstream_model: self.upstream_model.clone(),
        })
    }
}
