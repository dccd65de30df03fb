//! One request's state from its head to its settlement.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::HeaderValue;
use rand::Rng;
use rand::rngs::SmallRng;
use sluice_config::Snapshot;

use super::{Gateway, Halt};
use crate::error::RequestError;
use crate::filters::{End, Flow, Outcome, Stream as FilterStream, StreamInfo, TokenUsage};
use crate::http::RequestHead;
use crate::serving::Serving;
use crate::telemetry::metrics::KthenaRequest;
use crate::telemetry::{RecordError, RequestRecord};

/// State of one request.
pub(super) struct Request {
    /// What filters and engine see of its head.
    pub(super) head: RequestHead,
    /// Returned to the client.
    pub(super) id: HeaderValue,
    /// Configuration in force for it, to its end.
    pub(super) serving: Arc<Serving>,
    /// Its filters.
    pub(super) filters: FilterStream,
    /// What will be told of it.
    pub(super) record: RequestRecord,
    /// How it ended, for filters.
    pub(super) end: End,
    /// When its head had been read.
    pub(super) started: Instant,
    /// When it must be over.
    pub(super) deadline: Instant,
    /// Its random numbers.
    pub(super) random: SmallRng,
    /// Its body has been read to the end.
    pub(super) body_read: bool,
    /// Its side of Kthena's metrics, from when its model is known.
    pub(super) kthena: Option<KthenaRequest>,
}

impl Request {
    pub(super) fn begin(gateway: &Gateway, mut head: RequestHead, client: Option<IpAddr>) -> Self {
        let started = Instant::now();
        let mut random = (gateway.random)();
        let (id, trace) = super::prepare(&mut head, &mut random);
        // A copy: the client's own is a slice of what it sent, and would hold all of that.
        let id = HeaderValue::from_bytes(id.as_bytes()).unwrap_or(id);
        let serving = gateway.serving.load();
        let deadline = started + Duration::from(gateway.config.timeouts.total);
        let info = StreamInfo {
            random: random.random(),
            deadline,
        };
        let mut record = RequestRecord::new(
            SystemTime::now(),
            head.method.clone(),
            head.uri.path().to_owned(),
            head.version,
            id.to_str().unwrap_or_default().to_owned(),
        );
        record.trace_id = Some(trace);
        record.client = client;
        Self {
            filters: FilterStream::new(&serving.chain, info),
            head,
            id,
            serving,
            record,
            end: End::Aborted,
            started,
            deadline,
            random,
            body_read: false,
            kthena: None,
        }
    }

    pub(super) fn snapshot(&self) -> &Snapshot {
        &self.serving.snapshot
    }

    /// The hooks before routing.
    pub(super) async fn enter_filters(&mut self) -> Result<(), Halt> {
        flow(self.filters.request_head(&mut self.head).await)
    }

    /// Notes an error for log and metrics.
    pub(super) fn note(&mut self, error: &RequestError) {
        self.record.error = Some(RecordError::new(error.reason(), error.to_string()));
        self.record.error_origin = Some(error.origin());
    }

    /// Tells metrics, log and filters; the one place where a request ends.
    pub(super) fn settle(mut self, gateway: &Gateway) {
        self.record.total = self.started.elapsed();
        if self.end == End::ClientGone {
            self.record.client_gone = true;
        }
        let usage = self.record.input_tokens.zip(self.record.output_tokens);
        self.filters.done(&Outcome {
            end: self.end,
            status: http::StatusCode::from_u16(self.record.status).ok(),
            endpoint: self.record.endpoint.clone(),
            attempts: self.record.attempts,
            usage: usage.map(|(input, output)| TokenUsage {
                input,
                output,
                cached: self.record.cached_tokens,
            }),
            first_byte: self.record.ttft,
            total: Some(self.record.total),
        });
        gateway.metrics.record(&self.record);
        if let (Some(kthena), Some(told)) = (gateway.metrics.kthena(), &self.kthena) {
            kthena.finish(told, &self.record);
        }
        gateway.access_log.log(self.record);
    }
}

/// A filter's answer ends the normal way.
pub(super) fn flow(flow: Flow) -> Result<(), Halt> {
    match flow {
        Flow::Next => Ok(()),
        Flow::Reply(reply) => Err(Halt::Reply(reply.into())),
    }
}
