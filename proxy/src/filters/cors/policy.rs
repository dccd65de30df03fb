//! The CORS policy as configured and as meant: which origins, methods and headers are allowed.
//!
//! Not for writing the answers: see [`super`].

use http::header::{HeaderName, HeaderValue};
use http::{Method, Uri};
use serde::Deserialize;
use serde_json::Value;

use crate::filters::config;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CorsConfig {
    /// `https://app.example.com`, `https://*.example.com`, `*.example.com` (any scheme), `null` or `*`.
    allow_origins: Vec<String>,
    #[serde(default = "default_methods")]
    allow_methods: Vec<String>,
    #[serde(default = "default_headers")]
    allow_headers: Vec<String>,
    #[serde(default)]
    expose_headers: Vec<String>,
    #[serde(default)]
    allow_credentials: bool,
    /// Seconds a browser may remember the answer to a preflight.
    max_age: Option<u32>,
}

/// A checked configuration.
#[derive(Debug)]
pub(super) struct Policy {
    origins: Vec<OriginPattern>,
    pub(super) allow_methods: Allow,
    pub(super) allow_headers: Allow,
    pub(super) expose_headers: Option<HeaderValue>,
    pub(super) allow_credentials: bool,
    pub(super) max_age: Option<u32>,
    /// Does the answer depend on who asks? Caches must know.
    pub(super) varies: bool,
}

/// What a preflight is told.
#[derive(Debug)]
pub(super) enum Allow {
    /// Whatever it asks for.
    Any,
    /// This list.
    These(HeaderValue),
}

#[derive(Debug, PartialEq, Eq)]
enum OriginPattern {
    Any,
    /// Lower case.
    Exact(String),
    /// Any scheme when `None`; `suffix` begins with the dot; both lower case.
    Subdomains {
        scheme: Option<String>,
        suffix: String,
    },
}

impl Policy {
    /// Parses and checks, or says which field is wrong.
    pub(super) fn parse(value: &Value) -> Result<Self, String> {
        let parsed: CorsConfig = config::parse(value)?;
        if parsed.allow_origins.is_empty() {
            return Err("allowOrigins: is empty, name at least one origin".into());
        }
        let origins = parsed
            .allow_origins
            .iter()
            .map(|text| OriginPattern::parse(text));
        let origins = origins.collect::<Result<Vec<_>, _>>()?;
        let any_origin = origins.contains(&OriginPattern::Any);
        if any_origin && parsed.allow_credentials {
            return Err(
                "allowCredentials: together with allowOrigins `*` every site could act for its visitors, \
                 name the origins"
                    .into(),
            );
        }
        Ok(Self {
            varies: !any_origin,
            origins,
            allow_methods: Allow::parse("allowMethods", &parsed.allow_methods, is_method)?,
            allow_headers: Allow::parse("allowHeaders", &parsed.allow_headers, is_header_name)?,
            expose_headers: joined("exposeHeaders", &parsed.expose_headers, |text| {
                text == "*" || is_header_name(text)
            })?,
            allow_credentials: parsed.allow_credentials,
            max_age: parsed.max_age,
        })
    }

    /// What `Access-Control-Allow-Origin` says to `origin`; `None` when it is not allowed.
    pub(super) fn allow_origin(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        if !self.varies {
            return Some(HeaderValue::from_static("*"));
        }
        let text = origin.to_str().ok()?.to_ascii_lowercase();
        let allowed = self.origins.iter().any(|pattern| pattern.matches(&text));
        allowed.then(|| origin.clone())
    }
}

impl OriginPattern {
    fn parse(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        match lower.as_str() {
            "*" => return Ok(Self::Any),
            "null" => return Ok(Self::Exact(lower)),
            _ => {}
        }
        let (scheme, host) = match lower.split_once("://") {
            Some((scheme, host)) => (Some(scheme.to_owned()), host),
            None => (None, lower.as_str()),
        };
        let problem = |why: &str| Err(format!("allowOrigins: `{text}` {why}"));
        let suffix = host.strip_prefix("*.");
        if !is_authority(suffix.unwrap_or(host)) {
            return problem("is not an origin, write scheme://host[:port] without a path");
        }
        match (scheme, suffix) {
            (scheme, Some(suffix)) => Ok(Self::Subdomains {
                scheme,
                suffix: format!(".{suffix}"),
            }),
            (Some(_), None) => Ok(Self::Exact(lower)),
            (None, None) => problem("has no scheme, write `https://` before it"),
        }
    }

    /// `origin` in lower case.
    fn matches(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(wanted) => wanted == origin,
            Self::Subdomains { scheme, suffix } => {
                let Some((given, host)) = origin.split_once("://") else {
                    return false;
                };
                scheme.as_deref().is_none_or(|wanted| wanted == given)
                    && host.strip_suffix(suffix.as_str()).is_some_and(is_labels)
            }
        }
    }
}

impl Allow {
    fn parse(field: &str, names: &[String], valid: fn(&str) -> bool) -> Result<Self, String> {
        if names.iter().any(|name| name == "*") {
            return Ok(Self::Any);
        }
        match joined(field, names, valid)? {
            Some(list) => Ok(Self::These(list)),
            None => Err(format!("{field}: is empty, leave it out for the default")),
        }
    }
}

fn joined(
    field: &str,
    names: &[String],
    valid: impl Fn(&str) -> bool,
) -> Result<Option<HeaderValue>, String> {
    if let Some(wrong) = names.iter().find(|name| !valid(name)) {
        return Err(format!("{field}: `{wrong}` is not a valid name"));
    }
    if names.is_empty() {
        return Ok(None);
    }
    HeaderValue::from_str(&names.join(", "))
        .map(Some)
        .map_err(|_| format!("{field}: has characters no header may have"))
}

fn is_method(text: &str) -> bool {
    Method::from_bytes(text.as_bytes()).is_ok()
}

fn is_header_name(text: &str) -> bool {
    HeaderName::from_bytes(text.as_bytes()).is_ok()
}

fn is_authority(text: &str) -> bool {
    let plain = !text.contains(['/', '@', '*', '?', '#']);
    plain
        && text
            .parse::<Uri>()
            .is_ok_and(|uri| uri.authority().is_some())
}

/// Only what may stand before the dot of a domain, so that no port or user part sneaks in.
fn is_labels(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    !text.is_empty() && !text.starts_with('.') && text.bytes().all(allowed)
}

fn default_methods() -> Vec<String> {
    ["GET", "POST", "OPTIONS"].map(str::to_owned).to_vec()
}

fn default_headers() -> Vec<String> {
    ["authorization", "content-type"]
        .map(str::to_owned)
        .to_vec()
}
