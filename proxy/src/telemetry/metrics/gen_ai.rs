//! Histograms under the OpenTelemetry GenAI names (semantic conventions, `docs/gen-ai/gen-ai-metrics.md`):
//! `gen_ai.server.request.duration`, `gen_ai.server.time_to_first_token`, `gen_ai.server.time_per_output_token` and
//! `gen_ai.client.token.usage` (there is no server form of the last), dots as underscores and units appended.

use std::time::Duration;

use prometheus_client::registry::{Registry, Unit};

use super::buckets;
use super::family::Family;
use super::histogram::Histogram;
use super::labels::{GenAiLabels, GenAiOutcomeLabels, GenAiTokenLabels, Name};
use crate::telemetry::record::RequestRecord;

/// `gen_ai.provider.name` tells the flavour of the API spoken, not who made the model.
const PROVIDER: &str = "openai";

/// `gen_ai.operation.name`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Chat,
    TextCompletion,
    Embeddings,
}

impl Operation {
    pub(super) const COUNT: usize = 3;

    /// The operation of an OpenAI path; `None` for those the conventions have no word for.
    pub(super) fn of_path(path: &str) -> Option<Self> {
        if path.ends_with("/chat/completions") || path.ends_with("/responses") {
            Some(Self::Chat)
        } else if path.ends_with("/completions") {
            Some(Self::TextCompletion)
        } else if path.ends_with("/embeddings") {
            Some(Self::Embeddings)
        } else {
            None
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::TextCompletion => "text_completion",
            Self::Embeddings => "embeddings",
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct GenAiFamilies {
    duration: Family<GenAiOutcomeLabels, Histogram>,
    first_token: Family<GenAiLabels, Histogram>,
    output_token: Family<GenAiLabels, Histogram>,
    token_usage: Family<GenAiTokenLabels, Histogram>,
}

/// Resolved children of one (operation, model).
#[derive(Debug)]
pub(super) struct GenAiMetrics {
    labels: GenAiLabels,
    failed: Family<GenAiOutcomeLabels, Histogram>,
    duration: Histogram,
    first_token: Histogram,
    output_token: Histogram,
    input_tokens: Histogram,
    output_tokens: Histogram,
}

impl GenAiFamilies {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let families = Self {
            duration: Family::new(|| Histogram::new(&buckets::GEN_AI_DURATION)),
            first_token: Family::new(|| Histogram::new(&buckets::GEN_AI_FIRST_TOKEN)),
            output_token: Family::new(|| Histogram::new(&buckets::GEN_AI_OUTPUT_TOKEN)),
            token_usage: Family::new(|| Histogram::new(&buckets::GEN_AI_TOKENS)),
        };
        registry.register_with_unit(
            "gen_ai_server_request_duration",
            "Generative AI server request duration",
            Unit::Seconds,
            families.duration.clone(),
        );
        registry.register_with_unit(
            "gen_ai_server_time_to_first_token",
            "Time to generate the first token of successful responses",
            Unit::Seconds,
            families.first_token.clone(),
        );
        registry.register_with_unit(
            "gen_ai_server_time_per_output_token",
            "Time per output token after the first, of successful responses",
            Unit::Seconds,
            families.output_token.clone(),
        );
        registry.register(
            "gen_ai_client_token_usage",
            "Input and output tokens used, as the engine reports them",
            families.token_usage.clone(),
        );
        families
    }

    pub(super) fn resolve(&self, operation: Operation, model: Name) -> GenAiMetrics {
        let labels = GenAiLabels {
            gen_ai_operation_name: operation.name(),
            gen_ai_provider_name: PROVIDER,
            gen_ai_request_model: model,
        };
        let tokens = |gen_ai_token_type| {
            self.token_usage.child(&GenAiTokenLabels {
                gen_ai_operation_name: labels.gen_ai_operation_name,
                gen_ai_provider_name: PROVIDER,
                gen_ai_request_model: labels.gen_ai_request_model.clone(),
                gen_ai_token_type,
            })
        };
        GenAiMetrics {
            failed: self.duration.clone(),
            duration: self.duration.child(&with_error(&labels, "")),
            first_token: self.first_token.child(&labels),
            output_token: self.output_token.child(&labels),
            input_tokens: tokens("input"),
            output_tokens: tokens("output"),
            labels,
        }
    }

    pub(super) fn retain(&self, model: impl Fn(&str) -> bool) {
        self.duration
            .retain(|labels| model(&labels.gen_ai_request_model.0));
        self.first_token
            .retain(|labels| model(&labels.gen_ai_request_model.0));
        self.output_token
            .retain(|labels| model(&labels.gen_ai_request_model.0));
        self.token_usage
            .retain(|labels| model(&labels.gen_ai_request_model.0));
    }
}

impl GenAiMetrics {
    pub(super) fn record(&self, record: &RequestRecord) {
        if let Some(error) = &record.error {
            self.failed
                .child(&with_error(&self.labels, error.kind))
                .observe_duration(record.total);
            return;
        }
        self.duration.observe_duration(record.total);
        if let Some(ttft) = record.ttft {
            self.first_token.observe_duration(ttft);
        }
        if let Some(pace) = time_per_output_token(record) {
            self.output_token.observe_duration(pace);
        }
        // "Otherwise it MUST NOT report usage": an estimate is no report.
        if !record.tokens_estimated {
            record
                .input_tokens
                .inspect(|tokens| self.input_tokens.observe(*tokens));
            record
                .output_tokens
                .inspect(|tokens| self.output_tokens.observe(*tokens));
        }
    }
}

/// The time after the first token, shared among the tokens after the first.
fn time_per_output_token(record: &RequestRecord) -> Option<Duration> {
    let after_first = u32::try_from(record.output_tokens?.checked_sub(1)?).ok()?;
    record
        .total
        .checked_sub(record.ttft?)?
        .checked_div(after_first)
}

fn with_error(labels: &GenAiLabels, error_type: &'static str) -> GenAiOutcomeLabels {
    GenAiOutcomeLabels {
        gen_ai_operation_name: labels.gen_ai_operation_name,
        gen_ai_provider_name: labels.gen_ai_provider_name,
        gen_ai_request_model: labels.gen_ai_request_model.clone(),
        error_type,
    }
}
