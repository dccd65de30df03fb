//! AdmissionReview of `admission.k8s.io/v1`, as far as it matters here.
//!
//! The client library has types for it, but they read the object into a typed form: what does not fit would be a failed
//! call instead of a denial with the field's path.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sluice_config::Kind;
use sluice_crds::networking::{GROUP, VERSION};

use super::verdict::Verdict;

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Review {
    uid: String,
    pub(super) kind: GroupVersionKind,
    pub(super) operation: String,
    #[serde(default)]
    pub(super) sub_resource: Option<String>,
    #[serde(default)]
    pub(super) name: Option<String>,
    #[serde(default)]
    pub(super) namespace: Option<String>,
    #[serde(default)]
    pub(super) object: Value,
    #[serde(default)]
    pub(super) old_object: Value,
}

/// Of what it is asked.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(super) struct GroupVersionKind {
    group: String,
    version: String,
    pub(super) kind: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    api_version: String,
    kind: String,
    request: Option<Review>,
}

impl Review {
    /// Reads a review of an object of this kind; the error says what else it is.
    pub(super) fn parse(body: &[u8], kind: Kind) -> Result<Self, String> {
        let envelope: Envelope = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        if (envelope.api_version.as_str(), envelope.kind.as_str()) != (API_VERSION, KIND) {
            return Err(format!("{} of {}", envelope.kind, envelope.api_version));
        }
        let review = envelope.request.ok_or("it has no request")?;
        let wanted = GroupVersionKind {
            group: GROUP.into(),
            version: VERSION.into(),
            kind: kind.name().into(),
        };
        if review.kind != wanted {
            let GroupVersionKind {
                group,
                version,
                kind,
            } = &review.kind;
            return Err(format!(
                "this path is for {}, not for {kind} of {group}/{version}",
                wanted.kind
            ));
        }
        Ok(review)
    }

    /// `namespace/name`, for logs.
    pub(super) fn object_name(&self) -> String {
        let namespace = self.namespace.as_deref().unwrap_or_default();
        let name = self.name.as_deref().filter(|name| !name.is_empty());
        let name = name.or(self.object["metadata"]["name"].as_str());
        format!("{namespace}/{}", name.unwrap_or_default())
    }
}

/// The answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Reviewed {
    api_version: &'static str,
    kind: &'static str,
    response: Answer,
}

#[derive(Debug, Serialize)]
struct Answer {
    uid: String,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Status {
    status: &'static str,
    code: u16,
    reason: &'static str,
    message: String,
    details: Details,
}

#[derive(Debug, Serialize)]
struct Details {
    group: &'static str,
    kind: String,
    name: String,
    causes: Vec<Cause>,
}

#[derive(Debug, Serialize)]
struct Cause {
    reason: &'static str,
    field: String,
    message: String,
}

impl Reviewed {
    pub(super) fn new(review: &Review, verdict: Verdict) -> Self {
        let status = (!verdict.is_allowed()).then(|| denial(review, &verdict));
        Self {
            api_version: API_VERSION,
            kind: KIND,
            response: Answer {
                uid: review.uid.clone(),
                allowed: verdict.is_allowed(),
                status,
                warnings: verdict.into_warnings(),
            },
        }
    }

    pub(super) fn is_allowed(&self) -> bool {
        self.response.allowed
    }
}

/// As the API server itself says that an object is invalid, for people and for programs.
fn denial(review: &Review, verdict: &Verdict) -> Status {
    let causes = verdict.errors().map(|problem| Cause {
        reason: "FieldValueInvalid",
        field: problem.path.clone(),
        message: format!("{}; {}", problem.message, problem.remedy),
    });
    Status {
        status: "Failure",
        code: 422,
        reason: "Invalid",
        message: verdict.message(),
        details: Details {
            group: GROUP,
            kind: review.kind.kind.clone(),
            name: review.name.clone().unwrap_or_default(),
            causes: causes.collect(),
        },
    }
}
