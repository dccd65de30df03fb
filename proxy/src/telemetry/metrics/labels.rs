//! Label sets. Values come from closed sets or from the configuration, never from a client's bytes.

use std::fmt::Write;
use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

/// Stands for a model that no route names.
pub const UNKNOWN: &str = "unknown";
/// Stands for a name that a request never got to: no model asked, no route, no pool.
pub const NONE: &str = "none";

/// A configured name as label value, escaped as OpenMetrics wants it (the encoder does not).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Name(pub(super) Arc<str>);

impl EncodeLabelValue for Name {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        for part in self.0.split_inclusive(['\\', '"', '\n']) {
            match part.as_bytes().last() {
                Some(b'\n') => write!(encoder, "{}\\n", &part[..part.len() - 1])?,
                Some(special @ (b'\\' | b'"')) => {
                    write!(
                        encoder,
                        "{}\\{}",
                        &part[..part.len() - 1],
                        char::from(*special)
                    )?;
                }
                _ => encoder.write_str(part)?,
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub(super) struct RequestLabels {
    pub(super) model: Name,
    pub(super) route: Name,
    pub(super) server: Name,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub(super) struct OutcomeLabels {
    pub(super) model: Name,
    pub(super) route: Name,
    pub(super) server: Name,
    pub(super) status_code: u16,
    pub(super) reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub(super) struct TokenLabels {
    pub(super) model: Name,
    pub(super) r#type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub(super) struct ServerLabels {
    pub(super) server: Name,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub(super) struct AttemptLabels {
    pub(super) server: Name,
    pub(super) reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub(super) struct ConnectionLabels {
    pub(super) server: Name,
    pub(super) kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub(super) struct FilterLabels {
    pub(super) filter: Name,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub(super) struct SeverityLabels {
    pub(super) severity: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub(super) struct BuildLabels {
    pub(super) version: Name,
    pub(super) revision: Name,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub(super) struct EndpointLabels {
    pub(super) server: Name,
    pub(super) endpoint: Name,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub(super) struct EndpointPlaceLabels {
    pub(super) server: Name,
    pub(super) endpoint: Name,
    pub(super) pod: Name,
    pub(super) node: Name,
    pub(super) zone: Name,
    pub(super) role: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub(super) struct EndpointStateLabels {
    pub(super) server: Name,
    pub(super) endpoint: Name,
    pub(super) state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub(super) struct IndexLabels {
    pub(super) server: Name,
    pub(super) index: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub(super) struct IndexKindLabels {
    pub(super) server: Name,
    pub(super) index: &'static str,
    pub(super) kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub(super) struct KindLabels {
    pub(super) kind: &'static str,
}

/// A type of pushed resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub(super) struct ResourceLabels {
    pub(super) r#type: &'static str,
}

/// What became of something that is counted apart from requests.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub(super) struct OutcomeLabel {
    pub(super) outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub(super) struct ReasonLabel {
    pub(super) reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub(super) struct EndpointQuantileLabels {
    pub(super) server: Name,
    pub(super) endpoint: Name,
    pub(super) quantile: &'static str,
}

/// Attributes of the OpenTelemetry GenAI conventions, dots as underscores.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub(super) struct GenAiLabels {
    pub(super) gen_ai_operation_name: &'static str,
    pub(super) gen_ai_provider_name: &'static str,
    pub(super) gen_ai_request_model: Name,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub(super) struct GenAiOutcomeLabels {
    pub(super) gen_ai_operation_name: &'static str,
    pub(super) gen_ai_provider_name: &'static str,
    pub(super) gen_ai_request_model: Name,
    /// Empty (which is "absent" to Prometheus) when the request succeeded.
    pub(super) error_type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub(super) struct GenAiTokenLabels {
    pub(super) gen_ai_operation_name: &'static str,
    pub(super) gen_ai_provider_name: &'static str,
    pub(super) gen_ai_request_model: Name,
    pub(super) gen_ai_token_type: &'static str,
}
