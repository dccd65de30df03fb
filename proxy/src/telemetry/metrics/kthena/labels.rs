//! Kthena's label sets, in Kthena's order.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;

use super::super::labels::Name;
use super::words;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub(super) struct ModelLabels {
    pub(super) model: Name,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub(super) struct PluginLabels {
    pub(super) model: Name,
    pub(super) plugin: &'static str,
    pub(super) r#type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub(super) struct ErrorStageLabels {
    pub(super) model: Name,
    pub(super) stage: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub(super) struct RequestLabels {
    pub(super) model: Name,
    pub(super) path: &'static str,
    pub(super) status_code: u16,
    pub(super) error_type: &'static str,
    pub(super) model_route: Name,
    pub(super) backend_type: &'static str,
    pub(super) backend_name: Name,
    pub(super) upstream_model: Name,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub(super) struct DurationLabels {
    pub(super) model: Name,
    pub(super) path: &'static str,
    pub(super) status_code: u16,
    pub(super) model_route: Name,
    pub(super) backend_type: &'static str,
    pub(super) backend_name: Name,
    pub(super) upstream_model: Name,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub(super) struct TokenLabels {
    pub(super) model: Name,
    pub(super) path: &'static str,
    pub(super) token_type: &'static str,
    pub(super) model_route: Name,
    pub(super) backend_type: &'static str,
    pub(super) backend_name: Name,
    pub(super) upstream_model: Name,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub(super) struct UpstreamLabels {
    /// The same as `backend_name`; from when Kthena had ModelServers only.
    pub(super) model_server: Name,
    pub(super) model_route: Name,
    pub(super) backend_type: &'static str,
    pub(super) backend_name: Name,
    pub(super) upstream_model: Name,
}

impl UpstreamLabels {
    pub(super) fn new(route: &str, server: &str, upstream_model: &str) -> Self {
        let name = |text: &str| Name(Arc::from(text));
        Self {
            model_server: name(server),
            model_route: name(route),
            backend_type: words::MODEL_SERVER,
            backend_name: name(server),
            upstream_model: name(upstream_model),
        }
    }
}
